import json
import os
import signal
import sqlite3
import subprocess
import sys

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from killing import kill_driver, process_environment, trial_workers, written
from small_sweeps import sweep_values
from small_training import fit

from bitcorn_ray import Forecaster, load_market_data, tune
from bitcorn_ray.datasets.folds import FoldRows, Span
from bitcorn_ray.datasets.load import inputs_from_source
from bitcorn_ray.errors import BitcornError
from bitcorn_ray.models.neural.model import predict_windows
from bitcorn_ray.training.run import load_run
from bitcorn_ray.tuning.config import SweepConfig
from bitcorn_ray.tuning.folder import SweepFolder
from bitcorn_ray.tuning.study import refit

pytestmark = pytest.mark.usefixtures("ray_cluster")


def test_a_sweep_leaves_its_trials_forecasts_and_a_run(market_db, tmp_path):
    out, seen, lines = tmp_path / "sweep", [], []

    def see(trial):
        if not seen:  # the database grows while the sweep runs
            with sqlite3.connect(market_db) as connection:
                later = "ts + (SELECT max(ts) - min(ts) FROM ohlcv WHERE symbol = 'AAAUSDT') + 3600000"
                rest = "symbol, timeframe, open, high, low, close, volume"
                connection.execute(
                    f"INSERT INTO ohlcv (ts, {rest}) SELECT {later}, {rest} FROM ohlcv WHERE symbol = 'AAAUSDT'"
                )
        seen.append(trial)

    ended_at = load_market_data(market_db, "AAAUSDT", "1h").dataframe["timestamp"].iloc[-1]
    done = tune(sweep_values(market_db, out), on_trial=see, log_fn=lines.append)
    assert load_market_data(market_db, "AAAUSDT", "1h").dataframe["timestamp"].iloc[-1] > ended_at
    assert done.ended == "done"
    assert [(each.name, each.state, len(each.losses)) for each in done.trials] == [
        ("t0001", "finished", 2),
        ("t0002", "finished", 2),
    ]
    assert done.best.loss == min(each.loss for each in done.trials)
    told = json.loads((out / "sweep.json").read_text())
    assert (told["tried"], told["finished"], told["best"]["name"]) == (2, 2, done.best.name)
    table = pq.read_table(out / "trials.parquet")
    assert table.column("search.training.learning_rate").to_pylist() == [0.001, 0.01]
    assert table.column("loss_fold_1").to_pylist() == [each.losses[1] for each in done.trials]
    # Test windows of both folds make one stretch of ten days, less what gaps and the last labels take.
    forecasts = pq.read_table(out / "forecasts.parquet").to_pandas()
    cutoffs = forecasts["cutoff"].unique()
    assert forecasts["fold"].unique().tolist() == [0, 1]
    assert 200 < len(cutoffs) <= 240
    assert (forecasts.groupby("cutoff")["horizon"].apply(list).map(lambda each: each == [1, 4])).all()
    # The run is one like any other, trained on the last fold.
    run = load_run(done.run)
    assert run.metadata["sweep"]["trial"] == done.best.name
    last = json.loads((out / "sweep.json").read_text())["folds"][-1]
    assert run.metadata["partitions"][0]["train"][0] >= last["train"]["first"][:10]
    assert pd.Timestamp(run.metadata["partitions"][0]["last"]) <= ended_at
    assert Forecaster.load(done.run) is not None
    assert {each.name for each in seen} == {"t0001", "t0002"}
    assert any("training it on the last fold" in line for line in lines)


def test_the_best_run_remembers_how_its_bars_were_repaired(market_db, tmp_path):
    config = SweepConfig.load(sweep_values(market_db, "out", clean={"fill": "forward", "max_gap_size": 48}))
    refit(config, {"trial": "t1", "loss": 0.5, "setting": config.at({}).to_json()}, str(tmp_path / "best"))
    told = load_run(tmp_path / "best").metadata["cleaning"]
    assert (told["policy"]["fill"], told["policy"]["max_gap_size"]) == ("forward", 48)
    assert told["partitions"]["AAAUSDT 1h"]["bars"] == 1_500
    assert Forecaster.load(tmp_path / "best").source_options().policy == config.run.clean


