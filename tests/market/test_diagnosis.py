import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from raw_files import cryptodatadownload, real_bars

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.market.bars import Bars
from bitcorn_ray.market.diagnosis import (
    COSTS,
    LISTED,
    cover_days,
    cover_months,
    diagnose,
    find_duplicates,
    find_order,
    score_defects,
    value_defects,
)
from bitcorn_ray.market.simulate import simulate_bars

HOUR = 3_600_000
START = 1_502_942_400_000  # 2017-08-17T04:00:00Z


def kinds(diagnosis):
    return {reason["kind"]: reason["count"] for reason in diagnosis.report["reasons"]}


def test_every_defect_of_the_raw_file_is_found(data_dir):
    rows, units, formats = cryptodatadownload(data_dir)
    report = (found := diagnose(rows, "1h", units=units, formats=formats)).report
    assert kinds(found) == {
        "duplicates_different": 2_649,
        "mixed_time_units": 7_478,
        "mixed_time_formats": 7_478,
        "bad_prints": 2,
        "invented_bars": 117,
        "outage_bars": 16,
        "unfinished_last_bar": 1,  # 798 coins of the 5,776 that the hour had in the end
    }
    assert report["order"] == {"stored": "descending", "out_of_order_rows": 0}
    assert report["time_units"] == {"s": 28_584, "ms": 7_478}
    assert report["duplicates"]["different"] == 2_649
    assert report["duplicates"]["equal"] == 0
    assert report["zero_volume"]["invented_in_outages"] == 117
    assert report["bad_prints"]["list"][0] == {
        "at": "2017-08-17T04:00:00Z",
        "kind": "first_open",
        "price": 16_199.91,
        "expected": 4_308.83,
    }
    assert len(report["duplicates"]["list"]) == LISTED
    json.dumps(report, allow_nan=False)


def test_real_bars_have_no_defects_but_the_outages_of_their_exchange(data_dir):
    for name, timeframe, bars in real_bars(data_dir):
        found = diagnose(bars, timeframe)
        allowed = {"outage_bars", "invented_bars", "no_trade_bars"}
        if name == "BTCUSD_1m":
            allowed |= {"stale_bars"}  # eight minutes that are their predecessors to the last digit
        assert set(kinds(found)) <= allowed, name
        assert found.report["score"] >= 95, name
        if timeframe == "1d":
            assert found.report["score"] == 100, name
        json.dumps(found.report, allow_nan=False)


def test_clean_bars_have_a_hundred_points(random_bars):
    bars = random_bars(600)
    found = diagnose(bars)
    assert (found.report["score"], found.report["reasons"]) == (100, [])
    assert found.report["timeframe"] == "1h"
    assert all(len(times) == 0 for kind, times in found.marks.items() if kind != "extreme_bars")


def dirty(bars):
    """The bars with one of each defect, most of them in one row each."""
    bars.low[20] = bars.high[20] * 1.01
    bars.close[30] = np.nan
    bars.open[40] = bars.low[40] = -1.0
    bars.volume[50] = -2.0
    bars.close[100] *= 3
    bars.high[100] = bars.close[100]
    for name in ("open", "high", "low", "close", "volume"):
        getattr(bars, name)[151] = getattr(bars, name)[150]
    bars.volume[160:163] = 0.0
    bars.volume[-1] = bars.volume.max() * 1e-9
    stray, other, same = bars.take(np.array([70])), bars.take(np.array([61, 62])), bars.take(np.array([63]))
    stray.timestamp[:] += 7 * 60_000
    other.close[:] += 0.1
    order = np.delete(np.arange(len(bars)), [200, 201, 202])
    order[[300, 301]] = order[[301, 300]]
    parts = (bars.take(order), other, same, stray)
    return Bars(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in bars.columns()})


