import re
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from bitcorn_ray.data_loader import compute_features
from bitcorn_ray.features.receipts import PartitionStatus
from bitcorn_ray.models.base import EpochResult, Progress
from bitcorn_ray.on_ray import monitoring as metrics
from bitcorn_ray.storage.traffic import count_traffic, traffic
from bitcorn_ray.tuning.search import Trial


@pytest.fixture
def recorded(monkeypatch):
    """Sums of counters and last values of gauges by name and tags, as recorded on a cluster."""
    values = {}

    def stand_in(metric):
        def key(tags):
            assert set(tags) == set(metric.tags)
            return (metric.name, *(tags[name] for name in metric.tags))

        def inc(value, tags):
            assert value > 0  # Ray refuses anything else
            values[key(tags)] = values.get(key(tags), 0) + value

        return SimpleNamespace(inc=inc, set=lambda value, tags: values.update({key(tags): value}))

    monkeypatch.setattr(metrics._Metric, "ray_metric", property(stand_in))
    monkeypatch.setattr(metrics, "_is_exported", lambda: True)
    metrics.record_own_traffic()  # of earlier tests
    values.clear()
    yield values
    metrics._gauges.clear()


def test_names_are_as_prometheus_wants_them():
    names = [metric.name for metric in metrics.METRICS]
    assert len({*names}) == len(names)
    for metric in metrics.METRICS:
        assert re.fullmatch("bitcorn_[a-z_]+", metric.name)
        assert not metric.name.endswith("_total")  # Ray adds it
        assert metric.description
        assert metric.exported == f"ray_{metric.name}" + ("_total" if isinstance(metric, metrics.Counter) else "")


def test_the_page_lists_all_metrics():
    page = (Path(__file__).parent.parent.parent / "docs" / "cluster.md").read_text()
    listed = re.findall(r"^\| `(ray_\w+)` \| (.*?) \| (.*) \|$", page, flags=re.MULTILINE)
    assert listed == [
        (metric.exported, ", ".join(f"`{tag}`" for tag in metric.tags), metric.description)
        for metric in metrics.METRICS
    ]


def test_partitions_are_counted_by_system_and_outcome(recorded):
    for outcome in ({"hit": True}, {}, {}, {"error": "no bars"}):
        metrics.record_partition("v2", PartitionStatus(symbol="A", timeframe="1h", source="a.db", **outcome))
    name = "bitcorn_partitions_done"
    assert recorded == {(name, "v2", "hit"): 1, (name, "v2", "computed"): 2, (name, "v2", "failed"): 1}


def test_traffic_of_this_process_is_counted_once(recorded):
    count_traffic(hits=2, misses=1, bytes_read=10, bytes_written=5)
    metrics.record_own_traffic()
    metrics.record_own_traffic()
    count_traffic(hits=1)
    metrics.record_own_traffic()
    assert recorded == {
        ("bitcorn_cache_hits",): 3,
        ("bitcorn_cache_misses",): 1,
        ("bitcorn_cache_read_bytes",): 10,
        ("bitcorn_cache_written_bytes",): 5,
    }


def test_a_training_is_followed_by_its_run(recorded):
    metrics.record_progress("runs/a", Progress(1, 10, 20, 0.9, 500.0))
    metrics.record_epoch("runs/a", EpochResult(1, 0.7, 0.8, [0.7], [0.8], True, 1e-3, 1.0, 400.0))
    assert recorded == {
        ("bitcorn_epochs_done", "runs/a"): 1,
        ("bitcorn_samples_per_second", "runs/a"): 400.0,
        ("bitcorn_loss", "runs/a", "train"): 0.7,
        ("bitcorn_loss", "runs/a", "validation"): 0.8,
    }


def test_a_gauge_is_repeated_until_it_is_forgotten(recorded, monkeypatch):
    monkeypatch.setattr(metrics, "_REPEAT_SECONDS", 0.001)

    def repeated():
        recorded.clear()
        until = time.monotonic() + 30
        while not recorded and time.monotonic() < until:
            time.sleep(0.01)
        return dict(recorded)

    with metrics.repeated_gauges():
        metrics.record_epoch("runs/a", EpochResult(1, 0.7, 0.8, [0.7], [0.8], True, 1e-3, 1.0, 400.0))
        metrics.record_running("sweeps/a", 2)
        assert ("bitcorn_epochs_done", "runs/a") not in repeated()  # a sum must not grow by it
        metrics.forget_training("runs/a")
        repeated()  # a value that was being set
        assert repeated() == {("bitcorn_trials_running", "sweeps/a"): 2}
    recorded.clear()
    time.sleep(0.05)
    assert recorded == {}


def test_trials_are_counted_by_state_and_folds_by_source(recorded):
    metrics.record_trial("sweeps/a", 1, None, None)
    metrics.record_trial("sweeps/a", 1, True, None)
    metrics.record_trial("sweeps/a", 1, False, None)
    assert recorded["bitcorn_trials_running", "sweeps/a"] == 1
    metrics.record_trial("sweeps/a", 0, None, Trial(name="t1", point={}, state="stopped", losses=(1.0, 2.0)))
    assert recorded == {
        ("bitcorn_folds_done", "sweeps/a", "reused"): 1,
        ("bitcorn_folds_done", "sweeps/a", "trained"): 1,
        ("bitcorn_trials_done", "sweeps/a", "stopped"): 1,
        ("bitcorn_trials_running", "sweeps/a"): 0,
    }


def test_cache_traffic_of_workers_is_counted(market_db, ray_cluster, cache_dir, recorded):
    here = traffic()
    compute_features(market_db, symbols=["BBBUSDT"])
    size = sum(path.stat().st_size for path in (cache_dir / "features").glob("*.parquet"))
    assert recorded == {
        ("bitcorn_partitions_done", "v2", "computed"): 1,
        ("bitcorn_cache_misses",): 1,
        ("bitcorn_cache_written_bytes",): size,
    }
    assert traffic() == here  # all of it was a worker's
    compute_features(market_db)
    assert recorded["bitcorn_partitions_done", "v2", "hit"] == 1
    assert recorded["bitcorn_partitions_done", "v2", "computed"] == 2


def test_a_private_ray_exports_nothing_and_nothing_is_recorded(ray_cluster, monkeypatch):
    made = []
    monkeypatch.setattr(metrics._Metric, "ray_metric", property(lambda metric: made.append(metric.name)))
    metrics.PARTITIONS.add(system="v2", outcome="computed")
    metrics.LOSS.set(0.5, run="runs/a", part="train")
    metrics.record_own_traffic()
    assert made == []
