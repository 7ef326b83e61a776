import numpy as np
import pytest
from sklearn.linear_model import Ridge as SklearnRidge
from small_baselines import ridge_forecasts

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.models.baselines.ridge import PENALTIES

HORIZONS = (1, 6)


def problem(rows=1_200, seed=0, skill=0.3):
    """Features of which the first says something about the return and the second about the variance."""
    rng = np.random.default_rng(seed)
    features = (rng.standard_normal((rows, 5)) * [1, 1, 100, 1e-3, 0] + [0, 0, 50, 0, 7]).astype(np.float32)
    variance = np.exp(features[:, [1]] - 9) * np.array(HORIZONS)
    outcome = np.sqrt(variance) * rng.standard_normal((rows, 2)) + skill * 0.01 * features[:, [0]]
    realised = variance * rng.chisquare(4, (rows, 2)) / 4
    for j, horizon in enumerate(HORIZONS):
        outcome[rows - horizon :, j] = realised[rows - horizon :, j] = np.nan
    return features, outcome, realised


def slow_ridge(features, outcome, realised, fit, test):
    """Refitting for every penalty with another implementation of ridge regression."""
    forecasts = np.empty((2, len(test), 2))
    for j, horizon in enumerate(HORIZONS):
        rows = [t for t in fit if t + horizon <= fit[-1] and np.isfinite(features[t]).all()]
        mean, scale = features[rows].astype(float).mean(0), features[rows].astype(float).std(0)
        x = (features.astype(float) - mean) / np.where(scale > 1e-9, scale, 1)
        late = rows[-round(0.2 * len(rows)) :]
        early = [t for t in rows if t + horizon <= late[0]]
        low, high = np.log(realised[rows, j] + 1e-9).min(), np.log(realised[rows, j] + 1e-9).max()
        for k, y in enumerate((outcome[:, j], np.log(realised[:, j] + 1e-9))):

            def predict(penalty, on, at, x=x, y=y):
                return SklearnRidge(alpha=penalty * len(on)).fit(x[on], y[on]).predict(x[at])

            best = min(PENALTIES, key=lambda penalty: ((predict(penalty, early, late) - y[late]) ** 2).mean())
            forecasts[k, :, j] = predict(best, rows, test)
            if k == 1:
                fitted = np.exp(np.clip(predict(best, rows, rows), low, high))
                bias = (realised[rows, j] / fitted).mean()
                forecasts[k, :, j] = np.exp(np.clip(forecasts[k, :, j], low, high)) * bias
    return forecasts


@pytest.mark.parametrize("seed", range(3))
def test_forecasts_are_those_of_refitting_for_every_penalty(seed):
    features, outcome, realised = problem(seed=seed)
    features[40:45, 2] = np.nan
    fit, test = np.arange(20, 900), np.arange(950, 1_150)
    found = ridge_forecasts(features, outcome, realised, HORIZONS, fit, test)
    returns, variances = slow_ridge(features, outcome, realised, fit, test)
    np.testing.assert_allclose(found.returns, returns, rtol=1e-7, atol=1e-12)
    np.testing.assert_allclose(found.variances, variances, rtol=1e-7)


def test_a_predictable_part_is_found_and_noise_is_shrunk_away():
    features, outcome, realised = problem(6_000, seed=1, skill=0.6)
    fit, test = np.arange(5_000), np.arange(5_100, 5_990)
    found = ridge_forecasts(features, outcome, realised, HORIZONS, fit, test)
    assert np.corrcoef(found.returns[:, 0], features[test, 0])[0, 1] > 0.97
    assert np.corrcoef(np.log(found.variances[:, 1]), features[test, 1])[0, 1] > 0.97
    assert found.variances.mean(0) == pytest.approx(realised[test].mean(0), rel=0.15)
    features, outcome, realised = problem(6_000, seed=2, skill=0)
    nothing = ridge_forecasts(features, outcome, realised, HORIZONS, fit, test)
    assert min(nothing.return_penalties) > 10 * max(found.return_penalties[0], found.variance_penalties[0])
    assert nothing.returns.std() < 0.1 * outcome[fit[:-6]].std()


def test_forecasts_do_not_depend_on_later_bars():
    features, outcome, realised = problem(seed=3)
    fit, test = np.arange(900), np.arange(950, 1_150)
    found = ridge_forecasts(features, outcome, realised, HORIZONS, fit, test)
    for j, horizon in enumerate(HORIZONS):  # labels that end after the fitting rows
        outcome[900 - horizon :, j] *= -3
        realised[900 - horizon :, j] *= 3
    features[900:950] = 1e3
    features[1_000:] *= 2  # later rows
    again = ridge_forecasts(features, outcome, realised, HORIZONS, fit, test)
    assert np.allclose(again.returns[:50], found.returns[:50], rtol=1e-12)
    assert np.allclose(again.variances[:50], found.variances[:50], rtol=1e-12)
    assert not np.isclose(again.variances[50:], found.variances[50:]).any()
    # and the last label that ends within them does count
    outcome[899 - 6, 1] += 1
    moved = ridge_forecasts(features, outcome, realised, HORIZONS, fit, test)
    assert not np.isclose(moved.returns[:, 1], again.returns[:, 1]).any()


def test_an_extreme_feature_does_not_make_an_absurd_variance():
    features, outcome, realised = problem(seed=4)
    features[1_000, 1] = 500
    found = ridge_forecasts(features, outcome, realised, HORIZONS, np.arange(900), np.array([1_000]))
    assert np.isfinite(found.variances).all()
    assert (found.variances < 3 * np.nanmax(realised[:900], axis=0)).all()


def test_rows_without_features_have_no_forecast_and_shapes_must_fit():
    features, outcome, realised = problem(seed=5)
    features[1_000] = np.nan
    found = ridge_forecasts(features, outcome, realised, HORIZONS, np.arange(900), np.arange(999, 1_002))
    assert np.isnan(found.returns[:, 0]).tolist() == np.isnan(found.variances[:, 0]).tolist() == [False, True, False]
    with pytest.raises(BitcornError, match=r"features have shape \(1199, 5\)"):
        ridge_forecasts(features[1:], outcome, realised, HORIZONS, np.arange(900), np.arange(999, 1_002))
