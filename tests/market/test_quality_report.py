import json
from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise
from math import isnan, log

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitcorn_ray.market.bars import Bars
from bitcorn_ray.market.diagnosis import quality_flags, quality_report
from bitcorn_ray.sources.frames import read_frame

HOUR = 3_600_000
START = 1_502_942_400_000
PRICES = ("open", "high", "low", "close")


def report_of(data_dir, name):
    bars = read_frame(pd.read_parquet(data_dir / "bars" / f"{name}.parquet"))
    return quality_report(bars, name.split("_")[1])


@pytest.mark.parametrize(
    ("name", "rows", "first", "last", "gaps", "missing", "longest"),
    [
        ("BTCUSDT_1h", 77_373, "2017-08-17T04:00:00Z", "2026-06-20T09:00:00Z", 28, 129, 33),
        ("ETHUSDT_1h", 72_866, "2018-01-01T00:00:00Z", "2026-04-30T03:00:00Z", 27, 122, 33),
        ("BNBUSDT_1h", 72_866, "2018-01-01T00:00:00Z", "2026-04-30T03:00:00Z", 27, 122, 33),
        ("XRPUSDT_1h", 69_940, "2018-05-04T08:00:00Z", "2026-04-30T03:00:00Z", 25, 88, 10),
        ("DOGEUSDT_1h", 59_732, "2019-07-05T12:00:00Z", "2026-04-30T03:00:00Z", 18, 44, 8),
        ("SOLUSDT_1h", 50_090, "2020-08-11T06:00:00Z", "2026-04-30T03:00:00Z", 10, 20, 4),
        ("BTCUSDT_4h", 19_052, "2017-08-17T04:00:00Z", "2026-04-30T00:00:00Z", 8, 16, 7),
        ("BTCUSDT_15m", 116_556, "2023-01-02T00:00:00Z", "2026-04-30T04:00:00Z", 1, 5, 5),
        ("BTCUSD_1m", 1_025_708, "2017-01-01T00:00:00Z", "2018-12-31T23:59:00Z", 18_195, 25_492, 67),
        ("BTCUSDT_1d", 3_178, "2017-08-17T00:00:00Z", "2026-04-29T00:00:00Z", 0, 0, 0),
        ("SOLUSDT_1d", 2_088, "2020-08-11T00:00:00Z", "2026-04-29T00:00:00Z", 0, 0, 0),
    ],
)
def test_real_bars_have_the_known_gaps(data_dir, name, rows, first, last, gaps, missing, longest):
    report = report_of(data_dir, name)
    found = report["gaps"]
    assert (report["rows"], report["first_timestamp"], report["last_timestamp"]) == (rows, first, last)
    assert (found["count"], found["missing_bars"], found["longest"]) == (gaps, missing, longest)
    assert len(found["list"]) == gaps
    assert report["expected_rows"] == rows + missing
    assert report["duplicates"] == report["ohlc_violations"] == report["non_positive_prices"] == 0
    json.dumps(report, allow_nan=False)


@pytest.mark.parametrize("symbol", ["BNBUSDT", "BTCUSDT", "DOGEUSDT", "ETHUSDT", "SOLUSDT", "XRPUSDT"])
def test_real_days_are_clean(data_dir, symbol):
    assert quality_flags(report_of(data_dir, f"{symbol}_1d")) == []


@pytest.mark.parametrize("name", ["DOGEUSDT_1h", "BTCUSDT_1h", "SOLUSDT_1h"])
def test_real_extremes_are_not_suspicious(data_dir, name):
    assert report_of(data_dir, name)["suspicious_jumps"] == []


def test_the_70_percent_hour_of_doge_is_in_the_bars(data_dir):
    # Or else the test above would say nothing about it.
    frame = pd.read_parquet(data_dir / "bars" / "DOGEUSDT_1h.parquet").set_index("ts")
    day = frame[frame.index >= datetime(2021, 1, 29, tzinfo=UTC).timestamp() * 1000].head(24)
    assert (day["close"] / day["open"]).max() == pytest.approx(1.70, abs=0.005)


