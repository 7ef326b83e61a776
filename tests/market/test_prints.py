from math import log

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from raw_files import cryptodatadownload, real_bars

from bitcorn_ray.market.bars import Bars, drop_duplicates
from bitcorn_ray.market.prints import bad_closes, bad_prints, extreme_bars, usual_size
from bitcorn_ray.market.simulate import simulate_bars

HOUR = 3_600_000
BTC_LOW_OF_THE_HOUR = 15_826.37  # 2018-01-05 10:00, as the exchange itself served it


def all_joined(bars):
    return np.append(False, np.diff(bars.timestamp) == np.diff(bars.timestamp).min())


def prints_of(bars):
    return [(each.row, each.kind) for each in bad_prints(bars, all_joined(bars))]


def test_no_real_bar_of_any_market_is_called_bad(data_dir):
    for name, _, bars in real_bars(data_dir):
        assert bad_prints(bars, all_joined(bars)) == [], name
        assert len(bad_closes(bars)[0]) == 0, name


def test_no_real_bar_is_called_bad_wherever_the_bars_begin(data_dir):
    bars = next(bars for name, _, bars in real_bars(data_dir) if name == "DOGEUSDT_1h")
    sizes = np.abs(np.log(bars.close / bars.open))
    for row in np.argsort(-sizes)[:300].tolist():
        cut = bars.take(slice(row, row + 60))
        assert bad_prints(cut, all_joined(cut)) == [], bars.describe(row)


def test_the_wildest_hours_are_extreme_and_real(data_dir):
    bars = next(bars for name, _, bars in real_bars(data_dir) if name == "DOGEUSDT_1h")
    count, found = extreme_bars(bars, all_joined(bars), [])
    by_time = {bars.describe(each.row): each for each in found}
    january = [each for at, each in by_time.items() if at.startswith("2021-01-29")]
    assert any(np.expm1(each.log_return) > 0.5 for each in january)
    assert count >= len(found) == 20


def test_the_wrong_opens_of_a_raw_file_are_found(data_dir):
    rows, _, _ = cryptodatadownload(data_dir)
    bars = drop_duplicates(rows.take(np.argsort(rows.timestamp, kind="stable")))
    found = [(bars.describe(each.row), each.kind, each.price) for each in bad_prints(bars, all_joined(bars))]
    assert ("2017-08-17T04:00:00Z", "first_open", 16_199.91) in found
    found.remove(("2017-08-17T04:00:00Z", "first_open", 16_199.91))
    # The other one is wrong too: the exchange's own bar of that hour never was so low.
    assert found == [("2018-01-05T10:00:00Z", "open", 14_400.0)]
    served = pd.read_parquet(data_dir / "bars" / "BTCUSDT_1h.parquet").set_index("ts")["low"]
    assert served[1_515_146_400_000] == BTC_LOW_OF_THE_HOUR > 14_400.0


@pytest.mark.parametrize("factor", [0.1, 0.5, 0.9, 1.12, 2.0, 10.0])
@pytest.mark.parametrize("row", [1, 30, 250, 498])
def test_a_close_that_comes_back_between_the_bars_is_bad(random_bars, factor, row):
    bars = random_bars(500, seed=5)
    bars.close[row] *= factor
    bars.high[row], bars.low[row] = max(bars.high[row], bars.close[row]), min(bars.low[row], bars.close[row])
    bars.volume[row] = bars.volume[max(row - 24, 0) : row + 25].mean()
    assert prints_of(bars) == [(row, "close")]


def test_a_close_that_comes_back_by_trade_on_great_volume_is_real(random_bars):
    bars = random_bars(500, seed=5)
    bars.close[100] *= 1.5
    bars.high[100] = bars.close[100]
    bars.open[101] = bars.high[101] = bars.close[100]
    assert prints_of(bars) == [(100, "close")]  # nobody traded, and yet the price went there and back
    bars.volume[[100, 101]] *= 30
    assert prints_of(bars) == []


def test_a_swept_order_book_is_real_and_a_doubled_price_is_not(random_bars):
    for factor, expected in ((1.5, []), (2.5, [(100, "close")])):
        bars = random_bars(500, seed=7)
        bars.close[100] *= factor
        bars.high[100] = bars.close[100]
        bars.volume[100] *= 50
        assert prints_of(bars) == expected


