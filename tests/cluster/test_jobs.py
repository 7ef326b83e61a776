"""On a real cluster of three nodes that share an S3 server and nothing else: what works at home works there as well."""

import json
import re
from types import SimpleNamespace

import pytest
import yaml
from grafana_dashboard import metrics_named
from observing import records, total, watched, worker_logs
from small_sweeps import sweep_values

from bitcorn_ray.data_loader import compute_features
from bitcorn_ray.storage.storage import Storage
from bitcorn_ray.training.config import RunConfig
from bitcorn_ray.training.run import load_run, read_metadata
from bitcorn_ray.training.train import train_from_config


def ray_job_submit(site, *words):
    """Submit a command as Ray's own documentation does."""
    address = ["--address", site.cluster.dashboard]
    return site.cluster.run("ray", "job", "submit", *address, "--working-dir", ".", "--", *words, folder=site.project)


def submit(site, *words):
    """Let bitcorn submit a command."""
    return site.cluster.run("bitcorn", "--address", site.cluster.dashboard, "--submit", *words, folder=site.project)


def chunks(storage):
    """Content of the chunks of a cache, by their names."""
    names = [file.name for file in storage.files("features") if file.name.endswith(".parquet")]
    return {name: bytes(storage.read(name)) for name in names}


@pytest.fixture(scope="module")
def observed(site):
    """Features and a sweep of which one trial of two fails: metrics meanwhile and after them, and what was printed."""
    values = sweep_values(
        site.bars,
        "s3://bucket/on_a_cluster/observed",
        folds={"last": 1},
        features="own:momentum",
        search={"training.learning_rate": {"choice": [0.001, 1e30]}},
        sweep={"max_failures": 0.5},
        workers=1,
    )
    (site.project / "observed.yaml").write_text(yaml.safe_dump(values))
    with watched(site.cluster) as metrics:
        # First of all what needs no folder of its own: nodes of one machine unpack the job's into the same place.
        features = submit(site, "--log-format", "json", "features", site.bars, "--system", "own:momentum:window=11")
        sweep = submit(site, "--log-format", "json", "tune", "observed.yaml")
    assert features.returncode == 0, features.stdout + features.stderr
    assert sweep.returncode == 0, sweep.stdout + sweep.stderr
    return SimpleNamespace(metrics=metrics, features=features, sweep=sweep)


def test_features_are_the_same_bytes_as_at_home(site, tmp_path, monkeypatch):
    done = ray_job_submit(site, "bitcorn", "features", site.bars, "--system", "own:momentum:window=10")
    assert done.returncode == 0, done.stdout + done.stderr
    monkeypatch.syspath_prepend(str(site.project))
    compute_features(site.project / "market.db", system="own:momentum:window=10", cache_dir=tmp_path / "cache")
    there, here = chunks(Storage(site.uri("on_a_cluster/cache"))), chunks(Storage(tmp_path / "cache"))
    assert there == here
    assert len(there) == 2


