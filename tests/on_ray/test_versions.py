import importlib.metadata
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import ray.cloudpickle

import bitcorn_ray
from bitcorn_ray.errors import BitcornError
from bitcorn_ray.on_ray import versions
from bitcorn_ray.on_ray.versions import differences, guarded, installed, libraries

_PACKAGE = Path(bitcorn_ray.__file__).parent


@pytest.fixture(autouse=True)
def on_a_cluster(monkeypatch):
    """As if this process were connected to a cluster; that of the other tests is private."""
    monkeypatch.setattr(versions, "is_private", lambda: False)


def test_installed_versions_are_listed():
    found = installed([*libraries(), "nosuchpackage"])
    assert found["python"] == f"{sys.version_info.major}.{sys.version_info.minor}"
    assert found["bitcorn_ray"].startswith(f"{bitcorn_ray.__version__} (code ")
    assert found["ray"] == ray.__version__
    assert found["torch"] == __import__("torch").__version__.partition("+")[0]
    assert found["nosuchpackage"] == "missing"
    assert {"numpy", "adbc-driver-sqlite"} <= set(libraries())
    assert not {"pytest", "ruff"} & set(libraries())


def test_a_difference_is_named_and_the_same_is_not():
    here = {"bitcorn_ray": "0.3.0 (code a)", "numpy": "2.4.6"}
    assert differences(dict(here), here) == []
    assert differences({"bitcorn_ray": "0.2.0 (code b)"}, here) == [
        "bitcorn_ray 0.2.0 (code b) and not 0.3.0 (code a)",
        "numpy missing and not 2.4.6",
    ]


def elsewhere(folder, payload, change):
    """Run a pickled function of one argument in a process with a changed copy of the package."""
    copy = folder / "bitcorn_ray"
    shutil.copytree(_PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
    change(copy)
    code = "import pickle, sys; print(pickle.load(sys.stdin.buffer)(20))"
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    done = subprocess.run(
        [sys.executable, "-c", code], input=payload, env=environment, cwd=folder, capture_output=True, timeout=100
    )
    return done.stdout.decode(), done.stderr.decode()


def append(name, text):
    return lambda copy: (copy / name).write_text((copy / name).read_text() + text)


def test_a_worker_compares_before_it_works_whatever_its_own_code_is(tmp_path):
    payload = ray.cloudpickle.dumps(guarded(lambda number: number + 1, lambda why, number: f"{why} | {number}"))
    assert elsewhere(tmp_path, payload, lambda copy: None)[0] == "21\n"  # as the code is the same
    out, _ = elsewhere(tmp_path, payload, append("market/bars.py", "\n# newer\n"))
    assert "is refused, as it has bitcorn_ray 0.3.0 (code " in out
    assert out.endswith(" | 20\n")
    out, _ = elsewhere(tmp_path, payload, lambda copy: (copy / "on_ray" / "versions.py").unlink())
    assert "is refused, as it has bitcorn_ray" in out


def test_without_another_way_the_worker_raises(monkeypatch):
    assert pickle.loads(ray.cloudpickle.dumps(guarded(abs)))(-3) == 3
    monkeypatch.setattr(bitcorn_ray, "_installed", {}, raising=False)  # as in a process that has not looked yet
    monkeypatch.setattr(versions, "libraries", lambda: ("nosuchpackage",))
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "1.0")
    refusing = guarded(abs)
    monkeypatch.undo()  # which the worker does not know of
    with pytest.raises(
        BitcornError, match=r"node .* is refused, as it has nosuchpackage missing and not 1\.0: install"
    ):
        refusing(-3)


def test_a_private_ray_has_no_nodes_to_compare(ray_cluster, monkeypatch):
    monkeypatch.undo()
    assert guarded(abs) is abs


@pytest.fixture
def unlike_the_workers(ray_cluster, monkeypatch):
    """As if this process had another bitcorn_ray than the workers of its cluster."""
    other = {**installed(libraries()), "bitcorn_ray": "9.9 (code x)"}
    monkeypatch.setattr(bitcorn_ray, "_installed", {libraries(): other}, raising=False)


def test_jobs_of_features_are_refused(unlike_the_workers):
    from bitcorn_ray.features.systems import v2
    from bitcorn_ray.fingerprint.code import code_identity
    from bitcorn_ray.on_ray.map import map_balanced

    with pytest.raises(BitcornError, match=r"is refused, as it has bitcorn_ray 0.* and not 9.9 \(code x\)"):
        map_balanced(list, [1, 2, 3], [1, 1, 1], code_identity(v2.compute), print)


def test_forecasts_are_refused(unlike_the_workers):
    from bitcorn_ray.features.systems import v2
    from bitcorn_ray.fingerprint.code import code_identity
    from bitcorn_ray.forecasting.distribute import map_with_actors

    with pytest.raises(BitcornError, match="is refused, as it has bitcorn_ray"):
        map_with_actors(lambda: abs, [1, 2], [1, 1], code_identity(v2.compute), print)


def test_a_training_is_refused_and_not_tried_again(unlike_the_workers, tmp_path, random_bars):
    from small_training import MODEL, TRAINING, make_data

    from bitcorn_ray.models.base import Shape
    from bitcorn_ray.models.neural.checkpoint import CheckpointFolder
    from bitcorn_ray.training.distribute import SharedData, fit_on_ray

    data = SharedData(make_data(random_bars(300))[0])
    shape = Shape(data.data.matrix.shape[1], 1, 3_600_000)
    options = {"workers": 1, "gpus": 0, "checkpoints": CheckpointFolder(tmp_path / "checkpoints"), "max_failures": 3}
    with pytest.raises(BitcornError, match=r"^node .* is refused, as it has bitcorn_ray"):
        fit_on_ray(data, MODEL, shape, TRAINING, **options)
