import json
from dataclasses import asdict, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.market.bars import Bars, drop_duplicates
from bitcorn_ray.market.clean import clean_bars, cleaning_counts
from bitcorn_ray.market.policy import CleaningPolicy
from bitcorn_ray.market.simulate import simulate_bars

PRICES = ("open", "high", "low", "close", "volume")
HOUR = 3_600_000


@settings(deadline=None)
@given(st.lists(st.integers(0, 3), max_size=30))
def test_the_last_stored_row_of_each_time_is_kept(steps):
    times = np.cumsum(np.array(steps, dtype=np.int64))
    row = np.arange(len(times), dtype=np.float64)
    kept = drop_duplicates(Bars(timestamp=times, **{name: row + i for i, name in enumerate(PRICES)}))
    last = {time: n for n, time in enumerate(times.tolist())}
    assert kept.timestamp.tolist() == list(last)
    for i, name in enumerate(PRICES):
        assert getattr(kept, name).tolist() == [n + i for n in last.values()]


def test_bars_without_duplicates_are_not_copied(random_bars):
    bars = random_bars(100)
    assert drop_duplicates(bars) is bars


def test_bars_without_times_are_left_as_they_are():
    bars = Bars(timestamp=np.arange(3), timed=False, **{name: np.ones(3) for name in PRICES})
    assert drop_duplicates(bars) is bars


def test_missing_prices_are_not_repaired(random_bars):
    bars = random_bars(50)
    bars.close[7] = np.nan
    assert np.isnan(drop_duplicates(bars.take(np.repeat(np.arange(50), 2))).close).nonzero()[0].tolist() == [7]


def with_times(bars, times):
    return Bars(**{**bars.columns(), "timestamp": np.asarray(times, dtype=np.int64)})


def test_clean_bars_are_left_alone_and_the_record_says_so(random_bars):
    bars = random_bars(200)
    clean = clean_bars(bars, timeframe="1h")
    assert clean.report == {
        "policy": asdict(CleaningPolicy()),
        "rows": 200,
        "sorted_rows": 0,
        "duplicates_dropped": 0,
        "off_grid": {"count": 0, "list": [], "dropped": 0, "snapped": 0},
        "bad_prints": {"count": 0, "masked": 0, "list": []},
        "bars": 200,
    }
    assert not clean.filled.any()
    for name, column in bars.columns().items():
        assert np.array_equal(getattr(clean.bars, name), column)


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 10**6), st.sampled_from(["first", "last"]), st.data())
def test_any_order_and_duplicates_give_the_same_bars(seed, keep, data):
    bars = simulate_bars(60, seed=1, gaps=0)
    rng = np.random.default_rng(seed)
    again = np.sort(rng.choice(60, data.draw(st.integers(0, 20)), replace=False))
    wrong = bars.take(again)
    wrong.close[:] *= 1.0001
    order = rng.permutation(60)
    first, last = (bars.take(order), wrong) if keep == "first" else (wrong, bars.take(order))
    columns = {n: np.concatenate([getattr(first, n), getattr(last, n)]) for n in bars.columns()}
    clean = clean_bars(Bars(**columns), CleaningPolicy(duplicates=keep), "1h")
    assert clean.report["duplicates_dropped"] == len(again)
    for name, column in bars.columns().items():
        assert np.array_equal(getattr(clean.bars, name), column)


def test_duplicates_are_refused_where_the_policy_says_so(random_bars):
    bars = random_bars(20)
    clean_bars(bars, CleaningPolicy(duplicates="error"))
    with pytest.raises(BitcornError, match=r"2 rows .* first 2023-01-01T03:00:00Z"):
        clean_bars(bars.take(np.array([0, 1, 2, 3, 3, 3, 4, 5])), CleaningPolicy(duplicates="error"))


def test_bars_off_the_grid_are_dropped_or_snapped(random_bars):
    bars = random_bars(20)
    times = bars.timestamp.copy()
    times[4] += 20 * 60_000  # its place is free, as it stood there
    times[9] += 59 * 60_000 + 59_999  # belongs to the next place, which is taken
    times[14] -= 1
    dropped = clean_bars(with_times(bars, times), timeframe="1h")
    assert dropped.report["off_grid"]["dropped"] == 3
    assert len(dropped.bars) == 17
    snapped = clean_bars(with_times(bars, times), CleaningPolicy(off_grid="snap"), "1h")
    assert {k: v for k, v in snapped.report["off_grid"].items() if k != "list"} == {
        "count": 3,
        "dropped": 1,
        "snapped": 2,
    }
    assert np.array_equal(snapped.bars.timestamp, np.delete(bars.timestamp, 9))
    assert snapped.bars.close[4] == bars.close[4]


def test_an_early_bar_does_not_push_out_the_one_that_is_on_the_grid(random_bars):
    bars = random_bars(20)
    extra = bars.take(np.array([7]))
    extra.close[:] = 1e9
    columns = {n: np.append(getattr(bars, n), getattr(extra, n)) for n in bars.columns()}
    columns["timestamp"][-1] += 1_000
    clean = clean_bars(Bars(**columns), CleaningPolicy(off_grid="snap"), "1h")
    assert np.array_equal(clean.bars.close, bars.close)


