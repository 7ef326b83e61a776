"""vol: equal to a slow oracle, finite in extreme markets and across gaps, independent of the future."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.features.audit import audit
from bitcorn_ray.features.registry import SYSTEMS, find_system
from bitcorn_ray.features.systems import vol
from bitcorn_ray.market.bars import Bars
from bitcorn_ray.market.simulate import simulate_bars

DAY, WEEK, HOUR = 24, 168, 3_600_000
VOL = SYSTEMS["vol"]


@pytest.fixture(scope="module")
def bars():
    return simulate_bars(5_200, seed=11, gaps=8)


@pytest.fixture(scope="module")
def features(bars):
    return dict(zip(VOL.features, VOL.matrix(bars).astype(np.float64), strict=True))


def frame_of(bars):
    df = pd.DataFrame({name: column for name, column in bars.columns().items() if name != "timestamp"})
    df["r"] = np.log(df.close).diff()
    df["k"] = np.log(df.high / df.low) ** 2 / (4 * math.log(2))
    weights = np.exp(-np.arange(8 * WEEK) / WEEK)
    squares = df.r.to_numpy() ** 2
    s = np.full(len(df), np.nan)
    for t in range(1, len(df)):
        past = squares[max(1, t - 8 * WEEK + 1) : t + 1][::-1]
        s[t] = math.sqrt((weights[: len(past)] * past).sum() / weights[: len(past)].sum())
    df["s"] = s
    return df


def within_6(x):
    return x / np.sqrt(1 + (x / 6) ** 2)


def windowed(df):
    """Compute every feature except profiles and clock, one plain line each."""
    r, k, s, v = df.r, df.k, df.s, df.volume
    out = {}
    for w in (1, 2, 4, 8, DAY, 3 * DAY, WEEK, 3 * WEEK, 8 * WEEK):
        out[f"rv_{w}"] = np.log((r**2).rolling(w).mean() / s**2 + 0.01)
        out[f"range_{w}"] = np.log(k.rolling(w).mean() / s**2 + 0.003)
    for w in (2, 4, 8, DAY, 3 * DAY, WEEK, 3 * WEEK, 8 * WEEK, 16 * WEEK):
        out[f"abs_{w}"] = np.log(r.abs().rolling(w).mean() / s + 0.03)
        out[f"log_range_{w}"] = np.log(k / s**2 + 0.003).rolling(w).mean()
    for n in (1, 2, 4, 8, DAY, 3 * DAY, WEEK, 3 * WEEK):
        out[f"ret_{n}"] = within_6(np.log(df.close / df.close.shift(n)) / (s * math.sqrt(n)))
    for w in (4, DAY, WEEK, 8 * WEEK):
        out[f"signed_{w}"] = (r * r.abs()).rolling(w).mean() / ((r**2).rolling(w).mean() + 1e-4 * s**2)
    out["from_high"] = within_6(np.log(df.close / df.high.rolling(WEEK).max()) / (s * math.sqrt(WEEK)))
    out["from_low"] = within_6(np.log(df.close / df.low.rolling(WEEK).min()) / (s * math.sqrt(WEEK)))
    out["gap"] = np.log(np.log(df.open / df.close.shift(1)).abs() / s + 0.01)
    out["close_place"] = (2 * df.close - df.high - df.low) / (df.high - df.low + 0.1 * s * df.close)
    for w in (1, 2, 4, 8, DAY, 3 * DAY):
        out[f"volume_{w}"] = np.log(v.rolling(w).mean() / v.rolling(WEEK).mean() + 0.01)
    for w in (WEEK, 3 * WEEK):
        out[f"volume_{w}"] = np.log(v.rolling(w).mean() / v.rolling(8 * WEEK).mean() + 0.01)
    return out


def test_windows_equal_their_formulas(bars, features):
    expected = windowed(frame_of(bars))
    for name, values in expected.items():
        kept = values.to_numpy()[VOL.warmup_bars :]
        np.testing.assert_allclose(features[name][VOL.warmup_bars :], kept, rtol=2e-5, atol=2e-5, err_msg=name)
    others = set(VOL.features) - set(expected)
    assert all(name.startswith(("of_", "hour_", "week_")) for name in others)
    assert len(VOL.features) == 87


def slow_profiles(bars, row):
    """Compute the profiles at one row by going back hour by hour: {name: value}."""
    times = bars.timestamp
    k = np.log(bars.high / bars.low) ** 2 / (4 * math.log(2))
    at = dict(zip(times.tolist(), k.tolist(), strict=True))
    place = dict(zip(times.tolist(), range(len(times)), strict=True))

    def week_excess(time):
        around = [at[t] for t in range(time - 84 * HOUR, time + 85 * HOUR, HOUR) if t in at]
        return math.log(at[time] / np.mean(around) + 0.003) if len(around) >= 84 else None

    def day_excess(time):
        row = place[time]
        return math.log(at[time] / k[row - WEEK + 1 : row + 1].mean() + 0.003)

    def mean_of(excess, time, lag, count):
        found = [excess(t) for t in (time - lag * n * HOUR for n in range(1, count + 1)) if t in at]
        found = [each for each in found if each is not None]
        return float(np.mean(found)) if found else 0.0

    now, out = int(times[row]), {}
    kinds = (
        ("of_week", week_excess, WEEK, 24),
        ("of_day", day_excess, DAY, 84),
        ("of_recent_day", day_excess, DAY, 28),
    )
    for name, excess, lag, count in kinds:
        out[f"{name}_0"] = mean_of(excess, now, lag, count)
        for n in (1, 4, 12, DAY):
            ahead = [mean_of(excess, now + i * HOUR, lag, count) for i in range(1, n + 1)]
            out[f"{name}_{n}"] = float(np.mean(ahead))
    return out


def test_profiles_equal_going_back_hour_by_hour_across_gaps(bars, features):
    assert (np.diff(bars.timestamp) > HOUR).sum() > 2
    for row in np.random.default_rng(0).integers(VOL.warmup_bars, len(bars), 12).tolist():
        for name, value in slow_profiles(bars, row).items():
            assert features[name][row] == pytest.approx(value, abs=2e-5), (name, row)


def test_the_clock_is_the_calendar(bars, features):
    opened = pd.to_datetime(bars.timestamp[VOL.warmup_bars :], unit="ms", utc=True)
    hour, of_week = opened.hour.to_numpy(), (opened.day_of_week * 24 + opened.hour).to_numpy()
    for i in (1, 2, 3):
        for name, turn in (("hour", hour / 24), ("week", of_week / 168)):
            sine, cosine = (features[f"{name}_{wave}{i}"][VOL.warmup_bars :] for wave in ("sin", "cos"))
            np.testing.assert_allclose(sine, np.sin(2 * np.pi * i * turn), atol=1e-5)
            np.testing.assert_allclose(cosine, np.cos(2 * np.pi * i * turn), atol=1e-5)


def test_no_feature_knows_the_scale(bars, features):
    scaled = Bars(
        **{
            name: column if name == "timestamp" else column * (1e-7 if name != "volume" else 1e9)
            for name, column in bars.columns().items()
        }
    )
    np.testing.assert_allclose(
        VOL.matrix(scaled)[:, VOL.warmup_bars :],
        np.stack(list(features.values()))[:, VOL.warmup_bars :],
        rtol=1e-4,
        atol=1e-4,
    )


def test_a_value_depends_on_its_warmup_alone(bars, features):
    start = 700
    cut = VOL.matrix(bars.take(slice(start, None)))
    whole = np.stack(list(features.values())).astype(np.float32)
    np.testing.assert_array_equal(cut[:, VOL.warmup_bars :], whole[:, start + VOL.warmup_bars :])


def test_it_passes_the_audit(bars):
    report = audit(bars, VOL, seed=0)
    assert report.findings == ()


def test_a_constant_market_has_finite_features():
    bars = simulate_bars(4_400, seed=1, gaps=0)
    still = {name: np.full(4_400, 2.5) for name in ("open", "high", "low", "close")}
    matrix = VOL.matrix(Bars(timestamp=bars.timestamp, volume=np.zeros(4_400), **still))
    assert np.isfinite(matrix[:, VOL.warmup_bars :]).all()


def test_a_wick_to_nothing_leaves_values_that_can_be_learned_from():
    bars = simulate_bars(4_400, seed=1, gaps=0)
    low = bars.low.copy()
    low[4_300] = 1e-6 * low[4_300]
    wild = Bars(**{**bars.columns(), "low": low})
    matrix = VOL.matrix(wild)[:, VOL.warmup_bars :]
    assert np.isfinite(matrix).all()
    assert np.abs(matrix).max() < 20


def test_other_day_lengths_and_refused_ones():
    quarter = find_system("vol:day=12")
    assert quarter.warmup_bars == 24 * 84 + 42 + 1
    assert "rv_36" in quarter.features
    for wrong in ("vol:day=6", "vol:day=11", "vol:day=1"):
        with pytest.raises(BitcornError, match="intraday bars"):
            find_system(wrong).warmup_bars  # noqa: B018
    with pytest.raises(BitcornError, match="time of each bar"):
        vol.compute(replace(simulate_bars(300, seed=1), timed=False))
