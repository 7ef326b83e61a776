"""Folders and URIs of files of bars: which files there are, which belong together, and what their names say.

`BTCUSDT_1h.parquet` says its partition by its name; `symbol=BTC%2FUSDT/timeframe=1h/part-0.parquet` by its folders, as
hive, Spark and Arrow write them. All files below one such folder are one partition. Other folders are not entered.
"""

from __future__ import annotations

from urllib.parse import unquote

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.market.partition import Partition, normalise_symbol, partition_of_file
from bitcorn_ray.sources.formats.formats import FILE_ENDINGS
from bitcorn_ray.storage.location import Location

_KEYS = ("symbol", "timeframe")


def lake_units(root: Location) -> list[Location]:
    """Return what can be read on its own below a folder, sorted: files, and hive folders of several files.

    Raises BitcornError where there is none, and where the names of several say one partition.
    """
    units: dict[str, list[tuple[str, Location]]] = {}
    for file in root.files(lambda folder: "=" in folder):
        name = file.relative_to(root)
        if not is_bar_file(file.name) or not all("=" in folder for folder in name.split("/")[:-1]):
            continue
        units.setdefault(_unit(name), []).append((name, file))
    if not units:
        raise BitcornError(f"{root} holds no file of bars: give a folder with .parquet, .feather, .csv or .json files")
    found = [
        files[0][1] if len(files) == 1 else root.child(unit, size=sum(file.size or 0 for _, file in files))
        for unit, files in sorted(units.items())
    ]
    _require_single(root, found)
    return found


def is_bar_file(name: str) -> bool:
    """Tell by its name whether a file is one of bars."""
    return name.lower().endswith(FILE_ENDINGS) and not name.startswith((".", "_"))


def hive_partition(place: Location) -> Partition | None:
    """Partition that the folders of a place say.

    >>> hive_partition(Location("/bars/symbol=BTC%2FUSDT/timeframe=1h/bars.parquet"))
    Partition(symbol='BTC/USDT', timeframe='1h')
    """
    keys = _hive_keys(place)
    return Partition(keys["symbol"], keys["timeframe"]) if len(keys) == len(_KEYS) else None


def names_in_path(place: Location) -> tuple[str | None, str | None]:
    """Symbol and timeframe that the folders of a place, or its name, say; None where they say none.

    Raises BitcornError for a month in the name.
    """
    if hive := hive_partition(place):
        return hive.symbol, hive.timeframe
    keys = _hive_keys(place)
    symbol, timeframe = partition_of_file(place.name)
    return symbol or keys.get("symbol"), timeframe or keys.get("timeframe")


def _unit(name: str) -> str:
    """Return the hive folder of a partition that a file is in, else the file's own name."""
    folders = name.split("/")[:-1]
    known = [place for place, folder in enumerate(folders) if folder.partition("=")[0].lower() in _KEYS]
    return "/".join(folders[: known[-1] + 1]) if len(known) == len(_KEYS) else name


def _hive_keys(place: Location) -> dict[str, str]:
    # A URI escapes once more what the folder's name escapes.
    address = unquote(place.shown) if place.is_remote else place.address
    parts = (folder.partition("=") for folder in address.split("/") if "=" in folder)
    return {key.lower(): unquote(value) for key, _, value in parts if key.lower() in _KEYS and value}


def _require_single(root: Location, units: list[Location]) -> None:
    seen: dict[tuple[str, str], Location] = {}
    for unit in units:
        try:
            symbol, timeframe = names_in_path(unit)
        except BitcornError:  # a month, told when the file is read
            continue
        if symbol is None or timeframe is None:
            continue
        other = seen.setdefault((normalise_symbol(symbol), timeframe), unit)
        if other is not unit:
            raise BitcornError(
                f"{root} holds {symbol} {timeframe} in {other.name} and in {unit.name}: keep one of them, or put "
                "both into a database with `bitcorn ingest`"
            )
