"""Bars of one partition, ready for work: read, repaired where a policy says so, put together where they are not stored.

1. A timeframe that the source stores is read. One that it does not store is put together from the longest stored one
   of which it is a multiple.
2. Rows of one time become one, the last stored; or the policy decides, on the bars as they are stored.
3. Bars of the higher timeframe that are incomplete are left out. One is filled where any bar in it was.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.market.bars import Bars
from bitcorn_ray.market.clean import clean_bars, drop_duplicates
from bitcorn_ray.market.partition import Partition, normalise_symbol
from bitcorn_ray.market.policy import CleaningPolicy
from bitcorn_ray.market.quality import quality_report
from bitcorn_ray.market.resample import derived_partitions, resample_bars
from bitcorn_ray.market.timeframe import timeframe_ms
from bitcorn_ray.sources.options import Reading
from bitcorn_ray.sources.source import PartitionReader, opened_source, partition_named, read_partition, source_files


@dataclass(frozen=True, kw_only=True)
class LoadedBars:
    """T bars, ascending, one a time.

    filled: (T,) bars that were never traded, None where the policy fills none. partition: as stored; its `base` where
    it was put together. found: the rows as they were found, or put together, before the rows of one time became one.
    cleaning: the report of `clean_bars`, None without a policy. resampled: what was put together, where anything was.
    """

    bars: Bars
    filled: NDArray[np.bool_] | None
    partition: Partition
    found: Bars
    cleaning: dict[str, Any] | None = None
    resampled: dict[str, Any] | None = None

    @property
    def report(self) -> dict[str, Any]:
        """`quality_report` of what was found, with `cleaning` and `resampled` where these were done."""
        done = {"cleaning": self.cleaning, "resampled": self.resampled}
        report = quality_report(self.found, self.partition.timeframe)
        return report | {name: told for name, told in done.items() if told is not None}


def load_bars(
    source: str | Path,
    symbol: str,
    timeframe: str,
    limit: int | None = None,
    reading: Reading | None = None,
    until: int | None = None,
) -> LoadedBars:
    """Load the bars of one partition of any source.

    symbol: in any spelling. limit: the newest so many bars, before any is filled. reading: what the user says about
    the source, with the policy by which its bars are repaired. until: opening of the last bar, ms; what is later counts
    as not there yet.
    Raises BitcornError where the source, the symbol or the timeframe is not there, and as reading and cleaning do.
    """
    policy = (reading or Reading()).policy
    try:
        stored, partition = read_partition(source, symbol, timeframe, limit, reading)
    except BitcornError:
        found = _derived(source, symbol, timeframe, reading)
        if found is None or (limit is not None and limit < 1):
            raise
        if limit is not None and policy is None:  # the newest lower bars are enough, if none of them is missing
            lower = (limit + 1) * (timeframe_ms(found.timeframe) // timeframe_ms(str(found.base)))
            stored, base = read_partition(source, found.symbol, str(found.base), lower, reading)
            newest = _put_together(stored, base, found.timeframe, limit, policy)
            if len(newest.bars) == limit:
                return newest
        stored, base = read_partition(source, found.symbol, str(found.base), None, reading)
        last = None if until is None else until + timeframe_ms(found.timeframe) - 1
        return _put_together(_until(stored, last), base, found.timeframe, limit, policy)
    return _as_stored(_until(stored, until), partition, policy)


def load_partition(reader: PartitionReader, partition: Partition, policy: CleaningPolicy | None = None) -> LoadedBars:
    """Load one partition of an open file, by its stored name; one with a `base` is put together from that.

    Raises BitcornError as `load_bars` does.
    """
    stored, found = reader.read_stored(Partition(partition.symbol, partition.base or partition.timeframe))
    if partition.base is None:
        return _as_stored(stored, found, policy)
    return _put_together(stored, found, partition.timeframe, None, policy)


def _until(bars: Bars, last: int | None) -> Bars:
    assert bars.timestamp is not None
    return bars if last is None else bars.take(bars.timestamp <= last)


def _as_stored(stored: Bars, partition: Partition, policy: CleaningPolicy | None) -> LoadedBars:
    bars, filled, cleaning = _cleaned(stored, partition.timeframe, policy)
    return LoadedBars(bars=bars, filled=filled, partition=partition, found=stored, cleaning=cleaning)


def _put_together(
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


def _derived(source: str | Path, symbol: str, timeframe: str, reading: Reading | None) -> Partition | None:
    """Return the partition where it is not stored but can be put together, else None."""
    timeframe_ms(timeframe)
    stored = list[Partition]()
    for file in source_files(source):
        named = partition_named(file.place, reading)
        if named is not None:
            stored.append(named)
        else:
            with opened_source(file.place, reading) as reader:
                stored += reader.partitions
    wanted = normalise_symbol(symbol)
    found = derived_partitions([each for each in stored if normalise_symbol(each.symbol) == wanted], [timeframe])
    return found[0] if found else None


def _cleaned(
    stored: Bars, timeframe: str, policy: CleaningPolicy | None
) -> tuple[Bars, NDArray[np.bool_] | None, dict[str, Any] | None]:
    if policy is None:
        return drop_duplicates(stored), None, None
    clean = clean_bars(stored, policy, timeframe)
    return clean.bars, clean.filled if policy.fill else None, clean.report


def _any_filled(bars: Bars, filled: NDArray[np.bool_], higher: Bars, timeframe: str) -> NDArray[np.bool_]:
    assert bars.timestamp is not None
    assert higher.timestamp is not None
    before = np.concatenate(([0], np.cumsum(filled)))
    rows = [np.searchsorted(bars.timestamp, higher.timestamp + after) for after in (0, timeframe_ms(timeframe))]
    found: NDArray[np.bool_] = before[rows[1]] > before[rows[0]]
    return found
