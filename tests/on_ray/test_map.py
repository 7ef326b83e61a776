"""Jobs over the cluster: dealt evenly, each done once, and none that takes others down with it."""

import importlib
import os
import sys
import time
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitcorn_ray.cache.pruning import verify
from bitcorn_ray.cache.store import FeatureCache
from bitcorn_ray.data_loader import compute_features
from bitcorn_ray.features.compute import prepare
from bitcorn_ray.features.registry import find_system
from bitcorn_ray.fingerprint.code import code_identity
from bitcorn_ray.market.bars import Bars
from bitcorn_ray.market.partition import Partition
from bitcorn_ray.on_ray.map import _balanced, map_balanced
from bitcorn_ray.sources.ingest import write_bars

_JOBS = """
import os, signal
from pathlib import Path

FACTOR = 3


def triple(jobs):
    return [job * FACTOR for job in jobs]


def die_once(jobs, folder):
    for job in jobs:
        (Path(folder) / f"{job}-{os.urandom(8).hex()}").touch()
        if job == 3 and not (Path(folder) / "died").exists():
            (Path(folder) / "died").touch()
            os.kill(os.getpid(), signal.SIGKILL)
    return triple(jobs)


def die_always(jobs, folder):
    for job in jobs:
        (Path(folder) / f"{job}-{os.urandom(8).hex()}").touch()
        if job == 3:
            os.kill(os.getpid(), signal.SIGKILL)
    return triple(jobs)


def raise_once_a_group(jobs):
    if 3 in jobs:
        raise ValueError("three")
    return triple(jobs)


def several(jobs):
    return [(job, part) for job in jobs for part in range(job)]
"""

_SYSTEM = """
import os, signal
import numpy as np
from bitcorn_ray.features.system import feature_system
from {helper} import scaled


@feature_system(name="fragile", warmup=1, features=["gain"])
def fragile(bars):
    if {condition}:
        os.kill(os.getpid(), signal.SIGKILL)
    return {{"gain": scaled(np.concatenate(([np.nan], np.diff(np.log(bars.close)))))}}
"""

MARKER = 424_242.0  # a price at which the system above crashes


@pytest.fixture
def user_module(tmp_path, monkeypatch):
    """A function that makes a module which this process can import, and workers cannot."""
    folder = tmp_path / "users"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    made = []

    def make(name, text):
        name = f"{name}_{os.urandom(4).hex()}"
        (folder / f"{name}.py").write_text(text)
        importlib.invalidate_caches()
        made.append(name)
        return name

    yield make
    for name in made:
        sys.modules.pop(name, None)


@pytest.fixture
def jobs_module(user_module):
    return importlib.import_module(user_module("jobs", _JOBS))


def mapped(function, jobs, sizes=None):
    """Results, lost jobs, and what `on_done` was called with."""
    seen = []
    code = code_identity(getattr(function, "func", function))
    done, lost = map_balanced(function, jobs, sizes or [1] * len(jobs), code, seen.append)
    return done, lost, seen


@given(st.lists(st.integers(0, 10_000), max_size=60), st.integers(1, 20))
def test_jobs_are_dealt_once_and_the_largest_group_first(sizes, count):
    groups = _balanced(sizes, count)
    assert sorted(place for group in groups for place in group) == list(range(len(sizes)))
    assert len(groups) == min(count, len(sizes))
    assert all(groups)
    totals = [sum(sizes[place] for place in group) for group in groups]
    assert totals == sorted(totals, reverse=True)
    if sizes:  # Graham's bound of any list; it needs no job to be put where more is
        assert totals[0] <= sum(sizes) / count + max(sizes) * (1 - 1 / count) + 1e-9


@given(st.lists(st.integers(1, 100), min_size=1, max_size=8), st.integers(2, 4))
def test_no_group_is_much_larger_than_it_must_be(sizes, count):
    largest = max(sum(sizes[place] for place in group) for group in _balanced(sizes, count))
    # Graham's bound of the LPT rule.
    assert largest <= smallest_largest(sizes, count) * (4 / 3 - 1 / (3 * count)) + 1e-9


