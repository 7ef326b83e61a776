"""Names that columns of bars may have: the one place to add a new name.

1. Databases and files use the same functions, so that a name that works in one works in the other.
2. Columns are matched by name, never by position, without case and separators: `Open Time`, `open_time` and `openTime`
   are one name.
3. The spellings of a column form groups in order of preference. The first group that occurs decides; if two columns of
   it occur, the user must choose. Base volume is preferred to volume. Quote volume is never taken for it.
4. Where several columns could be one of ours, a sample of their values decides before the names: times lie on a grid, a
   date and a time of day are the time together, volumes are not all zero, quote volume is volume times price, and a
   bare number in a column called `name` is no symbol. A mapping of the user decides before all.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.market.bars import BAR_COLUMNS, PRICE_COLUMNS, modal_step
from bitcorn_ray.market.names import MONEY, QUOTES
from bitcorn_ray.market.timeframe import UNIT_MS
from bitcorn_ray.sources.numbers import parse_numbers
from bitcorn_ray.sources.times import read_times

Sample = Callable[[Sequence[str]], Mapping[str, pa.Array]]
_UNITS = ("", "ms", "us", "ns", "s", "sec", "seconds", "utc", "unix")


def _times(*names: str) -> tuple[str, ...]:
    return tuple(f"{name}{unit}" for name in names for unit in _UNITS)


# Short names of the prices.
_MOST, _NEAR_PRICE = 0.9, np.log(1.2)  # a volume of money is another volume times a price within the bar
_TIME_OF_DAY = re.compile(r"[0-9]{1,2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]+)?)?|[0-9]{1,6}")
_PRICE_WORDS = {"open": ("o",), "high": ("h",), "low": ("l",), "close": ("c",)}
# Spellings are in lower case, without separators.
_GROUPS: dict[str, tuple[tuple[str, ...], ...]] = {
    # The start of a bar is surer than any other time. Of the others, names of numbers come before those of text:
    # in a table with `ts` or `unix` and `timestamp` or `date`, the first is the number.
    "timestamp": (
        _times(
            *("opentime", "opentimestamp", "opents", "starttime", "starttimestamp", "startts", "start", "begintime"),
            *(
                "begin",
                "candlestart",
                "candlestarttime",
                "candleopentime",
                "candlebegintime",
                "barstart",
                "periodstart",
            ),
            *(
                "klinestarttime",
                "klineopentime",
                "timeopen",
                "timeperiodstart",
                "openedat",
                "startat",
                "beginsat",
                "bucket",
            ),
        ),
        _times("ts", "mts"),
        (*_times("timestamp", "epoch", "epochtime", "unixtime", "unixtimestamp"), "unix"),
        _times("datetime", "dt", "time", "candletime", "bartime", "klinetime"),
        _times("date", "day", "tradedate", "gmttime", "localtime", "utctime"),
        ("t",),
    ),
    **{
        name: ((name, *words, f"{name}price", f"{name}p", f"price{name}", f"{name}px"),)
        for name, words in _PRICE_WORDS.items()
    },
    "volume": (
        ("basevolume", "volumebase", "volbase", "basevol", "baseassetvolume", "volumefrom"),
        ("volume", "vol", "v", "volumetraded", "realvolume"),
        ("tickvolume", "tickvol"),
    ),
    "symbol": (
        ("symbol",),
        ("ticker", "pair", "coin", "instid", "instrumentid", "instrument", "tradingpair", "currencypair", "productid"),
        ("vtsymbol", "tradingsymbol", "symbolname", "sym", "asset", "market", "code", "tscode", "stockcode"),
        ("symbolid", "name", "stock", "security", "contract"),
    ),
    "exchange": (("exchange", "venue"),),
    "timeframe": (
        ("timeframe", "tf"),
        (
            "interval",
            "granularity",
            "resolution",
            "klineinterval",
            "barsize",
            "candlesize",
            "timespan",
            "timeperiod",
            "freq",
            "frequency",
        ),
        ("period",),
        ("bar",),
    ),
}
# Further numbers that a source may have, by the name to request them by.
_EXTRA: dict[str, tuple[str, ...]] = {
    "quote_volume": (
        *("quotevolume", "quoteassetvolume", "volumequote", "quotevol", "volquote", "volccyquote", "qav"),
        *("turnover", "volumeto"),
    ),
    "trades": ("trades", "numberoftrades", "tradecount", "numtrades", "tradescount", "nooftrades", "count", "n"),
    "taker_buy_volume": ("takerbuyvolume", "takerbuybasevolume", "takerbuybaseassetvolume", "takerbasevolume", "tbbav"),
    "taker_buy_quote_volume": ("takerbuyquotevolume", "takerbuyquoteassetvolume", "takerquotevolume", "tbqav"),
    "funding_rate": ("fundingrate", "funding", "lastfundingrate"),
    "open_interest": ("openinterest", "oi", "sumopeninterest"),
}
_ITEMS = re.compile(r",(?=\s*(?:ts|time|" + "|".join(_GROUPS) + r")\s*=)", re.IGNORECASE)
_OF_ASSET = re.compile(r"(?:volume|vol)([a-z0-9]{2,8})")
_INDEX = ("index", "indexlevel0", "unnamed0")  # of a frame: its times, or numbers of rows
_DAYS, _TIMES_OF_DAY = ("date", "day", "tradedate", "dtyyyymmdd"), ("time", "timeofday", "hour")
_LIKE_VOLUME = re.compile(r"vol|turnover|amount|notional")
_NO_VOLUME = "none"
TOGETHER = "+"
"""Between the names of two columns that are a time together."""
_NO_ASSETS = {
    "quote",
    "currency",
    "ma",
    "sma",
    "ema",
    "avg",
    "mean",
    "std",
    "ratio",
    "change",
    "delta",
    "to",
    "ccyquote",
    "ccy",
}


def match_columns(
    names: Sequence[str], mapping: Mapping[str, str] | None = None, sample: Sample | None = None
) -> tuple[dict[str, str], list[str]]:
    """Find the columns of bars among `names`.

    mapping: our names to the stored ones, as the user gives them; they decide. A time may be two columns, as in
    Date+Time, and `volume` may be none. sample: a function that returns the first rows of some columns, as stored.
    Returns (our names to the stored ones, with `symbol` and `timeframe` only if present, the missing bar columns).
    Raises BitcornError for a mapping to a column that does not exist, and if two columns could be one of ours.

    >>> match_columns(["TS", "Open", "high", "low", "close", "quote volume"])[1]
    ['volume']
    """
    found = _mapped(names, mapping or {})
    used = [part for stored in found.values() for part in (stored, *stored.split(TOGETHER))]
    stored: dict[str, list[str]] = {}
    for name in dict.fromkeys(name for name in names if name not in used):
        stored.setdefault(_plain(name), []).append(name)
    groups_of = {
        ours: [[column for name in group for column in stored.get(name, ())] for group in groups]
        for ours, groups in _GROUPS.items()
        if ours not in found
    }
    no_volume = (mapping or {}).get("volume") == _NO_VOLUME and "volume" not in found
    if no_volume:
        del groups_of["volume"]
    if not any(groups_of.get("volume", [[""]])):
        of_assets = _volumes_of_assets(stored)
        names_decide = sample is None or len([asset for asset in of_assets if asset not in MONEY]) == 1
        groups_of["volume"] = [_base_volumes(of_assets) if names_decide else list(chain(*of_assets.values()))]
    if sample is not None:
        groups_of = _agreeing(groups_of, stored, found, sample)
    for ours, groups in groups_of.items():
        if candidates := next((group for group in groups if group), None):
            found[ours] = _only(ours, candidates)
    ordered = {ours: found[ours] for ours in _GROUPS if ours in found}
    return ordered, [name for name in BAR_COLUMNS if name not in found and not (no_volume and name == "volume")]


def _agreeing(
    groups_of: dict[str, list[list[str]]], stored: Mapping[str, list[str]], found: Mapping[str, str], sample: Sample
) -> dict[str, list[list[str]]]:
    """Return the candidates whose values agree with their meaning, where there are several."""
    if "timestamp" in groups_of:
        groups_of["timestamp"] = _agreeing_times(groups_of["timestamp"], stored, sample)
    volumes = [name for group in groups_of.get("volume", []) for name in group]
    if len(volumes) > 1:
        close = found.get("close") or next((name for group in groups_of["close"] for name in group), None)
        groups_of["volume"] = _agreeing_volumes(groups_of["volume"], close, sample)
    of_assets = _volumes_of_assets(stored)
    if volumes and set(volumes) <= set(chain(*of_assets.values())):
        left = [name for group in groups_of.get("volume", []) for name in group]
        groups_of["volume"] = [[name for name in _base_volumes(of_assets) if name in left] or left]
    by_name = {name for group in _GROUPS["volume"] for plain in group for name in stored.get(plain, ())}
    if "volume" in groups_of and by_name:  # else the names of assets decide
        close = found.get("close") or next((name for group in groups_of["close"] for name in group), None)
        groups_of["volume"] = _base_instead(groups_of["volume"], stored, close, sample)
    if "symbol" in groups_of and not any(groups_of["symbol"][:-1]):
        # Of these names a bare number is another kind of identity.
        groups_of["symbol"][-1] = [name for name in groups_of["symbol"][-1] if not _are_numbers(sample([name])[name])]
    return groups_of


def _base_instead(
    groups: list[list[str]], stored: Mapping[str, list[str]], close: str | None, sample: Sample
) -> list[list[str]]:
    """Return the groups, or the further column of which the only volume is that times the price."""
    names = list(chain(*groups))
    further = [
        name
        for plain, names_of in stored.items()
        if _LIKE_VOLUME.search(plain) and "taker" not in plain
        for name in names_of
        if name not in names
    ]
    if len(names) != 1 or close is None or not further:
        return groups
    numbers = {name: parse_numbers(column)[0] for name, column in sample([*names, *further, close]).items()}
    bases = [name for name in further if _is_of_money(numbers[names[0]], numbers[name], numbers[close])]
    return [bases] if len(bases) == 1 else groups


def _are_numbers(values: pa.Array) -> bool:
    return len(values) > 0 and not parse_numbers(values)[1].any()


def _agreeing_times(groups: list[list[str]], stored: Mapping[str, list[str]], sample: Sample) -> list[list[str]]:
    first = next((group for group in groups if group), [])
    if not first:
        index = [column for name in _INDEX for column in stored.get(name, ())]
        return [[name for name in index if _are_times(sample([name])[name])]]
    days = [column for name in _DAYS for column in stored.get(name, ())]
    if days and any(name in first for plain in _TIMES_OF_DAY for name in stored.get(plain, ())) and days != first:
        values = sample([days[0], first[0]])
        if _are_days(values[days[0]]) and _are_times_of_day(values[first[0]]):
            return [[f"{days[0]}{TOGETHER}{first[0]}"]]
    if len(list(chain(*groups))) == 1:
        return groups
    values = sample(list(chain(*groups)))
    on_grid = [name for name in first if _is_on_grid(values[name])]
    if on_grid or not _are_times(values[first[0]]):
        return [on_grid if len(on_grid) == 1 else first]
    # Times off every grid are those of trades: a less usual name may be that of the bar's start.
    others = [left for group in groups if (left := [name for name in group if _is_on_grid(values[name])])]
    return others or [first]


def _agreeing_volumes(groups: list[list[str]], close: str | None, sample: Sample) -> list[list[str]]:
    names = [name for group in groups for name in group]
    values = sample([*names, *([close] if close else [])])
    numbers = {name: parse_numbers(column)[0] for name, column in values.items()}
    if any(_has_volume(numbers[name]) for name in names):
        groups = [[name for name in group if _has_volume(numbers[name])] for group in groups]
    of_money = {
        name
        for name in names
        for other in names
        if close is not None and other != name and _is_of_money(numbers[name], numbers[other], numbers[close])
    }
    return [[name for name in group if name not in of_money] for group in groups]


def _has_volume(numbers: NDArray[np.float64]) -> bool:
    return bool((np.nan_to_num(numbers) != 0).any())


def _is_of_money(volume: NDArray[np.float64], other: NDArray[np.float64], close: NDArray[np.float64]) -> bool:
    """Return True if a volume is another one times the price."""
    traded = (volume > 0) & (other > 0) & (close > 0)
    if not traded.any() or np.abs(np.log(np.median(close[traded]))) < _NEAR_PRICE:  # at 1 both volumes are equal
        return False
    near = np.abs(np.log(volume[traded] / other[traded] / close[traded])) < _NEAR_PRICE
    return bool(near.mean() > _MOST)


def _are_times(values: pa.Array) -> bool:
    return len(values) > 0 and not read_times(values)[1].any()


def _is_on_grid(values: pa.Array) -> bool:
    """Return True if times have distances that are multiples of the most frequent one, in whole minutes."""
    parsed, bad = read_times(values)
    if bad.any():
        return False
    times = np.sort(parsed.ms)
    step = modal_step(times)
    return step >= UNIT_MS["m"] and not ((times - times[0]) % step).any() and times[0] % UNIT_MS["m"] == 0


def _are_days(values: pa.Array) -> bool:
    """Return True if all values are days, each of several rows."""
    parsed, bad = read_times(values)
    return len(values) > 0 and not bad.any() and bool((parsed.ms % UNIT_MS["d"] == 0).all())


def _are_times_of_day(values: pa.Array) -> bool:
    texts = [str(value) for value in values.to_pylist()]
    return bool(texts) and all(_TIME_OF_DAY.fullmatch(text.strip()) for text in texts)


def match_extra(names: Sequence[str], asked: Iterable[str], found: Mapping[str, str]) -> dict[str, str]:
    """Find further columns, by their stored name or by one of ours (`quote_volume`, `trades`, `taker_buy_volume`, ...).

    asked: the requested names. found: the columns of bars, from `match_columns`.
    Returns requested names to stored ones. Raises BitcornError for a column that does not exist, and for a bar's own
    column.
    """
    left = [name for name in names if name not in found.values()]
    plain = {_plain(name): name for name in reversed(left)}
    extra = {}
    for name in asked:
        if name in (*BAR_COLUMNS, "symbol", "timeframe"):
            raise BitcornError(f"{name} is a column of every bar: name further columns only")
        spellings = (_plain(name), *_EXTRA.get(name, ()))
        stored = name if name in left else next((plain[spelling] for spelling in spellings if spelling in plain), None)
        if stored is None:
            raise BitcornError(f"there is no further column {name!r}: there is {', '.join(left) or 'none'}")
        extra[name] = stored
    return extra


def has_prices(names: Sequence[str]) -> bool:
    """Return True if columns of these names hold bars, but perhaps their times or volumes."""
    try:
        return not {*PRICE_COLUMNS} & {*match_columns(names)[1]}
    except BitcornError:  # two columns could be one of ours
        return True


def parse_mapping(texts: Iterable[str]) -> dict[str, str]:
    """Parse mappings as users write them: our name = the stored name, separated by commas.

    A stored name may contain commas that no NAME= follows.

    >>> parse_mapping(["open=o,high=h", "ts=time"])
    {'open': 'o', 'high': 'h', 'timestamp': 'time'}

    Raises BitcornError for anything else, and for an unknown name on the left.
    """
    mapping: dict[str, str] = {}
    for item in (item for text in texts for item in _ITEMS.split(text)):
        ours, sign, stored = (part.strip() for part in item.partition("="))
        ours = {"ts": "timestamp", "time": "timestamp"}.get(ours.lower(), ours.lower())
        if not (sign and stored) or ours not in _GROUPS:
            raise BitcornError(f"mapping {item!r} is not NAME=COLUMN with a NAME of {', '.join(_GROUPS)}")
        if mapping.get(ours, stored) != stored:
            raise BitcornError(f"mapping says {ours} twice: {mapping[ours]} and {stored}")
        mapping[ours] = stored
    return mapping


def is_number(kind: pa.DataType) -> bool:
    """Return True if an Arrow column holds numbers, or only nulls."""
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_null(kind))


def _mapped(names: Sequence[str], mapping: Mapping[str, str]) -> dict[str, str]:
    found = {}
    for ours, stored in mapping.items():
        if ours == "volume" and stored == _NO_VOLUME and stored not in names:
            continue
        single = _stored_name(names, stored)
        parts = [single] if single else [_stored_name(names, part) for part in stored.split(TOGETHER)]
        known = [part for part in parts if part]
        if len(known) < len(parts) or len(known) > (2 if ours == "timestamp" else 1):
            numbered = ", ".join(f"#{index} {name}" for index, name in enumerate(names))
            raise BitcornError(f"--map {ours}={stored}: there is no such column, but {numbered}")
        found[ours] = TOGETHER.join(known)
    return found


def _stored_name(names: Sequence[str], asked: str) -> str | None:
    """Return the column of a name in any spelling, or of a place such as #0."""
    if asked in names:
        return asked
    if re.fullmatch(r"#[0-9]+", asked) and int(asked[1:]) < len(names):
        return names[int(asked[1:])]
    alike = [name for name in names if _plain(name) == _plain(asked)]
    return alike[0] if len(alike) == 1 else None


