"""Plan the computation of a source's features: which partitions are up to date, and which become jobs.

A source is compared with its receipts. Partitions of unchanged files whose entries are whole are done; the others
become jobs. `compute.compute_jobs` runs the jobs, and `compute.finish_features` writes the new receipts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bitcorn_ray.cache.store import FeatureCache
from bitcorn_ray.errors import BitcornError
from bitcorn_ray.features.identity import SystemIdentity, identify, system_code
from bitcorn_ray.features.receipts import FileReceipt, PartitionStatus, read_receipts
from bitcorn_ray.features.system import FeatureSystem
from bitcorn_ray.fingerprint.code import CodeIdentity
from bitcorn_ray.market.partition import Partition, is_requested, select_partitions
from bitcorn_ray.market.resample import derived_partitions
from bitcorn_ray.sources.folders import names_in_path
from bitcorn_ray.sources.options import Reading
from bitcorn_ray.sources.source import DatabaseFile, Source, SourceFile, open_source
from bitcorn_ray.storage.location import Location


@dataclass(frozen=True, kw_only=True)
class FeatureJob:
    """A partition of a file to compute. partition: None stands for all requested partitions of the file.

    path: absolute, or a URI with its secrets. size: expected cost in any unit, for balancing.
    """

    path: str
    partition: Partition | None
    size: int

    def label(self) -> Partition:
        """Return the partition, guessed from the file's name if it is unknown until the file is read."""
        if self.partition is not None:
            return self.partition
        try:
            symbol, timeframe = names_in_path(Location.of(self.path))
        except BitcornError:
            symbol, timeframe = None, None
        return Partition(symbol or Location.of(self.path).name, timeframe or "")


@dataclass(frozen=True, kw_only=True)
class FeatureWork:
    """What all jobs share.

    code: of the system, as the driver identified it. cache: its address. symbols, timeframes: the requested ones.
    reading: options for reading the source.
    """

    system: FeatureSystem
    code: CodeIdentity
    cache: str
    symbols: tuple[str, ...] | None
    timeframes: tuple[str, ...] | None
    reading: Reading = field(default_factory=Reading)

    def requested(self, stored: Iterable[Partition]) -> list[Partition]:
        """Return the requested partitions of a file that has been opened."""
        return requested_of(stored, self.symbols, self.timeframes)


@dataclass(frozen=True, kw_only=True)
class FeaturePlan:
    """Jobs to run, and statuses of the partitions that are up to date.

    files: of the source, by path. fingerprints: of the files, by path, before any was read. receipts: valid ones, by
    path. whole: paths of the files of which all partitions are requested.
    """

    source: str
    work: FeatureWork
    identity: SystemIdentity
    jobs: list[FeatureJob]
    done: list[PartitionStatus]
    fingerprints: dict[str, str]
    receipts: dict[str, FileReceipt] = field(default_factory=dict)
    whole: frozenset[str] = frozenset()
    files: dict[str, SourceFile] = field(default_factory=dict)


def plan_features(
    source: str | Path,
    system: FeatureSystem,
    cache: FeatureCache,
    symbols: Sequence[str] | None = None,
    timeframes: Sequence[str] | None = None,
    reading: Reading | None = None,
) -> FeaturePlan:
    """Return what is to be computed of a source; reads receipts and names of partitions, no bars.

    symbols, timeframes: only these, in any spelling. reading: options for reading the source.
    Raises BitcornError for a source without bars, an unknown symbol or timeframe, and a system that is refused.
    """
    reading = (reading or Reading()).with_columns(system.inputs)
    opened = open_source(source, reading)
    code = system_code(system, cache)
    identity = identify(system, code)
    work = FeatureWork(
        system=system,
        code=code,
        cache=cache.storage.address,
        symbols=None if symbols is None else tuple(symbols),
        timeframes=None if timeframes is None else tuple(timeframes),
        reading=reading,
    )
    fingerprints = {file.shown: text for file in opened.files if (text := file.fingerprint())}
    receipts = {
        path: receipt
        for path, receipt in read_receipts(cache, opened.shown, identity, reading).items()
        if fingerprints.get(path) == receipt.fingerprint
    }
    whole = cache.whole_entries([p.key for receipt in receipts.values() for p in receipt.partitions])
    done, jobs = list[PartitionStatus](), list[FeatureJob]()
    for file, requested in requested_partitions(opened, receipts, symbols, timeframes):
        path = file.shown
        known = {p.partition: p for p in receipts[path].partitions} if path in receipts else {}
        for partition, size in requested:
            receipt = known.get(partition) if partition else None
            if receipt is not None and receipt.key in whole:
                done.append(receipt)
            else:
                jobs.append(FeatureJob(path=file.address, partition=partition, size=size))
    all_requested = symbols is None and timeframes is None
    return FeaturePlan(
        source=opened.shown,
        work=work,
        identity=identity,
        jobs=jobs,
        done=done,
        fingerprints=fingerprints,
        receipts=receipts,
        whole=frozenset(file.shown for file in opened.files) if all_requested else frozenset(),
        files={file.shown: file for file in opened.files},
    )