@pytest.mark.parametrize("length", [1, 2, 3])
def test_whole_bars_at_another_price_are_bad(random_bars, length):
    bars = random_bars(500, seed=8)
    bad = slice(200, 200 + length)
    for name in ("open", "high", "low", "close"):
        getattr(bars, name)[bad] *= 3.0
    assert [row for row, _ in prints_of(bars)] == list(range(200, 200 + length))


def test_a_lasting_move_is_no_bad_print_however_large(random_bars):
    bars = random_bars(500, seed=9)
    for name in ("open", "high", "low", "close"):
        getattr(bars, name)[200:] *= 5.0
    assert prints_of(bars) == []


@pytest.mark.parametrize("depth", [0.0001 / 2.5, 0.5])
def test_a_wick_is_never_bad(random_bars, depth):
    bars = random_bars(500, seed=10)
    bars.low[300] = bars.close[300] * depth
    assert prints_of(bars) == []
    count, found = extreme_bars(bars, all_joined(bars), [])
    assert count == 1
    assert (found[0].row, found[0].what) == (300, "wick")


def test_an_open_alone_in_the_dark_is_bad_and_one_that_was_traded_before_is_not(random_bars):
    bars = random_bars(500, seed=11)
    bars.open[250] = bars.low[250] = bars.close[249] * 0.8
    assert prints_of(bars) == [(250, "open")]
    bars.low[249] = bars.close[249] * 0.8  # the bar before was there: a crash that recovers
    assert prints_of(bars) == []


def test_where_a_bar_is_missing_nothing_can_be_said(random_bars):
    bars = random_bars(500, seed=12)
    bars.close[100] *= 3
    bars.high[100] = bars.close[100]
    assert prints_of(bars) == [(100, "close")]
    assert prints_of(bars.take(np.delete(np.arange(500), 101))) == []


@pytest.mark.parametrize(("rest", "bad"), [(0.02, True), (0.5, False)])
def test_a_first_open_is_bad_only_where_the_market_is_quiet_otherwise(random_bars, rest, bad):
    bars = random_bars(200, seed=13)
    bars.open[0] = bars.close[0] * 4
    bars.high[0] = bars.open[0]
    bars.low[0] = bars.close[0] * np.exp(-rest * log(4))
    assert prints_of(bars) == ([(0, "first_open")] if bad else [])


@pytest.mark.parametrize("value", [np.nan, 0.0, -1.0, np.inf])
@pytest.mark.parametrize("name", ["open", "high", "low", "close", "volume"])
def test_impossible_values_are_no_prints(random_bars, name, value):
    bars = random_bars(200, seed=14)
    getattr(bars, name)[[0, 50, 51, 199]] = value
    assert all(row not in (50, 51) for row, _ in prints_of(bars))
    extreme_bars(bars, all_joined(bars), [])


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**6), st.sets(st.integers(1, 9).map(lambda n: 20 * n + n), max_size=6), st.floats(0.3, 2.0))
def test_planted_prints_are_found_and_nothing_else_is(seed, rows, size):
    bars = simulate_bars(220, seed=seed, gaps=0)
    for row in rows:
        bars.close[row] *= np.exp(size)
        bars.high[row] = max(bars.high[row], bars.close[row])
        bars.volume[row] = np.median(bars.volume[max(0, row - 24) : row + 25])
    assert prints_of(bars) == [(row, "close") for row in sorted(rows)]


@settings(deadline=None)
@given(st.lists(st.floats(0, 10), min_size=1, max_size=80), st.data(), st.integers(1, 4))
def test_the_usual_size_is_that_of_a_slow_loop(values, data, after):
    row = data.draw(st.integers(0, len(values) - 1))

    def mean(part):
        part = sorted([*part, *[0.0] * (24 - len(part))])[:-4]
        return sum(part) / 20

    slow = max(mean(values[max(0, row - 24) : row]), mean(values[row + after : row + after + 24]))
    assert usual_size(np.array(values), np.array([row]), after)[0] == pytest.approx(slow)


def test_a_handful_of_bars_has_no_bad_prints(random_bars):
    for n in range(5):
        bars = random_bars(5).take(slice(0, n))
        assert bad_prints(bars, np.ones(n, bool)) == []
        assert extreme_bars(bars, np.ones(n, bool), []) == (0, [])


def test_bars_of_one_price_have_no_bad_prints():
    flat = np.full(100, 7.0)
    bars = Bars(timestamp=HOUR * np.arange(100), open=flat, high=flat, low=flat, close=flat, volume=flat)
    assert prints_of(bars) == []
