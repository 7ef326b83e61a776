import hashlib
import json
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from small_runs import MODEL, TRAINING, make_run

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.features.registry import find_system
from bitcorn_ray.forecasting.forecaster import Forecaster
from bitcorn_ray.market.bars import Bars
from bitcorn_ray.market.simulate import simulate_bars
from bitcorn_ray.models.neural.network import LSTMMultiHead, load_weights
from bitcorn_ray.training.run import find_runs, is_run, load_run, read_metadata, save_run

FILES = ["calibration.npz", "metadata.json", "model.pt", "scaler.pkl"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    partitions = {"AAA": simulate_bars(700, seed=3, gaps=0), "B/B": simulate_bars(600, seed=4, gaps=0)}
    return make_run(tmp_path_factory.mktemp("runs") / "run", partitions)


@pytest.fixture
def run(folder):
    return load_run(folder)


def edited(run, to, **changes):
    """A saved copy of a run with other metadata; None takes a field away."""
    save_run(run, to)
    metadata = {**json.loads((to / "metadata.json").read_text()), **changes}
    (to / "metadata.json").write_text(json.dumps({k: v for k, v in metadata.items() if v is not None}))
    return to


def test_a_loaded_run_forecasts_the_same_to_the_bit(run, tmp_path):
    loaded = load_run(save_run(run, tmp_path / "run"))
    x = torch.randn(5, MODEL.seq_len, 14)
    for one, other in zip(loaded.model.network(x), run.model.network(x), strict=True):
        assert torch.equal(one, other)
    rows = np.random.default_rng(0).normal(size=(9, 14))
    np.testing.assert_array_equal(loaded.scaler.transform(rows), run.scaler.transform(rows))
    for one, other in zip(loaded.scores, run.scores, strict=True):
        np.testing.assert_array_equal(one.bars, other.bars)
        np.testing.assert_array_equal(one.scores, other.scores)
    assert loaded.metadata == run.metadata
    assert loaded.config == MODEL


def test_the_folder_holds_the_documented_files(run, tmp_path):
    save_run(run, tmp_path / "run")
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == FILES
    import joblib

    np.testing.assert_array_equal(joblib.load(tmp_path / "run" / "scaler.pkl").mean_, run.scaler.mean_)


def test_scores_are_those_of_each_partitions_validation_windows(run):
    """Remade from the bars: the forecast, what happened, and by how many volatilities they differ."""
    bars = simulate_bars(600, seed=4, gaps=0)
    frame = bars.to_frame()
    frame.attrs["symbol"] = "B/B"
    history = Forecaster(run, find_system("v2")).history(frame)
    ahead = history[(history["sample"] == "validation") & (history.horizon == 4)]
    close = frame.set_index("timestamp").close
    outcome = np.log(close.loc[ahead.time].to_numpy() / close.loc[ahead.cutoff].to_numpy())
    expected = np.abs(outcome - ahead["return"]) / ahead.volatility
    np.testing.assert_allclose(run.scores[1].scores[:, 1], expected, rtol=1e-3, atol=1e-4)
    hours = ahead.cutoff.astype("int64").to_numpy() // 3_600_000
    np.testing.assert_array_equal(run.scores[1].bars, hours)


def test_metadata_have_the_ranges_of_each_partition(run):
    one, other = run.metadata["partitions"]
    assert (one["symbol"], one["timeframe"], other["symbol"]) == ("AAA", "1h", "B/B")
    assert one["first"] == other["first"] == "2023-01-03T01:00:00Z"
    assert one["first"] < one["train"][0] < one["train"][1] < one["validation"][0] < one["validation"][1] < one["last"]
    assert one["test"] is None
    assert run.partition_index("b-b") == 1
    assert run.partition_index("nope") is None
    assert set(run.metadata["calibration"]["bands"][0]) == {"0.5", "0.8", "0.95"}


def test_what_happens_in_the_test_range_changes_nothing_that_is_kept(tmp_path):
    bars, training = simulate_bars(900, seed=8, gaps=0), replace(TRAINING, test_frac=0.2)
    columns = bars.columns()
    for name in ("open", "high", "low", "close"):
        columns[name] = columns[name].copy()
        columns[name][760:] *= np.linspace(1, 5, 140)
    one = load_run(make_run(tmp_path / "a", {"X": bars}, training=training))
    other = load_run(make_run(tmp_path / "b", {"X": Bars(**columns)}, training=training))
    assert one.metadata["partitions"][0]["test"][0] < "2023-02-01T16:00:00Z"  # bar 760
    assert {**one.metadata, "created": ""} == {**other.metadata, "created": ""}
    np.testing.assert_array_equal(one.scores[0].scores, other.scores[0].scores)


class Bomb:
    def __reduce__(self):
        return (exec, ("raise SystemExit('unpickled')",))


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("name", ["scaler.pkl", "model.pt", "calibration.npz"])
def test_loading_never_unpickles(run, tmp_path, name):
    content = pickle.dumps(Bomb())
    digests = json.loads((save_run(run, tmp_path / "whole") / "metadata.json").read_text())["files"]
    folder = edited(run, tmp_path / "run", files={**digests, name: hashlib.sha256(content).hexdigest()})
    (folder / name).write_bytes(content)
    if name == "scaler.pkl":
        load_run(folder)
    else:
        with pytest.raises(BitcornError, match="damaged"):
            load_run(folder)


@pytest.mark.parametrize("name", ["metadata.json", "model.pt", "calibration.npz"])
@pytest.mark.parametrize("keep", [0, 0.5])
def test_a_damaged_run_is_a_clear_error(run, tmp_path, name, keep):
    folder = save_run(run, tmp_path / "run")
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: int(len(content) * keep)])
    with pytest.raises(BitcornError, match="damaged"):
        load_run(folder)


