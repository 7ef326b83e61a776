"""Walk-forward folds for other tools: the splitter protocol of scikit-learn, without importing it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitcorn_ray.datasets.folds import Fold, FoldsConfig, Timeline, walk_forward_folds
from bitcorn_ray.errors import BitcornError

__all__ = ["WalkForwardSplit"]

Rows = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class WalkForwardSplit:
    """A splitter for `cross_val_score`, `GridSearchCV` and whatever else takes one as `cv`.

    config: of the folds. horizon: bars that a row's label reaches ahead: the purge. seq_len: bars that a row's features
    reach back, for `disjoint_inputs`. step: length of a bar in ms, by default the most frequent distance of the times.

    Rows are samples. Their times are the DatetimeIndex of X, or `groups`: an instant for each row, as datetimes or
    whole ms. Where several partitions are stacked in X, rows of one instant go together; where their timeframes differ,
    instants must be those at which bars close. Without times, rows are successive bars and lengths must be bars.

        >>> import numpy as np
        >>> folds = WalkForwardSplit(config=FoldsConfig(train=6, validation=0, test=2), horizon=1)
        >>> [(train.tolist(), test.tolist()) for train, test in folds.split(np.zeros((10, 3)))]
        [([0, 1, 2, 3, 4, 5], [6, 7]), ([2, 3, 4, 5, 6, 7], [8, 9])]
    """

    config: FoldsConfig = field(default_factory=FoldsConfig)
    horizon: int = 1
    seq_len: int = 0
    step: int | None = None

    def split(self, X: Any, y: Any = None, groups: Any = None) -> Iterator[tuple[Rows, Rows]]:
        """Yield positions of the training rows and of the test rows, purged, of one fold after another.

        Rows of the validation range are in neither: set `validation=0` where the tool has no use for one.
        Raises BitcornError as `walk_forward_folds` does, and where groups are no times.
        """
        instants = self._instants(X, groups)
        for fold in self._folds(instants):
            train, test = (
                np.flatnonzero((instants >= span.start) & (instants < span.stop)) for span in (fold.train, fold.test)
            )
            yield train, test

    def get_n_splits(self, X: Any = None, y: Any = None, groups: Any = None) -> int:
        """Count the folds; with neither X nor groups that cannot be known, and raises BitcornError."""
        if X is None and groups is None:
            raise BitcornError("how many folds there are depends on the rows: give X, or their times as groups")
        return len(self._folds(self._instants(X, groups)))

    def _folds(self, instants: Rows) -> list[Fold]:
        unique = np.unique(instants)
        step = self.step
        if step is None:
            distances, counts = np.unique(np.diff(unique), return_counts=True)
            step = int(distances[counts.argmax()]) if len(distances) else 1
        return walk_forward_folds(
            self.config, [Timeline(name="X", instants=unique, step=step)], self.horizon, self.seq_len
        )

    def _instants(self, X: Any, groups: Any) -> Rows:
        times: Any = getattr(X, "index", None) if groups is None else groups
        if getattr(getattr(times, "dtype", None), "tz", None) is not None:
            import pandas as pd

            times = pd.DatetimeIndex(times).tz_convert(None)  # numpy would make objects of times with a zone
        values = np.asarray(times)
        if values.dtype.kind == "M":
            return values.astype("M8[ms]").astype(np.int64)
        if groups is None:  # a sparse matrix has a shape but no length
            return np.arange(X.shape[0] if hasattr(X, "shape") else len(X))
        if values.dtype.kind not in "iu":
            raise BitcornError(f"groups are {values.dtype}: give each row's time, as a datetime or whole milliseconds")
        return values.astype(np.int64)