def smallest_largest(sizes, count):
    """The size of the largest group in the best of all dealings."""
    dealings = {(0,) * count}
    for size in sizes:
        dealings = {
            tuple(sorted((*totals[:at], totals[at] + size, *totals[at + 1 :])))
            for totals in dealings
            for at in range(count)
        }
    return min(max(totals) for totals in dealings)


def test_every_result_arrives_once_and_modules_of_the_user_travel(ray_cluster, jobs_module):
    jobs = list(range(50))
    done, lost, seen = mapped(jobs_module.triple, jobs, [1 + job % 7 for job in jobs])
    assert sorted(done) == [3 * job for job in jobs]
    assert seen == done
    assert lost == []


def test_a_job_gives_any_number_of_results(ray_cluster, jobs_module):
    done, lost, seen = mapped(jobs_module.several, [0, 1, 2, 3])
    assert sorted(done) == [(1, 0), (2, 0), (2, 1), (3, 0), (3, 1), (3, 2)]
    assert seen == done
    assert lost == []


def test_a_cluster_that_has_no_processors_yet_is_given_the_jobs(ray_cluster, jobs_module, monkeypatch):
    import ray

    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 0.0})
    done, lost, _ = mapped(jobs_module.triple, [1, 2])
    assert sorted(done) == [3, 6]
    assert lost == []


def times_tried(folder, job):
    return len(list(folder.glob(f"{job}-*")))


def test_a_worker_that_dies_once_is_tried_again(ray_cluster, jobs_module, tmp_path):
    folder = tmp_path / "tries"
    folder.mkdir()
    done, lost, seen = mapped(partial(jobs_module.die_once, folder=str(folder)), list(range(20)))
    assert (folder / "died").exists()
    assert sorted(done) == [3 * job for job in range(20)]
    assert seen == done
    assert lost == []
    assert times_tried(folder, 3) == 2


def test_a_job_that_always_kills_its_worker_is_lost_and_no_other_is(ray_cluster, jobs_module, tmp_path):
    folder = tmp_path / "tries"
    folder.mkdir()
    # In a group with others, which are told from the culprit.
    done, lost, seen = mapped(partial(jobs_module.die_always, folder=str(folder)), list(range(60)))
    assert lost == [3]
    assert sorted(done) == [3 * job for job in range(60) if job != 3]
    assert seen == done
    assert times_tried(folder, 3) == 6  # thrice in its group, thrice alone
    assert times_tried(folder, 2) == 1


def test_a_job_that_was_alone_all_along_is_not_tried_once_more(ray_cluster, jobs_module, tmp_path):
    folder = tmp_path / "tries"
    folder.mkdir()
    done, lost, _ = mapped(partial(jobs_module.die_always, folder=str(folder)), [2, 3])
    assert (done, lost) == ([6], [3])
    assert times_tried(folder, 3) == 3


def test_a_function_that_raises_loses_its_job_only(ray_cluster, jobs_module):
    done, lost, seen = mapped(jobs_module.raise_once_a_group, list(range(20)))
    assert lost == [3]
    assert sorted(done) == [3 * job for job in range(20) if job != 3]
    assert seen == done


# Features of a database


@pytest.fixture
def twenty(tmp_path, random_bars):
    """A database of twenty partitions that was not changed lately; S07's first price is the marker."""
    path, parts = tmp_path / "twenty.db", []
    for number in range(20):
        bars = random_bars(300 + number, seed=number)
        if number == 7:
            first = np.arange(len(bars)) == 0
            marked = {name: np.where(first, MARKER, getattr(bars, name)) for name in ("open", "high", "low", "close")}
            bars = Bars(timestamp=bars.timestamp, volume=bars.volume, **marked)
        parts.append(("x", Partition(f"S{number:02d}", "1h"), bars))
    write_bars(parts, path)
    settled = time.time() - 60
    os.utime(path, (settled, settled))
    return path, {partition.symbol: bars for _, partition, bars in parts}


