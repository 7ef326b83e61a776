"""Tables of the bars of a source: inspected, ingested, downloaded, exported and cleaned."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from bitcorn_ray.report.table import Styled, Table, counted, name_of, short_time, size

if TYPE_CHECKING:
    from bitcorn_ray.sources.exchange import DownloadedPartition
    from bitcorn_ray.sources.export import ExportedPartition
    from bitcorn_ray.sources.ingest import IngestedPartition
    from bitcorn_ray.sources.journal import IngestRecord
    from bitcorn_ray.sources.reader import Inspection

_CLEANED = {
    "sorted_rows": "moved into order",
    "duplicates_dropped": "dropped as duplicates",
    "off_grid_dropped": "dropped as off the grid",
    "off_grid_snapped": "snapped to the grid",
    "bad_prints_masked": "masked as bad prints",
}


def inspection_tables(found: Inspection) -> tuple[Table | str, ...]:
    """Return a row per partition, a row per table with the meaning of its columns, and the problems of the source."""
    decided = ("times", "symbol by", "timeframe by", "problem")
    partitions = [
        (
            name_of(one),
            one.rows,
            short_time(one.first or ""),
            short_time(one.last or ""),
            one.table,
            one.time,
            one.symbol_from,
            one.timeframe_from,
            Styled(one.problem or "", "poor"),
        )
        for one in found.partitions
    ]
    tables = [
        (
            one.name,
            one.kind,
            ", ".join(ours if ours == stored else f"{ours}={stored}" for ours, stored in one.columns.items()),
            ", ".join(one.further),
            one.ignored,
        )
        for one in found.tables
    ]
    return (
        Table(("partition", ">rows", "first (UTC)", "last (UTC)", "table", *decided), partitions),
        Table(("table", "kind", "columns", "further columns", "ignored"), tables),
        *(f"problem: {problem}" for problem in found.problems),
    )


def partition_rows(results: Iterable[Any]) -> list[dict[str, Any]]:
    """Return dataclasses that have a `partition` as flat rows that start with its symbol and timeframe."""
    return [
        {"symbol": result.partition.symbol, "timeframe": result.partition.timeframe}
        | {field.name: getattr(result, field.name) for field in fields(result) if field.name != "partition"}
        for result in results
    ]


def ingest_table(results: Sequence[IngestedPartition]) -> Table:
    """Return the counts of each file's rows, and why some were rejected."""
    rows = [
        (
            str(one.partition) if one.partition.symbol else "-",
            one.rows,
            one.inserted,
            one.updated,
            one.unchanged,
            sum(one.rejected.values()),
            one.source.rpartition("/")[2],
            "; ".join(f"{count:,} {reason}" for reason, count in one.rejected.items()),
        )
        for one in results
    ]
    counts = (">rows", ">inserted", ">updated", ">unchanged", ">rejected")
    return Table(("partition", *counts, "file", "why rejected"), rows)


def undo_table(records: Sequence[IngestRecord]) -> Table:
    """Return what an undone ingest had taken from each source."""
    rows = [
        (str(one.partition), one.inserted, one.updated, one.source.rpartition("/")[2], short_time(one.at))
        for one in records
    ]
    return Table(("partition", ">removed", ">restored", "file", "ingested (UTC)"), rows)


def download_table(results: Sequence[DownloadedPartition]) -> Table:
    """Return the counts of each downloaded partition."""
    rows = [
        (str(one.partition), one.rows, one.inserted, one.updated, short_time(one.last_timestamp)) for one in results
    ]
    return Table(("partition", ">rows", ">inserted", ">updated", "last bar (UTC)"), rows)


def export_table(results: Sequence[ExportedPartition]) -> Table:
    """Return a row per written partition."""
    rows = [(str(one.partition), one.rows, size(one.bytes), one.file) for one in results]
    return Table(("partition", ">bars", ">size", "file"), rows)


def cleaning_line(partition: str, counts: Mapping[str, int]) -> str:
    """Return what a policy did to a partition's bars. counts: see `market.clean.cleaning_counts`."""
    done = [f"{counts[name]:,} {what}" for name, what in _CLEANED.items() if counts[name]]
    if counts["bars_filled"]:
        done.append(f"{counts['bars_filled']:,} filled in {counted(counts['gaps_filled'], 'gap')}")
    if counts["gaps_left"]:
        done.append(f"{counted(counts['gaps_left'], 'longer gap')} left")
    changed = ", ".join(done) or "nothing to clean"
    return f"{partition}: {counts['rows']:,} rows became {counts['bars']:,} bars ({changed})"
