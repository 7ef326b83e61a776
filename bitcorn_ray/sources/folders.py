"""Folders and URIs of files of bars: which files there are, which belong together, and what their names say.

`BTCUSDT_1h.parquet` names its partition; so do the folders of `symbol=BTC%2FUSDT/timeframe=1h/part-0.parquet`, as hive,
Spark and Arrow write them. All files below one such folder are one partition. Other folders are not entered.
"""

from __future__ import annotations

from urllib.parse import unquote

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.market.partition import Partition, normalise_symbol, partition_of_file
from bitcorn_ray.sources.formats.formats import FILE_ENDINGS
from bitcorn_ray.storage.location import Location

_KEYS = ("symbol", "timeframe")


def files_in_folder(root: Location) -> list[Location]:
    """Return what can be read on its own below a folder, sorted: files, and hive folders of several files.

    Raises BitcornError if there is nothing, and if several names say one partition.
    """
    units: dict[str, list[tuple[str, Location]]] = {}
    for file in bar_files(root):
        name = file.relative_to(root)
        if all("=" in folder for folder in name.split("/")[:-1]):
            units.setdefault(_unit(name), []).append((name, file))
    if not units:
        raise BitcornError(f"{root} holds no file of bars: give a folder with .parquet, .feather, .csv or .json files")
    found = [
        files[0][1] if len(files) == 1 else root.child(unit, size=sum(file.size or 0 for _, file in files))
        for unit, files in sorted(units.items())
    ]
    _require_unique(root, found)
    return found


def bar_files(folder: Location) -> list[Location]:
    """Return the files of bars in a folder and in the hive folders below it, sorted."""
    return [file for file in folder.files(lambda name: "=" in name) if is_bar_file(file.name)]


def is_bar_file(name: str) -> bool:
    """Return True if a file is named like a file of bars."""
    return name.lower().endswith(FILE_ENDINGS) and not name.startswith((".", "_"))


def hive_partition(location: Location) -> Partition | None:
    """Return the partition that the folders of a location name.

    >>> hive_partition(Location("/bars/symbol=BTC%2FUSDT/timeframe=1h/bars.parquet"))
    Partition(symbol='BTC/USDT', timeframe='1h')
    """
    keys = _hive_keys(location)
    return Partition(keys["symbol"], keys["timeframe"]) if len(keys) == len(_KEYS) else None


def names_in_path(location: Location) -> tuple[str | None, str | None]:
    """Return the symbol and timeframe that the folders of a location, or its name, say; None for each unknown one.

    Raises BitcornError for a month in the name.
    """
    if hive := hive_partition(location):
        return hive.symbol, hive.timeframe
    keys = _hive_keys(location)
    symbol, timeframe = partition_of_file(location.name)
    return symbol or keys.get("symbol"), timeframe or keys.get("timeframe")


def _unit(name: str) -> str:
    """Return the hive folder of a file's partition, else the file's own name."""
    folders = name.split("/")[:-1]
    known = [index for index, folder in enumerate(folders) if folder.partition("=")[0].lower() in _KEYS]
    return "/".join(folders[: known[-1] + 1]) if len(known) == len(_KEYS) else name


def _hive_keys(location: Location) -> dict[str, str]:
    # A URI escapes once more what the folder's name escapes.
    address = unquote(location.shown) if location.is_remote else location.address
    parts = (folder.partition("=") for folder in address.split("/") if "=" in folder)
    return {key.lower(): unquote(value) for key, _, value in parts if key.lower() in _KEYS and value}


def _require_unique(root: Location, units: list[Location]) -> None:
    seen: dict[tuple[str, str], Location] = {}
    for unit in units:
        try:
            symbol, timeframe = names_in_path(unit)
        except BitcornError:  # a month: reading the file reports it
            continue
        if symbol is None or timeframe is None:
            continue
        other = seen.setdefault((normalise_symbol(symbol), timeframe), unit)
        if other is not unit:
            raise BitcornError(
                f"{root} holds {symbol} {timeframe} in {other.name} and in {unit.name}: keep one of them, or put "
                "both into a database with `bitcorn ingest`"
            )
