"""Bars of one partition, ready for work: read, repaired by a policy, resampled if they are not stored.

1. A stored timeframe is read. Another one is resampled from the longest stored one of which it is a multiple.
2. Of rows with one time the last stored one is kept; or the policy decides, on the bars as they are stored.
3. Incomplete bars of the higher timeframe are left out. A bar is filled if any bar in it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.market.bars import Bars, drop_duplicates
from bitcorn_ray.market.clean import clean_bars
from bitcorn_ray.market.diagnosis import quality_report
from bitcorn_ray.market.partition import Partition, is_requested
from bitcorn_ray.market.policy import CleaningPolicy
from bitcorn_ray.market.resample import derived_partitions, resample_bars
from bitcorn_ray.market.timeframe import timeframe_ms
from bitcorn_ray.sources.options import SourceOptions
from bitcorn_ray.sources.reader import PartitionReader
from bitcorn_ray.sources.source import Source, open_source


@dataclass(frozen=True, kw_only=True)
class LoadedBars:
    """T bars, ascending, one a time.

    filled: (T,) bars that the policy filled in; None if it fills none. partition: as stored, with its `base` if it was
    resampled. found: the rows as read, or resampled, before rows of one time became one. cleaning: the report of
    `clean_bars`, None without a policy. resampled: counts of the resampling, None without it.
    """

    bars: Bars
    filled: NDArray[np.bool_] | None
    partition: Partition
    found: Bars
    cleaning: dict[str, Any] | None = None
    resampled: dict[str, Any] | None = None

    @property
    def report(self) -> dict[str, Any]:
        """`quality_report` of `found`, with `cleaning` and `resampled` if these were done."""
        done = {"cleaning": self.cleaning, "resampled": self.resampled}
        report = quality_report(self.found, self.partition.timeframe)
        return report | {name: counts for name, counts in done.items() if counts is not None}


def load_bars(
    source: str | Path,
    symbol: str,
    timeframe: str,
    limit: int | None = None,
    options: SourceOptions | None = None,
    until: int | None = None,
) -> LoadedBars:
    """Load the bars of one partition of any source.

    symbol: in any spelling. limit: the newest so many bars, before any is filled. options: for reading the source, with
    the policy that repairs its bars. until: open time of the last bar, ms; later bars are ignored.
    Raises BitcornError if the source, the symbol or the timeframe does not exist, and as reading and cleaning do.
    """
    opened = open_source(source, options)
    policy = opened.options.policy
    try:
        stored, partition = opened.read(symbol, timeframe, limit)
    except BitcornError:
        found = _resampled_partition(opened, symbol, timeframe)
        if found is None or (limit is not None and limit < 1):
            raise
        if limit is not None and policy is None:  # the newest lower bars are enough, if none of them is missing
            lower = (limit + 1) * (timeframe_ms(found.timeframe) // timeframe_ms(str(found.base)))
            stored, base = opened.read(found.symbol, str(found.base), lower)
            newest = _resampled(stored, base, found.timeframe, limit, policy)
            if len(newest.bars) == limit:
                return newest
        stored, base = opened.read(found.symbol, str(found.base))
        last = None if until is None else until + timeframe_ms(found.timeframe) - 1
        return _resampled(_until(stored, last), base, found.timeframe, limit, policy)
    return _as_stored(_until(stored, until), partition, policy)


def load_partition(reader: PartitionReader, partition: Partition, policy: CleaningPolicy | None = None) -> LoadedBars:
    """Load one partition of an open file, by its stored name; one with a `base` is resampled from that.

    Raises BitcornError as `load_bars` does.
    """
    stored, found = reader.read_stored(Partition(partition.symbol, partition.base or partition.timeframe))
    if partition.base is None:
        return _as_stored(stored, found, policy)
    return _resampled(stored, found, partition.timeframe, None, policy)


def _until(bars: Bars, last: int | None) -> Bars:
    return bars if last is None else bars.take(bars.timestamp <= last)


def _as_stored(stored: Bars, partition: Partition, policy: CleaningPolicy | None) -> LoadedBars:
    bars, filled, cleaning = _cleaned(stored, partition.timeframe, policy)
    return LoadedBars(bars=bars, filled=filled, partition=partition, found=stored, cleaning=cleaning)


def _resampled(
    stored: Bars, base: Partition, timeframe: str, limit: int | None, policy: CleaningPolicy | None
) -> LoadedBars:
    bars, filled, cleaning = _cleaned(stored, base.timeframe, policy)
    made = resample_bars(bars, base.timeframe, timeframe)
    if filled is not None:
        filled = _any_filled(bars, filled, made.bars, timeframe)
    newest = slice(None if limit is None else -limit, None)
    return LoadedBars(
        bars=made.bars.take(newest),
        filled=None if filled is None else filled[newest],
        partition=Partition(base.symbol, timeframe, base.timeframe),
        found=made.bars.take(newest),
        cleaning=cleaning,
        resampled={"from": base.timeframe, "bars": len(stored), "incomplete_dropped": made.dropped},
    )


def _resampled_partition(source: Source, symbol: str, timeframe: str) -> Partition | None:
    """Return the partition if it is not stored but can be resampled, else None."""
    timeframe_ms(timeframe)
    stored = [partition for partition in source.partitions() if is_requested(partition, [symbol], None)]
    found = derived_partitions(stored, [timeframe])
    return found[0] if found else None


def _cleaned(
    stored: Bars, timeframe: str, policy: CleaningPolicy | None
) -> tuple[Bars, NDArray[np.bool_] | None, dict[str, Any] | None]:
    if policy is None:
        return drop_duplicates(stored), None, None
    clean = clean_bars(stored, policy, timeframe)
    return clean.bars, clean.filled if policy.fill else None, clean.report


def _any_filled(bars: Bars, filled: NDArray[np.bool_], higher: Bars, timeframe: str) -> NDArray[np.bool_]:
    before = np.concatenate(([0], np.cumsum(filled)))
    rows = [np.searchsorted(bars.timestamp, higher.timestamp + after) for after in (0, timeframe_ms(timeframe))]
    found: NDArray[np.bool_] = before[rows[1]] > before[rows[0]]
    return found
