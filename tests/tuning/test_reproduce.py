import pytest
from small_sweeps import sweep_values

from bitcorn_ray import reproduce, run_lineage, train_from_config, tune
from bitcorn_ray.errors import BitcornError
from bitcorn_ray.market.bars import Bars
from bitcorn_ray.market.partition import Partition
from bitcorn_ray.models.neural import acceleration
from bitcorn_ray.sources.ingest import write_bars
from bitcorn_ray.training.config import RunConfig
from bitcorn_ray.training.run import load_run, save_run

AAA = Partition("AAAUSDT", "1h")
MODEL = {"horizons": [1, 4], "seq_len": 16, "hidden_size": 6, "num_layers": 1, "reference_span": 24}
TRAINING = {"epochs": 2, "batch_size": 64, "threads": 1, "deterministic": True}


@pytest.fixture
def source(tmp_path, random_bars):
    """A database with the first 900 of 1,000 bars, and a function that writes bars of all of them to it."""
    path, whole = tmp_path / "bars.db", random_bars(1_000, seed=1)

    def write(rows, **columns):
        bars = whole.take(rows)
        write_bars([("simulated", AAA, Bars(**{**bars.columns(), **columns}))], path)

    write(slice(0, 900))
    return path, write


@pytest.fixture
def run(source, tmp_path):
    values = {"db": str(source[0]), "symbol": "aaa/usdt", "timeframe": "1h", "out": str(tmp_path / "run")}
    train_from_config(RunConfig.load(None, {**values, "workers": 0, "model": MODEL, "training": TRAINING}))
    return tmp_path / "run"


def nothing_but(done, *names):
    return all(not getattr(done, name) for name in ("data", "code", "versions", "machines") if name not in names)


def test_an_unchanged_run_is_reproduced_to_the_bit(run, tmp_path):
    done = reproduce(run, out=tmp_path / "again")
    assert (done.equal, done.bitwise, done.loss_difference, done.weight_difference) == (True, True, 0.0, 0.0)
    assert nothing_but(done)
    assert [each["epoch"] for each in done.epochs] == [1, 2]
    assert done.epochs[0]["val_loss"][0] == done.epochs[0]["val_loss"][1]
    now, then = run_lineage(tmp_path / "again"), run_lineage(run)
    assert now["data"] == then["data"]
    assert reproduce(tmp_path / "again").equal
    with pytest.raises(BitcornError, match="again holds a finished run"):
        reproduce(run, out=tmp_path / "again")


def test_appended_bars_are_reported_and_left_out(run, source):
    source[1](slice(900, 1_000))
    done = reproduce(run)
    assert done.appended == {"AAAUSDT 1h": 100}
    assert (done.equal, done.bitwise, done.weight_difference) == (True, True, 0.0)


def test_a_changed_bar_is_reported_with_its_chunk(run, source, random_bars):
    volume = random_bars(1_000, seed=1).take(slice(400, 401)).volume + 1
    source[1](slice(400, 401), volume=volume)
    done = reproduce(run)
    assert not done.equal
    assert not done.bitwise
    assert len(done.data) == 1
    assert done.data[0].startswith("AAAUSDT 1h: bars between 2023-01-01T00:00:00Z and ")


def test_moved_bars_are_read_from_another_source(run, source, tmp_path):
    source[0].rename(tmp_path / "moved.db")
    with pytest.raises(BitcornError, match="no database, file or folder of bars"):
        reproduce(run)
    assert reproduce(run, source=tmp_path / "moved.db").equal


def test_with_other_code_versions_or_machines_losses_are_compared_to_1e_6(run, monkeypatch):
    recorded = load_run(run)
    recorded.metadata["versions"]["numpy"] = "1.0"
    recorded.metadata["lineage"]["code"]["models"] = "0" * 32
    recorded.metadata["lineage"]["cluster"]["workers"][0]["cpu"] = "another"
    save_run(recorded, run)
    done = reproduce(run)
    assert done.code == ("code of bitcorn_ray.models changed",)
    assert done.versions[0].startswith("numpy: 1.0 became ")
    assert done.machines == (f"cpu of worker 1: another became {acceleration.cpu_family()}",)
    assert not done.data
    assert (done.equal, done.bitwise) == (True, False)
    # A loss that is further away is another one.
    recorded.metadata["history"][1]["val_loss"] *= 1 + 1e-5
    save_run(recorded, run)
    assert not reproduce(run).equal


def test_no_bit_may_differ_if_equal_bits_are_promised(run):
    recorded = load_run(run)
    weights = recorded.model.network.state_dict()
    name = next(name for name in weights if name.endswith("weight_ih_l0"))
    weights[name][0, 0] += 2**-20
    save_run(recorded, run)
    done = reproduce(run)
    assert (done.equal, done.bitwise, done.loss_difference) == (False, True, 0.0)
    assert done.weight_difference == pytest.approx(2**-20, rel=1e-3)


def test_a_run_without_a_configuration_is_refused(run, tmp_path):
    recorded = load_run(run)
    recorded.metadata["lineage"]["config"] = None
    save_run(recorded, tmp_path / "frame")
    with pytest.raises(BitcornError, match="recorded no configuration, as its features were given in Python"):
        reproduce(tmp_path / "frame")


def test_the_run_of_a_sweep_is_reproduced(market_db, tmp_path, ray_cluster):
    tune(sweep_values(market_db, tmp_path / "sweep"))
    done = reproduce(tmp_path / "sweep" / "best")
    assert (done.equal, done.bitwise, done.weight_difference) == (True, True, 0.0)


@pytest.mark.slow
def test_a_run_on_ray_is_reproduced(source, tmp_path, ray_cluster):
    values = {"db": str(source[0]), "symbol": "AAAUSDT", "timeframe": "1h", "out": str(tmp_path / "run")}
    train_from_config(RunConfig.load(None, {**values, "workers": 1, "model": MODEL, "training": TRAINING}))
    recorded = run_lineage(tmp_path / "run")
    assert recorded["cluster"]["ray"]
    assert recorded["cluster"]["nodes"] == 1
    assert len(recorded["cluster"]["workers"]) == 1
    assert reproduce(tmp_path / "run").weight_difference == 0.0
