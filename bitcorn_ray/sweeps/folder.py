"""The folder of a sweep: what is written before the first trial, and what is left when it ends.

    plan.json           the configuration, and hashes of the data
    bars.npz            the bars, as the leaderboard's baselines need them
    trials.jsonl        the journal of trials, records/ their folds: see `records`
    best/               the run of the best configuration, see `learning.runs`

The results are in `results`.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.learning.artifacts import require_writable, strict_json
from bitcorn_ray.report.files import write_whole
from bitcorn_ray.sweeps.config import SweepConfig
from bitcorn_ray.sweeps.records import Journal
from bitcorn_ray.sweeps.trial import SweepBars

__all__ = ["SweepFolder"]

_ROWS = ("timestamp", "high", "low", "close", "barred")
# How a sweep may be carried out otherwise when it goes on, by the section that says so, and fields of the run.
_FREE = {
    "sweep": ("trials", "max_hours", "max_failures", "resources"),
    "evolve": ("generations", "max_hours", "max_failures", "resources", "shuffles", "block"),
}
_FREE_OF_RUN = ("out", "workers", "gpus", "mlflow", "db")


@dataclass(frozen=True)
class SweepFolder:
    """The files of a sweep by name."""

    path: Path

    @property
    def journal(self) -> Journal:
        """The trials."""
        return Journal(self.path / "trials.jsonl")

    @property
    def records(self) -> Path:
        """Folder of the trained folds."""
        return self.path / "records"

    @property
    def run(self) -> Path:
        """Folder of the best configuration's run."""
        return self.path / "best"

    @property
    def is_sweep(self) -> bool:
        """Whether a sweep has begun here."""
        return (self.path / "plan.json").is_file()

    def write(self, name: str, content: bytes) -> None:
        """Write a file whole or not at all. Raises BitcornError where it cannot be."""
        write_whole(self.path / name, name, lambda temporary: temporary.write_bytes(content))

    def require_free(self, out: str, resume: bool) -> None:
        """Raise BitcornError where the folder cannot be written, or holds something that is not gone on with.

        out: the folder as the user named it.
        """
        require_writable(self.path)
        held = [path.name for path in self.path.iterdir()] if self.path.is_dir() else []
        if self.is_sweep and not resume:
            raise BitcornError(f"{out} holds a sweep or evolution: --resume goes on with it, or give another --out")
        # One that was cut short before its plan was written has not begun.
        if not self.is_sweep and not all(name.lstrip(".").startswith(("bars.npz", "plan.json")) for name in held):
            raise BitcornError(f"{out} holds something already, and no sweep or evolution: give another --out")

    def begin(
        self,
        config: SweepConfig,
        identities: Mapping[str, str],
        bars: Sequence[SweepBars],
        evolution: Mapping[str, Any] | None = None,
    ) -> None:
        """Write what is known before the first trial; the plan, which makes the folder a sweep's, last.

        evolution: its configuration, where the trials are those of one. A folder that has a plan is left as it is.
        Raises BitcornError where that plan is of another sweep: other fields, bars or features.
        """
        asked = {"config": config.to_json(), "evolution": evolution, "identities": dict(identities)}
        if self.is_sweep:
            return self._require_same(asked, config.run.out)
        arrays = {
            f"{column}_{place}": getattr(one, column)
            for place, one in enumerate(bars)
            for column in _ROWS
            if getattr(one, column) is not None
        }
        content = io.BytesIO()
        np.savez_compressed(content, **arrays)
        self.write("bars.npz", content.getvalue())
        partitions = [{"symbol": one.symbol, "timeframe": one.timeframe, "step": one.step} for one in bars]
        self.write("plan.json", strict_json({"format": 1, **asked, "partitions": partitions}).encode())

    def plan(self) -> dict[str, Any]:
        """Read the plan. Raises BitcornError where the folder holds no sweep, or a damaged one."""
        if not self.is_sweep:
            raise BitcornError(f"{self.path} holds no sweep (no plan.json): give the folder that `bitcorn tune` wrote")
        try:
            plan: dict[str, Any] = json.loads((self.path / "plan.json").read_text(encoding="utf-8"))
            if plan["format"] != 1:
                raise BitcornError(f"the sweep in {self.path} has format {plan['format']}: update bitcorn_ray")
        except (OSError, ValueError, KeyError, TypeError) as error:
            if isinstance(error, BitcornError):
                raise
            raise BitcornError(f"the sweep in {self.path} is damaged: plan.json cannot be read: {error}") from error
        return plan

    def bars(self) -> tuple[SweepBars, ...]:
        """Read the bars. Raises BitcornError where they are damaged."""
        try:
            with np.load(self.path / "bars.npz", allow_pickle=False) as arrays:
                return tuple(
                    SweepBars(**named, **{c: arrays[f"{c}_{place}"] for c in _ROWS if f"{c}_{place}" in arrays.files})
                    for place, named in enumerate(self.plan()["partitions"])
                )
        except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
            if isinstance(error, BitcornError):
                raise
            raise BitcornError(f"the sweep in {self.path} is damaged: bars.npz cannot be read: {error}") from error

    def _require_same(self, asked: Mapping[str, Any], out: str) -> None:
        before, section = self.plan(), "sweep" if asked["evolution"] is None else "evolve"
        if (before["evolution"] is None) != (asked["evolution"] is None):
            kinds = ("a sweep and no evolution", "an evolution and no sweep")
            raise BitcornError(f"{out} holds {kinds[before['evolution'] is not None]}: give another --out")
        if _what_counts(before) != _what_counts(json.loads(strict_json(asked))):
            raise BitcornError(
                f"{out} holds a sweep of another configuration: go on with that one ({self.path}/plan.json tells it), "
                f"changing only {', '.join(f'{section}.{name}' for name in _FREE[section])}; or give another --out"
            )
        if before["identities"] != asked["identities"]:
            raise BitcornError(
                f"the bars or features have changed since the sweep in {out} began, so that its folds are others: "
                "give another --out, or the bars as they were"
            )


def _what_counts(plan: Mapping[str, Any]) -> dict[str, Any]:
    """What decides what trials are and how they come out."""
    kept = {name: value for name, value in (plan["evolution"] or plan["config"]).items() if name not in _FREE_OF_RUN}
    for section, free in _FREE.items():
        if section in kept:
            kept[section] = {name: value for name, value in kept[section].items() if name not in free}
    return kept
