"""Splitting in time: shares of all windows for one training, and walk-forward folds.

Both split all partitions at the same instants and purge by one rule:

- A window belongs to the range that holds the instant at which its last bar closes.
- A window may stay in an earlier range if its label, which ends one longest horizon later, ends no later than the first
  instant of the next range. The others are purged. A later window may contain bars that earlier labels were made of:
  these are its inputs, known at that time.

Walk-forward folds are successive ranges for training, validation and test that move through time together:

1. The last fold's test range ends with the last bar, and each earlier fold lies one step earlier. Rolling training
   ranges have one length. Expanding ones all begin with the first bar and are at least that long.
2. The purge is taken from the end of training and validation, and an embargo takes more. Nothing is taken from the end
   of a test range, so that the test ranges of successive folds are contiguous.
3. Lengths are bars, or durations such as "30d". A bar is a step of the timeframe's grid: a missing bar is time that has
   passed. Partitions with different timeframes need durations, and their purge is the longest horizon in the longest
   bars.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.market.timeframe import UNIT_MS

Rows = NDArray[np.int64]

WINDOWS = ("rolling", "expanding")


class Span(NamedTuple):
    """A half-open range, start <= x < stop, of instants or of rows."""

    start: int
    stop: int

    @property
    def length(self) -> int:
        """Return the number of instants or rows, 0 for an empty span."""
        return max(0, self.stop - self.start)


@dataclass(frozen=True, kw_only=True)
class Shares:
    """The shares of all windows, over all partitions, that validate and test.

    validation: share that validates, between 0 and 1. test: share that is held out for testing, 0 for none. The last
    windows test, and those before them validate.
    """

    validation: float = 0.2
    test: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.validation < 1 or not 0 <= self.test < 1 or self.validation + self.test >= 1:
            raise BitcornError(
                f"val_frac is {self.validation} and test_frac {self.test}: val_frac must lie between 0 and 1, "
                "test_frac must be 0 or more, and both together must leave something for training (below 1)"
            )


@dataclass(frozen=True, kw_only=True)
class FoldsConfig:
    """How folds are cut. Lengths are bars (whole numbers) or durations (a number and one of m, h, d, w, as "30d").

    train, validation, test: lengths of the ranges, purge included; a validation of 0 leaves it out. step: from fold to
    fold, by default the length of the test range, so that test ranges are contiguous; a shorter one makes them overlap.
    window: "rolling", or "expanding" to train on all earlier bars.
    purge: taken from the ends of training and validation, by default and at least the longest horizon: with less, a
    label would reach into the next range. disjoint_inputs: add the length of a window to the default purge, so that
    ranges share no bar among their inputs either. embargo: taken in addition, where neighbouring outcomes depend on
    each other for longer. last: number of folds to keep, the last ones; None for all.
    """

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    train: int | str = "365d"
    validation: int | str = "30d"
    test: int | str = "30d"
    step: int | str | None = None
    window: str = "rolling"
    purge: int | str | None = None
    disjoint_inputs: bool = False
    embargo: int | str = 0
    last: int | None = None

    def __post_init__(self) -> None:
        for name in ("train", "validation", "test", "step", "purge", "embargo"):
            value = getattr(self, name)
            if value is not None and _parsed(name, value)[0] < (name in ("train", "test", "step")):
                raise BitcornError(f"{name} is {value!r}: it must be at least {int(name in ('train', 'test', 'step'))}")
        if self.window not in WINDOWS:
            raise BitcornError(f"window is {self.window!r}: use {' or '.join(WINDOWS)}")
        if self.last is not None and self.last < 1:
            raise BitcornError(f"last is {self.last}: keep at least 1 fold, or leave it out for all")
        if self.disjoint_inputs and self.purge is not None:
            raise BitcornError("disjoint_inputs lengthens the default purge: give one of purge and disjoint_inputs")


@dataclass(frozen=True, kw_only=True, eq=False)
class Timeline:
    """The rows of one partition in time.

    name: for messages. instants: (T,) int64 ms at which each row's bar closes (its timestamp plus the timeframe),
    ascending. step: the timeframe in ms. Rows without times are `Timeline(name=..., instants=np.arange(T), step=1)`.
    """

    name: str
    instants: Rows
    step: int

    def __post_init__(self) -> None:
        if self.step < 1 or not len(self.instants) or (np.diff(self.instants) <= 0).any():
            raise BitcornError(
                f"{self.name} has {len(self.instants)} rows of step {self.step}: it needs at least one, and ascending "
                "instants"
            )


@dataclass(frozen=True)
class FoldRows:
    """Rows of one partition at which the windows of each range end, purged; a range may be empty.

    The valid windows that end in `train` train, and so on; nothing more has to be purged. The scaler is fitted on the
    rows from max(0, train.start - seq_len + 1), the first bar of the first window, to before train.stop.
    """

    train: Span
    validation: Span
    test: Span


@dataclass(frozen=True)
class Fold:
    """One fold.

    number: from 0, in time order. train, validation, test: spans of instants (ms), purged. purge: ms left out before
    validation and before test, embargo included. rows: of each partition, in the given order.
    """

    number: int
    train: Span
    validation: Span
    test: Span
    purge: int
    rows: tuple[FoldRows, ...]


def split_by_shares(
    shares: Shares, instants: Sequence[Rows], ends: Sequence[Rows], reaches: Sequence[int]
) -> list[FoldRows]:
    """Return the rows of each partition at which the windows of each part end, purged.

    instants: of each partition, (T,) at which each row's bar closes, ascending, in a unit that all partitions share:
    int64 ms, or row numbers for one partition without times. ends: of each partition, rows (N,) at which its windows
    end, ascending. reaches: of each partition, the length of the longest label in the unit of the instants.
    The shares are counted in windows. All windows of one instant belong to one part. A partition that starts late or
    ends early may lack a part.
    Raises BitcornError where a part would have no window of any partition.
    """
    closes = [when[rows] for when, rows in zip(instants, ends, strict=True)]
    ordered = np.sort(np.concatenate(closes)) if closes else np.empty(0, np.int64)
    tested, validated = round(len(ordered) * shares.test), round(len(ordered) * shares.validation)
    if not tested + validated < len(ordered):
        tested = validated = 0  # too few to share out: the parts are empty and refused below
    end = max((int(when[-1]) for when in instants if len(when)), default=0) + 1
    test_from = int(ordered[len(ordered) - tested]) if tested else end
    validation_from = int(ordered[len(ordered) - tested - validated]) if validated else end
    split = [
        _rows(
            when,
            Span(int(when[0]) if len(when) else 0, _purged(validation_from, reach) if validated else end),
            Span(validation_from, max(validation_from, _purged(test_from, reach)) if tested else end),
            Span(test_from, end),
        )
        for when, reach in zip(instants, reaches, strict=True)
    ]
    train, validation, test = (
        sum(int(np.diff(np.searchsorted(rows, getattr(own, part)))[0]) for own, rows in zip(split, ends, strict=True))
        for part in ("train", "validation", "test")
    )
    if not train or not validation or (shares.test > 0 and not test):
        raise BitcornError(
            f"{len(ordered)} windows with val_frac {shares.validation}, test_frac {shares.test} and a purge of "
            f"{max(reaches, default=0)} leave {train} for training, {validation} for validation"
            f"{f', {test} for testing' if shares.test > 0 else ''}: give more bars"
        )
    return split


def holdout(rows: Rows, share: float, purge: int) -> tuple[Rows, Rows]:
    """Split ascending rows (N,) into earlier training rows and the share of later validation rows.

    purge: rows that a label reaches ahead; no training label ends after the first validation row.
    Raises BitcornError for a share outside 0 to 1, and where a part would be empty.
    """
    instants = np.arange(rows[-1] + 1 if len(rows) else 0)
    (split,) = split_by_shares(Shares(validation=share), [instants], [rows], [purge])
    train, validation = (rows[slice(*np.searchsorted(rows, span))] for span in (split.train, split.validation))
    return train, validation


def walk_forward_folds(
    config: FoldsConfig, timelines: Sequence[Timeline], horizon: int, seq_len: int = 0
) -> list[Fold]:
    """Cut the rows of one or more partitions into folds and return them, the earliest first.

    horizon: bars of the longest label. seq_len: bars of a window, for `disjoint_inputs`.
    A partition that starts late or ends early has empty ranges in some folds.
    Raises BitcornError where a purge is shorter than the horizon, the history is too short for one fold, or a range of
    a fold holds no row of any partition.
    """
    if not timelines or horizon < 1:
        raise BitcornError(f"{len(timelines)} partitions and a horizon of {horizon}: folds need at least 1 of both")
    if config.disjoint_inputs and seq_len < 1:
        raise BitcornError(f"disjoint_inputs needs the length of a window, but seq_len is {seq_len}")
    train, validation, test, step = (
        _instants(name, length, timelines)
        for name, length in (
            ("train", config.train),
            ("validation", config.validation),
            ("test", config.test),
            ("step", config.test if config.step is None else config.step),
        )
    )
    purge = _purge(config, timelines, horizon, seq_len)
    for name, length in (("train", train), ("validation", validation)):
        if 0 < length <= purge or (name == "train" and length <= purge):
            raise BitcornError(
                f"{name} is {getattr(config, name)!r} but purge and embargo take {_shown(purge, timelines)} of it: "
                f"give a longer {name}"
            )
    first = min(int(line.instants[0]) for line in timelines)
    last = max(int(line.instants[-1]) for line in timelines) + min(line.step for line in timelines)
    if first + train + validation + test > last:
        raise BitcornError(
            f"one fold needs {_shown(train + validation + test, timelines)} (train {config.train}, validation "
            f"{config.validation}, test {config.test}), but history has {_shown(last - first, timelines)}: give more "
            "bars or shorter ranges"
        )
    count = 1 + (last - first - train - validation - test) // step
    folds = []
    for number in range(min(count, config.last or count)):
        stop = last - (min(count, config.last or count) - 1 - number) * step
        tested, validated = stop - test, stop - test - validation
        begun = first if config.window == "expanding" else validated - train
        fitting = Span(begun, _purged(validated, purge))
        validating = Span(validated, max(validated, _purged(tested, purge)))
        testing = Span(tested, stop)
        rows = tuple(_rows(line.instants, fitting, validating, testing) for line in timelines)
        folds.append(Fold(number, fitting, validating, testing, purge, rows))
        _refuse_empty(folds[-1], timelines)
    return folds


@dataclass(frozen=True, kw_only=True)
class WalkForwardSplit:
    """Walk-forward folds as a splitter for scikit-learn's `cv` parameters, without importing scikit-learn.

    config: of the folds. horizon: bars that a row's label reaches ahead, which is the purge. seq_len: bars that a row's
    features reach back, for `disjoint_inputs`. step: length of a bar in ms, by default the most frequent distance of
    the times.

    Rows are samples. Their times are the DatetimeIndex of X, or `groups`: an instant for each row, as datetimes or
    whole ms. If several partitions are stacked in X, rows of one instant stay together; if their timeframes differ, the
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
        """Yield the positions of the training rows and of the test rows, purged, fold by fold.

        Rows of the validation range are in neither: set `validation=0` if the tool does not use one.
        Raises BitcornError as `walk_forward_folds` does, and where groups are not times.
        """
        instants = self._instants(X, groups)
        for fold in self._folds(instants):
            train, test = (
                np.flatnonzero((instants >= span.start) & (instants < span.stop)) for span in (fold.train, fold.test)
            )
            yield train, test

    def get_n_splits(self, X: Any = None, y: Any = None, groups: Any = None) -> int:
        """Return the number of folds. Raises BitcornError without X and groups, as the rows decide it."""
        if X is None and groups is None:
            raise BitcornError("the number of folds depends on the rows: give X, or their times as groups")
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

            times = pd.DatetimeIndex(times).tz_convert(None)  # numpy would make objects of zoned times
        values = np.asarray(times)
        if values.dtype.kind == "M":
            return values.astype("M8[ms]").astype(np.int64)
        if groups is None:  # a sparse matrix has a shape but no length
            return np.arange(X.shape[0] if hasattr(X, "shape") else len(X))
        if values.dtype.kind not in "iu":
            raise BitcornError(f"groups are {values.dtype}: give each row's time, as a datetime or whole milliseconds")
        return values.astype(np.int64)


