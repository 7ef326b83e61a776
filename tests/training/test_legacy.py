import json

import joblib
import numpy as np
import pytest
import torch
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from torch import nn

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.features.systems.v2 import FEATURES
from bitcorn_ray.models.neural.model import predict_windows
from bitcorn_ray.training.legacy import import_older
from bitcorn_ray.training.run import load_run, save_run

HORIZONS = (1, 5)


class OlderNet(nn.Module):
    """The older system's net, as its state dicts show it."""

    def __init__(self, middle=5):
        super().__init__()
        self.lstm = nn.LSTM(len(FEATURES), 10, 2, batch_first=True)

        def head(*last):
            return nn.Sequential(nn.Linear(10, middle), nn.ReLU(), nn.Linear(middle, 1), *last)

        self.heads_ret = nn.ModuleDict({str(h): head() for h in HORIZONS})
        self.heads_vol = nn.ModuleDict({str(h): head(nn.Softplus()) for h in HORIZONS})

    def forward(self, x):
        last = self.lstm(x)[0][:, -1]
        return [torch.cat([heads[str(h)](last) for h in HORIZONS], 1) for heads in (self.heads_ret, self.heads_vol)]


def write(folder, net, scaler=None, weights=None, **changes):
    """A folder as the older system leaves it."""
    folder.mkdir()
    torch.save(net.state_dict() if weights is None else weights, folder / "model.pt")
    rows = np.random.default_rng(0).normal(3.0, 2.0, size=(50, len(FEATURES)))
    joblib.dump(scaler or StandardScaler().fit(rows), folder / "scaler.pkl")
    meta = {"feature_cols": list(FEATURES), "seq_len": 12, "horizons": list(HORIZONS), "hidden": 10, "num_layers": 2}
    meta = {**meta, "timeframe": "1h", **changes}
    (folder / "meta.json").write_text(json.dumps({k: v for k, v in meta.items() if v is not None}))
    return folder


def imported(folder, **options):
    return import_older(folder, **{"feature_system": "v2", "timeframe": None, "trust_pickle": True, **options})


@pytest.mark.parametrize("middle", [5, 10, 3])
def test_an_imported_model_forecasts_as_the_older_one(tmp_path, middle):
    torch.manual_seed(0)
    net = OlderNet(middle)
    run = load_run(save_run(imported(write(tmp_path / "old", net)), tmp_path / "run"))
    rows = np.random.default_rng(1).normal(3.0, 2.0, size=(40, len(FEATURES)))
    scaled = run.scaler.transform(rows).astype(np.float32)
    older = joblib.load(tmp_path / "old" / "scaler.pkl").transform(rows).astype(np.float32)
    ends = np.arange(11, 40)
    with torch.no_grad():
        expected = net.eval()(torch.from_numpy(np.stack([older[e - 11 : e + 1] for e in ends])))
    for mine, theirs in zip(predict_windows(run.model.network, scaled, None, ends, 12), expected, strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-6)
    assert run.metadata["partitions"] == []
    assert run.scores == []


def test_a_checkpoint_of_a_parallel_training_holds_the_weights_too(tmp_path):
    net = OlderNet()
    weights = {"epoch": 3, "model_state_dict": {f"module.{k}": v for k, v in net.state_dict().items()}}
    run = imported(write(tmp_path / "old", net, weights=weights, symbol="BTCUSDT"))
    assert torch.equal(run.model.network.encoder.layers.weight_hh_l1, net.lstm.weight_hh_l1)
    assert run.metadata["partitions"][0]["symbol"] == "BTCUSDT"


class Bomb:
    def __reduce__(self):
        return (exec, ("raise SystemExit('unpickled')",))


def test_a_pickle_is_read_only_where_it_is_trusted(tmp_path):
    folder = write(tmp_path / "old", OlderNet(), scaler=Bomb())
    with pytest.raises(BitcornError, match="--trust-pickle"):
        imported(folder, trust_pickle=False)
    with pytest.raises(SystemExit, match="unpickled"):
        imported(folder)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_weights_are_never_unpickled(tmp_path):
    folder = write(tmp_path / "old", OlderNet())
    (folder / "model.pt").write_bytes(__import__("pickle").dumps(Bomb()))
    with pytest.raises(BitcornError, match="is not a state dict of tensors"):
        imported(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"timeframe": None}, "does not say the timeframe"),
        ({"seq_len": None}, "has no seq_len"),
        ({"hidden": None}, "has no hidden"),
        ({"hidden": 11}, "weights in .* are not those of meta.json: .*size mismatch"),
        ({"horizons": [1, 7]}, "there is no 'heads_ret.7.0.weight'"),
        ({"horizons": "many"}, "meta.json has an impossible value"),
        ({"feature_cols": None}, "has no JSON file with feature_cols"),
        ({"format": 2}, "holds a run already"),
        ({"feature_cols": ["x", "y"]}, "are not those of meta.json"),
    ],
)
def test_what_is_not_understood_is_refused(tmp_path, changes, message):
    with pytest.raises(BitcornError, match=message):
        imported(write(tmp_path / "old", OlderNet(), **changes))


def test_scalers_of_other_kinds_and_features_are_refused(tmp_path):
    import pandas as pd

    rows = np.random.default_rng(0).normal(size=(50, len(FEATURES)))
    with pytest.raises(BitcornError, match="holds a MinMaxScaler"):
        imported(write(tmp_path / "a", OlderNet(), scaler=MinMaxScaler().fit(rows)))
    with pytest.raises(BitcornError, match="was fitted on 3 features"):
        imported(write(tmp_path / "b", OlderNet(), scaler=StandardScaler().fit(rows[:, :3])))
    other = pd.DataFrame(rows, columns=list(FEATURES[::-1]))
    with pytest.raises(BitcornError, match=r"was fitted on 14 features \(td_sell_setup"):
        imported(write(tmp_path / "c", OlderNet(), scaler=StandardScaler().fit(other)))


def test_a_folder_without_the_files_names_them(tmp_path):
    folder = write(tmp_path / "old", OlderNet())
    (folder / "scaler.pkl").unlink()
    with pytest.raises(BitcornError, match=r"has no scaler.pkl or"):
        imported(folder)
