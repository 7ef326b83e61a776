from dataclasses import replace

import numpy as np
import pytest
from small_sweeps import sweep_values
from small_training import fit

from bitcorn_ray.datasets.load import inputs_from_source
from bitcorn_ray.errors import BitcornError
from bitcorn_ray.market.partition import Partition
from bitcorn_ray.models.neural.model import predict_windows
from bitcorn_ray.models.neural.network import Network
from bitcorn_ray.sources.ingest import write_bars
from bitcorn_ray.tuning.config import SweepConfig
from bitcorn_ray.tuning.data import sweep_data
from bitcorn_ray.tuning.records import Records
from bitcorn_ray.tuning.trial import (
    TrialPlan,
    fitted_model,
    fold_dataset,
    fold_keys,
    forecast_rows,
    mean_loss,
    run_trial,
    train_fold,
)


@pytest.fixture
def made(market_db):
    config = SweepConfig.load(sweep_values(market_db, "out"))
    return config, sweep_data(config)


def plan_of(data, tmp_path, seeds=1):
    return TrialPlan(
        folds=data.folds,
        seeds=seeds,
        objective="qlike",
        longest_seq_len=8,
        device="cpu",
        records=Records(tmp_path / "records"),
        identities=data.identities,
        code="code",
    )


def test_a_fold_is_what_a_plain_training_gives_bit_for_bit(market_db):
    config = SweepConfig.load(sweep_values(market_db, "out", folds={"window": "expanding"}))
    data, setting = sweep_data(config), config.at({})
    fold = data.folds[-1]
    plain = inputs_from_source(market_db, ["AAAUSDT"], "1h", "v2", setting.model, fold.rows).data
    fitted = fit(plain, setting.model, setting.training)
    model = Network(14, setting.model, 1)
    model.load_state_dict(fitted.weights)
    returns, volatilities = predict_windows(
        model, plain.matrix, plain.reference, plain.test_ends, setting.model.seq_len
    )
    record = train_fold(data.bars, data.variants["v2"], setting, fold.rows, "qlike")
    np.testing.assert_array_equal(record.times, plain.timestamp[plain.test_ends])
    np.testing.assert_array_equal(record.returns, returns)
    np.testing.assert_array_equal(record.volatilities, volatilities)
    realised = plain.volatilities[plain.test_ends].astype(float) ** 2
    variance = volatilities.astype(float) ** 2
    assert record.test_loss == pytest.approx((np.log(variance) + realised / variance).mean())


def test_the_rows_that_a_fold_needs_give_what_all_rows_give(made):
    config, data = made
    setting, variant = config.at({}), data.variants["v2"]
    before = variant.matrix.copy()
    for fold in data.folds:
        part, scaler, _ = fold_dataset(data.bars, variant, setting, fold.rows)
        whole, scaler_of_all, _ = fold_dataset(data.bars, variant, setting, fold.rows, all_rows=True)
        assert len(part.matrix) < len(whole.matrix) == len(before)
        np.testing.assert_array_equal(scaler.mean_, scaler_of_all.mean_)
        for name in ("train_ends", "validation_ends", "test_ends"):
            one, all_ = getattr(part, name), getattr(whole, name)
            np.testing.assert_array_equal(part.timestamp[one], whole.timestamp[all_])
            for what in ("matrix", "reference", "returns", "volatilities"):
                np.testing.assert_array_equal(getattr(part, what)[one], getattr(whole, what)[all_])
    np.testing.assert_array_equal(variant.matrix, before)  # nobody writes to what all share


