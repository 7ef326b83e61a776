import json

import numpy as np
import pandas as pd
import pytest
import torch

from bitcorn_ray.data_loader import load_market_data, prepare_features
from bitcorn_ray.errors import BitcornError
from bitcorn_ray.forecaster import Forecaster
from bitcorn_ray.training_service import MultiHorizonTrainingRequest, train_multihorizon_model


@pytest.fixture
def run(market_db, tmp_path):
    prepared = prepare_features(load_market_data(market_db, "BBBUSDT", "1h").dataframe)
    request = MultiHorizonTrainingRequest(
        prepared.dataframe,
        prepared.feature_cols,
        horizons=[1, 4],
        seq_len=16,
        hidden_size=8,
        epochs=1,
        symbol="BBBUSDT",
    )
    train_multihorizon_model(request, artifacts_dir=tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def bars(market_db):
    return load_market_data(market_db, "BBBUSDT", "1h").dataframe


def test_a_forecast_is_a_row_a_horizon_from_the_last_bar(run, bars):
    forecast = Forecaster.load(run).predict(bars)
    assert list(forecast.columns) == [
        "symbol", "timeframe", "cutoff", "horizon", "time", "return", "volatility", "price",
        "lo80", "hi80", "lo95", "hi95",
    ]  # fmt: skip
    assert forecast.horizon.tolist() == [1, 4]
    assert (forecast.cutoff == bars.timestamp.iloc[-1]).all()
    assert (forecast.time - forecast.cutoff).dt.total_seconds().tolist() == [3_600, 4 * 3_600]
    np.testing.assert_allclose(forecast.price, bars.close.iloc[-1] * np.exp(forecast["return"]))
    assert (forecast.lo95 < forecast.lo80).all()
    assert (forecast.lo80 < forecast.price).all()
    assert (forecast.price < forecast.hi80).all()
    assert (forecast.hi80 < forecast.hi95).all()
    assert (forecast.volatility > 0).all()


def test_it_equals_the_models_word_on_the_last_window(run, bars):
    forecaster = Forecaster.load(run)
    frame = prepare_features(bars, use_cache=False)
    window = frame.dataframe[frame.feature_cols].to_numpy()[-16:]
    scaled = forecaster.run.scaler.transform(window).astype(np.float32)
    with torch.no_grad():
        returns, volatilities = forecaster.run.model(torch.from_numpy(scaled)[None])
    forecast = forecaster.predict(bars)
    np.testing.assert_allclose(forecast["return"], returns[0].numpy(), rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(forecast.volatility, volatilities[0].numpy(), rtol=1e-4)


def test_a_forecast_from_an_earlier_bar_does_not_depend_on_later_ones(run, bars):
    forecaster = Forecaster.load(run)
    changed = bars.copy()
    changed.loc[600:, ["open", "high", "low", "close"]] *= 5
    pd.testing.assert_frame_equal(forecaster.predict(changed.iloc[:600]), forecaster.predict(bars.iloc[:600]))


def test_a_gap_inside_the_last_window_is_refused_and_an_earlier_one_is_not(run, bars):
    forecaster = Forecaster.load(run)
    with pytest.raises(BitcornError, match="bars are missing between 2023-02-07T01:00:00Z and 2023-02-07T03:00:00Z"):
        forecaster.predict(bars.drop(index=890).loc[:898])
    forecaster.predict(bars.drop(index=880))


def test_too_few_bars_are_refused(run, bars):
    with pytest.raises(BitcornError, match="64 bars are too few to forecast: v2 and seq_len 16 need 65"):
        Forecaster.load(run).predict(bars.tail(64))
    Forecaster.load(run).predict(bars.tail(65))


def test_a_market_that_stands_still_is_refused(run, bars):
    still = bars.copy()
    still[["open", "high", "low", "close"]] = 5.0
    with pytest.raises(BitcornError, match="no finite fib_composite"):
        Forecaster.load(run).predict(still)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"feature_system": None}, "does not say its feature system"),
        ({"feature_system": "v9"}, "unknown feature system 'v9'"),
        ({"feature_version": 99}, "version 99"),
        ({"feature_cols": ["other"] * 14}, "features other"),
    ],
)
def test_other_features_than_those_trained_on_are_refused(run, change, message):
    path = run / "metadata.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(BitcornError, match=message):
        Forecaster.load(run)


def test_a_band_that_could_not_be_calibrated_is_infinite(run, bars):
    path = run / "metadata.json"
    metadata = json.loads(path.read_text())
    metadata["calibration"]["bands"]["0.95"] = [None, None]
    path.write_text(json.dumps(metadata))
    forecast = Forecaster.load(run).predict(bars)
    assert forecast.hi95.tolist() == [np.inf, np.inf]
    assert forecast.lo95.tolist() == [0.0, 0.0]


def test_bars_without_times_are_refused(run, bars):
    with pytest.raises(BitcornError, match="no timestamp"):
        Forecaster.load(run).predict(bars.drop(columns="timestamp"))


def test_bars_of_another_symbol_are_called_by_their_own_name(run, bars):
    other = bars.copy()
    other.attrs["symbol"] = "CCC"
    assert Forecaster.load(run).predict(other).symbol.tolist() == ["CCC", "CCC"]
