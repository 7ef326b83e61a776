"""Report how a source is understood, and how each thing was decided; bars are neither loaded nor judged."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.market.partition import Partition, identity_of
from bitcorn_ray.sources.options import SourceOptions
from bitcorn_ray.sources.reader import InspectedPartition, InspectedTable, Inspection
from bitcorn_ray.sources.source import open_source


def inspect_source(path: str | Path, options: SourceOptions | None = None) -> Inspection:
    """Return the tables or files of a source and its partitions, with how each column, symbol and time was identified.

    Raises BitcornError if the source is missing, cannot be read, or holds no bars at all.
    """
    source = open_source(path, options)
    if source.database is not None:
        with source.database.opened(source.options) as reader:
            found = reader.inspect()
        return replace(found, partitions=_with_rivals(found))
    tables, partitions, problems = list[InspectedTable](), list[InspectedPartition](), list[str]()
    for file in source.files:
        name = file.location.name if file.location == source.location else file.location.relative_to(source.location)
        try:
            with file.opened(source.options) as reader:
                found = reader.inspect()
        except BitcornError as error:
            if len(source.files) == 1:
                raise
            problems.append(str(error))
            tables.append(InspectedTable(name=name, kind="file", ignored=str(error)))
            continue
        tables += [replace(table, name=name) for table in found.tables]
        partitions += [replace(partition, table=name) for partition in found.partitions]
    is_file = source.location.info() is not None
    inspection = Inspection(
        source=source.shown,
        kind="file" if is_file else "folder",
        tables=tables,
        partitions=partitions,
        problems=problems,
    )
    return replace(inspection, partitions=_with_rivals(inspection))


def _with_rivals(inspection: Inspection) -> list[InspectedPartition]:
    """Sort partitions and report those that several tables hold; a view of what a table holds is left out."""
    found = sorted(
        inspection.partitions, key=lambda partition: (partition.symbol, partition.timeframe, partition.table)
    )
    views = {table.name for table in inspection.tables if table.kind == "view"}
    tables: dict[tuple[str, object], list[str]] = {}
    for partition in found:
        tables.setdefault(_identity(partition), []).append(partition.table)

    def checked(partitions: Iterable[InspectedPartition]) -> Iterable[InspectedPartition]:
        for partition in partitions:
            others = [name for name in tables[_identity(partition)] if name != partition.table]
            is_view = partition.table in views
            if is_view and not views.issuperset(others):
                continue
            rivals = [name for name in others if is_view or name not in views]
            if rivals and partition.problem is None:
                problem = f"also in {', '.join(rivals)}: choose one by --table {partition.table}"
                partition = replace(partition, problem=problem)
            yield partition

    return list(checked(found))


def _identity(partition: InspectedPartition) -> tuple[str, object]:
    return identity_of(Partition(partition.symbol, partition.timeframe))
