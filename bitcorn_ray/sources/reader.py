"""What every kind of source can do: list its partitions, read them, and say how it understood them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from bitcorn_ray.market.bars import Bars, joined, show_time
from bitcorn_ray.market.partition import Partition
from bitcorn_ray.market.timeframe import stored_step


@dataclass(frozen=True, kw_only=True)
class StoredRows:
    """T rows of one partition as they are stored, for diagnosis.

    source: the file or table, as it may be shown. rows: in the order of a file; those of a table by time.
    units: rows by unit or format of their time. formats: the same for each further column that holds dates as text.
    set_aside: rows that cannot be bars, by reason ("have no time").
    """

    partition: Partition
    source: str
    rows: Bars
    units: dict[str, int]
    formats: dict[str, dict[str, int]] = field(default_factory=dict)
    set_aside: dict[str, int] = field(default_factory=dict)


def joined_rows(parts: Sequence[StoredRows], source: str) -> StoredRows:
    """Join the rows of one partition that several files hold."""
    if len(parts) == 1:
        return parts[0]
    formats: dict[str, Counter[str]] = {}
    for part in parts:
        for name, counts in part.formats.items():
            formats.setdefault(name, Counter()).update(counts)
    return StoredRows(
        partition=parts[0].partition,
        source=source,
        rows=joined([part.rows for part in parts]),
        units=dict(sum((Counter(part.units) for part in parts), Counter[str]())),
        formats={name: dict(counts) for name, counts in formats.items()},
        set_aside=dict(sum((Counter(part.set_aside) for part in parts), Counter[str]())),
    )


@dataclass(frozen=True, kw_only=True)
class InspectedTable:
    """A table, view or file.

    columns: our names to the stored ones. further: stored names of all other columns. ignored: why it holds no bars;
    None if it does.
    """

    name: str
    kind: str
    columns: dict[str, str] = field(default_factory=dict)
    further: tuple[str, ...] = ()
    ignored: str | None = None


@dataclass(frozen=True, kw_only=True)
class InspectedPartition:
    """A partition and how it was identified.

    first, last: times of its first and last bar, as ISO text. time: how times are read. units: rows by unit or format.
    problem: why it cannot be read as it is; None if it can.
    """

    symbol: str
    timeframe: str
    table: str
    rows: int
    first: str | None
    last: str | None
    time: str
    units: dict[str, int]
    symbol_from: str
    timeframe_from: str
    problem: str | None = None


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """How a source was understood. kind: database, file or folder. problems: of the source as a whole."""

    source: str
    kind: str
    tables: list[InspectedTable]
    partitions: list[InspectedPartition]
    problems: list[str]


@dataclass(frozen=True)
class Span:
    """Number of rows of a partition, and their first and last time in milliseconds UTC; None without any time."""

    rows: int
    first: int | None
    last: int | None

    def joined(self, other: Span | None) -> Span:
        """Return the span of both."""
        if other is None:
            return self
        times = [time for span in (self, other) for time in (span.first, span.last) if time is not None]
        return Span(self.rows + other.rows, min(times, default=None), max(times, default=None))

    def has_too_many_rows(self, timeframe: str) -> bool:
        """Return True if there are more rows than bars of the timeframe fit between the first and the last time."""
        step = stored_step(timeframe)
        if step is None or self.first is None or self.last is None:
            return False
        return self.rows > 1 + (self.last - self.first) // step

    def shown(self) -> dict[str, str | None]:
        """Return the fields `first` and `last` of `InspectedPartition`."""
        times = {"first": self.first, "last": self.last}
        return {name: None if time is None else show_time(time) for name, time in times.items()}


class PartitionReader(Protocol):
    """Reads the partitions of a database, a file, or a folder of files that are one partition."""

    @property
    def partitions(self) -> list[Partition]:
        """Every symbol x timeframe, sorted, as stored."""

    def sizes(self) -> dict[Partition, int]:
        """Return about how many bars each partition has."""

    def read(self, symbol: str, timeframe: str, limit: int | None = None) -> tuple[Bars, Partition]:
        """Return the bars of one partition, ascending in time, and the partition as stored.

        Rows of one time stay side by side, in stored order. symbol: in any spelling. limit: only the rows of the newest
        so many different times. Raises BitcornError for an unknown symbol or timeframe, for values that cannot be read,
        and, unless the policy chooses among rows of one time, for rows that a further column tells apart.
        """

    def read_stored(self, partition: Partition) -> tuple[Bars, Partition]:
        """Return the same for a partition that is named exactly as it is stored."""

    def stored_rows(self, is_requested: Callable[[Partition], bool]) -> Iterator[StoredRows]:
        """Yield the rows of the requested partitions as they are stored."""

    def inspect(self) -> Inspection:
        """Return how the source was understood, reading as little as possible."""


def sorted_by_time(bars: Bars) -> Bars:
    """Return bars in ascending order of time, equal times in the order that they have."""
    if (np.diff(bars.timestamp) >= 0).all():
        return bars
    return bars.take(np.argsort(bars.timestamp, kind="stable"))


def newest_times(bars: Bars, limit: int | None) -> Bars:
    """Return the rows of the newest so many different times of sorted bars; None returns all."""
    if limit is None or len(bars) <= limit:
        return bars
    return bars.take(bars.timestamp >= np.unique(bars.timestamp)[-limit:][0])