def test_a_sweep_of_one_trial_is_a_plain_training_bit_for_bit(market_db, tmp_path):
    values = sweep_values(
        market_db, tmp_path / "sweep", search={}, folds={"window": "expanding"}, sweep={"trials": 5}, workers=1
    )
    done = tune(values)
    assert len(done.trials) == 1  # there is but one point
    setting = SweepConfig.load(values).at({})
    last = json.loads((tmp_path / "sweep" / "sweep.json").read_text())["folds"][-1]
    bars = SweepFolder(tmp_path / "sweep").bars()[0]
    close = bars.timestamp + bars.step
    spans = (Span(*map(int, np.searchsorted(close, last[part]["span"]))) for part in ("train", "validation", "test"))
    plain = inputs_from_source(market_db, ["AAAUSDT"], "1h", "v2", setting.model, [FoldRows(*spans)]).data
    fitted = fit(plain, setting.model, setting.training)
    run = load_run(done.run)  # refitted by Ray Train
    assert all(torch.equal(value, fitted.weights[name]) for name, value in run.model.network.state_dict().items())
    returns, volatilities = predict_windows(
        run.model.network, plain.matrix, plain.reference, plain.test_ends, setting.model.seq_len
    )
    forecasts = pq.read_table(tmp_path / "sweep" / "forecasts.parquet").to_pandas()
    own = forecasts[forecasts["fold"] == 1]
    np.testing.assert_array_equal(own["return"].to_numpy(), returns.ravel().astype(float))
    np.testing.assert_array_equal(own["volatility"].to_numpy(), volatilities.ravel().astype(float))
    np.testing.assert_allclose(own["realised_return"], plain.returns[plain.test_ends].ravel(), rtol=1e-4, atol=1e-7)


def test_variants_of_features_are_computed_once_before_the_trials(market_db, tmp_path, cache_dir):
    lines = []
    values = sweep_values(
        market_db,
        tmp_path / "sweep",
        symbol=None,
        symbols=["AAAUSDT", "BBBUSDT"],
        search={
            "system": {"choice": ["v2", "v4"]},
            "features": {"choice": [["rsi_14", "log_ret_1"], ["log_ret_1", "raw_vol_10", "rsi_14"]]},
        },
        folds={"last": 1},
        sweep={"trials": 4, "max_failures": 1, "seeds": 2},
    )
    done = tune(values, log_fn=lines.append)
    # v4 has other features: its trials fail, and say so.
    assert [each.state for each in done.trials] == ["finished", "finished", "failed", "failed"]
    assert "v4 has no feature" in done.trials[2].error
    assert any("t0003 failed with {'system': 'v4'" in line for line in lines)
    assert sum(" features v2 of " in line for line in lines) == 1
    assert sum(" features v4 of " in line for line in lines) == 1
    assert len(list((tmp_path / "sweep" / "records").iterdir())) == 4  # two trials, two seeds
    run = load_run(done.run)
    assert run.metadata["feature_cols"] == list(done.best.point["features"])
    assert [each["symbol"] for each in run.metadata["partitions"]] == ["AAAUSDT", "BBBUSDT"]


def test_too_many_failures_end_a_sweep_with_results(market_db, tmp_path):
    values = sweep_values(
        market_db, tmp_path / "sweep", search={"features": {"choice": [["rsi_14"], ["log_ret_1"]]}}, sweep={"trials": 2}
    )
    values["training"] = {**values["training"], "learning_rate": 1e30, "grad_clip": 1e30}
    with pytest.raises(BitcornError, match=r"of 2 trials failed, of 2 at most 25% may; the first, t000. with"):
        tune(values)
    assert json.loads((tmp_path / "sweep" / "sweep.json").read_text())["ended"] == "failures"


