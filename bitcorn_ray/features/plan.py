"""Plan the work on a source's partitions: which are up to date, which become jobs, and how jobs are run.

A source is compared with its receipts. Partitions of unchanged files whose entries are whole are done; the others
become jobs. `compute.compute_jobs` runs the jobs, and `compute.finish_features` writes the new receipts. Audits and
explanations run their jobs by the same `map_partitions`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any, TypeVar

from bitcorn_ray.cache.store import FeatureCache
from bitcorn_ray.errors import BitcornError
from bitcorn_ray.features.identity import SystemIdentity, identify, system_code
from bitcorn_ray.features.receipts import FileReceipt, PartitionStatus, read_receipts
from bitcorn_ray.features.system import FeatureSystem
from bitcorn_ray.fingerprint.code import CodeIdentity, require_same_code
from bitcorn_ray.logging import log_failure, logged, logger_of
from bitcorn_ray.market.partition import Partition, is_requested, select_partitions
from bitcorn_ray.market.resample import derived_partitions
from bitcorn_ray.sources.folders import names_in_path
from bitcorn_ray.sources.loading import LoadedBars, load_partition
from bitcorn_ray.sources.options import SourceOptions
from bitcorn_ray.sources.source import DatabaseFile, Source, SourceFile, open_file, open_source, shown_source

Result = TypeVar("Result")
Timed = TypeVar("Timed", bound=Any)

_log = logger_of(__name__)


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
            symbol, timeframe = names_in_path(SourceFile.at(self.path).location)
        except BitcornError:
            symbol, timeframe = None, None
        return Partition(symbol or SourceFile.at(self.path).location.name, timeframe or "")


@dataclass(frozen=True, kw_only=True)
class FeatureWork:
    """What all jobs share.

    code: of the system, as the driver identified it. symbols, timeframes: the requested ones. cache: its address, if
    the work needs one. source_options: for reading the source.
    """

    system: FeatureSystem
    code: CodeIdentity
    symbols: tuple[str, ...] | None
    timeframes: tuple[str, ...] | None
    cache: str
    source_options: SourceOptions

    @classmethod
    def of(
        cls,
        system: FeatureSystem,
        symbols: Sequence[str] | None = None,
        timeframes: Sequence[str] | None = None,
        source_options: SourceOptions | None = None,
        cache: FeatureCache | None = None,
    ) -> FeatureWork:
        """Return the work on a system's features. Raises BitcornError for code that has no stable identity."""
        return cls(
            system=system,
            code=system_code(system, cache),
            symbols=None if symbols is None else tuple(symbols),
            timeframes=None if timeframes is None else tuple(timeframes),
            cache="" if cache is None else cache.storage.address,
            source_options=(source_options or SourceOptions()).with_columns(system.inputs).with_symbols(symbols),
        )


@dataclass(frozen=True, kw_only=True)
class FeaturePlan:
    """Jobs to run, and statuses of the partitions that are up to date.

    files: of the source, by path. fingerprints: of the files, by path, before any was read. receipts: valid ones, by
    path.
    """

    source: str
    work: FeatureWork
    identity: SystemIdentity
    jobs: list[FeatureJob]
    done: list[PartitionStatus]
    fingerprints: dict[str, str]
    receipts: dict[str, FileReceipt]
    files: dict[str, SourceFile]


def plan_features(
    source: str | Path,
    system: FeatureSystem,
    cache: FeatureCache,
    symbols: Sequence[str] | None = None,
    timeframes: Sequence[str] | None = None,
    source_options: SourceOptions | None = None,
) -> FeaturePlan:
    """Return what is to be computed of a source; reads receipts and names of partitions, no bars.

    symbols, timeframes: only these, in any spelling. source_options: for reading the source.
    Raises BitcornError for a source without bars, an unknown symbol or timeframe, and a system that is refused.
    """
    work = FeatureWork.of(system, symbols, timeframes, source_options, cache)
    opened, identity = open_source(source, work.source_options), identify(system, work.code)
    fingerprints = {file.shown: text for file in opened.files if (text := file.fingerprint())}
    receipts = {
        path: receipt
        for path, receipt in read_receipts(cache, opened.shown, identity, work.source_options).items()
        if fingerprints.get(path) == receipt.fingerprint
    }
    known = {path: receipt.statuses(path) for path, receipt in receipts.items()}
    whole = cache.whole_entries([status.key for statuses in known.values() for status in statuses.values()])
    done, jobs = list[PartitionStatus](), list[FeatureJob]()
    for job in requested_jobs(opened, symbols, timeframes, receipts):
        status = known.get(shown_source(job.path), {}).get(job.partition) if job.partition else None
        if status is not None and status.key in whole:
            done.append(status)
        else:
            jobs.append(job)
    return FeaturePlan(
        source=opened.shown,
        work=work,
        identity=identity,
        jobs=jobs,
        done=done,
        fingerprints=fingerprints,
        receipts=receipts,
        files={file.shown: file for file in opened.files},
    )


