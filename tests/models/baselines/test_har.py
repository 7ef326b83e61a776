import importlib.util
import math

import numpy as np
import pandas as pd
import pytest
from small_baselines import log_har, realised_variances, strong_har

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.metrics.losses import qlike
from bitcorn_ray.models.baselines.history import History

HORIZONS = (1, 4, 12, 24)
HOUR, DAY, WEEK = 3_600_000, 86_400_000, 7 * 86_400_000


@pytest.mark.parametrize("symbol", ["BTCUSDT", "DOGEUSDT"])
def test_on_real_bars_they_are_the_yardsticks(data_dir, symbol):
    script = data_dir.parent / "yardstick" / "skill.py"
    if not script.is_file():
        pytest.skip(f"no yardstick at {script}")
    spec = importlib.util.spec_from_file_location("yardstick", script)
    yardstick = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(yardstick)
    path = data_dir / "bars" / f"{symbol}_1h.parquet"
    expected, realised = yardstick.forecasts(path)
    bars = pd.read_parquet(path)
    columns = {name: bars[name].to_numpy() for name in ("high", "low", "close")}
    history = History(timestamps=bars.ts.to_numpy(), timeframe_ms=HOUR, **columns)
    mine = realised_variances(history.close, HORIZONS)
    fit, test = np.arange(int(0.7 * len(bars))), np.arange(int(0.8 * len(bars)), len(bars) - 24)
    np.testing.assert_allclose(mine[test], realised, rtol=1e-9, atol=1e-15)
    np.testing.assert_allclose(log_har(history, mine, HORIZONS, fit, test), expected["har"], rtol=1e-9)
    np.testing.assert_allclose(strong_har(history, mine, HORIZONS, fit, test), expected["strong"], rtol=1e-9)


