import inspect
import json
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from bitcorn_ray.data_loader import load_market_data, prepare_features
from bitcorn_ray.errors import BitcornError
from bitcorn_ray.models.base import EpochResult
from bitcorn_ray.models.neural.checkpoint import CheckpointFolder
from bitcorn_ray.models.neural.config import LSTMConfig, TrainingConfig
from bitcorn_ray.training.config import RunConfig
from bitcorn_ray.training.run import load_run
from bitcorn_ray.training.train import epoch_line, require_free, train_from_config
from bitcorn_ray.training_service import MultiHorizonTrainingRequest, train_multihorizon_model, train_on_ray

CORE = {"metadata.json", "model.pt", "scaler.pkl"}


@pytest.fixture
def request_for(market_db):
    """A function that makes a small request, changed as told."""
    prepared = prepare_features(load_market_data(market_db, "AAAUSDT", "1h").dataframe)
    small = {"horizons": [1, 4], "seq_len": 16, "hidden_size": 8, "epochs": 2, "symbol": "AAAUSDT", "threads": 1}
    small |= {"deterministic": True}

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
    names = {p.name for p in (tmp_path / "run").iterdir()}
    assert CORE | {"tensorboard"} <= names
    assert "checkpoints" not in names
    saved = json.loads((tmp_path / "run" / "metadata.json").read_text())
    assert {name: saved[name] for name in result.metadata} == result.metadata
    assert result.metadata["feature_system"] == "v2"
    assert result.metadata["symbol"] == "AAAUSDT"
    assert [epoch["epoch"] for epoch in result.metadata["history"]] == [1, 2]
    assert sum(line.startswith("epoch ") for line in lines) == 2
    x = torch.randn(3, 16, 14)
    loaded = load_run(tmp_path / "run")
    assert torch.equal(loaded.model.network(x)[0], result.model(x)[0])


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
        ({"loss": "huber"}, "loss is 'huber'"),
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
    with pytest.raises(BitcornError, match="cannot be written"):
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


def test_the_request_says_what_the_configurations_say():
    request = MultiHorizonTrainingRequest(df=pd.DataFrame(), feature_cols=[])
    plain = MultiHorizonTrainingRequest(df=pd.DataFrame(), feature_cols=[], hidden_size=64, epochs=5)
    assert (plain.model_config(), plain.training_config()) == (LSTMConfig(), TrainingConfig())
    every = {item.name for config in (LSTMConfig, TrainingConfig) for item in fields(config)} - {"kind"}
    assert every <= {item.name for item in fields(request)}


def configuration(market_db, out, **changes):
    return RunConfig(
        db=str(market_db),
        timeframe="1h",
        out=str(out),
        model=LSTMConfig(horizons=(2, 5), seq_len=9, hidden_size=7, num_layers=1, reference_span=24),
        training=TrainingConfig(epochs=2, seed=4, threads=1, deterministic=True),
        **{"symbol": "aaa/usdt", "workers": 0, **changes},
    )


def test_what_a_request_leaves_out_is_what_its_frame_says(market_db):
    market = load_market_data(market_db, "bbb/usdt", "4h")
    prepared = prepare_features(market.dataframe, "v2", db_path=str(market_db))
    small = {"horizons": [1], "seq_len": 8, "hidden_size": 4, "epochs": 1, "threads": 1}
    request = MultiHorizonTrainingRequest(prepared.dataframe, prepared.feature_cols, **small)
    run = train_multihorizon_model(request).metadata
    assert (run["symbol"], run["timeframe"]) == ("BBBUSDT", "4h")
    named = MultiHorizonTrainingRequest(prepared.dataframe, prepared.feature_cols, symbol="MINE", **small)
    assert train_multihorizon_model(named).metadata["symbol"] == "MINE"


def test_a_configuration_of_one_symbol_trains_what_its_frame_trains(market_db, tmp_path):
    config = configuration(market_db, tmp_path / "run")
    from_config = train_from_config(config)
    bars = load_market_data(market_db, "AAAUSDT", "1h").dataframe
    prepared = prepare_features(bars)
    # The same bars, whose first ones only the reference volatility knows here: targets are relative to nothing instead.
    model = {**vars(config.model), "horizons": [2, 5], "reference_span": 0}
    del model["kind"]
    frame = MultiHorizonTrainingRequest(
        prepared.dataframe, prepared.feature_cols, symbol="AAAUSDT", **model, **vars(config.training)
    )
    absolute = replace(config, out=str(tmp_path / "absolute"), model=replace(config.model, reference_span=0))
    one, other = train_multihorizon_model(frame), train_from_config(absolute)
    for name, value in one.model.state_dict().items():
        assert torch.equal(value, other.model.state_dict()[name]), name
    assert one.metadata["data"]["windows"] == from_config.metadata["data"]["windows"]
    assert from_config.metadata["symbol"] == "AAAUSDT"