def test_bad_prints_are_kept_or_masked(random_bars):
    bars = random_bars(100, seed=3)
    bars.close[50] *= 2
    bars.high[50] = bars.close[50]
    kept = clean_bars(bars)
    assert (len(kept.bars), kept.report["bad_prints"]["count"], kept.report["bad_prints"]["masked"]) == (100, 1, 0)
    masked = clean_bars(bars, CleaningPolicy(bad_prints="mask"))
    assert masked.report["bad_prints"]["list"] == [
        {"at": bars.describe(50), "kind": "close", "price": pytest.approx(bars.close[50])}
    ]
    assert np.array_equal(masked.bars.timestamp, np.delete(bars.timestamp, 50))
    filled = clean_bars(bars, CleaningPolicy(bad_prints="mask", fill="forward"))
    assert np.flatnonzero(filled.filled).tolist() == [50]
    assert filled.bars.close[50] == bars.close[49]


def slow_fill(bars, strategy, most):
    """Rows bar by bar: (time, open, high, low, close, volume, filled)."""
    rows = []
    for t in range(len(bars)):
        row = [float(getattr(bars, name)[t]) for name in PRICES]
        time = int(bars.timestamp[t])
        if rows:
            before, missing = rows[-1], (time - rows[-1][0]) // HOUR - 1
            if most is None or missing <= most:
                for k in range(missing):
                    share = (k / (missing + 1), (k + 1) / (missing + 1)) if strategy == "linear" else (0, 0)
                    opened, closed = (before[4] + each * (row[0] - before[4]) for each in share)
                    high, low = max(opened, closed), min(opened, closed)
                    rows.append([before[0] + (k + 1) * HOUR, opened, high, low, closed, 0.0, True])
        rows.append([time, *row, False])
    return rows


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 10**6), st.sampled_from(["forward", "linear"]), st.sampled_from([None, 1, 2, 5]), st.integers(0, 30)
)
def test_gaps_are_filled_as_by_a_slow_loop(seed, strategy, most, removed):
    rng = np.random.default_rng(seed)
    bars = simulate_bars(60, seed=seed, gaps=0)
    bars = bars.take(np.sort(rng.choice(60, 60 - removed, replace=False)))
    clean = clean_bars(bars, CleaningPolicy(fill=strategy, max_gap_size=most), "1h")
    slow = slow_fill(bars, strategy, most)
    assert clean.bars.timestamp.tolist() == [row[0] for row in slow]
    assert clean.filled.tolist() == [row[6] for row in slow]
    for n, name in enumerate(PRICES):
        assert getattr(clean.bars, name) == pytest.approx(np.array([row[n + 1] for row in slow]))
    assert clean.report["bars_filled"] == clean.filled.sum()
    assert not any(clean.bars.low > clean.bars.high)
    left = sum(gap["missing_bars"] for gap in clean.report["gaps_left"])
    assert left + clean.filled.sum() == (bars.timestamp[-1] - bars.timestamp[0]) // HOUR + 1 - len(bars)
    json.dumps(clean.report, allow_nan=False)


def test_the_input_is_not_written_to(random_bars):
    bars = random_bars(100).read_only()
    policy = CleaningPolicy(off_grid="snap", fill="linear", bad_prints="mask")
    clean_bars(bars.take(np.delete(np.arange(100), [5, 6])), policy)


@pytest.mark.parametrize(
    "wrong",
    [{"duplicates": "any"}, {"off_grid": None}, {"fill": "spline"}, {"bad_prints": "fix"}, {"max_gap_size": 0}],
)
def test_unknown_policies_are_refused(wrong):
    with pytest.raises(BitcornError, match=next(iter(wrong))):
        CleaningPolicy(**wrong)


def test_hardly_any_bars_are_clean(random_bars):
    for rows in (0, 1):
        bars = random_bars(10).take(slice(0, rows))
        assert len(clean_bars(bars, CleaningPolicy(fill="forward")).bars) == rows
    with pytest.raises(BitcornError, match="without times"):
        clean_bars(replace(bars, timed=False))


def test_further_columns_go_along(random_bars):
    bars = replace(random_bars(20), extra={"trades": np.arange(20.0), "open_interest": np.arange(20.0)})
    clean = clean_bars(bars.take(np.delete(np.arange(20), [5, 6])[::-1]), CleaningPolicy(fill="linear"), "1h")
    assert clean.bars.extra["trades"].tolist() == [0, 1, 2, 3, 4, 0, 0, *range(7, 20)]
    assert clean.bars.extra["open_interest"].tolist() == [0, 1, 2, 3, 4, 4, 4, *range(7, 20)]


def test_a_record_counts_what_was_done(random_bars):
    bars = random_bars(300, seed=3)
    bars.close[50] *= 2
    bars.high[50] = bars.close[50]
    order = np.r_[1, 0, np.arange(1, 100), np.arange(101, 200), np.arange(206, 300)]
    done = clean_bars(bars.take(order), CleaningPolicy(bad_prints="mask", fill="forward", max_gap_size=2), "1h")
    assert cleaning_counts(done.report) == {
        "rows": 294,
        "sorted_rows": 1,
        "duplicates_dropped": 1,
        "off_grid_dropped": 0,
        "off_grid_snapped": 0,
        "bad_prints_masked": 1,
        "gaps_filled": 2,
        "bars_filled": 2,
        "gaps_left": 1,
        "bars": 294,
    }
    assert cleaning_counts(clean_bars(bars.take(slice(1)), timeframe="1h").report)["bars"] == 1
