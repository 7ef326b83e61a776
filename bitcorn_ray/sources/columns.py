"""Names that columns of bars may have: the one place to add a new name.

1. Databases and files use the same functions, so that a name that works in one works in the other.
2. Columns are matched by name, never by position, without case and separators: `Open Time`, `open_time` and `openTime`
   are one name.
3. The spellings of a column form groups in order of preference. The first group that occurs decides; if two columns of
   it occur, the user must choose. Base volume is preferred to volume. Quote volume is never taken for it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

import pyarrow as pa

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.market.bars import BAR_COLUMNS, PRICE_COLUMNS
from bitcorn_ray.market.names import MONEY, QUOTES

_UNITS = ("", "ms", "us", "ns", "s", "sec", "seconds", "utc", "unix")


def _times(*names: str) -> tuple[str, ...]:
    return tuple(f"{name}{unit}" for name in names for unit in _UNITS)


# Short names of the prices.
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
        ("index", "indexlevel0", "unnamed0"),
    ),
    **{
        name: ((name, *words, f"{name}price", f"{name}p", f"price{name}", f"{name}px"),)
        for name, words in _PRICE_WORDS.items()
    },
    "volume": (
        ("basevolume", "volumebase", "volbase", "basevol", "baseassetvolume", "volumefrom"),
        ("volume", "vol", "v", "volumetraded", "realvolume"),
        ("tickvolume",),
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
_OF_ASSET = re.compile(r"(?:volume|vol)([a-z0-9]{2,8})")
_NO_ASSETS = {"quote", "ma", "sma", "ema", "avg", "mean", "std", "ratio", "change", "delta", "to", "ccyquote", "ccy"}


def match_columns(names: Sequence[str], mapping: Mapping[str, str] | None = None) -> tuple[dict[str, str], list[str]]:
    """Find the columns of bars among `names`.

    mapping: our names to the stored ones, as the user gives them; they decide.
    Returns (our names to the stored ones, with `symbol` and `timeframe` only if present, the missing bar columns).
    Raises BitcornError for a mapping to a column that does not exist, and if two columns could be one of ours.

    >>> match_columns(["TS", "Open", "high", "low", "close", "quote volume"])[1]
    ['volume']
    """
    found = _mapped(names, mapping or {})
    left = [name for name in names if name not in found.values()]
    stored: dict[str, list[str]] = {}
    for name in dict.fromkeys(left):
        stored.setdefault(_plain(name), []).append(name)
    for ours, groups in _GROUPS.items():
        if ours in found:
            continue
        for group in groups:
            if candidates := [column for name in group for column in stored.get(name, ())]:
                found[ours] = _only(ours, candidates)
                break
    if "volume" not in found and (of_assets := _of_assets(stored)):
        found["volume"] = _only("volume", of_assets)
    ordered = {ours: found[ours] for ours in _GROUPS if ours in found}
    return ordered, [name for name in BAR_COLUMNS if name not in found]


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

    >>> parse_mapping(["open=o,high=h", "ts=time"])
    {'open': 'o', 'high': 'h', 'timestamp': 'time'}

    Raises BitcornError for anything else, and for an unknown name on the left.
    """
    mapping: dict[str, str] = {}
    for item in (item for text in texts for item in text.split(",")):
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
        if stored not in names:
            alike = [name for name in names if _plain(name) == _plain(stored)]
            if len(alike) != 1:
                raise BitcornError(f"--map {ours}={stored}: there is no such column, but {', '.join(names)}")
            stored = alike[0]
        found[ours] = stored
    return found


def _only(ours: str, candidates: list[str]) -> str:
    """Return the only candidate, or the only time whose name says its unit."""
    if ours == "timestamp" and len(candidates) > 1:
        with_unit = [name for name in candidates if re.search(r"(?i)(ms|us|ns|unix)$", name)]
        candidates = with_unit if len(with_unit) == 1 else candidates
    if len(candidates) > 1:
        raise BitcornError(
            f"columns {', '.join(candidates)} could each be the {ours}: choose one by --map {ours}={candidates[0]}"
        )
    return candidates[0]


def _of_assets(stored: Mapping[str, list[str]]) -> list[str]:
    """Return the base volume among volumes named by their currency, such as `Volume BTC` and `Volume USDT`."""
    assets = {match[1].upper(): names for plain, names in stored.items() if (match := _OF_ASSET.fullmatch(plain))}
    assets = {asset: names for asset, names in assets.items() if asset.lower() not in _NO_ASSETS}
    bases = [name for asset, names in assets.items() if asset not in QUOTES for name in names]
    others = [asset for asset in assets if asset in QUOTES and asset not in MONEY]
    # Of several quote coins the last one is the base.
    return bases or (assets[max(others, key=QUOTES.index)] if others else [])


def _plain(name: str) -> str:
    numbered = re.sub(r"^[0-9]+\. ", "", name)  # Alpha Vantage: "1. open"
    return re.sub(r"[\W_]+", "", numbered).lower()