def test_each_planted_defect_is_found_where_it_is(random_bars):
    clean = random_bars(600, seed=21)
    found = diagnose(dirty(random_bars(600, seed=21)), "1h")
    assert kinds(found) == {
        "ohlc_violations": 1,
        "missing_values": 1,
        "non_positive_prices": 1,
        "negative_volume": 1,
        "bad_prints": 1,
        "stale_bars": 1,
        "invented_bars": 3,
        "unfinished_last_bar": 1,
        "outage_bars": 3,
        "duplicates_equal": 1,
        "duplicates_different": 2,
        "off_grid": 1,
        "out_of_order": 2,  # a swap, and the rows that were put at the end
    }
    at = {kind: times.tolist() for kind, times in found.marks.items() if kind != "extreme_bars"}
    assert at == {
        "ohlc_violations": [clean.timestamp[20]],
        "missing_values": [clean.timestamp[30]],
        "non_positive_prices": [clean.timestamp[40]],
        "negative_volume": [clean.timestamp[50]],
        "bad_prints": [clean.timestamp[100]],
        "duplicates": clean.timestamp[61:64].tolist(),
        "off_grid": [clean.timestamp[70] + 7 * 60_000],
        "invented_bars": clean.timestamp[160:163].tolist(),
        "stale_bars": [clean.timestamp[151]],
        "outages": [clean.timestamp[160], clean.timestamp[200]],
        "level_changes": [],
    }
    report = found.report
    assert report["gaps"]["list"] == [{"at": clean.describe(200), "missing_bars": 3, "kind": "outage"}]
    assert report["zero_volume"]["list"] == [{"at": clean.describe(160), "bars": 3, "kind": "outage"}]
    assert report["missing_by_column"] == {"open": 0, "high": 0, "low": 0, "close": 1, "volume": 0}
    assert (report["rows"], report["bars"], report["expected_bars"]) == (601, 597, 600)
    assert 0 < report["score"] < 60
    assert report["coverage"] == [{"month": "2023-01", "expected": 600, "there": 594, "share": 0.99}]


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10**6), st.booleans())
def test_what_is_found_does_not_depend_on_the_order_of_the_rows(seed, descending):
    bars = simulate_bars(400, seed=3, gaps=2)
    order = np.arange(len(bars))[::-1] if descending else np.random.default_rng(seed).permutation(len(bars))
    one, other = diagnose(bars).report, diagnose(bars.take(order)).report
    assert other["order"]["stored"] == "descending" if descending else True
    assert other["order"]["out_of_order_rows"] > 0 or descending
    for name in set(one) - {"order", "score", "reasons"}:
        assert one[name] == other[name], name


def test_a_last_bar_is_unfinished_by_the_clock_or_by_its_volume(random_bars):
    bars = random_bars(300)
    end = int(bars.timestamp[-1]) + HOUR
    assert diagnose(bars, "1h", now_ms=end - 1).report["last_bar"]["unfinished"] == "certain"
    assert diagnose(bars, "1h", now_ms=end).report["last_bar"]["unfinished"] == "no"
    bars.volume[-1] = bars.volume[:-1].min() / 2
    assert diagnose(bars, "1h", now_ms=end).report["last_bar"]["unfinished"] == "suspected"
    few = bars.take(slice(250, None))
    assert diagnose(few, "1h", now_ms=end).report["last_bar"]["unfinished"] == "no"


def test_volume_that_was_never_recorded_is_no_defect(random_bars):
    bars = random_bars(300)
    bars.volume[:] = 0.0
    found = diagnose(bars)
    assert found.report["score"] == 100
    assert not found.report["zero_volume"]["recorded"]


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_hardly_any_bars_can_be_diagnosed(random_bars, rows):
    assert diagnose(random_bars(10).take(slice(0, rows))).report["bars"] == rows


def test_what_has_no_times_cannot_be_diagnosed(random_bars):
    bars = random_bars(10)
    with pytest.raises(BitcornError, match="without times"):
        diagnose(replace(bars, timed=False))
    with pytest.raises(BitcornError, match="cannot be diagnosed"):
        diagnose(bars.take(slice(0, 0)))


COLUMNS = ("open", "high", "low", "close", "volume")


def two_rows(first, second):
    columns = {name: np.array([a, b], dtype=np.float64) for name, a, b in zip(COLUMNS, first, second, strict=True)}
    return Bars(timestamp=np.array([HOUR, HOUR]), **columns)


FINE = (37_100.123456, 37_600.4, 37_000.25, 37_584.76, 798.276499)


@pytest.mark.parametrize(
    ("other", "kind"),
    [
        (FINE, "equal"),
        ((37_100.12, 37_600.4, 37_000.25, 37_584.76, 798.28), "rounding"),
        ((37_100.123456, 37_600.4, 37_000.25, 37_584.76, 798.0), "rounding"),
        ((37_100.123456, 37_500.0, 37_050.0, 37_200.0, 120.5), "unfinished"),
        ((37_100.123456, 37_600.4, 37_000.25, 37_584.77, 798.276499), "conflict"),
        ((37_100.123456, 37_700.0, 37_050.0, 37_200.0, 120.5), "conflict"),
        ((37_090.0, 37_500.0, 37_050.0, 37_200.0, 120.5), "conflict"),
        ((np.nan, 37_600.4, 37_000.25, 37_584.76, 798.276499), "conflict"),
    ],
)
def test_rows_of_one_time_are_compared_in_either_order(other, kind):
    for rows in ((FINE, other), (other, FINE)):
        assert find_duplicates(two_rows(*rows))[1].tolist() == [kind]


def test_missing_values_are_equal_to_missing_values():
    nothing = (np.nan,) * 5
    assert find_duplicates(two_rows(nothing, nothing))[1].tolist() == ["equal"]