def _only(ours: str, candidates: list[str]) -> str:
    """Return the only candidate, or the only time whose name says its unit."""
    if ours == "timestamp" and len(candidates) > 1:
        with_unit = [name for name in candidates if re.search(r"(?i)(ms|us|ns|unix)$", name)]
        candidates = with_unit if len(with_unit) == 1 else candidates
    if len(candidates) > 1:
        choices = " or ".join(f"{ours}={name}" for name in candidates)
        raise BitcornError(f"columns {', '.join(candidates)} could each be the {ours}: choose one by --map {choices}")
    return candidates[0]


def _volumes_of_assets(stored: Mapping[str, list[str]]) -> dict[str, list[str]]:
    """Return the columns of volumes named by their currency, such as `Volume BTC` and `Volume USDT`, by currency."""
    assets = {match[1].upper(): names for plain, names in stored.items() if (match := _OF_ASSET.fullmatch(plain))}
    return {asset: names for asset, names in assets.items() if asset.lower() not in _NO_ASSETS}


def _base_volumes(of_assets: Mapping[str, list[str]]) -> list[str]:
    """Return the volumes in the base currency, as far as the names tell."""
    bases = [name for asset, names in of_assets.items() if asset not in QUOTES for name in names]
    others = [asset for asset in of_assets if asset in QUOTES and asset not in MONEY]
    # Of several quote coins the last one is the base.
    return bases or (of_assets[max(others, key=QUOTES.index)] if others else [])


def _plain(name: str) -> str:
    numbered = re.sub(r"^[0-9]+\. ", "", name)  # Alpha Vantage: "1. open"
    return re.sub(r"[\W_]+", "", numbered).lower()