def slow_har(history, realised, horizons, fit, test, strong):
    """The definition, row by row: normal equations over lists."""
    windows = [1, 4, 24, 168]
    if history.timeframe_ms < HOUR:
        windows.append(WEEK // history.timeframe_ms)
    squares = history.returns**2
    ranges = np.log(history.high / history.low) ** 2 / (4 * math.log(2))

    def inputs(t):
        kinds = (squares, ranges) if strong else (squares,)
        return [1.0] + [math.log(kind[t + 1 - w : t + 1].mean() + 1e-9) for kind in kinds for w in windows]

    def slot(time):
        return time % WEEK // max(history.timeframe_ms, 15 * 60_000)

    excess = {}
    for t in range(max(fit[0], windows[-1] - 1), fit[-1] + 1):
        level = math.log(ranges[t + 1 - windows[-1] : t + 1].mean() + 1e-9)
        excess.setdefault(slot(history.timestamps[t]), []).append(math.log(ranges[t] + 1e-9) - level)
    profile = {key: float(np.mean(values)) for key, values in excess.items()}
    forecasts = []
    for j, horizon in enumerate(horizons):

        def row(t, horizon=horizon):
            ahead = [history.timestamps[t] + k * history.timeframe_ms for k in range(1, horizon + 1)]
            seasonal = strong and history.timeframe_ms < DAY
            return inputs(t) + ([float(np.mean([profile.get(slot(time), 0.0) for time in ahead]))] if seasonal else [])

        rows = [t for t in fit if t >= windows[-1] - 1 and t + horizon <= fit[-1] and not math.isnan(realised[t, j])]
        x, y = np.array([row(t) for t in rows]), realised[rows, j]
        beta = np.linalg.solve(x.T @ x, x.T @ np.log(y + 1e-9))
        ratio = np.mean([y[i] / math.exp(x[i] @ beta) for i in range(len(rows))])
        forecasts.append([math.exp(np.array(row(t)) @ beta) * ratio for t in test])
    return np.array(forecasts).T


@pytest.mark.parametrize("strong", [False, True])
@pytest.mark.parametrize("timeframe", [HOUR // 4, HOUR // 2, HOUR, 4 * HOUR, 5 * HOUR, DAY])
def test_any_timeframe_has_the_regressions_of_the_definition(simulated, timeframe, strong):
    history = simulated(1_500, seed=2, timeframe_ms=timeframe, busy_hours=1.0).history
    horizons = (1, 6)
    realised = realised_variances(history.close, horizons)
    realised[300:310] = np.nan  # as beside a gap
    fit, test = np.arange(100, 1_200), np.arange(1_250, 1_290)
    forecast = (strong_har if strong else log_har)(history, realised, horizons, fit, test)
    expected = slow_har(history, realised, horizons, fit, test, strong)
    # The rows of the week that a short history has are few: its regression is ill-conditioned in 15-minute bars.
    np.testing.assert_allclose(forecast, expected, rtol=1e-6)


def test_minutes_share_slots_of_a_quarter_of_an_hour(simulated):
    history = simulated(12_000, seed=3, timeframe_ms=60_000).history
    realised = realised_variances(history.close, (2,))
    fit, test = np.arange(11_000), np.arange(11_500, 11_520)
    expected = slow_har(history, realised, (2,), fit, test, strong=True)
    np.testing.assert_allclose(strong_har(history, realised, (2,), fit, test), expected, rtol=1e-6)


def test_busy_hours_are_known_to_the_strong_one_alone(simulated):
    truth = simulated(12_000, seed=4, busy_hours=1.5)
    realised = realised_variances(truth.history.close, (1,))
    fit, test = np.arange(9_000), np.arange(9_100, 11_990)
    har, strong = (model(truth.history, realised, (1,), fit, test) for model in (log_har, strong_har))
    best = qlike(truth.variance_ahead[test], realised[test, 0]).mean()
    worse = [qlike(forecast[:, 0], realised[test, 0]).mean() - best for forecast in (har, strong)]
    assert 0 < worse[1] < 0.5 * worse[0]


@pytest.mark.parametrize("model", [log_har, strong_har])
def test_forecasts_do_not_depend_on_later_bars(simulated, changed_after, model):
    history = simulated(1_600, seed=5).history
    realised = realised_variances(history.close, HORIZONS)
    fit, test = np.arange(1_000), np.arange(1_050, 1_500)
    forecast = model(history, realised, HORIZONS, fit, test)
    for row in (999, 1_200):
        other = changed_after(history, row)
        changed = model(other, realised_variances(other.close, HORIZONS), HORIZONS, fit, test)
        same = test <= row
        assert np.array_equal(changed[same], forecast[same])
        assert not np.isclose(changed[~same], forecast[~same]).all()
    # what is fitted is the same too: rows before the change are forecast alike
    rows = np.arange(900, 1_000)
    assert np.array_equal(
        model(changed_after(history, 999), realised, HORIZONS, fit, rows), model(history, realised, HORIZONS, fit, rows)
    )


@pytest.mark.parametrize("model", [log_har, strong_har])
def test_a_quiet_market_is_forecast_as_a_wild_one(simulated, model):
    history = simulated(3_000, seed=8).history
    fit, test = np.arange(2_000), np.arange(2_000, 2_900)

    def scaled(by):
        prices = {name: np.exp(by * np.log(getattr(history, name))) for name in ("high", "low", "close")}
        quiet = History(timestamps=history.timestamps, timeframe_ms=history.timeframe_ms, **prices)
        return model(quiet, realised_variances(quiet.close, (1, 4)), (1, 4), fit, test) / by**2

    np.testing.assert_allclose(scaled(0.001), scaled(0.03), rtol=1e-6)
    np.testing.assert_allclose(scaled(0.001), scaled(1.0), rtol=0.1)


def test_rows_without_a_full_window_have_no_forecast(simulated):
    history = simulated(800, seed=6).history
    realised = realised_variances(history.close, (1,))
    forecast = log_har(history, realised, (1,), np.arange(600), np.array([166, 167, 700]))
    assert np.isnan(forecast[:, 0]).tolist() == [True, False, False]
    with pytest.raises(BitcornError, match="150 rows to fit on leave 0"):
        log_har(history, realised, (1,), np.arange(150), np.array([700]))
