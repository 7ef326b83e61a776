import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitcorn_ray.market.names import QUOTES, ParsedName, parse_name


@pytest.mark.parametrize(
    ("name", "symbol", "timeframe"),
    [
        ("btcusdt", "BTCUSDT", None),
        ("btcusdt_1h", "BTCUSDT", "1h"),
        ("BTCUSDT_F_1d", "BTCUSDT_F", "1d"),
        ("klines_5m", None, "5m"),
        ("klines_btcusdt_15min", "BTCUSDT", "15m"),
        ("candles_USDT_BTC", "BTC_USDT", None),
        ("candles_EUR_ETH", "ETH_EUR", None),
        ("candles_BTC_ETH", "ETH_BTC", None),
        ("ETH_BTC", "ETH_BTC", None),
        ("EUR_USD-1d", "EUR_USD", "1d"),
        ("BTC-USDT-SWAP", "BTC-USDT-SWAP", None),
        ("BTC_USDT_USDT-1h-futures", "BTC/USDT:USDT", "1h"),
        ("BTC/USDT:USDT", "BTC/USDT:USDT", None),
        ("BTC_USD_BTC-8h-futures", "BTC/USD:BTC", "8h"),
        ("yahoo_BTC-USD_1h", "BTC-USD", "1h"),
        ("my_ETH_BTC_5m", "ETH_BTC", "5m"),
        ("mine_ETH_USDT_USDT_1h", "ETH/USDT:USDT", "1h"),
        ("BTCUSDT:USDT 1h", "BTCUSDT:USDT", "1h"),
        ("BTCUSDT-1h-2024-12", "BTCUSDT", "1h"),
        ("aapl_1D", "AAPL", "1d"),
        ("ohlcv_data", None, None),
        ("dbbardata", None, None),
        ("historical_data_1h_4h", None, None),
        ("registry entries", None, None),
        ("", None, None),
    ],
)
def test_names_of_tables_and_files_say_what_they_hold(name, symbol, timeframe):
    assert parse_name(name) == ParsedName(symbol, timeframe)


def test_any_other_word_is_perhaps_a_symbol():
    assert parse_name("AAPL") == ParsedName("AAPL", None, uncertain=True)
    assert parse_name("my_things") == ParsedName("MY_THINGS", None, uncertain=True)
    assert parse_name('it\'s "one" of many words') == ParsedName()


def test_a_month_is_told():
    assert parse_name("BTCUSDT_1M") == ParsedName("BTCUSDT", None, month="1M")


@settings(deadline=None)
@given(st.text(max_size=30))
def test_any_name_is_read(name):
    said = parse_name(name)
    assert said.symbol is None or said.symbol == said.symbol.upper()


@settings(deadline=None)
@given(st.sampled_from(["SOL", "ADA", "1INCH", "PEPE"]), st.sampled_from(QUOTES), st.sampled_from("_-/ "))
def test_base_and_quote_are_told_apart_in_either_order(base, quote, between):
    assert (
        parse_name(base + between + quote) == parse_name(quote + between + base) == ParsedName(base + between + quote)
    )
