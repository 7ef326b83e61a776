import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from small_runs import make_run

from bitcorn_ray.market.simulate import simulate_bars


@pytest.fixture(scope="module")
def market(tmp_path_factory):
    """A run on the first 900 of 1,300 bars, and the file of all of them."""
    folder = tmp_path_factory.mktemp("market")
    bars = simulate_bars(1_300, seed=2, gaps=0)
    columns = bars.columns()
    source = folder / "BBBUSDT_1h.parquet"
    pq.write_table(pa.table({"ts": columns.pop("timestamp"), **columns}), source)
    return make_run(folder / "run", {"BBBUSDT": bars.take(slice(900))}), source


def test_a_verdict_comes_first_then_the_numbers(run, market, tmp_path):
    folder, source = market
    done = run("evaluate", folder, source, "--cache-dir", tmp_path, "--out", tmp_path / "all.json")
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert lines[:2] == [f"{folder}, out of sample", "1 bar ahead"]
    assert lines[2].startswith("  volatility: ")
    assert "strong HAR" in done.stdout
    whole = json.loads((tmp_path / "all.json").read_text())
    assert whole["partitions"][0]["windows"] == 400
    assert [each["horizon"] for each in whole["skill"]] == [1, 4]


def test_json_is_the_whole_evaluation(run, market, tmp_path):
    folder, source = market
    done = run("evaluate", folder, "--db", source, "--json", "--cache-dir", tmp_path)
    told = json.loads(done.stdout)
    assert told["partitions"][0]["symbol"] == "BBBUSDT"
    assert {each["baseline"] for each in told["skill"][0]["volatility"]} >= {"GARCH(1,1)", "log-HAR", "ridge"}


def test_a_configuration_is_trained_first_and_holds_a_tenth_out(run, market, tmp_path):
    _, source = market
    config = tmp_path / "run.yaml"
    config.write_text(
        f"db: {source}\nsymbol: BBBUSDT\ntimeframe: 1h\nout: {tmp_path / 'trained'}\nworkers: 0\n"
        "table: ohlcv\nclean: {fill: forward, max_gap_size: 3}\n"
        "model: {seq_len: 8, hidden_size: 4, num_layers: 1, horizons: [1, 2]}\ntraining: {epochs: 1, batch_size: 256}\n"
    )
    done = run("evaluate", config, "--cache-dir", tmp_path, "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["partitions"][0]["sample"] == "test"
    trained = json.loads((tmp_path / "trained" / "metadata.json").read_text())
    assert trained["training"]["test_frac"] == 0.1
    again = run("evaluate", config, "--cache-dir", tmp_path, "--json")
    assert "is already trained" in again.stderr
    assert json.loads(again.stdout)["skill"] == json.loads(done.stdout)["skill"]


def test_bad_input_is_one_line_and_status_2(run, market, tmp_path):
    folder, source = market
    twice = run("evaluate", folder, source, "--db", source)
    assert (twice.exit_code, "once" in twice.stderr) == (2, True)
    assert run("evaluate", folder).exit_code == 2
    nothing = run("evaluate", tmp_path / "nowhere", source)
    assert nothing.exit_code == 2
    assert nothing.stderr.startswith("bitcorn: ")
    assert len(nothing.stderr.splitlines()) == 1
    unknown = run("evaluate", folder, source, "--symbols", "ZZZUSDT", "--cache-dir", tmp_path)
    assert (unknown.exit_code, "BBBUSDT" in unknown.stderr) == (2, True)
    unwritten = run("evaluate", folder, source, "--out", "/dev/null/x.json", "--cache-dir", tmp_path)
    assert (unwritten.exit_code, "cannot be written" in unwritten.stderr) == (2, True)
