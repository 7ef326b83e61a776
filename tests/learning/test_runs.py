import json
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from small_training import MODEL, TRAINING, make_data

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.learning.runs import assemble_run, is_run, load_run, save_run
from bitcorn_ray.learning.training import fit

ABOUT = {"symbol": "SIM", "timeframe": "1h", "feature_system": None, "feature_version": None}


@pytest.fixture(scope="module")
def run():
    from bitcorn_ray.market.simulate import simulate_bars

    data, scaler, facts = make_data(simulate_bars(700, seed=3))
    fitted = fit(data, MODEL, replace(TRAINING, epochs=1))
    return assemble_run(fitted, data, scaler, MODEL, TRAINING, ["a", "b", "c", "d"], {**ABOUT, "data": facts})


def test_a_loaded_run_forecasts_the_same_to_the_bit(run, tmp_path):
    loaded = load_run(save_run(run, tmp_path / "run"))
    x = torch.randn(5, MODEL.seq_len, 4)
    for one, other in zip(loaded.model(x), run.model(x), strict=True):
        assert torch.equal(one, other)
    rows = np.random.default_rng(0).normal(size=(9, 4))
    np.testing.assert_array_equal(loaded.scaler.transform(rows), run.scaler.transform(rows))
    assert loaded.metadata == json.loads(json.dumps(run.metadata))
    assert loaded.config == MODEL


def test_the_folder_holds_the_documented_files(run, tmp_path):
    save_run(run, tmp_path / "run")
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["metadata.json", "model.pt", "scaler.pkl"]
    import joblib

    np.testing.assert_array_equal(joblib.load(tmp_path / "run" / "scaler.pkl").mean_, run.scaler.mean_)


class Bomb:
    def __reduce__(self):
        return (exec, ("raise SystemExit('unpickled')",))


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("name", ["scaler.pkl", "model.pt"])
def test_loading_never_unpickles(run, tmp_path, name):
    folder = save_run(run, tmp_path / "run")
    (folder / name).write_bytes(pickle.dumps(Bomb()))
    if name == "scaler.pkl":
        load_run(folder)
    else:
        with pytest.raises(BitcornError, match="damaged"):
            load_run(folder)


@pytest.mark.parametrize("name", ["metadata.json", "model.pt"])
@pytest.mark.parametrize("keep", [0, 0.5])
def test_a_damaged_run_is_a_clear_error(run, tmp_path, name, keep):
    folder = save_run(run, tmp_path / "run")
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: int(len(content) * keep)])
    with pytest.raises(BitcornError, match="damaged"):
        load_run(folder)


def test_a_folder_without_metadata_is_no_run(run, tmp_path):
    folder = save_run(run, tmp_path / "run")
    (folder / "metadata.json").unlink()
    assert not is_run(folder)
    with pytest.raises(BitcornError, match="holds no run"):
        load_run(folder)


def test_a_folder_that_cannot_be_written_is_a_clear_error(run, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BitcornError, match="cannot be written"):
        save_run(run, tmp_path / "file" / "run")


def test_bands_cover_the_validation_windows_as_promised(run):
    bands = run.metadata["calibration"]["bands"]
    assert set(bands) == {"0.8", "0.95"}
    assert all(narrow < wide for narrow, wide in zip(bands["0.8"], bands["0.95"], strict=True))


@pytest.mark.parametrize("field", ["symbol", "scaler", "calibration"])
def test_metadata_without_a_needed_field_names_it(run, tmp_path, field):
    folder = save_run(run, tmp_path / "run")
    metadata = json.loads((folder / "metadata.json").read_text())
    del metadata[field]
    (folder / "metadata.json").write_text(json.dumps(metadata))
    with pytest.raises(BitcornError, match=f"damaged: metadata.json has no {field}"):
        load_run(folder)
