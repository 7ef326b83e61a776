"""Every schema that databases of bars are found in: whatever it is called and however it is stored, the same bars."""

import sqlite3
import string
from contextlib import closing
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reading import list_partitions, read_bars

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.market.bars import drop_duplicates
from bitcorn_ray.market.partition import Partition
from bitcorn_ray.sources.options import SourceOptions

HOUR, START = 3_600_000, 1_502_942_400_000
N = 30


def quote(name):
    return '"' + name.replace('"', '""') + '"'


def bar(i, step=HOUR):
    """Bar i: every number says which bar and which column it is."""
    return {
        "ms": START + i * step,
        "open": i + 0.5,
        "high": i + 0.75,
        "low": i + 0.25,
        "close": i + 0.625,
        "volume": i * 10.0,
    }


def write(path, table, columns, rows, types=""):
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"CREATE TABLE {quote(table)} ({', '.join(f'{quote(name)} {types}' for name in columns)})")
        connection.executemany(f"INSERT INTO {quote(table)} VALUES ({', '.join('?' * len(columns))})", rows)
        connection.commit()
    return path


def require(bars, n=N, step=HOUR):
    expected = [bar(i, step) for i in range(n)]
    assert bars.timestamp.tolist() == [each["ms"] for each in expected]
    for name in ("open", "high", "low", "close", "volume"):
        assert getattr(bars, name).tolist() == [each[name] for each in expected], name