def requested_jobs(
    source: Source,
    symbols: Sequence[str] | None,
    timeframes: Sequence[str] | None,
    receipts: dict[str, FileReceipt] | None = None,
) -> list[FeatureJob]:
    """Return the requested partitions of a source as jobs. Raises BitcornError for an unknown symbol or timeframe."""
    return [
        FeatureJob(path=file.address, partition=partition, size=size)
        for file, of_file in requested_partitions(source, receipts or {}, symbols, timeframes)
        for partition, size in of_file
    ]


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
    known = {file: _partitions_of(file, source.options, receipts, look=not all_requested) for file in source.files}
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
        statuses = receipt.statuses(database.shown)
        sizes = {partition: status.rows for partition, status in statuses.items() if partition.base is None}
    else:
        with database.opened(source.options) as reader:
            sizes = reader.sizes()
    for derived in derived_partitions(sizes, timeframes):
        sizes[derived] = sizes[Partition(derived.symbol, str(derived.base))]  # the bars to read
    return [(partition, sizes[partition]) for partition in select_partitions(sorted(sizes), symbols, timeframes)]


def _partitions_of(
    file: SourceFile, source_options: SourceOptions, receipts: dict[str, FileReceipt], look: bool
) -> list[Partition] | None:
    """Return the stored partitions of a file, or None if they are unknown. look: the file's first rows may be read."""
    receipt = receipts.get(file.shown)
    if receipt is not None and receipt.whole:
        return [partition for partition in receipt.statuses(file.shown) if partition.base is None]
    named = file.partition_in_name(source_options) if look else None
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


# Running jobs, in a plain process and in a worker


def map_partitions(
    what: str,
    jobs: Iterable[FeatureJob],
    work: FeatureWork,
    process: Callable[[LoadedBars, str, dict[str, Any]], Result],
    failed: Callable[[Partition, str, Exception], Result],
) -> Iterator[Result]:
    """Yield a result for each requested partition of jobs. Each file is opened once.

    what: name of the work in logs. process: makes the result of loaded bars and their file's path; its third argument
    takes further fields for the log. failed: makes the result of a partition that failed, from its name, its file's
    path and the error. A failure does not stop the other partitions.
    """
    for path, of_file in groupby(sorted(jobs, key=lambda job: job.path), key=lambda job: job.path):
        waiting = list(of_file)
        try:
            require_same_code(work.code)
            with open_file(path, work.source_options) as reader:
                while waiting:
                    named = waiting[0].partition
                    every = requested_of(reader.partitions, work.symbols, work.timeframes) if named is None else [named]
                    for partition in every:
                        try:
                            with logged(_log, what, partition=str(partition), system=work.system.spec) as fields:
                                loaded = load_partition(reader, partition, work.source_options.policy)
                                result = process(loaded, path, fields)
                        except Exception as error:  # one partition must not stop the others
                            result = failed(partition, path, error)
                        yield result
                    waiting.pop(0)
        except Exception as error:  # the file cannot be read
            for job in waiting:
                log_failure(_log, what, error, partition=str(job.label()))
                yield failed(job.label(), path, error)


def timed(results: Iterable[Timed]) -> Iterator[Timed]:
    """Yield results, each with the seconds that it took."""
    started = time.perf_counter()
    for result in results:
        yield replace(result, seconds=time.perf_counter() - started)
        started = time.perf_counter()
