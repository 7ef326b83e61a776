from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitcorn_ray.market.names import MONEY, QUOTES, ParsedName, parse_name, without_endings


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


@pytest.mark.parametrize(
    ("name", "symbol", "timeframe"),
    [
        # Binance: spot, dated, of coins, margin; its public dumps
        ("BTCUSDT_240628", "BTCUSDT_240628", None),
        ("BTCUSDT_240628-1h", "BTCUSDT_240628", "1h"),
        ("BTCUSD_PERP-1h-2024-01", "BTCUSD_PERP", "1h"),
        ("BTCUSDT-1m-2024-01-15", "BTCUSDT", "1m"),
        ("um_BTCUSDT_1h", "BTCUSDT_UM", "1h"),
        ("BTCUSDT-markPriceKlines-1h", "BTCUSDT.MARK", "1h"),
        ("premiumIndexKlines_BTCUSDT_1h", "BTCUSDT.PREMIUM", "1h"),
        ("1000SHIBUSDT-1h", "1000SHIBUSDT", "1h"),
        ("BTC_USD1-1h", "BTC_USD1", "1h"),
        # OKX, Gate
        ("BTC-USD-240628", "BTC-USD-240628", None),
        ("okx_BTC-USDT-SWAP_1h", "BTC-USDT-SWAP", "1h"),
        ("BTC_USD_20240628_1h", "BTC_USD_20240628", "1h"),
        # Deribit, FTX, dYdX, Hyperliquid
        ("deribit_BTC-PERPETUAL_1h", "BTC-PERPETUAL", "1h"),
        ("BTC-28JUN24_1h", "BTC-28JUN24", "1h"),
        ("BTC-PERP_1h", "BTC-PERP", "1h"),
        ("btc-perp-20211231-20220201_1m", "BTC-PERP", "1m"),
        # Kraken, BitMEX, KuCoin, Bitfinex
        ("XXBTZUSD_60", "XXBTZUSD", "1h"),
        ("PF_XBTUSD_1h", "PF_XBTUSD", "1h"),
        ("FI_XBTUSD_240628_1h", "FI_XBTUSD_240628", "1h"),
        ("XBTM24_1h", "XBTM24", "1h"),
        ("XBTUSDTM_1h", "XBTUSDTM", "1h"),
        ("tBTCUSD_1h", "BTCUSD", "1h"),
        ("tBTCF0:USTF0_1h", "BTCF0:USTF0", "1h"),
        # Poloniex: the quote first
        ("poloniex_USDT_BTC", "BTC_USDT", None),
        ("some_exchange_USDT_BTC", "BTC_USDT", None),
        ("POLONIEX_USDT_ETH_1h", "ETH_USDT", "1h"),
        # freqtrade
        ("BAR_USDT-1h", "BAR_USDT", "1h"),
        ("DATA_USDT_USDT-1h-futures", "DATA/USDT:USDT", "1h"),
        ("WBTC_BTC-1h", "WBTC_BTC", "1h"),
        ("PERP_USDT-1h", "PERP_USDT", "1h"),
        ("XRP_USDT_USDT-8h-mark", "XRP/USDT:USDT.MARK", "8h"),
        ("XRP_USDT_USDT-8h-funding_rate", "XRP/USDT:USDT.FUNDING", "8h"),
        ("XRP_USDT_USDT-1h-premiumIndex", "XRP/USDT:USDT.PREMIUM", "1h"),
        ("XRP_USDT_USDT-1h-index", "XRP/USDT:USDT.INDEX", "1h"),
        # CoinAPI, CryptoDataDownload, TradingView
        ("BINANCE_SPOT_BTC_USDT", "BTC_USDT", None),
        ("BINANCE_LINEAR_BTC_USDT_1D", "BTC_USDT_LINEAR", "1d"),
        ("CDD_Binance_BTCUSDT_1h", "BTCUSDT", "1h"),
        ("BINANCE_BTCUSDT, 60", "BTCUSDT", "1h"),
        ("NASDAQ_AAPL, 1D", "AAPL", "1d"),
        # stocks, indices, futures
        ("7203.T_1d", "7203.T", "1d"),
        ("600519_SH_1d", "600519_SH", "1d"),
        ("SZ000001_1d", "SZ000001", "1d"),
        ("0700.HK_1d", "0700.HK", "1d"),
        ("2024.HK_1d", "2024.HK", "1d"),
        ("000660_daily", "000660", "1d"),
        ("BRK-A_1d", "BRK-A", "1d"),
        ("BRK.B_1d", "BRK.B", "1d"),
        ("^GSPC_1d", "^GSPC", "1d"),
        ("ES=F_1d", "ES=F", "1d"),
        ("ESZ4_1d", "ESZ4", "1d"),
        # currencies
        ("EURUSD60", "EURUSD", "1h"),
        ("EURUSD=X_1d", "EURUSD=X", "1d"),
        ("DAT_ASCII_EURUSD_M1_2012", "EURUSD", "1m"),
        ("USDMXN_1h", "USDMXN", "1h"),
        ("XAUUSD_M15", "XAUUSD", "15m"),
    ],
)
def test_names_by_the_conventions_of_exchanges_and_vendors(name, symbol, timeframe):
    assert parse_name(name) == ParsedName(symbol, timeframe)