def test_files_of_two_runs_are_not_taken_for_one(run, tmp_path):
    folder = save_run(run, tmp_path / "run")
    with torch.no_grad():
        run.model.network.heads.bias += 1
    (folder / "model.pt").write_bytes((save_run(run, tmp_path / "other") / "model.pt").read_bytes())
    with pytest.raises(BitcornError, match=r"damaged: model.pt is not the file that was written with the others"):
        load_run(folder)


def test_a_folder_without_metadata_is_no_run(run, tmp_path):
    folder = save_run(run, tmp_path / "run")
    (folder / "metadata.json").unlink()
    assert not is_run(folder)
    with pytest.raises(BitcornError, match="holds no run"):
        load_run(folder)


def test_other_formats_and_models_of_the_older_system_are_refused(run, tmp_path):
    with pytest.raises(BitcornError, match="format 9, newer than 2: update bitcorn_ray"):
        read_metadata(edited(run, tmp_path / "newer", format=9))
    with pytest.raises(BitcornError, match=r"has format 1, .*: train it anew"):
        read_metadata(edited(run, tmp_path / "first", format=1))
    with pytest.raises(BitcornError, match="bitcorn runs import"):
        read_metadata(edited(run, tmp_path / "older", format=None))


@pytest.mark.parametrize("field", ["partitions", "scaler", "calibration"])
def test_metadata_without_a_needed_field_names_it(run, tmp_path, field):
    with pytest.raises(BitcornError, match=f"damaged: metadata.json has no {field}"):
        load_run(edited(run, tmp_path / "run", **{field: None}))


def test_numbers_that_are_none_are_written_as_null(run, tmp_path):
    run.metadata["val_loss"], run.metadata["evaluation"] = float("nan"), {"qlike": (np.float32(1), np.inf)}
    metadata = json.loads((save_run(run, tmp_path / "run") / "metadata.json").read_text(), parse_constant=pytest.fail)
    assert metadata["val_loss"] is None
    assert metadata["evaluation"] == {"qlike": [1.0, None]}


def test_runs_are_found_however_deep_and_not_in_hidden_folders(run, tmp_path):
    for name in ("a", "b/c", ".checkpoints/d"):
        save_run(run, tmp_path / name)
    assert find_runs(tmp_path) == ["a", "b/c"]
    assert find_runs(tmp_path / "a") == [""]
    with pytest.raises(BitcornError, match="no folder"):
        find_runs(tmp_path / "none")


def test_weights_that_do_not_fit_are_refused():
    with pytest.raises(RuntimeError, match="size mismatch"):
        load_weights(LSTMMultiHead(3, hidden_size=8), LSTMMultiHead(4, hidden_size=8).state_dict())
