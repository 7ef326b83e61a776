import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.market.partition import Partition, normalise_symbol, partition_of_file, select_partitions

HELD = [
    Partition("BTC/USDT", "1h"),
    Partition("BTC/USDT", "4h"),
    Partition("ETHUSDT", "1h"),
    Partition("ETHUSDT", "1M"),
]


@pytest.mark.parametrize("spelling", ["BTCUSDT", "btcusdt", "BTC/USDT", "btc-usdt", "Btc_Usdt", " BTC / USDT "])
def test_spellings_of_one_symbol_are_equal(spelling):
    assert normalise_symbol(spelling) == "BTCUSDT"


def test_a_future_is_another_market_than_its_spot_pair():
    assert normalise_symbol("BTC/USDT:USDT") != normalise_symbol("BTC/USDT")


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abcXYZ019:."), st.sampled_from(["", "/", "-", "_", " "]))))
def test_case_and_separators_do_not_matter_anywhere_in_a_symbol(letters):
    plain = "".join(letter for letter, _ in letters)
    assert normalise_symbol("".join(letter + separator for letter, separator in letters)) == plain.upper()
    assert normalise_symbol(plain.upper()) == normalise_symbol(plain.lower()) == plain.upper()


@pytest.mark.parametrize(
    ("symbols", "timeframes", "kept"),
    [
        (None, None, HELD),
        (["btc-usdt"], None, HELD[:2]),
        (None, ["60m"], [HELD[0], HELD[2]]),
        (["BTCUSDT", "eth_usdt"], ["1h", "4h"], HELD[:3]),
        (["eth/usdt"], ["1h"], [HELD[2]]),
        ([], None, []),
    ],
)
def test_partitions_are_selected_by_any_spelling_in_their_order(symbols, timeframes, kept):
    assert select_partitions(HELD, symbols, timeframes) == kept


def test_selecting_an_unknown_symbol_names_those_that_exist():
    with pytest.raises(BitcornError, match="unknown symbol XRPUSDT: there is BTC/USDT, ETHUSDT"):
        select_partitions(HELD, ["BTCUSDT", "xrp/usdt"], None)


def test_selecting_an_unknown_timeframe_names_those_of_the_symbol():
    with pytest.raises(BitcornError, match=r"no bars of timeframe 1d: there is 1h, 4h$"):
        select_partitions(HELD, ["BTCUSDT"], ["1h", "1d"])


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("BTCUSDT_1h.parquet", ("BTCUSDT", "1h")),
        ("btcusdt_1h.db", ("BTCUSDT", "1h")),
        ("BTCUSDT-15m.csv.gz", ("BTCUSDT", "15m")),
        ("BTC_USDT-4H.csv", ("BTC_USDT", "4h")),
        ("btc-usdt-1d.csv", ("BTC-USDT", "1d")),
        ("a folder_1h/market.db", (None, None)),
        ("BTCUSDT.csv", ("BTCUSDT", None)),
        ("bitcoin.csv", (None, None)),
        ("BTCUSDT-1h-2024-12.csv", ("BTCUSDT", "1h")),
        ("_1h.csv", (None, "1h")),
        ("BTCUSDT_0h.csv", ("BTCUSDT_0H", None)),
        ("CDD_Binance_BTCUSDT_1h.csv.gz", ("BTCUSDT", "1h")),
        ("BTC_USDT_USDT-1h-futures.feather", ("BTC/USDT:USDT", "1h")),
    ],
)
def test_a_file_name_says_symbol_and_timeframe_or_nothing(name, said):
    assert partition_of_file(name) == said


def test_a_file_name_with_a_month_is_refused():
    with pytest.raises(BitcornError, match=r"BTCUSDT_1M\.csv holds bars of a month \(1M\)"):
        partition_of_file("BTCUSDT_1M.csv")


def test_a_partition_shows_as_symbol_and_timeframe_and_sorts_by_them():
    assert str(HELD[0]) == "BTC/USDT 1h"
    assert sorted(reversed(HELD[:3])) == HELD[:3]