@pytest.mark.parametrize("name", ["SOL_USDT_BTC", "ETH_BTC_USDT", "PEPE_1000_USDT", "BTCUSDT_WETH_ETHBTC"])
def test_words_that_form_several_pairs_are_no_symbol(name):
    assert parse_name(name).symbol is None


@pytest.mark.parametrize(
    "name", ["BTC-USD-240628-60000-C", "BTC-28JUN24-60000-P_1h", "XRP_USDC-28JUN24-0d5-C", "AAPL240621C00190000"]
)
def test_options_are_no_symbol(name):
    assert parse_name(name).option
    assert parse_name(name).symbol is None


def test_words_that_may_tell_markets_apart_are_kept_as_labels():
    assert parse_name("Binance_BTCUSDT_1h").labels == ("binance",)
    assert parse_name("my_ETH_BTC_5m").labels == ("my",)
    assert parse_name("klines_BTCUSDT_1h_2023").labels == ()


def test_any_other_word_is_perhaps_a_symbol():
    assert parse_name("AAPL") == ParsedName("AAPL", None, uncertain=True)
    assert parse_name("7203.T") == ParsedName("7203.T", None, uncertain=True)
    assert parse_name("my_things") == ParsedName("MY_THINGS", None, uncertain=True)
    assert parse_name('it\'s "one" of many words') == ParsedName()


@pytest.mark.parametrize("month", ["1M", "1mo", "1mon", "monthly"])
def test_a_month_is_told(month):
    assert parse_name(f"BTCUSDT_{month}") == ParsedName("BTCUSDT", None, month=month)


def test_endings_say_formats_and_nothing_else_is_taken_away():
    assert without_endings("BTCUSDT_1h.CSV.gz") == "BTCUSDT_1h"
    assert without_endings("7203.T.parquet") == "7203.T"
    assert without_endings("aapl.us.txt") == "aapl.us"
    assert without_endings("7203.T") == "7203.T"


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


# Coins, among them those whose names are English words, numbers, or words of this trade.
COINS = (Path(__file__).parent / "coins.txt").read_text().split()
FREQTRADE = [f"{coin}_{quote}" for quote in ("USDT", "BTC", "ETH", "USDC") for coin in COINS if coin != quote][:728]


def test_names_of_freqtrade_are_all_different_markets():
    assert len(FREQTRADE) == 728
    symbols = {name: parse_name(without_endings(f"{name}-1h.feather")).symbol for name in FREQTRADE}
    turned = {"BTC_ETH"}  # the name of Poloniex for ETH_BTC; freqtrade has no such pair
    assert {name: symbol for name, symbol in symbols.items() if symbol != name} == dict.fromkeys(turned, "ETH_BTC")


NOISE = ["ohlcv", "klines", "binance", "kraken", "mybackup", "raw", "history", "2023", "data"]
CONVENTIONS = {
    "one word": ("{base}{quote}", "{base}{quote}"),
    "words": ("{base}_{quote}", "{base}_{quote}"),
    "dashes": ("{base}-{quote}", "{base}-{quote}"),
    "settled": ("{base}_{quote}_{quote}", "{base}/{quote}:{quote}"),
    "swap": ("{base}-{quote}-SWAP", "{base}-{quote}-SWAP"),
    "perpetual": ("{base}{quote}_PERP", "{base}{quote}_PERP"),
    "dated": ("{base}{quote}_240628", "{base}{quote}_240628"),
}


@settings(deadline=None, max_examples=500)
@given(
    base=st.sampled_from([coin for coin in COINS if coin not in QUOTES and not coin.isdigit()]),
    quote=st.sampled_from(["USDT", "USD", "EUR", "BTC"]),
    convention=st.sampled_from(sorted(CONVENTIONS)),
    before=st.lists(st.sampled_from(NOISE), max_size=2),
    after=st.lists(st.sampled_from(NOISE), max_size=2),
    lower=st.booleans(),
)
def test_a_market_among_other_words_is_found_or_refused_but_never_another_one(
    base, quote, convention, before, after, lower
):
    written, right = (text.format(base=base, quote=quote) for text in CONVENTIONS[convention])
    name = "_".join([*before, written.lower() if lower else written, "1h", *after])
    symbol = parse_name(name).symbol
    assert symbol is None or symbol.startswith(right), name
    if symbol is not None:  # what is added is a word that was not understood
        assert symbol.removeprefix(right).strip("_").lower() in ("", *("_".join([word] * 2) for word in NOISE), *NOISE)


def test_money_is_a_quote():
    assert set(MONEY) < set(QUOTES)
