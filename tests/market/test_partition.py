import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.market.partition import (
    Partition,
    normalise_symbol,
    partition_of_file,
    same_timeframe,
    select_partitions,
    timeframe_ms,
    timeframe_of_ms,
)

HELD = [
    Partition("BTC/USDT", "1h"),
    Partition("BTC/USDT", "4h"),
    Partition("ETHUSDT", "1h"),
    Partition("ETHUSDT", "1M"),
]


@pytest.mark.parametrize(
    ("timeframe", "ms"),
    [
        ("1m", 60_000),
        ("15m", 900_000),
        ("1h", 3_600_000),
        ("4H", 14_400_000),
        (" 1d ", 86_400_000),
        ("1w", 604_800_000),
        ("99999m", 99_999 * 60_000),
    ],
)
def test_a_timeframe_has_a_length(timeframe, ms):
    assert timeframe_ms(timeframe) == ms


@pytest.mark.parametrize("timeframe", ["", "h", "1", "0h", "-1h", "1.5h", "1y", "1 h", "hourly", "100000m", "1h\n1h"])
def test_what_is_no_timeframe_is_refused(timeframe):
    with pytest.raises(BitcornError, match="unknown timeframe"):
        timeframe_ms(timeframe)


def test_a_month_is_refused_as_a_month():
    with pytest.raises(BitcornError, match="'1M' is a month"):
        timeframe_ms("1M")


@settings(deadline=None)
@given(st.integers(1, 99_999))
def test_the_name_of_a_step_reads_back_as_the_step(minutes):
    assert timeframe_ms(timeframe_of_ms(minutes * 60_000)) == minutes * 60_000


@pytest.mark.parametrize(
    ("minutes", "name"),
    [(1, "1m"), (59, "59m"), (60, "1h"), (90, "90m"), (1_440, "1d"), (10_080, "1w"), (14_400, "10d")],
)
def test_a_step_is_named_in_the_longest_unit_that_fits(minutes, name):
    assert timeframe_of_ms(minutes * 60_000) == name


@pytest.mark.parametrize("step", [-3_600_000, 0, 1_000, 59_999, 61_001])
def test_a_step_of_no_whole_minutes_has_no_name(step):
    with pytest.raises(BitcornError, match=f"{step} ms apart"):
        timeframe_of_ms(step)


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
    ("stored", "asked", "same"),
    [
        *[("1h", "1h", True), ("1H", "60m", True), ("24h", "1d", True), ("1h", "4h", False), ("1M", "1m", False)],
        *[("60min", "1h", True), ("D", "1d", True), ("1Week", "7d", True), ("hourly-ish", "1h", False)],
    ],
)
def test_timeframes_are_the_same_by_length(stored, asked, same):
    assert same_timeframe(stored, asked) is same


def test_asking_for_a_month_is_refused_even_where_one_is_stored():
    with pytest.raises(BitcornError, match="month"):
        same_timeframe("1M", "1M")


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
        ("BTCUSDT_0h.csv", ("BTCUSDT", None)),
        ("CDD_Binance_BTCUSDT_1h.csv.gz", ("BTCUSDT", "1h")),
        ("BTC_USDT_USDT-1h-futures.feather", ("BTC/USDT:USDT", "1h")),
    ],
)
def test_a_file_name_says_symbol_and_timeframe_or_nothing(name, said):
    assert partition_of_file(name) == said


def test_a_file_name_with_a_month_is_refused():
    with pytest.raises(BitcornError, match="'1M' is a month"):
        partition_of_file("BTCUSDT_1M.csv")


def test_a_partition_shows_as_symbol_and_timeframe_and_sorts_by_them():
    assert str(HELD[0]) == "BTC/USDT 1h"
    assert sorted(reversed(HELD[:3])) == HELD[:3]