def test_losses_of_trials_with_different_seq_len_are_of_the_same_windows(tmp_path, random_bars):
    db = tmp_path / "market.db"
    write_bars([("simulated", Partition("AAAUSDT", "1h"), random_bars(1_500, seed=4, gaps=30))], db)
    config = SweepConfig.load(sweep_values(db, "out", search={"seq_len": {"choice": [4, 24]}}))
    data = sweep_data(config)
    assert config.longest_seq_len == 24
    short, long = (config.at({"seq_len": length}) for length in (4, 24))
    variant, fold = data.variants["v2"], data.folds[0].rows
    inputs, longer = (fold_dataset(data.bars, variant, setting, fold)[0] for setting in (short, long))
    judged = np.isin(
        inputs.timestamp[inputs.validation_ends], longer.timestamp[longer.validation_ends], assume_unique=True
    )
    assert 0 < judged.sum() == len(longer.validation_ends) < len(inputs.validation_ends)
    ends = inputs.validation_ends[judged]
    model, _ = fitted_model(inputs, short, "cpu")
    forecasts = forecast_rows(model, inputs, inputs.matrix, ends)
    record = train_fold(data.bars, variant, short, fold, "qlike", longest_seq_len=24)
    assert record.loss == pytest.approx(mean_loss(inputs, ends, *forecasts, "qlike"), rel=1e-6)
    assert record.loss != train_fold(data.bars, variant, short, fold, "qlike").loss
    assert len(record.validation_times) == len(inputs.validation_ends)  # bands still begin on all of them
    own = train_fold(data.bars, variant, long, fold, "qlike")
    assert own.loss == train_fold(data.bars, variant, long, fold, "qlike", longest_seq_len=24).loss
    with pytest.raises(BitcornError, match="no validation window has 400 complete bars: search shorter seq_len"):
        train_fold(data.bars, variant, short, fold, "qlike", longest_seq_len=400)


def test_features_may_be_some_of_the_system_in_any_order(made):
    config, data = made
    variant = data.variants["v2"]
    setting = replace(config.at({}), features=("rsi_14", "log_ret_1"))
    inputs, scaler, _ = fold_dataset(data.bars, variant, setting, data.folds[0].rows)
    assert inputs.matrix.shape[1] == 2
    rsi = variant.matrix[:, variant.features.index("rsi_14")]
    assert np.nanmin(rsi) <= scaler.mean_[0] <= np.nanmax(rsi)
    with pytest.raises(BitcornError, match="v2 has no feature nothing"):
        fold_dataset(data.bars, variant, replace(setting, features=("nothing",)), data.folds[0].rows)


def test_a_trial_reports_each_fold_and_trains_none_twice(made, tmp_path):
    config, data = made
    plan, fetched, told = plan_of(data, tmp_path, seeds=2), [], []

    def fetch(name):
        fetched.append(name)
        return data.bars if name == "bars" else data.variants[name]

    configuration = config.at({}).to_json()
    run_trial(plan, fetch, configuration, told.append)
    assert [each["fold"] for each in told] == [1, 2]
    assert told[1]["loss"] == pytest.approx((told[0]["fold_loss"] + told[1]["fold_loss"]) / 2)
    assert len(list((tmp_path / "records").iterdir())) == 4
    assert not told[0]["reused"]
    again = []
    fetched.clear()
    run_trial(plan, fetch, configuration, again.append)
    assert fetched == []
    assert [each["loss"] for each in again] == [each["loss"] for each in told]
    assert all(each["reused"] for each in again)


def test_keys_differ_by_configuration_seed_and_data(made, tmp_path):
    config, data = made
    plan, setting = plan_of(data, tmp_path, seeds=2), config.at({})
    threads = replace(setting, training=replace(setting.training, threads=3))
    rate = replace(setting, training=replace(setting.training, learning_rate=0.5))
    fold = data.folds[0]
    assert fold_keys(plan, setting, fold) == fold_keys(plan, threads, fold)
    other = [
        *fold_keys(plan, setting, fold),
        *fold_keys(plan, rate, fold),
        *fold_keys(plan, setting, data.folds[1]),
        *fold_keys(plan, replace(setting, features=("rsi_14",)), fold),
        *fold_keys(replace(plan, identities={"v2": "other"}), setting, fold),
        *fold_keys(replace(plan, objective="gaussian_nll"), setting, fold),
        *fold_keys(replace(plan, longest_seq_len=9), setting, fold),
    ]
    assert len(set(other)) == 14


def test_impossible_configurations_are_refused(made, tmp_path):
    config, data = made
    configuration = config.at({}).to_json()
    with pytest.raises(BitcornError, match="no features of system v4"):
        run_trial(plan_of(data, tmp_path), data.variants.get, {**configuration, "system": "v4"}, print)
    broken = {**configuration, "model": {**configuration["model"], "seq_len": 0}}
    with pytest.raises(BitcornError, match="seq_len is 0"):
        run_trial(plan_of(data, tmp_path), data.variants.get, broken, print)
