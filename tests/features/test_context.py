"""Higher timeframes: compared with pandas and a slow loop, and independent of the future."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.features.context import closed_bars, context_name, context_reach, last_closed, require_context
from bitcorn_ray.features.registry import SYSTEMS
from bitcorn_ray.features.rolling import lagged, rolling_means
from bitcorn_ray.features.system import FeatureSystem, feature_system
from bitcorn_ray.market.bars import Bars
from bitcorn_ray.market.simulate import simulate_bars
from bitcorn_ray.market.timeframe import timeframe_ms

HOUR = 3_600_000
# In hours: what pandas calls a day is a day of the calendar, which takes no origin.
PANDAS = {"15m": "15min", "2h": "2h", "4h": "4h", "1d": "24h", "3d": "72h", "1w": "168h", "2w": "336h"}
TIMEFRAMES = ["2h", "4h", "1d", "3d", "1w", "2w"]


@feature_system(name="probe", warmup=lambda window: window)
def probe(bars, *, window=3):
    """A function that depends on every column and on as many bars as its warm-up."""
    mean = rolling_means(bars.high - bars.low, window + 1)[0]
    return {"width": mean * bars.open, "moved": bars.close - lagged(bars.close, window), "traded": bars.volume}


def gappy(n, seed, *, step=HOUR, shift=0, share=0.0):
    """Simulated bars with missing bars and stretches; `shift` moves their start on the grid."""
    bars = simulate_bars(n, seed=seed, step_ms=step, gaps=6)
    keep = np.random.default_rng(seed).random(len(bars)) >= share
    bars = Bars(**{**bars.columns(), "timestamp": bars.timestamp + shift * step})
    return bars.take(keep)


def resampled(bars, step, timeframe):
    """Closed bars by pandas: those that start within these bars and end with the last of them at latest."""
    frame = bars.to_frame().set_index("timestamp")
    # The epoch was a Thursday: 1970-01-05 was the first Monday.
    origin = pd.Timestamp("1970-01-05" if timeframe.endswith("w") else "1970-01-01", tz="UTC")
    higher = frame.resample(PANDAS[timeframe], label="left", closed="left", origin=origin).agg(
        {"open": "first", "high": "max", "low": "min", "close": "last", "volume": "sum"}
    )
    higher = higher[higher["open"].notna()]
    over = higher.index + pd.Timedelta(PANDAS[timeframe]) <= frame.index[-1] + pd.Timedelta(step, "ms")
    return higher[over & (higher.index >= frame.index[0])]


def assert_equals_pandas(bars, step, timeframe):
    expected, computed = resampled(bars, step, timeframe), closed_bars(bars, step, timeframe).to_frame()
    assert list(computed["timestamp"]) == list(expected.index)
    for name in ("open", "high", "low", "close"):
        np.testing.assert_array_equal(computed[name], expected[name], err_msg=name)
    np.testing.assert_allclose(computed["volume"], expected["volume"], rtol=1e-12)
    return len(expected)


@pytest.mark.parametrize("timeframe", TIMEFRAMES)
@pytest.mark.parametrize(("shift", "share"), [(0, 0.0), (0, 0.2), (5, 0.0), (101, 0.5), (95, 0.9)])
def test_closed_bars_are_those_of_pandas(timeframe, shift, share):
    assert assert_equals_pandas(gappy(2_500, seed=shift, shift=shift, share=share), HOUR, timeframe) >= 3


@given(
    seed=st.integers(0, 500),
    timeframe=st.sampled_from(TIMEFRAMES),
    shift=st.integers(0, 400),
    share=st.sampled_from([0.0, 0.1, 0.8]),
    length=st.integers(1, 700),
)
@settings(max_examples=60, deadline=None)
def test_closed_bars_of_any_stretch_are_those_of_pandas(seed, timeframe, shift, share, length):
    bars = gappy(700, seed, shift=shift, share=share).take(slice(length))
    assert_equals_pandas(bars, HOUR, timeframe)


def test_weeks_begin_on_monday_and_days_at_midnight():
    bars = gappy(1_000, seed=1, shift=13)
    weeks = pd.DatetimeIndex(closed_bars(bars, HOUR, "1w").to_frame()["timestamp"])
    assert len(weeks) >= 4
    assert set(weeks.day_name()) == {"Monday"}
    for index in (weeks, pd.DatetimeIndex(closed_bars(bars, HOUR, "1d").to_frame()["timestamp"])):
        assert (index == index.normalize()).all()


def test_minutes_make_quarters_of_an_hour():
    bars = gappy(2_000, seed=2, step=60_000, shift=7, share=0.3)
    assert assert_equals_pandas(bars, 60_000, "15m") > 100


def test_no_bars_have_no_higher_bars():
    bars = simulate_bars(10, seed=0)
    assert len(closed_bars(bars.take(slice(0)), HOUR, "1d")) == 0
    assert len(closed_bars(bars.take(slice(1)), HOUR, "1d")) == 0


def test_higher_bars_do_not_share_memory_that_can_change_the_bars():
    bars = gappy(300, seed=3)
    before = {name: column.tobytes() for name, column in bars.columns().items()}
    for column in closed_bars(bars, HOUR, "4h").columns().values():
        column[:] = 0
    assert before == {name: column.tobytes() for name, column in bars.columns().items()}


# The newest closed one


@pytest.mark.parametrize("timeframe", ["2h", "4h", "1d", "1w"])
@pytest.mark.parametrize(("shift", "share"), [(0, 0.0), (3, 0.3), (77, 0.8)])
def test_the_newest_closed_bar_equals_a_slow_loop(timeframe, shift, share):
    bars = gappy(1_200, seed=4, shift=shift, share=share)
    higher = closed_bars(bars, HOUR, timeframe)
    rows, known = last_closed(bars, higher, HOUR, timeframe)
    assert rows.shape == known.shape == (len(bars),)
    for t, opened in enumerate(bars.timestamp):
        closed = [row for row, at in enumerate(higher.timestamp) if at + timeframe_ms(timeframe) <= opened + HOUR]
        assert known[t] == bool(closed)
        if closed:
            assert rows[t] == closed[-1]
    assert known.any()
    assert not known[0]


def test_nothing_is_known_without_higher_bars():
    bars = simulate_bars(10, seed=0)
    rows, known = last_closed(bars, bars.take(slice(0)), HOUR, "1d")
    assert not known.any()
    assert rows.shape == (10,)


def test_a_bar_that_ends_with_the_higher_bar_sees_it():
    # 2023-01-01 begins with these bars: the bar labelled 23:00 ends with the day, the one before does not.
    bars = simulate_bars(60, seed=5)
    higher = closed_bars(bars, HOUR, "1d")
    rows, known = last_closed(bars, higher, HOUR, "1d")
    assert list(known[:25]) == [False] * 23 + [True] * 2
    assert list(rows[23:47]) == [0] * 24
    assert rows[47] == 1
    assert higher.close[0] == bars.close[23]
    assert higher.open[1] == bars.open[24]


def test_the_context_is_the_newest_closed_value_per_bar():
    bars = gappy(900, seed=6, shift=9, share=0.1)
    system = probe.with_context("4h", "1d").on_grid(HOUR)
    own = ("width", "moved", "traded")
    assert system.features == (*own, *(f"{name}_4h" for name in own), *(f"{name}_1d" for name in own))
    matrix = dict(zip(system.features, system.matrix(bars), strict=True))
    alone = dict(zip(probe.features, probe.matrix(bars), strict=True))
    first = system.warmup_bars
    assert first < len(bars) - 100
    for name in own:
        assert matrix[name][first:].tobytes() == alone[name][first:].tobytes()
        assert np.isnan(matrix[name][:first]).all()
    for timeframe in ("4h", "1d"):
        higher = resampled(bars, HOUR, timeframe)
        computed = probe.function(
            Bars(
                timestamp=np.arange(len(higher)),
                timed=False,
                **{n: higher[n].to_numpy() for n in ("open", "high", "low", "close", "volume")},
            )
        )
        ends = higher.index + pd.Timedelta(PANDAS[timeframe])
        for t in range(first, len(bars)):
            end = pd.Timestamp(bars.timestamp[t] + HOUR, unit="ms", tz="UTC")
            row = int((ends <= end).sum()) - 1
            for name in own:
                assert matrix[context_name(name, timeframe)][t] == pytest.approx(computed[name][row], rel=1e-6)


# The future


def upside_down(bars, rows):
    """Return the bars with other values in `rows`."""
    columns = {name: column.copy() for name, column in bars.columns().items()}
    for name, mirror in (("open", "open"), ("high", "low"), ("low", "high"), ("close", "close")):
        columns[name][rows] = 1e4 / getattr(bars, mirror)[rows]
    columns["volume"][rows] = columns["volume"][rows] * 1_000 + 1
    return Bars(**columns)


def test_the_open_higher_bar_is_never_seen():
    """Bars after a bar, in its own day or later, change nothing up to it."""
    bars = gappy(1_000, seed=7, shift=4)
    system = probe.with_context("1d", "1w").on_grid(HOUR)
    whole = system.matrix(bars)
    assert np.isfinite(whole[:, system.warmup_bars :]).all()
    for t in range(len(bars) - 60, len(bars) - 1):
        other = system.matrix(upside_down(bars, slice(t + 1, None)))
        assert other[:, : t + 1].tobytes() == whole[:, : t + 1].tobytes()


def test_the_own_bar_in_an_open_day_is_not_in_the_context_either():
    bars = gappy(300, seed=8)
    system = probe.with_context("1d").on_grid(HOUR)
    context = [place for place, name in enumerate(system.features) if name.endswith("_1d")]
    assert len(context) == 3
    whole, seen = system.matrix(bars)[context], 0
    for t in range(system.warmup_bars, len(bars)):
        other = system.matrix(upside_down(bars, slice(t, t + 1)))[context]
        ends_a_day = (bars.timestamp[t] + HOUR) % timeframe_ms("1d") == 0
        assert (other[:, t].tobytes() == whole[:, t].tobytes()) == (not ends_a_day)
        seen += ends_a_day
    assert seen >= 5


@given(
    seed=st.integers(0, 1_000),
    cut=st.integers(1, 400),
    shift=st.integers(0, 200),
    share=st.sampled_from([0.0, 0.05, 0.5]),
)
@settings(max_examples=40, deadline=None)
def test_features_of_a_prefix_are_the_prefix_of_the_features(seed, cut, shift, share):
    bars = gappy(1_500, seed, shift=shift, share=share)
    system = probe.with_context("4h", "1d", "3d").on_grid(HOUR)
    cut = max(len(bars) - cut, 1)
    part = system.matrix(bars.take(slice(cut)))
    assert part.shape == (12, cut)
    assert part.tobytes() == system.matrix(bars)[:, :cut].tobytes()


@pytest.mark.parametrize("early", [1_800_000, 60_000])
def test_bars_nearer_than_their_step_are_refused(early):
    """Such a bar would be part of a higher bar that the next one sees as closed."""
    bars = simulate_bars(400, seed=10, gaps=0)
    bars.timestamp[300] -= early
    with pytest.raises(BitcornError):
        probe.with_context("2h").on_grid(HOUR).matrix(bars)
    assert probe.matrix(bars).shape == (3, 400), "without a context the distance does not matter"


# Where the bars start


@given(
    seed=st.integers(0, 1_000),
    start=st.integers(1, 900),
    shift=st.integers(0, 200),
    share=st.sampled_from([0.0, 0.02, 0.3, 0.7]),
    timeframes=st.sampled_from([("2h",), ("4h", "1d"), ("1w",)]),
)
@settings(max_examples=80, deadline=None)
def test_features_do_not_depend_on_where_the_bars_start(seed, start, shift, share, timeframes):
    system = probe.with_context(*timeframes).on_grid(HOUR)
    bars = gappy(3_200, seed, shift=shift, share=share)
    start = min(start, max(len(bars) - system.warmup_bars - 10, 1))
    late = system.matrix(bars.take(slice(start, None)))[:, system.warmup_bars :]
    whole = system.matrix(bars)[:, start + system.warmup_bars :]
    assert np.isfinite(late).all()
    assert late.tobytes() == whole.tobytes()


@pytest.mark.parametrize("seed", range(6))
def test_v4_in_context_does_not_depend_on_where_the_bars_start(seed):
    small = SYSTEMS["v4"].with_parameters(short=2, medium=4, long=8, oscillator=3, fib=10)
    system = small.with_context("4h", "1d").on_grid(HOUR)
    bars = gappy(system.warmup_bars + 700, seed, shift=seed * 7, share=0.01)
    start = 57 + 41 * seed
    late = system.matrix(bars.take(slice(start, None)))[:, system.warmup_bars :]
    assert late.shape[1] > 100
    assert np.isfinite(late).all()
    assert late.tobytes() == system.matrix(bars)[:, start + system.warmup_bars :].tobytes()


@pytest.mark.parametrize("timeframe", ["2h", "4h", "1d"])
@pytest.mark.parametrize("warmup", [0, 1, 7])
def test_the_reach_contains_enough_closed_bars_wherever_it_begins(timeframe, warmup):
    reach, fewest = context_reach(warmup, HOUR, timeframe), 10**9
    bars = gappy(reach + 80, seed=9, shift=3, share=0.1)
    for start in range(len(bars) - reach):
        part = bars.take(slice(start, start + reach + 1))
        rows, known = last_closed(part, closed_bars(part, HOUR, timeframe), HOUR, timeframe)
        assert known[-1]
        fewest = min(fewest, rows[-1])
    assert fewest >= warmup


def test_the_warmup_is_that_of_the_longest_context():
    assert probe.with_context("4h", "1d").on_grid(HOUR).warmup_bars == (3 + 2) * 24
    assert probe.with_context("1d", "4h").on_grid(HOUR).warmup_bars == (3 + 2) * 24
    assert probe.with_context("1d").on_grid(4 * HOUR).warmup_bars == (3 + 2) * 6
    assert probe.on_grid(HOUR).warmup_bars == 3


def test_a_context_needs_enough_bars():
    system = probe.with_context("1d").on_grid(HOUR)
    with pytest.raises(BitcornError, match="120 bars are too few for the features probe: they need 121"):
        system.compute(simulate_bars(120, seed=0))
    computed = system.compute(simulate_bars(121, seed=0))
    assert {len(values) for values in computed.values()} == {1}
    assert np.isfinite(list(computed.values())).all()


@pytest.mark.parametrize("n", [0, 1, 5, 100])
def test_few_bars_have_no_row(n):
    matrix = SYSTEMS["v4"].with_context("1d", "1w").on_grid(HOUR).matrix(simulate_bars(100, seed=0).take(slice(n)))
    assert matrix.shape == (3 * 46, n)
    assert np.isnan(matrix).all()


# Errors


def test_bars_without_times_are_refused():
    bars = simulate_bars(300, seed=0)
    timeless = replace(bars, timed=False)
    with pytest.raises(BitcornError, match="needs the time of each bar: add a timestamp column"):
        closed_bars(timeless, HOUR, "1d")
    with pytest.raises(BitcornError, match="add a timestamp column"):
        probe.with_context("1d").on_grid(HOUR).compute(timeless)


@pytest.mark.parametrize(("timeframe", "step"), [("4h", "3h"), ("1h", "1h"), ("30m", "1h"), ("1d", "7h"), ("1h", "1d")])
def test_a_timeframe_that_does_not_fit_the_bars_is_refused(timeframe, step):
    with pytest.raises(BitcornError, match=rf"context {timeframe} does not fit bars of {step}: give a multiple"):
        require_context((timeframe,), timeframe_ms(step))
    with pytest.raises(BitcornError, match=f"context {timeframe} does not fit bars of {step}"):
        probe.with_context(timeframe).on_grid(timeframe_ms(step))


@pytest.mark.parametrize("context", [("4h", "4h"), ("4h", "1d", "240m"), ("24h", "1d"), ("7d", "1w")])
def test_a_timeframe_is_named_once(context):
    with pytest.raises(BitcornError, match="names a timeframe twice"):
        probe.with_context(*context)


@pytest.mark.parametrize("timeframe", ["", "4x", "1M", "h"])
def test_an_invalid_timeframe_is_refused(timeframe):
    with pytest.raises(BitcornError, match="timeframe"):
        probe.with_context(timeframe)


def test_a_context_without_a_grid_is_refused_with_the_remedy():
    system = probe.with_context("4h")
    assert system.features[-1] == "traded_4h"
    with pytest.raises(BitcornError, match="give the distance of the bars by on_grid"):
        system.warmup_bars  # noqa: B018
    with pytest.raises(BitcornError, match="give the distance of the bars by on_grid"):
        system.compute(simulate_bars(300, seed=0))


def test_a_grid_without_a_step_is_refused():
    with pytest.raises(BitcornError):
        probe.with_context("4h").on_grid(0).warmup_bars  # noqa: B018


def test_a_feature_that_has_the_name_of_one_in_context_is_refused():
    def twins(bars):
        return {"x": bars.close, "x_4h": bars.open}

    with pytest.raises(BitcornError, match="x_4h"):
        FeatureSystem(name="twins", version=1, function=twins, warmup=0, context=("4h",)).on_grid(HOUR).compute(
            simulate_bars(200, seed=0)
        )
