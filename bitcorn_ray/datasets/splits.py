"""Splitting windows in time, with a purge so that no label of an earlier part sees a later one.

One rule everywhere: a window may stay in an earlier part if its label (which ends one longest horizon after the window)
ends no later than the first instant of the part that follows. A later window may hold bars that earlier labels were
made of: these are its inputs, known at their time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bitcorn_ray.errors import BitcornError

__all__ = ["Split", "holdout", "split_by_rows", "split_by_time"]

Rows = NDArray[np.int64]


class Split(NamedTuple):
    """The windows of one partition, named by the rows that they end on, each part ascending; `test` may be empty."""

    train: Rows
    validation: Rows
    test: Rows


def holdout(ends: Rows, val_frac: float, purge: int) -> tuple[Rows, Rows]:
    """Split windows, named by their end rows (N,) ascending, into earlier training and later validation windows.

    val_frac: share of the windows that validate, above 0 and below 1: the last ones.
    purge: bars between the last training window's end and the first validation window's end; with the longest horizon,
    no training label reaches past the bar at which the first validation window ends.
    Raises BitcornError where a part would be empty.
    """
    split = split_by_time([ends], [ends], purge, val_frac)[0]
    return split.train, split.validation


def split_by_time(
    ends: Sequence[Rows],
    times: Sequence[Rows],
    horizon: int | Sequence[int],
    val_frac: float,
    test_frac: float = 0.0,
) -> list[Split]:
    """Split the windows of several partitions at the same two instants, so that no part knows another's future.

    ends: for each partition the rows (N_p,) that its windows end on, ascending.
    times: for each partition the instants (N_p,) at which those windows end, ascending, in any unit that all partitions
    share: int64 ms, or row numbers for one partition that has no timestamps. Where timeframes differ, these must be the
    instants at which the last bar closes, as a bar's label is the instant at which it opens.
    horizon: how far the longest label reaches past its window, in the unit of `times`; one number, or one a partition
    where timeframes differ. (No label spans a gap, so a horizon of h bars is h times the timeframe.)
    val_frac, test_frac: shares of all windows, those of all partitions together; the last ones test, those before them
    validate. The instants are those of windows, and all windows of an instant share a part. With a test_frac of 0
    `test` is empty and one partition is split as by `holdout`.
    A partition that starts late or ends early may lack a part. Raises BitcornError where the shares are impossible or
    a part would be empty of all partitions' windows.
    """
    if not 0 < val_frac < 1 or not 0 <= test_frac < 1 or val_frac + test_frac >= 1:
        raise BitcornError(
            f"val_frac is {val_frac} and test_frac {test_frac}: val_frac must lie between 0 and 1, test_frac be 0 or "
            "more, and both together leave something for training (below 1)"
        )
    reaches = [horizon] * len(ends) if isinstance(horizon, int | np.integer) else list(horizon)
    if not len(ends) == len(times) == len(reaches):
        raise BitcornError(
            f"{len(ends)} partitions of windows, {len(times)} of times, {len(reaches)} horizons: one each"
        )
    ordered = np.sort(np.concatenate(times)) if len(times) else np.empty(0, np.int64)
    tested = round(len(ordered) * test_frac)
    validated = round(len(ordered) * val_frac)
    if not tested + validated < len(ordered):
        tested = validated = 0  # too few to share out: the parts come out empty and are refused below
    never = np.iinfo(np.int64).max
    test_from = ordered[len(ordered) - tested] if tested else never
    validation_from = ordered[len(ordered) - tested - validated] if validated else never
    splits = [
        _cut(rows, instants, reach, validation_from, test_from)
        for rows, instants, reach in zip(ends, times, reaches, strict=True)
    ]
    wanted = f"val_frac {val_frac}, test_frac {test_frac} and a purge of {horizon}"
    _refuse_empty(splits, test_frac > 0, wanted, len(ordered))
    return splits


def split_by_rows(ends: Rows, stops: tuple[int, int, int], horizon: int) -> Split:
    """Split the windows of one partition, named by their end rows (N,) ascending, at given rows.

    stops: (fit_end, validation_end, test_end): training windows end below row fit_end, validation windows from there to
    below validation_end, test windows from there to below test_end (their labels may reach further: nothing comes
    after them). With test_end equal to validation_end nothing is tested.
    horizon: bars of the longest label: windows whose label would pass the first row of the next part are purged.
    Raises BitcornError where the stops don't ascend or a part would be empty.
    """
    fit_end, validation_end, test_end = stops
    if not 0 < fit_end < validation_end <= test_end:
        raise BitcornError(f"the parts stop at rows {stops}: they must ascend, as in (7000, 8000, 9976)")
    asked = ends[ends < test_end]
    split = _cut(asked, asked, horizon, fit_end, validation_end)
    _refuse_empty([split], test_end > validation_end, f"stops at rows {stops} and a purge of {horizon}", len(ends))
    return split


def _cut(ends: Rows, times: Rows, reach: int, validation_from: int, test_from: int) -> Split:
    # `times <= start - reach` and not `times + reach <= start`: the latter could overflow beside the largest int64.
    return Split(
        train=ends[times <= min(validation_from, test_from) - reach],
        validation=ends[(times >= validation_from) & (times <= test_from - reach) & (times < test_from)],
        test=ends[times >= test_from],
    )


def _refuse_empty(splits: list[Split], testing: bool, wanted: str, count: int) -> None:
    train, validation, test = (sum(len(split[part]) for split in splits) for part in range(3))
    if not train or not validation or (testing and not test):
        raise BitcornError(
            f"{count} windows with {wanted} leave {train} for training, {validation} for validation"
            f"{f', {test} for testing' if testing else ''}: give more bars"
        )
