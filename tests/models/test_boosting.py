from dataclasses import replace

import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingRegressor
from small_training import TRAINING, make_data, partition_bars, shares_of

from bitcorn_ray.datasets.dataset import build_dataset
from bitcorn_ray.errors import BitcornError
from bitcorn_ray.market.simulate import simulate_bars
from bitcorn_ray.models.base import FitContext, Shape, WindowSet
from bitcorn_ray.models.boosting import _NODE_FIELDS, Boosting, BoostingConfig, Ensemble

CONFIG = BoostingConfig(horizons=(1, 3), seq_len=4, lags=(0, 3), trees=20, min_leaf_windows=20, reference_span=24)
SHAPE = Shape(4, 1, 3_600_000)


def fitted(data, config=CONFIG, training=TRAINING):
    model = Boosting.create(config, SHAPE)
    return model, model.fit(data, training, FitContext())


def test_trees_predict_as_scikit_learn():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3_000, 5))
    x[rng.random(x.shape) < 0.05] = np.nan
    y = np.exp(np.nan_to_num(x[:, 0]) + rng.normal(0, 0.1, 3_000))
    model = HistGradientBoostingRegressor(loss="gamma", max_iter=30, early_stopping=False).fit(x, y)
    trees = [predictors[0].nodes for predictors in model._predictors]
    nodes = {name: np.concatenate([tree[name] for tree in trees]) for name in _NODE_FIELDS}
    ensemble = Ensemble(float(np.ravel(model._baseline_prediction)[0]), np.cumsum([0, *map(len, trees)]), nodes)
    np.testing.assert_allclose(np.exp(ensemble.predict(x)), model.predict(x), rtol=1e-12)


def test_a_saved_model_forecasts_the_same(random_bars):
    data = make_data(random_bars(900, gaps=1), random_bars(400, seed=4), model=CONFIG)[0]
    model, result = fitted(data)
    windows = WindowSet.of_dataset(data, data.validation_ends, CONFIG)
    forecast, again = model.predict(windows), Boosting.restore(CONFIG, SHAPE, model.artifacts()).predict(windows)
    np.testing.assert_array_equal(forecast.returns, again.returns)
    np.testing.assert_array_equal(forecast.volatilities, again.volatilities)
    assert forecast.returns.shape == (len(data.validation_ends), 2)
    assert (forecast.volatilities > 0).all()
    assert np.isfinite(result.best_epoch.val_loss)


def test_the_same_seed_gives_the_same_forecasts(random_bars):
    data = make_data(random_bars(600), model=CONFIG)[0]
    windows = WindowSet.of_dataset(data, data.validation_ends, CONFIG)
    one, other = (fitted(data)[0].predict(windows) for _ in range(2))
    np.testing.assert_array_equal(one.volatilities, other.volatilities)


def garch_data():
    """Return a dataset with one informative feature."""
    bars = simulate_bars(6_000, seed=3, gaps=0)
    square = np.concatenate([[0.0], np.diff(np.log(bars.close)) ** 2])
    recent = np.array([square[max(0, row - 11) : row + 1].mean() for row in range(len(square))])
    features = np.column_stack([np.log(recent + 1e-9), np.random.default_rng(0).normal(size=len(bars))])
    config = BoostingConfig(horizons=(4,), reference_span=0, trees=100)
    partition = partition_bars(bars, span=0)
    return build_dataset(features.astype(np.float32), [partition], config, shares_of(TRAINING)), config


def test_it_forecasts_volatility_better_than_its_mean():
    (data, _, _), config = garch_data()
    model, _ = fitted(data, config)
    forecast = model.predict(WindowSet.of_dataset(data, data.validation_ends, config))
    realised = data.volatilities[data.validation_ends].astype(float) ** 2
    mean = (data.volatilities[data.train_ends].astype(float) ** 2).mean(0)

    def qlike(variance):
        return (realised / variance - np.log(realised / variance)).mean()

    assert qlike(forecast.volatilities**2) < qlike(np.broadcast_to(mean, realised.shape)) - 0.02


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"trees": 0}, "trees is 0"),
        ({"learning_rate": 0.0}, "learning_rate is 0"),
        ({"lags": ()}, "lags are"),
        ({"lags": (0, 4)}, "seq_len is 4"),
        ({"leaves": 1}, "leaves is 1"),
    ],
)
def test_impossible_options_are_refused(options, match):
    with pytest.raises(BitcornError, match=match):
        replace(CONFIG, **options)


def test_a_market_that_never_moves_is_forecast():
    data = make_data(simulate_bars(300, seed=1), model=CONFIG)[0]
    still = replace(data, returns=np.zeros_like(data.returns), volatilities=np.zeros_like(data.volatilities))
    model, _ = fitted(still)
    forecast = model.predict(WindowSet.of_dataset(still, still.validation_ends, CONFIG))
    assert np.isfinite(forecast.volatilities).all()
    assert (forecast.volatilities > 0).all()