@pytest.mark.slow
def test_a_training_has_the_losses_that_it_has_at_home(site, tmp_path, monkeypatch):
    done = ray_job_submit(site, "python", "-m", "bitcorn_ray", "train", "--config", "train.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    there = read_metadata(site.uri("on_a_cluster/run"))
    monkeypatch.syspath_prepend(str(site.project))
    values = {**site.run, "db": str(site.project / "market.db"), "out": str(tmp_path / "run"), "workers": 0}
    here = train_from_config(RunConfig.load(None, values), cache_dir=tmp_path / "cache").metadata
    assert [epoch["val_loss"] for epoch in there["history"]] == [epoch["val_loss"] for epoch in here["history"]]
    assert there["cache_keys"] == here["cache_keys"]


def test_a_sweep_is_submitted_followed_and_its_exit_code_passed_on(site, observed):
    assert "submitted as bitcorn-tune-" in observed.sweep.stderr
    assert "run of the best trial in" in observed.sweep.stdout
    swept = Storage(site.uri("on_a_cluster/observed"))
    told = json.loads(bytes(swept.read("sweep.json")))
    assert [trial["state"] for trial in told["trials"]] == ["finished", "failed"]
    assert load_run(swept.child("best").address).metadata["feature_cols"] == ["momentum"]
    again = submit(site, "tune", "observed.yaml")
    assert again.returncode == 2
    assert "continue it with --resume" in again.stdout


def test_a_database_that_only_the_submitting_machine_has_is_told_of(site):
    assert (site.project / "market.db").is_file()  # and ignored by git
    failed = submit(site, "features", "market.db")
    assert failed.returncode == 2
    assert "machine that submitted the command" in failed.stdout
    assert "market.db --to s3://bucket/bars" in failed.stdout


@pytest.mark.slow
def test_a_node_with_an_older_version_is_refused_and_the_doctor_says_so(site, older):
    node = site.cluster.add_node(PYTHONPATH=str(older))
    try:
        failed = submit(site, "features", site.bars, "--system", "v4")
        assert failed.returncode == 2, failed.stdout
        assert f"{node.address}) is refused, as it has bitcorn_ray 0.1.0 (code " in failed.stdout
        examined = submit(site, "doctor", "--json")
        assert examined.returncode == 1
        assert f"{node.address}) has bitcorn_ray 0.1.0 (code " in examined.stdout
    finally:
        site.cluster.remove_node(node)
    assert submit(site, "features", site.bars, "--system", "v4").returncode == 0


def test_metrics_of_jobs_are_there_for_prometheus_when_they_are_over(site, observed):
    seen, sweep = observed.metrics, "s3://bucket/on_a_cluster/observed"
    of_features = {"system": "own:momentum:window=11"}
    assert total(seen, "ray_bitcorn_partitions_done_total", outcome="computed", **of_features) == 2
    assert total(seen, "ray_bitcorn_partitions_done_total", **of_features) == 2
    assert total(seen, "ray_bitcorn_trials_done_total", sweep=sweep, state="finished") == 1
    assert total(seen, "ray_bitcorn_trials_done_total", sweep=sweep, state="failed") == 1
    assert total(seen, "ray_bitcorn_folds_done_total", sweep=sweep, source="trained") == 1
    assert total(seen, "ray_bitcorn_epochs_done_total", run=f"{sweep}/best") == 1
    for name in ("hits", "misses", "read_bytes", "written_bytes"):
        assert total(seen, f"ray_bitcorn_cache_{name}_total") > 0
    assert metrics_named() <= {name for name, _ in seen}


def test_logs_of_workers_say_which_partition_trial_and_fold(site, observed):
    told = worker_logs(site.cluster)
    assert [each for each in told if each["message"] == "features done" and each["partition"] == "AAAUSDT 1h"]
    (fold,) = [each for each in told if each["message"] == "fold done"]
    assert (fold["trial"], fold["fold"], fold["name"]) == ("t0001", 0, "bitcorn_ray.tuning.trial")
    (failed,) = [each for each in told if each["message"].startswith("trial failed: the loss is not finite")]
    assert (failed["trial"], failed["levelname"]) == ("t0002", "ERROR")
    (epoch,) = [each for each in told if each["message"] == "epoch done" and "run" in each]
    assert epoch["run"] == "s3://bucket/on_a_cluster/observed/best"
    assert {"epoch", "val_loss", "job_id", "node_id", "worker_id"} <= set(epoch)
    # They are part of the jobs' logs, too.
    assert {each["message"] for each in records(observed.features.stdout)} == {"features begun", "features done"}
    assert "fold done" in {each["message"] for each in records(observed.sweep.stdout)}


def test_the_dashboard_shows_nodes_and_jobs_with_their_logs(site, observed):
    jobs = {job["submission_id"]: job for job in json.loads(site.cluster.asked("/api/jobs/"))}
    (name,) = re.findall(r"submitted as (bitcorn-tune-\w+)", observed.sweep.stderr)
    assert jobs[name]["status"] == "SUCCEEDED"
    assert "tune observed.yaml" in jobs[name]["entrypoint"]
    log = json.loads(site.cluster.asked(f"/api/jobs/{name}/logs"))["logs"]
    assert "run of the best trial in" in log
    assert site.cluster.nodes() == 3