def test_a_folder_with_other_files_or_another_sweep_is_refused(market_db, tmp_path):
    out = tmp_path / "sweep"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    with pytest.raises(BitcornError, match="holds other files"):
        tune(sweep_values(market_db, out))
    (out / "notes.txt").unlink()
    SweepFolder(out).begin(SweepConfig.load(sweep_values(market_db, out)), {"v2": "of other bars"}, [], "code")
    with pytest.raises(BitcornError, match="--resume"):
        tune(sweep_values(market_db, out))
    with pytest.raises(BitcornError, match="the bars or features have changed"):
        tune(sweep_values(market_db, out), resume=True)


@pytest.mark.slow  # the same on a cluster: tests/cluster/test_failures.py
def test_after_a_killed_driver_nothing_finished_is_repeated(market_db, tmp_path, cache_dir):
    out = tmp_path / "sweep"
    values = sweep_values(
        market_db,
        out,
        search={"training.learning_rate": {"loguniform": [0.001, 0.01]}},
        folds={"last": 3},
        training={"epochs": 8},
        sweep={"trials": 3, "search": "tpe"},
    )
    before = kill_driver("tune", values, cache_dir, records=2)
    names = list(SweepFolder(out).journal.read())
    assert 2 <= len(before) < 9
    with pytest.raises(BitcornError, match="--resume"):
        tune(values)
    done = tune(values, resume=True)
    assert before.items() <= written(out).items()
    assert len(written(out)) == 9  # three trials of three folds, none twice
    assert [each.state for each in done.trials] == ["finished"] * 3
    assert [each.name for each in done.trials][: len(names)] == names


def test_a_trial_whose_worker_is_killed_continues_after_its_last_fold(market_db, tmp_path):
    out, killed, before = tmp_path / "sweep", [], {}

    def kill(trial):
        if len(trial.losses) == 1 and not killed:
            before.update(written(out))
            killed.extend(trial_workers())
            for process in killed:
                os.kill(process, signal.SIGKILL)

    values = sweep_values(market_db, out, folds={"last": 3}, training={"epochs": 8}, sweep={"trials": 1})
    done = tune(values, on_trial=kill)
    assert len(killed) == 1
    assert [(each.state, len(each.losses)) for each in done.trials] == [("finished", 3)]
    assert 1 <= len(before) < 3
    assert before.items() <= written(out).items()
    assert len(written(out)) == 3


_LOSING_A_NODE = """
import json, sys
import ray
from killing import written
from ray.cluster_utils import Cluster
import bitcorn_ray

values = json.loads(sys.argv[1])
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
lost, before = cluster.add_node(num_cpus=1), None

def lose(trial):
    global before
    if before is None and trial.losses:
        before = written(values["out"])
        cluster.remove_node(lost, allow_graceful=False)
        cluster.add_node(num_cpus=1)

done = bitcorn_ray.tune(values, address=cluster.address, on_trial=lose)
print(json.dumps({"before": before, "trials": [[each.state, len(each.losses)] for each in done.trials]}))
ray.shutdown()
cluster.shutdown()
"""


@pytest.mark.slow  # the same on a cluster: tests/cluster/test_failures.py
def test_a_lost_node_costs_no_finished_fold(market_db, tmp_path, cache_dir):
    out = tmp_path / "sweep"
    values = sweep_values(market_db, out, folds={"last": 3}, training={"epochs": 8})
    environment = process_environment(cache_dir)
    for name, value in (("initial_delay_ms", 0), ("period_ms", 300), ("timeout_ms", 500), ("failure_threshold", 3)):
        environment[f"RAY_health_check_{name}"] = str(value)  # notice a lost node within seconds
    done = subprocess.run(
        [sys.executable, "-c", _LOSING_A_NODE, json.dumps(values)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["trials"] == [["finished", 3], ["finished", 3]]
    assert 1 <= len(told["before"]) < 3
    assert told["before"].items() <= written(out).items()
    assert len(written(out)) == 6
