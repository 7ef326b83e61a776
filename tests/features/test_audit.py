"""The audit finds planted leaks, names their feature, and passes honest systems."""

import dataclasses
import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.features.audit import audit
from bitcorn_ray.features.registry import SYSTEMS
from bitcorn_ray.features.system import FeatureSystem
from bitcorn_ray.features.systems import v4
from bitcorn_ray.market.bars import modal_step
from bitcorn_ray.market.simulate import simulate_bars
from bitcorn_ray.sources.frames import read_frame

HOUR = 3_600_000
LEAKS, HONEST = [], []


def planted(kind="look-ahead", warmup=30):
    """Mark a function as a leak that the audit must find as this kind."""

    def mark(function):
        LEAKS.append(pytest.param(function, kind, warmup, id=function.__name__))
        return function

    return mark


def honest(warmup=30):
    def mark(function):
        HONEST.append(pytest.param(function, warmup, id=function.__name__))
        return function

    return mark


def close(bars):
    return pd.Series(bars.close)


def ret(bars):
    return np.log(close(bars)).diff().fillna(0.0)


def timed(bars):
    return pd.Series(bars.close, index=pd.to_datetime(bars.timestamp, unit="ms"))


def swapped(bars, rows):
    """Log returns with the next one instead at some rows."""
    own = ret(bars).to_numpy()
    return np.where(rows, np.append(own[1:], 0.0), own)


# The next bars


@planted()
def the_next_return(bars):
    return ret(bars).shift(-1).fillna(0.0)


@planted()
def a_return_200_bars_ahead(bars):
    return (close(bars).shift(-200) / close(bars) - 1).fillna(0.0)


@planted()
def a_millionth_of_the_next_return(bars):
    return ret(bars) + 1e-6 * ret(bars).shift(-1).fillna(0.0)


@planted()
def a_centred_window(bars):
    return close(bars).rolling(21, center=True, min_periods=1).mean() / close(bars)


@planted()
def a_convolution_of_the_same_length(bars):
    return np.convolve(bars.close, np.ones(9) / 9, "same") / bars.close


@planted()
def pivots_that_the_future_confirms(bars):
    return (bars.high == pd.Series(bars.high).rolling(11, center=True).max()).astype(float)


@planted()
def interpolation_between_every_24th_bar(bars):
    known = np.arange(0, len(bars), 24)
    return np.interp(np.arange(len(bars)), known, bars.close[known]) / bars.close


@planted()
def the_nearest_bar_of_a_day(bars):
    days = pd.DataFrame({"t": bars.timestamp[::24], "x": bars.close[::24]})
    joined = pd.merge_asof(pd.DataFrame({"t": bars.timestamp}), days, on="t", direction="nearest")
    return joined["x"].to_numpy() / bars.close


@planted()
def the_open_bar_of_four_hours(bars):
    own = timed(bars)
    return (own / own.resample("4h").last().reindex(own.index, method="ffill").ffill()).to_numpy()


@planted()
def the_high_of_the_week_that_runs(bars):
    own = timed(bars)
    return (own / own.groupby(own.index.floor("7D")).transform("max")).to_numpy()


# All bars


@planted()
def z_score_of_all(bars):
    return (ret(bars) - ret(bars).mean()) / ret(bars).std()


@planted()
def min_max_of_all(bars):
    return (bars.close - bars.close.min()) / (bars.close.max() - bars.close.min())


@planted()
def rank_in_all(bars):
    return ret(bars).rank(pct=True)


@planted()
def clip_at_a_quantile_of_all(bars):
    return ret(bars).clip(upper=ret(bars).quantile(0.99))


@planted()
def principal_component_of_all(bars):
    x = np.column_stack([ret(bars), np.log(bars.high / bars.low)])
    x -= x.mean(0)
    return x @ np.linalg.svd(x, full_matrices=False)[2][0]