@given(st.lists(st.tuples(st.integers(0, 2), st.sampled_from([1.0, 2.0])), max_size=40))
def test_each_row_but_the_last_of_its_time_is_a_duplicate(rows):
    times = np.cumsum(np.array([step for step, _ in rows], dtype=np.int64))
    value = np.array([v for _, v in rows])
    found, kind = find_duplicates(Bars(timestamp=times, open=value, high=value, low=value, close=value, volume=value))
    frame = pd.DataFrame({"t": times, "v": value})
    again = frame[frame["t"].duplicated(keep="last")]
    assert found.tolist() == again["t"].tolist()
    last = frame.groupby("t")["v"].last()
    assert (kind == "equal").tolist() == (again["v"].to_numpy() == last[again["t"]].to_numpy()).tolist()


@given(st.lists(st.integers(0, 50), unique=True, min_size=2, max_size=30))
def test_sorted_rows_are_in_order_either_way(times):
    up = np.sort(np.array(times))
    assert find_order(up) == ("ascending", 0)
    assert find_order(up[::-1]) == ("descending", 0)


def test_rows_against_the_order_are_counted():
    assert find_order(np.array([1, 2, 9, 3, 4, 4, 5])) == ("ascending", 1)
    assert find_order(np.array([9, 7, 8, 5, 6, 1, 1])) == ("descending", 2)
    assert find_order(np.array([], dtype=np.int64)) == ("ascending", 0)


value = st.sampled_from([1.0, 1.0, 2.0, 3.0, 0.0, -1.0, float("nan"), float("inf")])


@given(st.lists(st.tuples(value, value, value, value, value), max_size=30))
def test_impossible_values_are_those_of_a_slow_loop(rows):
    columns = np.array(rows, dtype=np.float64).reshape(-1, 5).T
    bars = Bars(timestamp=HOUR * np.arange(len(rows)), **dict(zip(COLUMNS, columns, strict=True)))
    found = value_defects(bars)
    for n, (o, h, low, c, v) in enumerate(rows):
        assert found["missing_values"][n] == (not all(np.isfinite([o, h, low, c, v])))
        assert found["non_positive_prices"][n] == any(price <= 0 for price in (o, h, low, c))
        assert found["negative_volume"][n] == (v < 0)
        contradicts = any(h < each for each in (o, low, c)) or any(low > each for each in (o, h, c))
        assert found["ohlc_violations"][n] == contradicts


counts = st.dictionaries(st.sampled_from(sorted(COSTS)), st.integers(0, 10_000))


def test_clean_bars_have_a_hundred_points_and_no_reasons():
    assert score_defects(dict.fromkeys(COSTS, 0), 1_000) == (100.0, [])


@given(counts, st.integers(1, 100_000))
def test_a_score_is_what_its_reasons_leave(found, bars):
    score, reasons = score_defects(found, bars)
    assert 0 <= score <= 100
    assert score == pytest.approx(max(0, 100 - sum(reason["cost"] for reason in reasons)), abs=0.2)
    assert {reason["kind"]: reason["count"] for reason in reasons} == {k: n for k, n in found.items() if n}
    assert [r["cost"] for r in reasons] == sorted((r["cost"] for r in reasons), reverse=True)
    assert all(reason["cost"] <= COSTS[reason["kind"]][2] for reason in reasons)


@given(counts, st.sampled_from(sorted(COSTS)), st.integers(1, 100))
def test_more_defects_never_score_better(found, kind, more):
    worse = {**found, kind: found.get(kind, 0) + more}
    assert score_defects(worse, 5_000)[0] <= score_defects(found, 5_000)[0]


@given(
    st.sampled_from([900_000, HOUR, 4 * HOUR, 24 * HOUR, 7 * 24 * HOUR]),
    st.lists(st.tuples(st.integers(1, 5), st.booleans()), min_size=1, max_size=60),
)
def test_days_are_those_of_pandas(step, rows):
    times = START + step * np.cumsum([n for n, _ in rows])
    real = np.array([flag for _, flag in rows])
    days = cover_days(times, real, step)
    grid = pd.Series(1, index=pd.to_datetime(np.arange(times[0], times[-1] + 1, step), unit="ms"))
    there = pd.Series(real.astype(int), index=pd.to_datetime(times, unit="ms"))
    assert days.expected.tolist() == grid.resample("D").sum().tolist()
    assert days.there.tolist() == there.resample("D").sum().tolist()
    assert days.first_day == times[0] // (24 * HOUR)
    by_month = {str(month): int(n) for month, n in grid.resample("MS").sum().items() if n}
    found = cover_months(days)
    assert {f"{each['month']}-01 00:00:00": each["expected"] for each in found} == by_month
    assert sum(each["there"] for each in found) == real.sum()
    for each in found:
        assert each["share"] == pytest.approx(each["there"] / each["expected"], abs=1e-4)


def test_no_bars_cover_no_days():
    days = cover_days(np.zeros(0, np.int64), np.zeros(0, bool), HOUR)
    assert (len(days.expected), cover_months(days)) == (0, [])
