import inspect
import json
from dataclasses import fields
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from bitcorn_ray.config import RunConfig
from bitcorn_ray.data_loader import load_market_data, prepare_features
from bitcorn_ray.errors import BitcornError
from bitcorn_ray.learning.config import ModelConfig, TrainingConfig
from bitcorn_ray.learning.runs import load_run
from bitcorn_ray.training_service import (
    MultiHorizonTrainingRequest,
    request_from_config,
    train_multihorizon_model,
    train_on_ray,
)


@pytest.fixture
def request_for(market_db):
    """A function that makes a small request, changed as told."""
    prepared = prepare_features(load_market_data(market_db, "AAAUSDT", "1h").dataframe)
    small = {"horizons": [1, 4], "seq_len": 16, "hidden_size": 8, "epochs": 2, "symbol": "AAAUSDT", "threads": 1}

    def make(**changes):
        return MultiHorizonTrainingRequest(prepared.dataframe, prepared.feature_cols, **{**small, **changes})

    return make


def test_the_signature_is_that_of_the_older_api():
    parameters = inspect.signature(train_multihorizon_model).parameters.values()
    assert [(p.name, p.kind.name, p.default) for p in parameters] == [
        ("request", "POSITIONAL_OR_KEYWORD", inspect.Parameter.empty),
        ("artifacts_dir", "KEYWORD_ONLY", None),
        ("log_fn", "KEYWORD_ONLY", None),
    ]


def test_the_request_has_the_older_fields_with_its_examples_values():
    names = [field.name for field in fields(MultiHorizonTrainingRequest)]
    assert names[:13] == [
        "df", "feature_cols", "horizons", "seq_len", "hidden_size", "num_layers", "dropout", "batch_size", "epochs",
        "learning_rate", "val_frac", "symbol", "timeframe",
    ]  # fmt: skip
    request = MultiHorizonTrainingRequest(df=pd.DataFrame(), feature_cols=[])
    assert {name: getattr(request, name) for name in names[2:13]} == {
        "horizons": [1, 4, 12],
        "seq_len": 64,
        "hidden_size": 256,
        "num_layers": 2,
        "dropout": 0.2,
        "batch_size": 64,
        "epochs": 50,
        "learning_rate": 1e-3,
        "val_frac": 0.2,
        "symbol": "BTCUSDT",
        "timeframe": "1h",
    }


def test_a_training_gives_model_scaler_metadata_and_artifacts(request_for, tmp_path):
    lines = []
    result = train_multihorizon_model(request_for(), artifacts_dir=tmp_path / "run", log_fn=lines.append)
    assert list(vars(result)) == ["model", "scaler", "metadata"]
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == ["metadata.json", "model.pt", "scaler.pkl"]
    assert json.loads((tmp_path / "run" / "metadata.json").read_text()) == result.metadata
    assert result.metadata["feature_system"] == "v2"
    assert result.metadata["symbol"] == "AAAUSDT"
    assert [epoch["epoch"] for epoch in result.metadata["history"]] == [1, 2]
    assert sum(line.startswith("epoch ") for line in lines) == 2
    x = torch.randn(3, 16, 14)
    loaded = load_run(tmp_path / "run")
    assert torch.equal(loaded.model(x)[0], result.model(x)[0])


def test_no_folder_no_files(request_for, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = set(Path().rglob("*"))
    train_multihorizon_model(request_for(epochs=1))
    assert set(Path().rglob("*")) == before


def test_training_again_replaces_the_run(request_for, tmp_path):
    train_multihorizon_model(request_for(epochs=1), artifacts_dir=tmp_path / "run")
    again = train_multihorizon_model(request_for(epochs=1, seed=3), artifacts_dir=tmp_path / "run")
    assert load_run(tmp_path / "run").metadata == again.metadata


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"feature_cols": ["nope"]}, "no column nope"),
        ({"horizons": [0]}, "horizons are"),
        ({"epochs": 0}, "epochs is 0"),
        ({"loss": "huber"}, "unknown loss 'huber'"),
        ({"learning_rate": 0}, "learning_rate is 0"),
        ({"val_frac": 1.0}, "val_frac is 1.0"),
        ({"seq_len": 2_000}, "too few"),
        ({"timeframe": "1M"}, "is a month"),
    ],
)
def test_bad_requests_are_refused(request_for, changes, message):
    request = request_for()
    for name, value in changes.items():
        setattr(request, name, value)
    with pytest.raises(BitcornError, match=message):
        train_multihorizon_model(request)


@pytest.mark.parametrize("place", ["file", "file/run"])
def test_a_folder_that_cannot_be_written_is_refused_before_the_training(request_for, tmp_path, place):
    (tmp_path / "file").write_text("mine")
    lines = []
    with pytest.raises(BitcornError, match="nothing can be written to"):
        train_multihorizon_model(request_for(), artifacts_dir=tmp_path / place, log_fn=lines.append)
    assert lines == []
    assert (tmp_path / "file").read_text() == "mine"


def test_frames_of_any_making_are_trained_on(tmp_path):
    rng = np.random.default_rng(0)
    df = pd.DataFrame({"close": np.exp(np.cumsum(rng.normal(0, 0.01, 300))), "x": rng.normal(size=300)})
    request = MultiHorizonTrainingRequest(df, ["x"], horizons=[1], seq_len=8, hidden_size=4, epochs=1)
    result = train_multihorizon_model(request)
    assert result.metadata["feature_system"] is None
    assert result.metadata["data"]["windows"] == 300 - 8


def test_a_configuration_becomes_a_request(market_db, cache_dir):
    config = RunConfig(
        db=str(market_db),
        symbol="aaa/usdt",
        timeframe="1h",
        out="run",
        model=ModelConfig(horizons=(2, 5), seq_len=9, hidden_size=7, num_layers=1, dropout=0.1),
        training=TrainingConfig(epochs=3, batch_size=11, loss="mse", seed=4),
    )
    request = request_from_config(config)
    assert request.model_config() == config.model
    assert request.training_config() == config.training
    assert request.symbol == "AAAUSDT"
    assert (cache_dir / "index.json").exists()


def test_ray_gives_the_same_losses_and_weights_to_the_bit(request_for, ray_cluster, tmp_path):
    epochs = []
    distributed = train_on_ray(request_for(), artifacts_dir=tmp_path / "ray", on_epoch=epochs.append)
    here = train_multihorizon_model(request_for(), artifacts_dir=tmp_path / "here")

    def losses(result):
        return [(e["train_loss"], e["val_loss"], e["val_loss_by_horizon"]) for e in result.metadata["history"]]

    assert losses(distributed) == losses(here)
    assert [epoch.val_loss for epoch in epochs] == [epoch[1] for epoch in losses(here)]
    for name, value in here.model.state_dict().items():
        assert torch.equal(value, distributed.model.state_dict()[name]), name
    assert distributed.metadata["calibration"] == here.metadata["calibration"]
    # Checkpoints go when the run is there.
    assert sorted(p.name for p in tmp_path.iterdir() if "ray" in p.name) == ["ray"]