def requested_partitions(
    source: Source,
    receipts: dict[str, FileReceipt],
    symbols: Sequence[str] | None,
    timeframes: Sequence[str] | None,
) -> Iterator[tuple[SourceFile, list[tuple[Partition | None, int]]]]:
    """Yield each file with its requested partitions and about how many bars these have.

    None stands for the partitions of a file whose names are unknown until it is read.
    Raises BitcornError for an unknown symbol or timeframe.
    """
    if source.database is not None:
        yield source.database, _requested_of_database(source, source.database, receipts, symbols, timeframes)
        return
    all_requested = symbols is None and timeframes is None  # then names can wait until the files are read
    known = {file: _partitions_of(file, source.reading, receipts, look=not all_requested) for file in source.files}
    named = [partition for partitions in known.values() for partition in partitions or ()]
    derived = derived_partitions(named, timeframes)
    for partitions in known.values():
        if partitions is not None:
            stored = set(partitions)
            partitions += [made for made in derived if Partition(made.symbol, str(made.base)) in stored]
    named += derived
    # If every name is known, an unknown one is an error now; else `require_found` decides after reading.
    if all(partitions is not None for partitions in known.values()):
        chosen = set(select_partitions(named, symbols, timeframes))
    else:
        chosen = {partition for partition in named if is_requested(partition, symbols, timeframes)}
    for file, of_file in known.items():
        if of_file is None:
            yield file, [(None, file.bar_count())]
        else:
            yield file, [(partition, file.bar_count()) for partition in of_file if partition in chosen]


def _requested_of_database(
    source: Source,
    database: DatabaseFile,
    receipts: dict[str, FileReceipt],
    symbols: Sequence[str] | None,
    timeframes: Sequence[str] | None,
) -> list[tuple[Partition | None, int]]:
    receipt = receipts.get(database.shown)
    if receipt is not None and receipt.whole:
        sizes = {status.partition: status.rows for status in receipt.partitions if status.base is None}
    else:
        with database.opened(source.reading) as reader:
            sizes = reader.sizes()
    for derived in derived_partitions(sizes, timeframes):
        sizes[derived] = sizes[Partition(derived.symbol, str(derived.base))]  # the bars to read
    return [(partition, sizes[partition]) for partition in select_partitions(sorted(sizes), symbols, timeframes)]


def _partitions_of(
    file: SourceFile, reading: Reading, receipts: dict[str, FileReceipt], look: bool
) -> list[Partition] | None:
    """Return the stored partitions of a file, or None if they are unknown. look: the file's first rows may be read."""
    receipt = receipts.get(file.shown)
    if receipt is not None and receipt.whole:
        return [status.partition for status in receipt.partitions if status.base is None]
    named = file.partition_in_name(reading) if look else None
    return None if named is None else [named]


def requested_of(
    stored: Iterable[Partition], symbols: Sequence[str] | None, timeframes: Sequence[str] | None
) -> list[Partition]:
    """Return the requested partitions of one file, including those that have to be resampled."""
    stored = list(stored)
    candidates = [*stored, *derived_partitions(stored, timeframes)]
    return [partition for partition in candidates if is_requested(partition, symbols, timeframes)]


def require_found(
    jobs: Iterable[FeatureJob],
    found: Iterable[Partition],
    symbols: Sequence[str] | None,
    timeframes: Sequence[str] | None,
) -> None:
    """Raise BitcornError if files whose names were unknown until they were read lack a requested partition."""
    if any(job.partition is None for job in jobs):
        select_partitions(sorted(set(found)), symbols, timeframes)
