import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import own_models
import pytest
from small_training import TRAINING, make_data

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.models.base import FitContext, Shape, WindowSet
from bitcorn_ray.models.registry import KINDS, config_class, model_class, model_config, own_code

SMALL = {"lstm": {"hidden_size": 4}, "gru": {"hidden_size": 4}, "tcn": {"channels": 4}, "boosting": {"trees": 5}}


@pytest.mark.parametrize("kind", KINDS)
def test_every_model_fits_saves_and_forecasts(kind, random_bars):
    config = model_config({"kind": kind, "horizons": [1, 3], "seq_len": 8, "reference_span": 24, **SMALL.get(kind, {})})
    assert isinstance(config, config_class(kind))
    data = make_data(random_bars(900), random_bars(700, seed=4), model=config)[0]
    shape = Shape(data.matrix.shape[1], 2, 3_600_000)
    model = model_class(kind).create(config, shape)
    result = model.fit(data, TRAINING, FitContext())
    windows = WindowSet.of_dataset(data, data.validation_ends, config)
    forecast = model.predict(windows)
    assert forecast.returns.shape == forecast.volatilities.shape == (len(data.validation_ends), 2)
    assert np.isfinite(forecast.returns).all()
    assert (forecast.volatilities > 0).all()
    assert result.best_epoch.val_loss == min(epoch.val_loss for epoch in result.history)
    again = model_class(kind).restore(config, shape, model.artifacts()).predict(windows)
    np.testing.assert_array_equal(again.returns, forecast.returns)
    np.testing.assert_array_equal(again.volatilities, forecast.volatilities)


@pytest.mark.parametrize("kind", KINDS)
def test_a_forecast_of_every_model_depends_on_no_later_bar(kind, random_bars):
    config = model_config({"kind": kind, "horizons": [1, 3], "seq_len": 8, "reference_span": 24, **SMALL.get(kind, {})})
    data = make_data(random_bars(900), model=config)[0]
    model = model_class(kind).create(config, Shape(data.matrix.shape[1], 1, 3_600_000))
    model.fit(data, TRAINING, FitContext())
    ends = data.validation_ends[:20]
    windows = WindowSet.of_dataset(data, ends, config)
    last = int(ends[-1]) + 1
    bars = data.bars[0]
    later = {name: getattr(bars, name).copy() for name in ("close", "high", "low")}
    matrix = data.matrix.copy()
    matrix[last:] += 100
    for column in later.values():
        column[last:] *= 3
    changed = WindowSet(**{**vars(windows), "matrix": matrix, "bars": (type(bars)(**{**vars(bars), **later}),)})
    forecast, other = model.predict(windows), model.predict(changed)
    np.testing.assert_array_equal(forecast.returns, other.returns)
    np.testing.assert_array_equal(forecast.volatilities, other.volatilities)


def changed_after_validation(data, parts):
    """Return a dataset with other features, targets or bars after the last validation window of each partition."""
    matrix, bars = data.matrix.copy(), []
    targets = {name: getattr(data, name).copy() for name in ("reference", "returns", "volatilities")}
    for index, own in enumerate(data.bars):
        start, stop = data.partition_starts[index : index + 2]
        ends = data.validation_ends[(data.validation_ends >= start) & (data.validation_ends < stop)]
        later = int(ends[-1]) + 1
        assert later < stop
        matrix[later:stop] += 100
        for values in targets.values():
            values[later:stop] = 3 * values[later:stop] + 1
        prices = {name: getattr(own, name).copy() for name in ("close", "high", "low")}
        for values in prices.values():
            values[later - start :] *= 3
        bars.append(replace(own, **prices))
    changes = {"features": {"matrix": matrix}, "targets": targets, "bars": {"bars": tuple(bars)}}
    return replace(data, **{name: value for part in parts for name, value in changes[part].items()})


def fitted_artifacts(model, config, data):
    fitted = model.create(config, Shape(data.matrix.shape[1], len(data.names), 3_600_000))
    fitted.fit(data, TRAINING, FitContext())
    return fitted.artifacts()


class Peeking(own_models.Flat):
    """A model that learns from all rows."""

    def fit(self, data, training, context):
        closes = [bars.close.sum() for bars in data.bars]
        self.seen = repr([data.matrix.sum(), data.returns.sum(), data.volatilities.sum(), *closes]).encode()

    def artifacts(self):
        return {"seen": self.seen}


@pytest.mark.parametrize("kind", [*KINDS, "peeking"])
def test_a_fit_depends_on_nothing_after_the_last_validation_window(kind, random_bars):
    values = {"horizons": [1, 3], "seq_len": 8, "reference_span": 24, **SMALL.get(kind, {})}
    training = replace(TRAINING, test_frac=0.2)
    if kind == "peeking":
        model, config = Peeking, own_models.FlatConfig(kind="peeking", horizons=(1, 3), seq_len=8)
    else:
        model, config = model_class(kind), model_config({"kind": kind, **values})
    data = make_data(random_bars(900), random_bars(700, seed=4), model=config, training=training)[0]
    artifacts = fitted_artifacts(model, config, data)
    everything = ["features", "targets", "bars"]
    if kind == "peeking":  # the changes reach a model that looks ahead, one by one
        for part in everything:
            assert fitted_artifacts(model, config, changed_after_validation(data, [part])) != artifacts, part
    else:
        assert fitted_artifacts(model, config, changed_after_validation(data, everything)) == artifacts


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ({"kind": "svm"}, "unknown model kind 'svm': use one of lstm"),
        ({"kind": 3}, "model.kind is 3"),
        ({"kind": "har", "hidden_size": 4}, r"unknown field model\.hidden_size: kind har has"),
        ({"kind": "tcn", "cell": "gru"}, "give kind alone"),
        ({"hidden_size": 0}, "hidden_size is 0"),
        ({"hidden_size": "wide"}, r"model\.hidden_size"),
        ({"kind": "nowhere:Model"}, "cannot be imported"),
        ({"horizons": []}, "horizons are"),
    ],
)
def test_wrong_fields_are_named(values, match):
    with pytest.raises(BitcornError, match=match):
        model_config(values)


def test_older_configurations_name_the_cell():
    assert model_config({}).kind == "lstm"
    assert model_config({"cell": "gru", "hidden_size": 7}).kind == "gru"


def test_the_code_of_an_own_model_counts_and_a_comment_does_not(tmp_path):
    def code(old="", new=""):
        (tmp_path / "mine.py").write_text(Path(own_models.__file__).read_text().replace(old, new))
        script = "from bitcorn_ray.models.registry import own_code; print(own_code('mine:Flat'))"
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
        command = [sys.executable, "-c", script]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout

    first = code()
    assert "mine:Flat" in first
    assert code("level: float = 0.01", "level: float = 0.01  # in log returns") == first
    assert code("self.config.level)", "2 * self.config.level)") != first
    assert own_code("lstm") == {}


def test_a_model_of_a_users_own_is_found_by_its_class():
    assert model_class("own_models:Flat").__name__ == "Flat"
    assert model_config({"kind": "own_models:Flat", "level": 0.5}).level == 0.5