def iso(ms, form):
    return datetime.fromtimestamp(ms // 1000, UTC).strftime(form)


OHLCV = ("open", "high", "low", "close", "volume")
LETTERS = dict(zip(OHLCV, "ohlcv", strict=True))
# Each schema: file, table, its columns, and a row of them for a bar. All hold BTCUSDT 1h.
SCHEMAS = {
    "the older system": (
        "data.db",
        "ohlcv",
        ["symbol", "timeframe", "ts", "timestamp", *OHLCV, "source"],
        lambda b: ["BTCUSDT", "1h", b["ms"], iso(b["ms"], "%Y-%m-%dT%H:%M:%SZ"), *(b[n] for n in OHLCV), "binance"],
    ),
    "vnpy": (
        "database.db",
        "dbbardata",
        [
            *("id", "symbol", "exchange", "datetime", "interval", "volume", "turnover", "open_interest"),
            *("open_price", "high_price", "low_price", "close_price"),
        ],
        lambda b: [
            *(b["ms"], "BTCUSDT", "BINANCE", iso(b["ms"], "%Y-%m-%d %H:%M:%S.%f"), "1h", b["volume"], 1.0, 0.0),
            *(b[n] for n in OHLCV[:4]),
        ],
    ),
    "gekko": (
        "binance_0.1.db",
        "candles_USDT_BTC",
        ["id", "start", "open", "high", "low", "close", "vwp", "volume", "trades"],
        lambda b: [0, b["ms"] // 1000, b["open"], b["high"], b["low"], b["close"], 7.0, b["volume"], 3],
    ),
    "jesse": (
        "jesse.db",
        "candle",
        ["id", "timestamp", "open", "close", "high", "low", "volume", "exchange", "symbol", "timeframe"],
        lambda b: ["x", b["ms"], b["open"], b["close"], b["high"], b["low"], b["volume"], "Binance", "BTC-USDT", "1h"],
    ),
    "binance klines": (
        "klines.db",
        "btcusdt_1h",
        [
            *("Open time", "Open", "High", "Low", "Close", "Volume", "Close time", "Quote asset volume"),
            *("Number of trades", "Taker buy base asset volume", "Taker buy quote asset volume", "Ignore"),
        ],
        lambda b: [b["ms"] * 1000, *(str(b[n]) for n in OHLCV), b["ms"] * 1000 + 3_599_999_999, "1", 2, "3", "4", "0"],
    ),
    "okx": (
        "okx.db",
        "market_data",
        ["instId", "bar", "ts", "o", "h", "l", "c", "vol", "volCcy", "volCcyQuote", "confirm"],
        lambda b: ["BTC-USDT", "1H", str(b["ms"]), *(str(b[n]) for n in OHLCV), "1", "2", "1"],
    ),
    "coinbase": (
        "coinbase.db",
        "candles",
        ["product_id", "granularity", "time", "low", "high", "open", "close", "volume"],
        lambda b: ["BTC-USDT", 3600, b["ms"] // 1000, b["low"], b["high"], b["open"], b["close"], b["volume"]],
    ),
    "cryptodatadownload": (
        "BTCUSDT.db",
        "price_data",
        ["Unix", "Date", "Symbol", "Open", "High", "Low", "Close", "Volume BTC", "Volume USDT", "tradecount"],
        lambda b: [f"{b['ms'] // 1000}.0", iso(b["ms"], "%Y-%m-%d %I-%p"), "BTC/USDT", *(b[n] for n in OHLCV), 9, 9],
    ),
    "yahoo": (
        "BTCUSDT.db",
        "historical_data",
        ["Datetime", "Open", "High", "Low", "Close", "Adj Close", "Volume"],
        lambda b: [iso(b["ms"], "%Y-%m-%d %H:%M:%S+00:00"), b["open"], b["high"], b["low"], b["close"], 0, b["volume"]],
    ),
    "minutes as timeframe": (
        "data.db",
        "any name at all",
        ["ticker", "interval", "t", *LETTERS.values()],
        lambda b: ["btc_usdt", 60, b["ms"] / 1000, *(b[n] for n in OHLCV)],
    ),
    "nothing but bars": (
        "data.db",
        "bars",
        ["open_time_ms", "openp", "highp", "lowp", "closep", "base volume", "quote volume"],
        lambda b: [b["ms"], *(b[n] for n in OHLCV), -1],
    ),
    "compact times": (
        "data.db",
        "BTC_USDT",
        ["date", "price_open", "price_high", "price_low", "price_close", "volume_traded"],
        lambda b: [int(iso(b["ms"], "%Y%m%d%H%M")), *(b[n] for n in OHLCV)],
    ),
    "nanoseconds": (
        "data.db",
        "klines_1h",
        ["coin", "candle_start", "O", "H", "L", "C", "V", "trades"],
        lambda b: ["BTC/USDT", b["ms"] * 1_000_000, *(b[n] for n in OHLCV), 4],
    ),
}


@pytest.mark.parametrize("schema", SCHEMAS)
@pytest.mark.parametrize("limit", [None, 7])
def test_each_schema_gives_the_same_bars(tmp_path, schema, limit):
    file, table, columns, row = SCHEMAS[schema]
    order = np.random.default_rng(1).permutation(N).tolist()
    path = write(tmp_path / file, table, columns, [row(bar(i)) for i in order])
    bars, partition = read_bars(path, "BTCUSDT", "1h", limit)
    if limit is None:
        require(bars)
    else:
        assert bars.close.tolist() == [bar(i)["close"] for i in range(N - limit, N)]
    assert partition.symbol.upper().replace("/", "").replace("-", "").replace("_", "") == "BTCUSDT"
    if schema != "nothing but bars":  # there only the one who asks says the symbol
        assert list_partitions(path) == [partition]


TIMES = {
    "s": lambda ms: ms // 1000,
    "ms": lambda ms: ms,
    "us": lambda ms: ms * 1000,
    "ns": lambda ms: ms * 1_000_000,
    "real seconds": lambda ms: ms / 1000,
    "text of seconds": lambda ms: f"{ms // 1000}.0",
    "text": lambda ms: iso(ms, "%Y-%m-%d %H:%M:%S"),
    "half days": lambda ms: iso(ms, "%Y-%m-%d %I-%p"),
    "iso": lambda ms: iso(ms, "%Y-%m-%dT%H:%M:%S.%fZ"),
    "offset": lambda ms: iso(ms - 5 * HOUR, "%Y-%m-%d %H:%M:%S-05:00"),
    "compact": lambda ms: iso(ms, "%Y%m%d%H%M"),
}
NAMES = {
    "timestamp": ["ts", "timestamp", "open_time", "Date", "t", "unix", "candle_start"],
    "open": ["open", "Open", "o", "open_price", "openp"],
    "high": ["high", "HIGH", "h", "high_price"],
    "low": ["low", "l", "lowp"],
    "close": ["close", "Close Price", "c"],
    "volume": ["volume", "v", "vol", "base_volume", "Volume BTC"],
    "symbol": ["symbol", "ticker", "pair", "instId"],
    "timeframe": ["timeframe", "interval", "tf", "bar", "resolution"],
}
PLACES = [("m.db", "ohlcv", True, True), ("m.db", "btcusdt_1h", False, False), ("btc-usdt.db", "candles", False, False)]
PLACES += [("m.db", "klines_1h", True, False), ("x.db", "BTCUSDT", False, True), ("m.db", "my 'table'", True, True)]
NUMBERS = {"real": float, "text": repr, "padded": lambda value: f" {value!r} ", "exact": lambda value: f"{value:e}"}


@settings(max_examples=120, deadline=None)
@given(st.data())
def test_any_schema_unit_order_and_dirt_gives_the_same_bars(tmp_path_factory, data):
    draw = data.draw
    file, table, has_symbol, has_timeframe = draw(st.sampled_from(PLACES))
    units = draw(st.lists(st.sampled_from(list(TIMES)), min_size=1, max_size=3))
    ours = [*NAMES][:6] + ["symbol"] * has_symbol + ["timeframe"] * has_timeframe
    stored = {name: draw(st.sampled_from(NAMES[name])) for name in ours}
    further = draw(st.lists(st.sampled_from(["trades", "quote_volume", "it's", 'no"te']), unique=True, max_size=2))
    columns = draw(st.permutations([*stored, *further]))
    number = draw(st.lists(st.sampled_from(list(NUMBERS)), min_size=1, max_size=2))
    spellings = draw(st.lists(st.sampled_from(["BTCUSDT", "btc/usdt"]), min_size=1, max_size=1))
    rows = []

    def add(i, place, spoilt=0.0):
        values = {name: NUMBERS[number[place % len(number)]](bar(i)[name] + spoilt) for name in OHLCV}
        values |= {"timestamp": TIMES[units[place % len(units)]](bar(i)["ms"])}
        values |= {"symbol": spellings[0], "timeframe": "1h"} | dict.fromkeys(further, 5)
        rows.append([values[name] for name in columns])

    order = draw(st.permutations(range(N)))
    # Dirt: rows of a time with other values, which a later row of the same time replaces.
    for place, i in enumerate(draw(st.lists(st.sampled_from(range(N)), max_size=5))):
        add(i, place, spoilt=1_000.0)
    for place, i in enumerate(order):
        add(i, place)
    if has_symbol:
        rows += [
            [{"symbol": "ETHUSDT"}.get(name, value) for name, value in zip(columns, row, strict=True)]
            for row in rows[:3]
        ]
    types = draw(st.sampled_from(["", "", "NUMERIC"]))
    path = tmp_path_factory.mktemp("any") / file
    write(path, table, [stored.get(name, name) for name in columns], rows, types)
    bars, _ = read_bars(path, "BTC-USDT", "1h")
    require(drop_duplicates(bars))
    assert Partition(spellings[0], "1h") in list_partitions(path) or not has_symbol


NASTY = [
    '"; DROP TABLE ohlcv; --',
    "'); DELETE FROM ohlcv; --",
    "a]b",
    "`x`",
    "%s",
    "?1",
    ":key",
    "x\ny",
    'ohlcv""',
    "\\",
]


@pytest.mark.parametrize("nasty", NASTY)
def test_names_and_values_never_become_sql(tmp_path, nasty):
    columns = ["symbol", "timeframe", "ts", *OHLCV, f"more {nasty}"]
    rows = [[nasty, "1h", *bar(i).values(), float(i)] for i in range(N)]
    path = write(tmp_path / "m.db", f"bars {nasty}", columns, rows)
    write(path, "ohlcv", columns[:8], [["X", "1h", *bar(i).values()] for i in range(N)])
    content = path.read_bytes()
    bars, partition = read_bars(path, nasty, "1h", options=SourceOptions.of(f"bars {nasty}", columns=[f"more {nasty}"]))
    require(bars)
    assert partition == Partition(nasty, "1h")
    assert bars.extra[f"more {nasty}"].tolist() == [float(i) for i in range(N)]
    require(read_bars(path, "X", "1h", 1_000)[0])
    for asked in (nasty, f"x' OR '1'='1{nasty}"):
        with pytest.raises(BitcornError, match="has no symbol"):
            read_bars(path, asked + "Z", "1h")
    assert path.read_bytes() == content


@pytest.mark.parametrize("nasty", [name for name in NASTY if "/" not in name and "\n" not in name])
def test_names_of_files_never_become_sql_or_options(tmp_path, nasty):
    for name in (f"{nasty}.db", f"{nasty}?mode=rwc&x.db", f"btcusdt_1h.{nasty}.db"):
        path = write(
            tmp_path / name, "bars", ["symbol", "tf", "ts", *OHLCV], [["X", "1h", *bar(i).values()] for i in range(3)]
        )
        before = sorted(file.name for file in tmp_path.iterdir())
        require(read_bars(path, "X", "1h")[0], 3)
        assert sorted(file.name for file in tmp_path.iterdir()) == before


@settings(max_examples=40, deadline=None)
@given(st.text(string.printable, min_size=1, max_size=20), st.text(string.printable, min_size=1, max_size=20))
def test_any_table_and_column_may_stand_beside_bars(tmp_path_factory, table, column):
    path = tmp_path_factory.mktemp("any") / "m.db"
    write(path, "ohlcv", ["symbol", "tf", "ts", *OHLCV], [["X", "1h", *bar(i).values()] for i in range(3)])
    if not table.lower().startswith("sqlite_") and table.lower() != "ohlcv":
        write(path, table, [column], [["x"]])
    require(read_bars(path, "X", "1h")[0], 3)