def fragile_system(user_module, condition):
    helper = user_module("helper", "def scaled(values):\n    return 100 * values\n")
    return find_system(f"{user_module('system', _SYSTEM.format(helper=helper, condition=condition))}:fragile")


def test_a_partition_that_crashes_its_worker_is_reported_and_the_others_kept(
    twenty, ray_cluster, user_module, cache_dir
):
    path, bars = twenty
    others = [symbol for symbol in bars if symbol != "S07"]
    system, seen = fragile_system(user_module, f"bars.close[0] == {MARKER}"), []
    statuses = compute_features(path, system=system, on_done=seen.append)
    assert [status.symbol for status in statuses] == list(bars)
    assert sorted(status.symbol for status in seen) == list(bars)
    assert [status.symbol for status in statuses if status.error] == ["S07"]
    assert "its worker died on every attempt" in statuses[7].error
    cache = FeatureCache(cache_dir)
    assert len(cache.manifests()) == 19
    assert verify(cache) == []
    for symbol in others:
        hit = prepare(bars[symbol], system, cache, None)
        assert hit.hit
        right = 100 * np.diff(np.log(bars[symbol].close))
        assert hit.columns["gain"].tobytes() == right.astype(np.float32).tobytes()

    # The second run does only what is missing, and finds out once more.
    before = {file: file.stat().st_mtime_ns for file in cache_dir.rglob("*.parquet")}
    again = compute_features(path, system=system)
    assert [status.symbol for status in again if status.error] == ["S07"]
    assert all(status.hit and status.unread for status in again if not status.error)
    assert {file: file.stat().st_mtime_ns for file in cache_dir.rglob("*.parquet")} == before


def test_a_partition_whose_worker_dies_once_is_computed(twenty, ray_cluster, user_module, tmp_path):
    path, _ = twenty
    marker = str(tmp_path / "died")
    condition = f"bars.close[0] == {MARKER} and not os.path.exists({marker!r}) and os.open({marker!r}, os.O_CREAT)"
    system = fragile_system(user_module, condition)
    statuses = compute_features(path, system=system)
    assert os.path.exists(marker)
    assert [status.error for status in statuses] == [None] * 20
    assert all(status.unread for status in compute_features(path, system=system))


def test_a_missing_entry_is_all_that_a_second_run_computes(twenty, ray_cluster, cache_dir):
    path, _ = twenty
    first = compute_features(path, symbols=["S00", "S01", "S02"])
    (cache_dir / "features" / f"{first[1].key}.meta.json").unlink()
    for each in (cache_dir / "features").glob("*.parquet"):
        each.chmod(0o444)
    second = compute_features(path, symbols=["S00", "S01", "S02", "S03"])
    # Its chunk is still there, so the bars are read and nothing is computed.
    assert [(status.hit, status.unread, status.computed) for status in second] == [
        (True, True, 0),
        (True, False, 0),
        (True, True, 0),
        (False, False, 1),
    ]


def test_workers_with_other_code_say_so(twenty, cache_dir):
    from dataclasses import replace

    from bitcorn_ray.features.compute import compute_jobs
    from bitcorn_ray.features.plan import plan_features
    from bitcorn_ray.features.registry import SYSTEMS

    plan = plan_features(twenty[0], SYSTEMS["v2"], FeatureCache(cache_dir), symbols=["S00", "S01"])
    other = replace(plan.work.code, libraries={**plan.work.code.libraries, "numpy": "0.1"})
    statuses = compute_jobs(plan.jobs, replace(plan.work, code=other))
    assert [status.symbol for status in statuses] == ["S00", "S01"]
    assert all("the driver has 0.1: install the same versions" in status.error for status in statuses)