def test_several_symbols_train_one_model(market_db, tmp_path, cache_dir):
    epochs = []
    config = configuration(market_db, tmp_path / "run", symbol=None, symbols=("AAAUSDT", "bbbusdt"))
    result = train_from_config(config, on_epoch=epochs.append)
    assert [each["symbol"] for each in result.metadata["partitions"]] == ["AAAUSDT", "BBBUSDT"]
    assert [epoch.epoch for epoch in epochs] == [1, 2]
    assert len(list((cache_dir / "features").glob("*.meta.json"))) == 2


class Interrupted(Exception):
    """What ends a training in the middle."""


def test_what_was_cut_short_goes_on_where_asked_to(market_db, tmp_path):
    config = configuration(market_db, tmp_path / "run")

    def interrupt(result):
        raise Interrupted

    for _ in range(2):  # without resume the second one starts anew
        lines, epochs = [], []
        with pytest.raises(Interrupted):
            train_from_config(config, on_epoch=interrupt, log_fn=lines.append)
        assert not any("resuming" in line for line in lines)
    assert CheckpointFolder(tmp_path / "run" / "checkpoints")
    resumed = train_from_config(config, resume=True, on_epoch=epochs.append, log_fn=lines.append)
    assert [epoch.epoch for epoch in epochs] == [2]
    assert any(line.startswith("resuming after") for line in lines)
    whole = train_from_config(replace(config, out=str(tmp_path / "whole")))
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_a_request_can_be_resumed_too(request_for, tmp_path):
    class StopAfterOne:
        def __init__(self):
            self.lines = []

        def __call__(self, line):
            self.lines.append(line)
            if line.startswith("epoch 1/"):
                raise Interrupted

    with pytest.raises(Interrupted):
        train_multihorizon_model(request_for(), artifacts_dir=tmp_path / "run", log_fn=StopAfterOne())
    lines = []
    resumed = train_multihorizon_model(request_for(resume=True), artifacts_dir=tmp_path / "run", log_fn=lines.append)
    assert sum(line.startswith("epoch ") for line in lines) == 1
    whole = train_multihorizon_model(request_for())
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name


def test_a_folder_is_free_only_for_what_does_not_lose_anything(tmp_path):
    require_free(tmp_path / "new", resume=False, overwrite=False)
    cut_short = tmp_path / "cut"
    CheckpointFolder(cut_short / "checkpoints").save({"step": 1})
    with pytest.raises(BitcornError, match="an interrupted training: --resume continues it, --overwrite starts anew"):
        require_free(cut_short, resume=False, overwrite=False)
    require_free(cut_short, resume=True, overwrite=False)
    at_once = tmp_path / "killed at once"  # before its first checkpoint
    (at_once / "checkpoints" / "ray").mkdir(parents=True)
    (at_once / "checkpoints" / "claim-000001-abcdef01").touch()
    (at_once / "tensorboard").mkdir()
    for resume in (False, True):
        require_free(at_once, resume=resume, overwrite=False)
    other = tmp_path / "other"
    other.mkdir()
    (other / "precious.txt").write_text("mine")
    for resume in (False, True):
        with pytest.raises(BitcornError, match="holds other files"):
            require_free(other, resume=resume, overwrite=False)
    require_free(other, resume=False, overwrite=True)


def test_a_line_tells_an_epoch_and_what_it_warns_of():
    result = EpochResult(2, 0.51, 0.62, [0.51], [0.62], True, 1e-3, 1.0, 1234.5, ["look at horizon 12"])
    assert epoch_line(result, 9).splitlines() == [
        "epoch 2/9: training loss 0.5100, validation loss 0.6200, 1,234 samples/s *",
        "look at horizon 12",
    ]


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
    assert not (tmp_path / "ray" / "checkpoints").exists()
    assert CORE | {"tensorboard"} <= {p.name for p in (tmp_path / "ray").iterdir()}
