import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from raw_files import cryptodatadownload

from bitcorn_ray.market.bars import Bars, drop_duplicates
from bitcorn_ray.market.outages import continuous_rows, invented_rows, silent_runs
from bitcorn_ray.sources.frames import read_frame

MINUTE = 60_000


def bars_of(slots, volume=None):
    times = MINUTE * np.array(slots, dtype=np.int64)
    ones = np.ones(len(times))
    volume = ones if volume is None else np.array(volume, dtype=np.float64)
    return Bars(timestamp=times, open=ones, high=ones, low=ones, close=ones, volume=volume)


def slow_runs(slots, volume):
    """Start and length of every stretch without trade, slot by slot, and how many of it have no row."""
    there = dict(zip(slots, volume, strict=True))
    recorded = any(there.values())
    runs, run = [], None
    for slot in range(slots[0], slots[-1] + 2):
        silent = slot not in there or (recorded and there[slot] == 0)
        if slot > slots[-1]:
            silent = False
        if silent:
            run = run or [slot, 0, 0]
            run[1], run[2] = run[1] + 1, run[2] + (slot not in there)
        elif run:
            runs.append(tuple(run))
            run = None
    return runs


@given(st.lists(st.tuples(st.integers(1, 4), st.sampled_from([0.0, 1.0, 1.0])), min_size=1, max_size=40))
def test_runs_are_those_of_a_slow_loop(rows):
    slots = np.cumsum([step for step, _ in rows]).tolist()
    volume = [v for _, v in rows]
    found = silent_runs(bars_of(slots, volume), MINUTE)
    assert list(zip((found.start // MINUTE).tolist(), found.length.tolist(), found.missing.tolist(), strict=True)) == (
        slow_runs(slots, volume)
    )


def test_a_market_that_always_trades_falls_silent_only_in_outages():
    slots = [n for n in range(5_000) if n not in (100, 2_000, 2_001, *range(4_000, 4_030))]
    found = silent_runs(bars_of(slots), MINUTE)
    assert found.length.tolist() == [1, 2, 30]
    assert found.outage.all()


def test_a_market_that_often_rests_has_outages_only_where_it_rests_too_long():
    rng = np.random.default_rng(0)
    traded = rng.random(20_000) > 0.2
    traded[[0, -1]] = True
    traded[10_000:10_060] = False
    found = silent_runs(bars_of(np.flatnonzero(traded)), MINUTE)
    assert found.length[found.outage].max() >= 60
    assert found.outage.sum() <= 2
    assert (~found.outage).sum() > 2_000


@pytest.mark.parametrize("symbol", ["BTCUSDT", "DOGEUSDT", "SOLUSDT"])
def test_real_hours_are_missing_in_outages(data_dir, symbol):
    bars = read_frame(pd.read_parquet(data_dir / "bars" / f"{symbol}_1h.parquet"))
    assert silent_runs(bars, 3_600_000).outage.all()


def test_real_minutes_without_a_trade_are_told_from_outages(data_dir):
    bars = read_frame(pd.read_parquet(data_dir / "bars" / "BTCUSD_1m.parquet"))
    found = silent_runs(bars, MINUTE)
    assert len(found.length) == 18_195
    assert found.missing.sum() == 25_492
    assert (~found.outage).sum() > 17_000
    assert found.outage[found.length > 20].all()
    assert found.missing.sum() == 25_492


def test_rows_without_volume_in_the_outages_of_a_raw_file_are_invented(data_dir):
    rows, _, _ = cryptodatadownload(data_dir)
    bars = drop_duplicates(rows.take(np.argsort(rows.timestamp, kind="stable")))
    runs = silent_runs(bars, 3_600_000)
    invented = invented_rows(bars, runs, 3_600_000)
    assert invented.sum() == 117
    assert (bars.volume[invented] == 0).all()
    assert runs.missing[runs.outage].sum() == 16
    joined = continuous_rows(bars, 3_600_000, runs)
    assert not joined[invented].any()
    assert not joined[0]


def test_where_volume_was_never_recorded_zeros_say_nothing():
    found = silent_runs(bars_of([0, 1, 2, 5], [0, 0, 0, 0]), MINUTE)
    assert (found.length.tolist(), found.missing.tolist()) == ([2], [2])


def test_no_bars_have_no_runs():
    assert len(silent_runs(bars_of([]), MINUTE).length) == 0
    assert len(silent_runs(bars_of([1, 3]), 0).length) == 0


def test_a_market_goes_on_where_it_rested_and_not_where_it_was_cut_off():
    rng = np.random.default_rng(1)
    traded = rng.random(5_000) > 0.2
    traded[[0, -1]] = True
    traded[2_000:2_060] = False
    bars = bars_of(np.flatnonzero(traded))
    runs = silent_runs(bars, MINUTE)
    joined = continuous_rows(bars, MINUTE, runs)
    assert not joined[0]
    outages = set((runs.start + runs.length * MINUTE)[runs.outage].tolist())
    assert set(bars.timestamp[~joined][1:].tolist()) == outages
    assert any(
        start < 2_060 * MINUTE <= end for start, end in zip(runs.start[runs.outage], sorted(outages), strict=True)
    )