def shown(ms):
    return datetime.fromtimestamp(ms // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def slow_report(bars, step):
    times, prices = bars.timestamp.tolist(), [getattr(bars, name).tolist() for name in PRICES]
    unique, gaps = sorted(set(times)), []
    for before, after in pairwise(unique):
        fit = 0
        while before + (fit + 1) * step < after:
            fit += 1
        if after - before > step:
            gaps.append({"after": shown(before), "before": shown(after), "missing_bars": fit})
    expected, at = 0, unique[0] if unique else 0
    while unique and at <= unique[-1]:
        expected, at = expected + 1, at + step
    return {
        "rows": len(times),
        "first_timestamp": shown(times[0]) if times else None,
        "last_timestamp": shown(times[-1]) if times else None,
        "step_ms": step,
        "expected_rows": expected,
        "gaps": {
            "count": len(gaps),
            "missing_bars": sum(gap["missing_bars"] for gap in gaps),
            "longest": max((gap["missing_bars"] for gap in gaps), default=0),
            "list": gaps,
        },
        "duplicates": len(times) - len(unique),
        "missing_values": {
            name: sum(isnan(value) for value in getattr(bars, name).tolist()) for name in (*PRICES, "volume")
        },
        "non_positive_prices": sum(value <= 0 for column in prices for value in column),
        "ohlc_violations": sum(
            any(h < other for other in (o, low, c)) or any(low > other for other in (o, h, c))
            for o, h, low, c in zip(*prices, strict=True)
        ),
        "zero_volume_bars": bars.volume.tolist().count(0.0),
    }


price = st.sampled_from([1.0, 1.0, 2.0, 3.0, 0.0, -1.0, float("nan")])
# Distances between bars, in quarters of a timeframe.
rows = st.lists(st.tuples(st.sampled_from([0, 4, 4, 4, 8, 20, 3, 6, 9]), *[price] * 5), max_size=70)


@settings(deadline=None)
@given(rows)
def test_a_report_equals_that_of_a_slow_loop(rows):
    array = np.array(rows, dtype=np.float64).reshape(-1, 6)
    columns = {name: array[:, i + 1].copy() for i, name in enumerate((*PRICES, "volume"))}
    bars = Bars(timestamp=START + HOUR // 4 * np.cumsum(array[:, 0]).astype(np.int64), **columns)
    report = quality_report(bars, "1h")
    json.dumps(report, allow_nan=False)
    del report["suspicious_jumps"]
    assert report == slow_report(bars, HOUR)


def slow_jumps(close):
    # Bars of one price and of one volume: what leaps, leaps between the bars. Returns outside the bars count as 0.
    leap = [0.0] + [log(b / a) for a, b in pairwise(close)]

    def usual(part):
        return sum(sorted([abs(r) for r in part] + [0.0] * (24 - len(part)))[:20]) / 20

    found = []
    for t in range(1, len(close) - 1):
        around = max(usual(leap[max(t - 24, 0) : t]), usual(leap[t + 2 : t + 26]))
        left = (leap[t] + leap[t + 1]) / leap[t] if leap[t] else 1
        if abs(leap[t]) > max(12 * around, 0.01) and -0.5 < left < 0.2:
            found.append(t)
    return found


@settings(deadline=None)
@given(st.integers(0, 10**6), st.lists(st.tuples(st.integers(0, 199), st.floats(-0.3, 0.3)), max_size=6))
def test_suspicious_jumps_are_those_of_a_slow_loop(seed, spikes):
    rng = np.random.default_rng(seed)
    close = 100 * np.exp(np.cumsum(rng.normal(0, 0.005, 200)))
    for row, size in spikes:
        close[row] *= np.exp(size)
    same = dict.fromkeys(PRICES, close)
    bars = Bars(timestamp=START + HOUR * np.arange(200), **same, volume=np.ones(200))
    jumps = quality_report(bars)["suspicious_jumps"]
    assert [jump["at"] for jump in jumps] == [shown(START + HOUR * row) for row in slow_jumps(close.tolist())]


def test_clean_bars_have_no_flags(random_bars):
    assert quality_flags(quality_report(random_bars(500))) == []


def test_every_planted_defect_is_found_and_flagged(random_bars):
    bars = random_bars(500, seed=4)
    bars.close[400] *= 1.6
    bars.high[400] = bars.close[400]
    bars.open[[10, 11]] = np.nan
    bars.volume[12] = np.nan
    bars.high[20] = bars.low[20] * 0.5
    bars.low[[30, 31]] = -1.0
    bars.volume[[40, 41, 42]] = 0.0
    keep = np.r_[0:100, 100, 100:200, 205:300, 301:500]
    planted = bars.take(keep)
    report = quality_report(planted, "1h")
    assert report["missing_values"] == {"open": 2, "high": 0, "low": 0, "close": 0, "volume": 1}
    assert report["gaps"]["list"] == [
        {"after": bars.describe(199), "before": bars.describe(205), "missing_bars": 5},
        {"after": bars.describe(299), "before": bars.describe(301), "missing_bars": 1},
    ]
    assert report["suspicious_jumps"] == [
        {"at": bars.describe(400), "log_return": pytest.approx(log(bars.close[400] / bars.close[399]))}
    ]
    assert quality_flags(report) == [
        "3 missing values",
        "2 non-positive prices",
        "1 OHLC violations",
        "1 duplicates",
        "1 suspicious jumps",
        "6 missing bars",
        "3 zero-volume bars",
    ]
    json.dumps(report, allow_nan=False)


@pytest.mark.parametrize("factor", [0.5, 2.0])
@pytest.mark.parametrize("row", [1, 250, 498])
def test_a_jump_is_suspicious_only_where_the_next_bar_undoes_it(random_bars, factor, row):
    one, forever = random_bars(500, seed=5), random_bars(500, seed=5)
    one.close[row] *= factor
    forever.close[row:] *= factor
    assert [jump["at"] for jump in quality_report(one)["suspicious_jumps"]] == [one.describe(row)]
    assert quality_report(forever)["suspicious_jumps"] == []


@pytest.mark.parametrize("left", [0.3, 0.5, 0.9])
def test_a_jump_that_is_undone_by_half_is_news(random_bars, left):
    bars = random_bars(500, seed=6)
    bars.close[200] *= np.exp(0.5)
    bars.close[201:] *= np.exp(0.5 * left)
    assert quality_report(bars)["suspicious_jumps"] == []


@pytest.mark.parametrize("value", [0.0, -1.0, np.nan, np.inf])
def test_impossible_closes_do_not_reach_the_json_of_a_report(random_bars, value):
    bars = random_bars(200)
    bars.close[100] = value
    json.dumps(quality_report(bars), allow_nan=False)


@pytest.mark.parametrize("names", [PRICES, ("volume",)])
def test_infinite_values_are_not_reported_as_clean(random_bars, names):
    bars = random_bars(200)
    for name in names:
        getattr(bars, name)[100] = np.inf
    assert quality_flags(quality_report(bars)) != []


def test_the_grid_is_the_most_frequent_distance_unless_it_is_given(random_bars):
    bars = random_bars(100).take(slice(None, None, 4))
    assert quality_report(bars)["step_ms"] == 4 * HOUR
    assert quality_report(bars)["gaps"]["count"] == 0
    assert quality_report(bars, "1h")["gaps"]["missing_bars"] == 24 * 3


def test_bars_without_times_have_no_gaps_and_are_told_by_their_row(random_bars):
    timed = random_bars(100)
    timed.close[50] *= 2
    bars = replace(timed, timed=False)
    report = quality_report(bars)
    assert (report["first_timestamp"], report["step_ms"], report["expected_rows"]) == (None, 0, 0)
    assert report["gaps"] == {"count": 0, "missing_bars": 0, "longest": 0, "list": []}
    assert [jump["at"] for jump in report["suspicious_jumps"]] == ["row 50"]


@pytest.mark.parametrize("rows", [0, 1])
def test_a_report_of_hardly_any_bars_is_no_error(random_bars, rows):
    report = quality_report(random_bars(100).take(slice(0, rows)), "1h")
    assert (report["rows"], report["expected_rows"], report["gaps"]["count"]) == (rows, rows, 0)
    assert quality_flags(report) == []


def test_flags_of_a_partial_report_are_those_it_has():
    assert quality_flags({}) == []
    assert quality_flags({"duplicates": 2, "gaps": {"missing_bars": 7}}) == ["2 duplicates", "7 missing bars"]
