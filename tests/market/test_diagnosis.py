import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from raw_files import cryptodatadownload, real_bars

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.market.bars import Bars
from bitcorn_ray.market.diagnosis import LISTED, diagnose
from bitcorn_ray.market.simulate import simulate_bars

HOUR = 3_600_000


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
