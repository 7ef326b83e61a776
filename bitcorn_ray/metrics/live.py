"""Live skill of forecasts: coverage, direction and QLIKE, updated by one outcome at a time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bitcorn_ray.metrics.losses import qlike


@dataclass
class LiveSkill:
    """The outcomes of one partition and horizon so far.

    scored: forecasts with a known outcome; unknown: those whose bars are missing. inside, banded: by coverage level,
    outcomes inside the band, and forecasts with a band. right, moved: right directions, and outcomes other than zero.
    qlike, ewma_qlike: sums, in nats, of the forecast variance and of the exponentially weighted one, over the `rated`
    outcomes with both.
    """

    scored: int = 0
    unknown: int = 0
    inside: dict[str, int] = field(default_factory=dict)
    banded: dict[str, int] = field(default_factory=dict)
    right: int = 0
    moved: int = 0
    qlike: float = 0.0
    ewma_qlike: float = 0.0
    rated: int = 0

    def add(
        self,
        forecast: float,
        volatility: float,
        ewma: float | None,
        widths: Mapping[str, float | None],
        outcome: float | None,
        variance: float | None,
    ) -> None:
        """Add one outcome.

        forecast, outcome: log returns. volatility: of the forecast; ewma: the baseline's, of the whole horizon. widths:
        half-widths of the bands in units of the volatility, or None. variance: realised. An outcome of None is
        unknown.
        """
        if outcome is None or variance is None:
            self.unknown += 1
            return
        self.scored += 1
        for level, width in widths.items():
            if width is not None:
                self.banded[level] = self.banded.get(level, 0) + 1
                self.inside[level] = self.inside.get(level, 0) + (abs(outcome - forecast) <= width * volatility)
        if outcome != 0:
            self.moved += 1
            self.right += (forecast > 0) == (outcome > 0)
        if ewma:
            losses = qlike(np.array([volatility, ewma]) ** 2, np.full(2, variance))
            self.rated += 1
            self.qlike += float(losses[0])
            self.ewma_qlike += float(losses[1])

    def shares(self) -> dict[str, Any]:
        """Return shares and means, None without outcomes.

        coverage: by level. direction: share of right ones. qlike, ewma_qlike: means; lower is better.
        """
        return {
            "scored": self.scored,
            "unknown": self.unknown,
            "coverage": {level: self.inside[level] / count for level, count in sorted(self.banded.items())},
            "direction": self.right / self.moved if self.moved else None,
            "qlike": self.qlike / self.rated if self.rated else None,
            "ewma_qlike": self.ewma_qlike / self.rated if self.rated else None,
        }