@planted()
def low_pass_filter_of_all(bars):
    spectrum = np.fft.rfft(np.log(bars.close))
    spectrum[len(spectrum) // 10 :] = 0
    return np.log(bars.close) - np.fft.irfft(spectrum, len(bars))


@planted()
def a_sum_from_the_end(bars):
    return np.log(bars.volume[::-1] + 1).cumsum()[::-1]


@planted()
def share_of_the_length(bars):
    return np.arange(len(bars)) / len(bars)


@planted()
def ratio_to_the_last_close(bars):
    return bars.close / bars.close[-1]


@planted()
def the_next_return_in_long_series_only(bars):
    return swapped(bars, np.full(len(bars), len(bars) >= 1_100))


# Only here and there


@planted()
def back_filled_warm_up(bars):
    return (close(bars) / close(bars).rolling(20).mean()).bfill()


@planted(warmup=5)
def back_filled_and_kept_warm_up(bars):
    return (close(bars) / close(bars).rolling(20).mean()).bfill()


@planted()
def back_fill_where_the_market_stands_still(bars):
    deviation = close(bars).rolling(5).std()
    return (ret(bars) / deviation.where(deviation > 0)).bfill().fillna(0.0)


@planted()
def back_fill_where_nothing_was_traded(bars):
    volume = pd.Series(bars.volume)
    return np.log(volume.where(volume > 0)).bfill().fillna(0.0)


@planted()
def back_fill_of_missing_closes(bars):
    return close(bars).bfill().pct_change(fill_method=None).fillna(0.0)


@planted()
def interpolation_of_missing_closes(bars):
    return close(bars).interpolate().pct_change(fill_method=None).fillna(0.0)


@planted()
def a_gap_before_it_comes(bars):
    return ret(bars) + (np.append(np.diff(bars.timestamp), HOUR) > HOUR)


@planted()
def the_last_bar_of_a_month(bars):
    month = bars.timestamp.astype("M8[ms]").astype("M8[M]")
    return swapped(bars, np.append(month[1:] != month[:-1], False))


@planted()
def one_hour_of_the_week(bars):
    return swapped(bars, (bars.timestamp // HOUR) % 168 == 13)


@planted()
def every_500th_bar(bars):
    return swapped(bars, np.arange(len(bars)) % 500 == 0)


@planted()
def the_bar_before_the_highest(bars):
    out = ret(bars).to_numpy().copy()
    out[max(int(np.argmax(bars.high)) - 1, 0)] += 0.1
    return out


@planted()
def a_fall_by_half_before_it_comes(bars):
    return ret(bars) + (np.append(bars.close[1:], bars.close[-1]) < 0.5 * bars.close)


@planted()
def a_high_before_it_comes(bars):
    return ret(bars) + (np.append(bars.high[1:], bars.high[-1]) > 1.4 * bars.high)


@planted()
def a_burst_of_volume_before_it_comes(bars):
    return ret(bars) + (np.append(bars.volume[1:], bars.volume[-1]) > 20 * bars.volume)


# The past


@planted("warm-up")
def a_sum_from_the_start(bars):
    return np.log(bars.volume + 1).cumsum()


@planted("warm-up", warmup=40)
def a_recursion_with_twice_its_span(bars):
    return close(bars) / close(bars).ewm(span=20, adjust=False).mean() - 1


@planted("warm-up", warmup=10)
def a_window_that_is_longer_than_declared(bars):
    return close(bars) / close(bars).rolling(50).mean()


@planted("warm-up", warmup=10)
def a_longer_window_that_begins_at_once(bars):
    return close(bars) / close(bars).rolling(200, min_periods=1).mean()


@planted("warm-up")
def the_highest_so_far(bars):
    return bars.close / np.maximum.accumulate(bars.high)


@planted("warm-up")
def the_last_large_return(bars):
    return ret(bars).where(ret(bars).abs() > 0.02).ffill().fillna(0.0)


# Values


@planted("nan")
def holes_at_large_returns(bars):
    return ret(bars).where(ret(bars).abs() < 0.02)


@planted("inf")
def a_division_by_zero(bars):
    return np.divide(1.0, np.arange(len(bars)) % 100 != 50, out=np.full(len(bars), np.inf), where=bars.close > 0)


@planted("unstable")
def noise(bars):
    return ret(bars) + 1e-3 * np.random.default_rng().normal(size=len(bars))


_CALLS = [0]


@planted("unstable")
def a_count_of_calls(bars):
    _CALLS[0] += 1
    return ret(bars) + _CALLS[0]


# Honest ones


@honest()
def a_return(bars):
    return ret(bars)


@honest()
def a_return_whose_first_value_is_wrapped_around(bars):
    return bars.close / np.roll(bars.close, 1) - 1


@honest()
def a_trailing_window(bars):
    return close(bars).rolling(21).mean() / close(bars)


@honest()
def a_trailing_z_score(bars):
    return ((ret(bars) - ret(bars).rolling(30).mean()) / ret(bars).rolling(30).std()).fillna(0.0)


@honest(warmup=100)
def a_recursion_with_five_spans(bars):
    return close(bars) / close(bars).ewm(span=20, adjust=False).mean() - 1


@honest(warmup=150)
def the_index_of_wilder(bars):
    moved = close(bars).diff()
    mean = moved.ewm(alpha=1 / 14, adjust=False).mean() / moved.abs().ewm(alpha=1 / 14, adjust=False).mean()
    return mean.where(moved.abs().rolling(14).sum() > 0, 0.0)


@honest(warmup=60)
def the_closed_bar_of_four_hours(bars):
    own = timed(bars)
    # Label 04:00 stands for what closed before 04:00; the bar that starts at 03:00 ends with it, but waits here.
    closed = own.resample("4h", label="right").last().ffill()
    return (own / closed.reindex(own.index, method="ffill")).fillna(1.0).to_numpy()


@honest()
def the_gap_before(bars):
    return np.log(np.diff(bars.timestamp, prepend=bars.timestamp[0] - HOUR) / HOUR)


@honest()
def confirmed_pivots(bars):
    return (pd.Series(bars.high).shift(5) == pd.Series(bars.high).rolling(11).max()).astype(float)


def system(function, warmup):
    return FeatureSystem(
        name="planted",
        version=1,
        function=lambda bars: {"clean": bars.close / bars.open, "spoilt": function(bars)},
        warmup=warmup,
        declared=("clean", "spoilt"),
    )


@pytest.mark.parametrize(("function", "kind", "warmup"), LEAKS)
def test_a_planted_leak_is_found_and_named(function, kind, warmup):
    report = audit(simulate_bars(1_200, seed=1), system(function, warmup), cuts=16)
    assert not report.passed
    assert {finding.feature for finding in report.findings} == {"spoilt"}
    found = {finding.kind: finding for finding in report.findings}
    assert kind in found
    assert found[kind].size > 0
    assert found[kind].cuts > 0
    assert 0 <= found[kind].row < report.rows


@pytest.mark.parametrize(("function", "warmup"), HONEST)
def test_an_honest_feature_passes(function, warmup):
    report = audit(simulate_bars(1_500, seed=2), system(function, warmup), cuts=20)
    assert report.findings == ()
    assert report.cuts > 100


@pytest.mark.parametrize(
    "name",
    ["rsi", "har_1", "candle_body", "volume_z"],
)
def test_a_leak_in_one_feature_of_v4_is_named_and_no_other(name):
    def spoilt(bars):
        computed = v4.compute(bars)
        return {**computed, name: pd.Series(computed[name]).shift(-1).to_numpy()}

    planted = FeatureSystem(name="spoilt", version=1, function=spoilt, warmup=v4.warmup(), declared=v4.FEATURES)
    report = audit(simulate_bars(1_500, seed=3), planted, cuts=8)
    assert {finding.feature for finding in report.findings} == {name}
    assert report.findings[0].kind == "look-ahead"


def test_back_fill_into_the_warm_up_of_v4_is_found():
    def spoilt(bars):
        computed = v4.compute(bars)
        return {**computed, "adx": pd.Series(computed["adx"]).bfill().to_numpy()}

    planted = FeatureSystem(name="spoilt", version=1, function=spoilt, warmup=v4.warmup(), declared=v4.FEATURES)
    report = audit(simulate_bars(1_500, seed=3), planted, cuts=24)
    assert [(finding.feature, finding.kind) for finding in report.findings] == [("adx", "look-ahead")]


SYSTEM_VARIANTS = {
    "v2": SYSTEMS["v2"],
    "v4": SYSTEMS["v4"],
    "v4 with a context": SYSTEMS["v4"].with_context("4h").on_grid(HOUR),
    "v4 with short windows": SYSTEMS["v4"].with_parameters(short=3, medium=9, long=40, oscillator=7, fib=20),
}


@pytest.mark.parametrize("name", SYSTEM_VARIANTS)
def test_our_systems_pass_on_simulated_bars_with_gaps(name):
    bars = simulate_bars(3_000, seed=4)
    report = audit(bars, SYSTEM_VARIANTS[name], cuts=16, seed=1)
    assert report.findings == ()
    assert report.rows == len(bars)
    assert report.features == SYSTEM_VARIANTS[name].features


def test_v2_and_v4_pass_without_times_where_they_can():
    bars = dataclasses.replace(simulate_bars(1_000, seed=5), timed=False)
    assert audit(bars, SYSTEMS["v2"], cuts=16).passed
    report = audit(bars, SYSTEMS["v4"], cuts=16)
    assert [finding.kind for finding in report.findings] == ["error"]
    assert "timestamp" in report.findings[0].detail


@pytest.mark.parametrize(
    ("partition", "spec"),
    [("BTCUSDT_4h", "v2"), ("BTCUSDT_4h", "v4"), ("DOGEUSDT_1d", "v2"), ("DOGEUSDT_1d", "v4"), ("XRPUSDT_1h", "v4")],
)
def test_our_systems_pass_on_real_bars(data_dir, partition, spec):
    bars = read_frame(pd.read_parquet(data_dir / "bars" / f"{partition}.parquet"))
    report = audit(bars, SYSTEMS[spec].on_grid(modal_step(bars.timestamp)), cuts=16)
    assert report.findings == ()
    assert all(profile["missing"] == 0 for profile in report.profile.values())


def test_a_leak_in_real_bars_is_reported_with_bar_size_and_cause(data_dir):
    bars = read_frame(pd.read_parquet(data_dir / "bars" / "BTCUSDT_4h.parquet"))
    found = audit(bars, system(the_next_return, 30), cuts=16).findings[0]
    assert (found.feature, found.kind) == ("spoilt", "look-ahead")
    assert found.at == bars.describe(found.row)
    assert found.at in found.detail
    assert "later bars" in found.detail


def test_a_function_that_changes_its_bars_is_an_error():
    def careless(bars):
        bars.close[0] = 1.0
        return {"x": bars.close}

    report = audit(simulate_bars(400, seed=0), FeatureSystem(name="careless", version=1, function=careless, warmup=1))
    assert [(finding.feature, finding.kind) for finding in report.findings] == [("all", "error")]
    assert "read-only" in report.findings[0].detail


def test_a_function_that_fails_on_some_bars_is_an_error():
    def brittle(bars):
        if (bars.volume == 0).any():
            raise ZeroDivisionError("nothing was traded")
        return {"x": bars.close / bars.volume}

    report = audit(simulate_bars(400, seed=0), FeatureSystem(name="brittle", version=1, function=brittle, warmup=1))
    found = {finding.kind: finding for finding in report.findings}
    assert "nothing was traded" in found["error"].detail


def test_a_report_profiles_each_feature_and_is_plain_json():
    bars = simulate_bars(500, seed=0)

    def clipped(bars):
        return {
            "x": np.where(np.arange(len(bars)) == 300, np.nan, np.clip(ret(bars), -0.001, 0.002)),
            "n": bars.close * np.nan,
        }

    report = audit(bars, FeatureSystem(name="clipped", version=1, function=clipped, warmup=10, declared=("x", "n")))
    x = report.profile["x"]
    assert (x["min"], x["max"], x["largest"]) == pytest.approx((-0.001, 0.002, 0.002))
    assert x["missing"] == pytest.approx(1 / (len(bars) - 10))
    values = ret(bars).to_numpy()[10:]
    assert x["saturated"] == pytest.approx(np.mean((values < -0.001) | (values > 0.002)), abs=0.01)
    assert report.profile["n"] == {"min": None, "max": None, "largest": None, "missing": 1.0, "saturated": 0.0}
    assert {(finding.feature, finding.size) for finding in report.findings} == {
        ("x", 1.0),
        ("n", float(len(bars) - 10)),
    }
    assert json.loads(json.dumps(dataclasses.asdict(report), allow_nan=False))["system"] == "clipped"


def remembering(function):
    """A system whose function has its own memory."""
    memory = {}
    return system(lambda bars: function(bars, memory), 30)


def the_mean_of_the_first_bars_seen(bars, memory):
    return ret(bars) - memory.setdefault("mean", ret(bars).mean())


def the_next_return_as_first_seen(bars, memory):
    for time, value in zip(bars.timestamp.tolist(), swapped(bars, True).tolist(), strict=True):
        memory.setdefault(time, value)
    return [memory[time] for time in bars.timestamp.tolist()]


def returns_that_are_looked_up(bars, memory):
    return memory.setdefault(bars.timestamp.tobytes() + bars.close.tobytes(), ret(bars))


@pytest.mark.parametrize(
    ("function", "passed"),
    [
        (the_mean_of_the_first_bars_seen, False),
        (the_next_return_as_first_seen, False),
        (returns_that_are_looked_up, True),
    ],
)
def test_memory_of_other_bars_is_found_by_a_fresh_copy(function, passed):
    bars = simulate_bars(1_200, seed=1)
    report = audit(bars, remembering(function), cuts=8, fresh=remembering(function))
    assert report.passed is passed
    assert {(finding.feature, finding.kind) for finding in report.findings} <= {("spoilt", "unstable")}


def test_the_same_seed_finds_the_same():
    bars = simulate_bars(600, seed=6)
    one, two = (audit(bars, system(one_hour_of_the_week, 30), cuts=16, seed=3) for _ in range(2))
    assert one == two


def test_too_few_bars_and_bad_bars_are_refused():
    with pytest.raises(BitcornError, match="needs 99 bars"):
        audit(simulate_bars(98, seed=0), SYSTEMS["v2"])
    with pytest.raises(BitcornError, match="0 cuts"):
        audit(simulate_bars(200, seed=0), SYSTEMS["v2"], cuts=0)
    bars = simulate_bars(200, seed=0)
    broken = dataclasses.replace(bars, close=np.where(np.arange(200) == 7, np.nan, bars.close))
    with pytest.raises(BitcornError, match="close must be"):
        audit(broken, SYSTEMS["v2"])


@pytest.mark.parametrize(("ahead", "passed"), [(0, True), (1, False)])
def test_a_look_ahead_in_a_further_column_is_found(ahead, passed):
    def of_trades(bars):
        trades = pd.Series(bars.extra["trades"]).shift(-ahead).ffill()
        return {"trades": np.log1p(trades)}

    bars = simulate_bars(1_200, seed=1)
    bars = replace(bars, extra={"trades": bars.volume[::-1].copy() + 1.0})
    source_options = FeatureSystem(
        name="x", version=1, function=of_trades, warmup=0, declared=("trades",), inputs=("trades",)
    )
    report = audit(bars, source_options, cuts=16)
    assert report.passed is passed
    assert {finding.kind for finding in report.findings} <= {"look-ahead"}
