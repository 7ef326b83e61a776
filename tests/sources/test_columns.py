import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.market.bars import BAR_COLUMNS
from bitcorn_ray.sources.columns import match_columns, match_extra, parse_mapping


@settings(deadline=None)
@given(st.permutations([*BAR_COLUMNS, "symbol", "quote_volume", "trades"]), st.randoms(use_true_random=False))
def test_columns_match_in_any_order_and_case(names, random):
    stored = ["".join(random.choice((c.upper(), c.lower())) for c in name) for name in names]
    found, missing = match_columns(stored)
    assert missing == []
    assert found == {ours: stored[names.index(ours)] for ours in (*BAR_COLUMNS, "symbol")}


@pytest.mark.parametrize("names", [("timestamp", "ts"), ("ts", "timestamp"), ("Timestamp", "TS")])
def test_ts_is_the_time_where_there_is_timestamp_too(names):
    assert match_columns(names)[0]["timestamp"].lower() == "ts"


def test_spaces_around_a_name_do_not_matter_and_are_kept():
    assert match_columns([" Close "])[0]["close"] == " Close "


def test_two_columns_that_differ_in_case_could_each_be_meant():
    with pytest.raises(BitcornError, match=r"columns Close, close could each be the close: .*--map close=Close"):
        match_columns(["Close", "close"])
    assert match_columns(["Close", "close"], {"close": "close"})[0]["close"] == "close"


SPELLINGS = {
    "timestamp": [
        "timestamp",
        "ts",
        "open_time",
        "open_time_ms",
        "Open Time",
        "openTime",
        "date",
        "Datetime",
        "time",
        "t",
        "unix",
        "Unix Timestamp",
        "start",
        "candle_start",
        "time_period_start",
        "timestamp_ms",
        "epoch",
        "ts_ns",
        "begins_at",
        "kline_time",
    ],
    "open": ["open", "Open", "o", "open_price", "openp", "OPEN PRICE", "price_open"],
    "high": ["high", "High", "h", "high_price", "highp"],
    "low": ["low", "L", "low_price", "lowp"],
    "close": ["close", "c", "close_price", "closep"],
    "volume": ["volume", "v", "vol", "base volume", "base_volume", "Volume BTC", "volumefrom"],
    "symbol": ["symbol", "ticker", "pair", "coin", "instId", "trading_pair", "ts_code", "symbol_id", "Name"],
    "timeframe": ["timeframe", "interval", "tf", "period", "granularity", "bar", "resolution", "candle_size"],
}


@pytest.mark.parametrize(("ours", "stored"), [(ours, name) for ours, names in SPELLINGS.items() for name in names])
def test_each_column_is_known_by_many_names(ours, stored):
    names = [stored if name == ours else name for name in (*BAR_COLUMNS, "symbol", "timeframe")]
    assert match_columns(names)[0][ours] == stored


@pytest.mark.parametrize(
    ("names", "volume"),
    [
        (["volume", "quote_volume"], "volume"),
        (["quote asset volume", "vol"], "vol"),
        (["volume", "base_volume", "quote_volume"], "base_volume"),
        (["Volume USDT", "Volume BTC"], "Volume BTC"),
        (["Volume BTC", "Volume ETH"], "Volume ETH"),
        (["Volume USDT", "Volume 1INCH", "tradecount"], "Volume 1INCH"),
        (["volume", "volume_ma", "Volume USDT"], "volume"),
        (["quote_volume", "volume_ma"], None),
    ],
)
def test_the_volume_is_that_of_the_base(names, volume):
    assert match_columns([*BAR_COLUMNS[:-1], *names])[0].get("volume") == volume


@pytest.mark.parametrize(
    ("names", "time"),
    [
        (["open_time", "close_time"], "open_time"),
        (["Unix", "Date"], "Unix"),
        (["open_time", "open_time_ms"], "open_time_ms"),
        (["timestamp", "open_time", "date"], "open_time"),
    ],
)
def test_the_surest_time_is_taken(names, time):
    assert match_columns([*names, *BAR_COLUMNS[1:]])[0]["timestamp"] == time


@pytest.mark.parametrize("other", ["o", "open_price"])
def test_two_columns_that_could_be_one_are_refused_until_one_is_named(other):
    names = [*BAR_COLUMNS, other]
    with pytest.raises(BitcornError, match=rf"columns open, {other} could each be the open: choose one by --map open="):
        match_columns(names)
    assert match_columns(names, {"open": other})[0]["open"] == other
    assert match_columns(names, {"open": "OPEN"})[0]["open"] == "open"


def test_a_mapping_to_no_column_is_refused():
    with pytest.raises(BitcornError, match="--map open=x: there is no such column, but #0 timestamp, #1 open"):
        match_columns(BAR_COLUMNS, {"open": "x"})


def test_a_mapped_column_is_nothing_else():
    assert match_columns(["ts", "o", "h", "l", "c", "v"], {"volume": "c"})[1] == ["close"]


def test_mappings_are_read_as_they_are_written():
    assert parse_mapping(["open=o, high = Hi gh", "ts=a=b"]) == {"open": "o", "high": "Hi gh", "timestamp": "a=b"}
    assert parse_mapping([]) == {}


@pytest.mark.parametrize("text", ["open", "open=", "=o", "price=o", "", "open=o,open=p"])
def test_what_is_no_mapping_is_refused(text):
    with pytest.raises(BitcornError, match="mapping"):
        parse_mapping([text])


def test_further_columns_are_found_by_stored_name_or_by_ours():
    names = [*BAR_COLUMNS, "Quote asset volume", "number_of_trades", "myIndicator"]
    found, _ = match_columns(names)
    assert match_extra(names, ["quote_volume", "trades", "my_indicator"], found) == {
        "quote_volume": "Quote asset volume",
        "trades": "number_of_trades",
        "my_indicator": "myIndicator",
    }
    with pytest.raises(BitcornError, match="no further column 'oi': there is Quote asset volume, number_of_trades"):
        match_extra(names, ["oi"], found)
    with pytest.raises(BitcornError, match="close is a column of every bar"):
        match_extra(names, ["close"], found)


@pytest.mark.parametrize(
    ("names", "missing"),
    [
        ([], list(BAR_COLUMNS)),
        (["ts", "open", "high", "low", "close", "turnover"], ["volume"]),
        (["close time", "open", "high", "low", "adj close", "volume"], ["timestamp", "close"]),
        (["symbol", "timeframe", "timestamp", "open", "high", "low", "close", "volume"], []),
    ],
)
def test_missing_bar_columns_are_named_and_symbol_and_timeframe_are_not_required(names, missing):
    assert match_columns(names)[1] == missing
