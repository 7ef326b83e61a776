"""Jobs: which partitions of a source are asked for, as far as that is known before its files are read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.features.receipts import FileReceipt
from bitcorn_ray.market.partition import Partition, normalise_symbol, select_partitions
from bitcorn_ray.market.resample import derived_partitions
from bitcorn_ray.market.timeframe import same_timeframe
from bitcorn_ray.sources.database import opened_bars
from bitcorn_ray.sources.lake import names_in_path
from bitcorn_ray.sources.options import Reading
from bitcorn_ray.sources.source import SourceFile, is_database, partition_named
from bitcorn_ray.storage.location import Location

__all__ = ["FeatureJob", "asked_of", "asked_partitions", "is_asked", "require_found"]


@dataclass(frozen=True, kw_only=True)
class FeatureJob:
    """A partition of a file to compute; None stands for all that are asked for.

    path: absolute, or a URI with its secrets. size: by which to balance.
    """

    path: str
    partition: Partition | None
    size: int

    def label(self) -> Partition:
        """The partition as far as it is known before the file is read: by the file's name, or that name itself."""
        if self.partition is not None:
            return self.partition
        try:
            symbol, timeframe = names_in_path(Location.of(self.path))
        except BitcornError:
            symbol, timeframe = None, None
        return Partition(symbol or Location.of(self.path).name, timeframe or "")


def asked_partitions(
    files: list[SourceFile],
    receipts: dict[str, FileReceipt],
    symbols: Sequence[str] | None,
    timeframes: Sequence[str] | None,
    reading: Reading | None = None,
) -> Iterator[tuple[SourceFile, list[tuple[Partition | None, int]]]]:
    """Yield each file with the partitions of it that are asked for, and their sizes.

    None stands for the partitions of a file whose names are not known before it is read.
    Raises BitcornError for an unknown symbol or timeframe.
    """
    if len(files) == 1 and is_database(files[0].place):
        file = files[0]
        receipt = receipts.get(file.place.shown)
        if receipt is not None and receipt.whole:
            sizes = {each.partition: each.rows for each in receipt.partitions if each.base is None}
        else:
            with opened_bars(file.path, reading=reading) as reader:
                sizes = reader.sizes()
        for made in derived_partitions(sizes, timeframes):
            sizes[made] = sizes[Partition(made.symbol, str(made.base))]  # what is to be read
        chosen = select_partitions(sorted(sizes), symbols, timeframes)
        yield file, [(partition, sizes[partition]) for partition in chosen]
        return
    all_asked = symbols is None and timeframes is None  # the names can then wait until the files are read
    known = {file.place: _partitions_of(file, receipts, reading, to_look=not all_asked) for file in files}
    named = [partition for partitions in known.values() for partition in partitions or ()]
    derived = derived_partitions(named, timeframes)
    for of_file in known.values():
        if of_file is not None:
            here = set(of_file)
            of_file += [each for each in derived if Partition(each.symbol, str(each.base)) in here]
    named += derived
    # Where every name is known, an unknown one is told now; else when the files have been read.
    if all(partitions is not None for partitions in known.values()):
        chosen_set = set(select_partitions(named, symbols, timeframes))
    else:
        chosen_set = {p for p in named if is_asked(p, symbols, timeframes)}
    for file in files:
        partitions = known[file.place]
        if partitions is None:
            yield file, [(None, file.size)]
        else:
            yield file, [(partition, file.size) for partition in partitions if partition in chosen_set]


def _partitions_of(
    file: SourceFile, receipts: dict[str, FileReceipt], reading: Reading | None, to_look: bool
) -> list[Partition] | None:
    receipt = receipts.get(file.place.shown)
    if receipt is not None and receipt.whole:
        return [each.partition for each in receipt.partitions if each.base is None]
    named = partition_named(file.place, reading) if to_look else None
    return None if named is None else [named]


def is_asked(partition: Partition, symbols: Sequence[str] | None, timeframes: Sequence[str] | None) -> bool:
    """Tell whether a partition is among those that are asked for."""
    symbol = normalise_symbol(partition.symbol)
    return (symbols is None or symbol in map(normalise_symbol, symbols)) and (
        timeframes is None or any(same_timeframe(partition.timeframe, asked) for asked in timeframes)
    )


def asked_of(
    stored: Iterable[Partition], symbols: Sequence[str] | None, timeframes: Sequence[str] | None
) -> list[Partition]:
    """Return the partitions of one file that are asked for, those that have to be put together included."""
    stored = list(stored)
    every = [*stored, *derived_partitions(stored, timeframes)]
    return [partition for partition in every if is_asked(partition, symbols, timeframes)]


def require_found(
    jobs: Iterable[FeatureJob],
    found: Iterable[Partition],
    symbols: Sequence[str] | None,
    timeframes: Sequence[str] | None,
) -> None:
    """Raise BitcornError where files that had to be read to be known do not hold what was asked for."""
    if any(job.partition is None for job in jobs):
        select_partitions(sorted(set(found)), symbols, timeframes)