def _purged(next_start: int, reach: int) -> int:
    """Return the exclusive end of a range whose labels reach ahead, given the start of the next range.

    A window whose label ends exactly where the next range begins may stay.
    """
    return next_start - reach + 1


def _parsed(name: str, value: int | str) -> tuple[int, bool]:
    """Return a length, and True if it is a duration in ms rather than a number of bars."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value, False
    match = re.fullmatch(r"\s*(\d{1,9})\s*([mhdw]?)\s*", value) if isinstance(value, str) else None
    if match is None:
        raise BitcornError(f'{name} is {value!r}: give bars, such as 720, or a duration, such as "30d" (m, h, d, w)')
    return int(match[1]) * UNIT_MS.get(match[2], 1), bool(match[2])


def _instants(name: str, value: int | str, timelines: Sequence[Timeline]) -> int:
    """Return a length in the unit of the instants."""
    length, timed = _parsed(name, value)
    steps = {line.step for line in timelines}
    if timed and 1 in steps:
        raise BitcornError(f"{name} is {value!r} but these rows have no times: give bars, a whole number")
    if timed or length == 0:
        return length
    if len(steps) > 1:
        raise BitcornError(f'{name} is {value} bars of several timeframes: give a duration, such as "30d"')
    return length * steps.pop()


def _purge(config: FoldsConfig, timelines: Sequence[Timeline], horizon: int, seq_len: int) -> int:
    longest = max(line.step for line in timelines)
    least = horizon * longest
    purge = least + (seq_len * longest if config.disjoint_inputs else 0)
    if config.purge is not None:
        purge = _instants("purge", config.purge, timelines)
        if purge < least:
            raise BitcornError(
                f"purge is {config.purge!r}, less than the longest horizon of {horizon} bars: labels would reach into "
                "the range that follows; give at least that, or leave it out"
            )
    return purge + _instants("embargo", config.embargo, timelines)


def _rows(instants: Rows, *spans: Span) -> FoldRows:
    train, validation, test = (Span(*(int(row) for row in np.searchsorted(instants, span))) for span in spans)
    return FoldRows(train, validation, test)


def _refuse_empty(fold: Fold, timelines: Sequence[Timeline]) -> None:
    for name in ("train", "validation", "test"):
        span: Span = getattr(fold, name)
        if span.length and not any(getattr(rows, name).length for rows in fold.rows):
            raise BitcornError(
                f"the {name} range of fold {fold.number} holds no bar of {', '.join(line.name for line in timelines)}, "
                "which have a gap there: give longer ranges, or fewer folds by `last`"
            )


def _shown(length: int, timelines: Sequence[Timeline]) -> str:
    """Return a length for messages: in bars if there is one timeframe, and in days if there are times."""
    steps = {line.step for line in timelines}
    bars = f"{length // min(steps):,} bars" if len(steps) == 1 else ""
    days = f"{length / UNIT_MS['d']:,.1f} days" if 1 not in steps else ""
    return f"{bars} ({days})" if bars and days else bars or days
