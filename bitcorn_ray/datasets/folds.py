"""Walk-forward folds: training, validation and test ranges that move through time together.

1. A fold is three ranges of instants, one after another: train, validation, test. A window is in the range that holds
   the instant at which its last bar closes; all partitions are cut at the same instants.
2. The last fold's test range ends with the last bar; each earlier fold lies one step before the next. Rolling training
   ranges are all of one length; expanding ones all begin with the first bar, and are at least that long.
3. Purge: from the end of a range are taken the windows whose longest label would end after the first instant of the
   next range (the rule of `splits`); an embargo takes more. Nothing is taken from the end of a test range, so that the
   test ranges of successive folds make one stretch without a hole.
4. Lengths are bars, or durations such as "30d". A bar is a step of the timeframe's grid: a missing bar is time that has
   passed. Of partitions with different timeframes only durations are understood, and the purge is the longest horizon
   in the longest bars.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bitcorn_ray.errors import BitcornError

__all__ = ["Fold", "FoldRows", "FoldsConfig", "Span", "Timeline", "walk_forward_folds"]

Rows = NDArray[np.int64]

_UNIT_MS = {"m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
WINDOWS = ("rolling", "expanding")


class Span(NamedTuple):
    """A half-open range, start <= x < stop, of instants or of rows."""

    start: int
    stop: int

    @property
    def length(self) -> int:
        """How many there are, 0 for an empty span."""
        return max(0, self.stop - self.start)


@dataclass(frozen=True, kw_only=True)
class FoldsConfig:
    """How folds are cut; lengths are bars (whole numbers) or durations (a number and one of m, h, d, w, as "30d").

    train, validation, test: lengths of the ranges, purge included; a validation of 0 leaves it out. step: from fold to
    fold, by default the test's length, so that test ranges lie side by side; a shorter one makes them overlap.
    window: "rolling", or "expanding" for training on everything before.
    purge: taken from the ends of training and validation, by default the longest horizon, and never less: a label would
    reach into the range that comes next. disjoint_inputs: add a window's length to the default, so that ranges share no
    bar among inputs either. embargo: taken besides, where neighbouring outcomes depend on each other for longer.
    last: only so many folds, the last ones; None for all that there is room for.
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

    name: for messages. instants: (T,) int64 ms at which each row's bar closes (its timestamp and the timeframe),
    ascending. step: the timeframe in ms. Rows without times are `Timeline(name=..., instants=np.arange(T), step=1)`.
    """

    name: str
    instants: Rows
    step: int

    def __post_init__(self) -> None:
        if self.step < 1 or not len(self.instants) or (np.diff(self.instants) <= 0).any():
            raise BitcornError(f"{self.name}: {len(self.instants)} rows of step {self.step} must be some, and ascend")


@dataclass(frozen=True)
class FoldRows:
    """Rows of one partition at which the windows of each range end, purged; a range may be empty.

    The valid windows that end in `train` train, and so on; nothing more need be purged. The scaler is fitted on rows
    from max(0, train.start - seq_len + 1), the first bar of the first window, to before train.stop.
    """

    train: Span
    validation: Span
    test: Span

    @property
    def stops(self) -> tuple[int, int, int]:
        """(fit_end, validation_end, test_end) for `splits.split_by_rows`, which purges by itself.

        They say what the spans say where training is expanding and purge and embargo are the default ones: stops know
        neither where training begins nor of more than a horizon's purge.
        """
        return self.validation.start, self.test.start, self.test.stop


@dataclass(frozen=True)
class Fold:
    """One fold. number: from 0, in time order. train, validation, test: spans of instants (ms), purged.

    purge: ms left out before validation and before test, embargo included. rows: of each partition, as they were given.
    """

    number: int
    train: Span
    validation: Span
    test: Span
    purge: int
    rows: tuple[FoldRows, ...]


def walk_forward_folds(
    config: FoldsConfig, timelines: Sequence[Timeline], horizon: int, seq_len: int = 0
) -> list[Fold]:
    """Cut the rows of one or more partitions into folds, the earliest first.

    horizon: bars of the longest label. seq_len: bars of a window, for `disjoint_inputs`.
    A partition that starts late, or ended early, has empty ranges in some folds.
    Raises BitcornError where a purge is shorter than the horizon, history is too short for one fold, or a range of a
    fold holds no row of any partition.
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
        # + 1: a window whose label ends at the very instant at which the next range begins may stay.
        fitting = Span(begun, validated - purge + 1)
        validating = Span(validated, max(validated, tested - purge + 1))
        testing = Span(tested, stop)
        rows = tuple(_rows(line.instants, fitting, validating, testing) for line in timelines)
        folds.append(Fold(number, fitting, validating, testing, purge, rows))
        _refuse_empty(folds[-1], timelines)
    return folds


def _parsed(name: str, value: int | str) -> tuple[int, bool]:
    """A length, and whether it is a duration in ms or else a number of bars."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value, False
    match = re.fullmatch(r"\s*(\d{1,9})\s*([mhdw]?)\s*", value) if isinstance(value, str) else None
    if match is None:
        raise BitcornError(f'{name} is {value!r}: give bars, such as 720, or a duration, such as "30d" (m, h, d, w)')
    return int(match[1]) * _UNIT_MS.get(match[2], 1), bool(match[2])


def _instants(name: str, value: int | str, timelines: Sequence[Timeline]) -> int:
    """A length in the unit of the instants."""
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
    """A length of time as people read it: bars where there is one timeframe, and days where there are times."""
    steps = {line.step for line in timelines}
    bars = f"{length // min(steps):,} bars" if len(steps) == 1 else ""
    days = f"{length / _UNIT_MS['d']:,.1f} days" if 1 not in steps else ""
    return f"{bars} ({days})" if bars and days else bars or days
