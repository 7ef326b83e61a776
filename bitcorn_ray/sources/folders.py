"""Folders and URIs of files of bars: which files there are, which form a partition, and what their names say.

`BTCUSDT_1h.parquet` names its partition; so do the folders of `symbol=BTC%2FUSDT/timeframe=1h/part-0.parquet`, as hive,
Spark and Arrow write them. Other folders are not entered.

1. All files below a folder `symbol=` form one partition per timeframe, whatever dates (`year=`, `date=`) divide them.
   Another key, such as `exchange=`, tells markets apart: its value is added to the symbol, as in BTCUSDT.binance.
2. Files whose names say the same partition (BTCUSDT_1h_2023.csv and BTCUSDT_1h_2024.csv) form one. If further words of
   their names differ, they may be two markets, and are refused.
3. Parts without a name of their own (`part-0.parquet`, or below `year=` alone) are read together: their columns say the
   partitions.
"""

from __future__ import annotations

import re
from itertools import takewhile
from urllib.parse import unquote

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.market.partition import Partition, normalise_symbol, parse_file_name
from bitcorn_ray.sources.formats.formats import FILE_ENDINGS
from bitcorn_ray.storage.location import Location

_KEYS = ("symbol", "timeframe")
_DATES = {"year", "quarter", "month", "week", "day", "date", "dt", "hour", "ym", "yyyymm", "yyyymmdd"}
_PART = re.compile(r"(?:part|data|chunk)[-_]?[0-9]+.*", re.IGNORECASE)


def files_in_folder(root: Location) -> list[list[Location]]:
    """Return what can be read on its own below a folder, sorted: files of one partition, or the folder of such files.

    Raises BitcornError if there is nothing, and if names say that two markets are one partition.
    """
    units: dict[tuple[str, ...], list[Location]] = {}
    for file in bar_files(root):
        name = file.relative_to(root)
        if all("=" in folder for folder in name.split("/")[:-1]):
            units.setdefault(_unit(name, file), []).append(file)
    if not units:
        raise BitcornError(f"{root} holds no file of bars: give a folder with files of {', '.join(FILE_ENDINGS)}")
    found = [_files_of(root, unit, files) for unit, files in units.items()]
    _require_unique(root, found)
    return sorted(found, key=lambda files: files[0].address)


def bar_files(folder: Location) -> list[Location]:
    """Return the files of bars in a folder and in the hive folders below it, sorted."""
    return [file for file in folder.files(lambda name: "=" in name) if is_bar_file(file.name)]


def files_at(location: Location) -> list[Location]:
    """Return the file at a location, or the files of bars in the folder there, with their sizes."""
    single = location.info()
    return [single] if single else bar_files(location)


def is_bar_file(name: str) -> bool:
    """Return True if a file is named like a file of bars."""
    return name.lower().endswith(FILE_ENDINGS) and not name.startswith((".", "_"))


def hive_partition(location: Location) -> Partition | None:
    """Return the partition that the folders of a location name.

    >>> hive_partition(Location("/bars/exchange=okx/symbol=BTC%2FUSDT/timeframe=1h/bars.parquet"))
    Partition(symbol='BTC/USDT.okx', timeframe='1h')
    """
    keys = _hive_keys(location)
    return Partition(_symbol(keys), keys["timeframe"]) if all(key in keys for key in _KEYS) else None


def names_in_path(location: Location) -> tuple[str | None, str | None]:
    """Return the symbol and timeframe that the folders of a location, or its name, say; None for each unknown one.

    Raises BitcornError for a month in the name, and for an option.
    """
    if hive := hive_partition(location):
        return hive.symbol, hive.timeframe
    keys = _hive_keys(location)
    symbol, timeframe, _ = _named(location)
    if symbol or "symbol" in keys:
        symbol = _symbol({**keys, **({"symbol": symbol} if symbol else {})})
    return symbol, timeframe or keys.get("timeframe")


def _unit(name: str, file: Location) -> tuple[str, ...]:
    """Return what is equal for the files that are read together."""
    folders = name.split("/")[:-1]
    keys = [folder.partition("=")[0].lower() for folder in folders]
    telling = [index for index, key in enumerate(keys) if key not in _DATES]
    prefix = "/".join(folders[: telling[-1] + 1]) if telling else ""
    if "symbol" in keys:
        return "folder", prefix
    try:
        symbol, timeframe = names_in_path(file)
    except BitcornError:  # a month: reading the file reports it
        return "file", name
    if symbol:
        return "name", prefix, normalise_symbol(symbol), timeframe or ""
    if len(telling) < len(keys) or _PART.fullmatch(file.name):
        return "parts", prefix
    return "file", name


def _files_of(root: Location, unit: tuple[str, ...], files: list[Location]) -> list[Location]:
    if len(files) == 1 or unit[0] != "folder":
        return files
    return [root.child(unit[1], size=sum(file.size or 0 for file in files))]


def _named(location: Location) -> tuple[str | None, str | None, tuple[str, ...]]:
    """Return the symbol, the timeframe and the further words of a file's name."""
    if _PART.fullmatch(location.name) or "=" in location.name.partition(".")[0].partition("_")[0]:
        return None, None, ()  # the name of a part, whose letters are random, or of a hive folder
    parsed = parse_file_name(location.name)
    return None if parsed.uncertain else parsed.symbol, parsed.timeframe, parsed.labels


def _symbol(keys: dict[str, str]) -> str:
    further = [value for key, value in keys.items() if key not in _KEYS]
    return ".".join([keys["symbol"], *further])


def _hive_keys(location: Location) -> dict[str, str]:
    """Return the values of the keys in the innermost folders of a location that are no dates, in their order."""
    # A URI escapes once more what the folder's name escapes.
    address = unquote(location.shown) if location.is_remote else location.address
    folders = address.rstrip("/").split("/")
    if "=" not in folders[-1]:
        folders.pop()
    innermost = list(takewhile(lambda folder: "=" in folder, reversed(folders)))
    parts = (folder.partition("=") for folder in reversed(innermost))
    return {key.lower(): unquote(value) for key, _, value in parts if key.lower() not in _DATES and value}


def _require_unique(root: Location, units: list[list[Location]]) -> None:
    """Raise BitcornError if names that differ in more than dates and numbers say one partition."""
    seen: dict[tuple[str, str], tuple[Location, list[Location], str, tuple[str, ...]]] = {}
    for unit in units:
        for file in unit:
            try:
                symbol, timeframe = names_in_path(file)
                labels = _named(file)[2]
            except BitcornError:  # a month: reading the file reports it
                continue
            if symbol is None or timeframe is None:
                continue
            other, its_unit, its_symbol, its_labels = seen.setdefault(
                (normalise_symbol(symbol), timeframe), (file, unit, symbol, labels)
            )
            if its_unit is unit and its_symbol == symbol and its_labels == labels:
                continue
            differing = " and ".join(repr(word) for word in sorted({*labels} ^ {*its_labels})) or "their spelling"
            places = f"{other.relative_to(root)} and in {file.relative_to(root)}"
            raise BitcornError(
                f"{root} holds {symbol} {timeframe} in {places}; these may be two markets, as their names differ by "
                f"{differing}: keep one of them, or name the folders of each market exchange=NAME"
            )
