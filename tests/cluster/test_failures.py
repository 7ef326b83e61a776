"""What fails while work is under way on a cluster costs the work since the last chunk, fold or checkpoint, no more.

Each test ends with what comes of the same work in an undisturbed process, to the bit. The figures in docs/cluster.md
are what `python -m pytest tests/cluster/test_failures.py -m 'slow or not slow' -s` prints.
"""

from __future__ import annotations

import json
import time
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from faulty_store import FULL, NO_SPACE, busy, full, slow
from killing import wait_for
from real_cluster import QUICK_TO_NOTICE, kill, real_cluster
from small_sweeps import MODEL, make_sweep, sweep_values

from bitcorn_ray.cache.store import FeatureCache
from bitcorn_ray.features.compute import compute_jobs
from bitcorn_ray.features.plan import plan_features
from bitcorn_ray.features.registry import find_system
from bitcorn_ray.market.partition import Partition
from bitcorn_ray.market.simulate import simulate_bars
from bitcorn_ray.sources.export import export_bars
from bitcorn_ray.sources.ingest import write_bars
from bitcorn_ray.storage.storage import Storage
from bitcorn_ray.training.config import RunConfig
from bitcorn_ray.training.run import load_run
from bitcorn_ray.training.train import train_from_config
from bitcorn_ray.tuning.folder import SweepFolder

_PARTITIONS = 12
_EPOCHS = 40
_TRAINING = {"epochs": _EPOCHS, "patience": _EPOCHS, "threads": 1, "deterministic": True, "batch_size": 32}
_BARS = "s3://bucket/on_a_cluster/bars"


class Work:
    """A command that is given beside a cluster, whose results lie at a place of its own on S3.

    title: of the processes that do it. goes_on: what is added to the command to go on with it. changes: to its values.
    """

    title: str
    goes_on: tuple[str, ...] = ("--resume",)

    def __init__(self, site, name):
        self.cluster, self.project, self.name = site.cluster, site.project, name
        self.place = f"s3://bucket/{name}"
        self.stored, self.changes = Storage(site.uri(name)), {}

    def begin(self, *more):
        """Begin it."""
        words = [*self.words(), "--address", self.cluster.address, *more]
        return self.cluster.begin(*words, folder=self.project, BITCORN_CACHE_DIR=f"{self.place}/cache")

    def begun(self, *more):
        """Begin it, and return when a part of it is done."""
        command = self.begin(*more)
        wait_for(lambda: len(self.done()) >= 2 or command.process.poll() is not None, seconds=300)
        assert command.process.poll() is None, command.told()
        return command

    def written(self, folder, ending):
        """When each file of a folder was written, by its name."""
        return {file.name: file.written for file in self.stored.files(folder) if file.name.endswith(ending)}


class Features(Work):
    """Features of many partitions, a chunk and more than a second each."""

    title, goes_on = "ray::Map", ()

    def words(self):
        return "bitcorn", "features", "s3://bucket/failures/bars", "--system", "own:slow"

    def done(self):
        return self.written("cache/features", ".parquet")

    def require_same(self, home):
        assert chunks(self.stored.child("cache")) == home.chunks


class Training(Work):
    """A training of many short epochs, with a checkpoint after each."""

    title = "RayTrainWorker"

    def words(self):
        config = self.project / f"{self.stored.name}.yaml"
        config.write_text(yaml.safe_dump(train_values(f"{self.place}/run", **self.changes)))
        return "bitcorn", "train", "--config", config

    def done(self):
        return self.written("run/checkpoints", ".pt")

    def require_same(self, home):
        run = load_run(self.stored.child("run").address)
        assert losses(run) == losses(home.run)
        assert same_weights(run, home.run)
        assert not self.written("run/checkpoints", "")


class Sweep(Work):
    """A sweep of two trials over three folds each."""

    title = "ImplicitFunc"

    def words(self):
        config = self.project / f"{self.stored.name}.yaml"
        config.write_text(yaml.safe_dump(small_sweep(_BARS, f"{self.place}/sweep", **self.changes)))
        return "bitcorn", "tune", config

    def done(self):
        return self.written("sweep/records", ".npz")

    def require_same(self, home):
        folder = SweepFolder(self.stored.child("sweep").address)
        told = json.loads(bytes(folder.storage.read("sweep.json")))
        assert [(trial["state"], len(trial["losses"])) for trial in told["trials"]] == [("finished", 3)] * 2
        require_same_folds(folds_of(folder), home.folds)
        assert load_run(folder.run).metadata["sweep"]["trial"] == told["best"]["name"]


def train_values(out, **changes):
    values = {"db": _BARS, "symbol": "AAAUSDT", "timeframe": "1h", "out": str(out), "workers": 1}
    return {**values, "model": MODEL, "training": _TRAINING, **changes}


def small_sweep(db, out, **changes):
    return sweep_values(db, out, **{"folds": {"last": 3}, "training": {"epochs": 8}, **changes})


def chunks(storage):
    """Content of the chunks of a cache, and the names of the other files of its entries."""
    names = [file.name for file in storage.files("features")]
    return {name: bytes(storage.read(name)) if name.endswith(".parquet") else b"" for name in names}


def folds_of(folder):
    """What is recorded of each fold, but for the time that it took."""
    found = {name: vars(folder.records.load(name[:-4])) for name in folder.records.storage.names()}
    return {name: {what: value for what, value in fold.items() if what != "seconds"} for name, fold in found.items()}


def require_same_folds(there, here):
    assert there.keys() == here.keys()
    for key, fold in here.items():
        for name, value in fold.items():
            np.testing.assert_array_equal(there[key][name], value, err_msg=name)


def losses(run):
    return [(epoch["train_loss"], epoch["val_loss"]) for epoch in run.metadata["history"]]


def same_weights(one, other):
    weights = other.model.network.state_dict()
    return all(torch.equal(value, weights[name]) for name, value in one.model.network.state_dict().items())


@pytest.fixture(scope="module")
def home(s3_server, at_home, tmp_path_factory):
    """What comes of each work in one undisturbed process."""
    folder, uri = tmp_path_factory.mktemp("home"), s3_server[0]
    partitions = [Partition(f"S{number:02d}USDT", "1h") for number in range(_PARTITIONS)]
    bars = [("simulated", each, simulate_bars(300, seed=place)) for place, each in enumerate(partitions)]
    write_bars(bars, folder / "many.db")
    export_bars(folder / "many.db", uri("failures/bars"))
    with pytest.MonkeyPatch.context() as patched:
        patched.syspath_prepend(str(at_home.project))
        patched.setenv("BITCORN_CACHE_DIR", str(folder / "cache"))
        cache = FeatureCache(folder / "many")
        plan = plan_features(folder / "many.db", find_system("own:slow"), cache)
        assert not any(status.error for status in compute_jobs(plan.jobs, plan.work))
        db = str(at_home.project / "market.db")
        train_from_config(RunConfig.load(None, train_values(folder / "run", db=db, workers=0)))
        swept, _, _ = make_sweep(small_sweep(db, folder / "sweep"))
    return SimpleNamespace(chunks=chunks(cache.storage), run=load_run(folder / "run"), folds=folds_of(swept))


@pytest.fixture
def work(request, site, home):
    """The work that is named by the test's parameter, at a place that no other test has."""
    return make_work(request.param, site, request)


def make_work(kind, site, request):
    name = "".join(each if each.isalnum() else "_" for each in request.node.name)
    return {"features": Features, "training": Training, "sweep": Sweep}[kind](site, f"failures/{name}")


def works(quick=None):
    """Run a test with each work; all are slow but one."""
    every = ("features", "training", "sweep")
    marked = [each if each == quick else pytest.param(each, marks=pytest.mark.slow) for each in every]
    return pytest.mark.parametrize("work", marked, indirect=True)


@contextmanager
def told(what, work):
    """Print the seconds that a block takes, and what was done before it and had to be done again."""
    before, started = work.done(), time.monotonic()
    yield before
    again = [name for name, at in before.items() if work.done().get(name, at) != at]
    print(f"\n{what}: {time.monotonic() - started:.1f} s to its end, {len(again)} of {len(before)} done again")
    assert not again


@works()
def test_undisturbed(work, home):
    with told(f"undisturbed {work.title}", work):
        work.begin().finish()
    work.require_same(home)


# Processes and nodes


@works()
def test_a_worker_is_killed(work, home):
    command = work.begun()
    with told(f"killed worker {work.title}", work):
        kill(work.cluster.running(work.title)[0][1])
        command.finish()
    work.require_same(home)


@works(quick="features")
def test_a_node_is_lost(work, home):
    command = work.begun()
    with told(f"lost node {work.title}", work):
        work.cluster.kill_node(work.cluster.running(work.title)[0][0])
        command.finish()
    work.cluster.add_node()
    work.require_same(home)


@works(quick="sweep")
def test_the_driver_is_killed(work, home):
    """Its workers live on for a while, beside those of the command that goes on."""
    work.begun().kill()
    with told(f"killed driver {work.title}", work):
        work.begin(*work.goes_on).finish()
    work.require_same(home)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["training", "sweep"])
def test_the_head_is_killed_and_started_anew(kind, own_site, home, request):
    """What it knew of the cluster is lost; the command ends, and is given once more. (Features end without a head.)"""
    work = make_work(kind, own_site, request)
    command, started = work.begun(), time.monotonic()
    work.cluster.kill_node(work.cluster.started[0])
    said = command.finish(status=2)
    print(f"\nlost head {work.title}: told after {time.monotonic() - started:.1f} s: {said.splitlines()[-1]}")
    assert "the connection to the Ray cluster" in said
    for node in list(work.cluster.started):
        work.cluster.kill_node(node)
    work.cluster.start(2)
    with told(f"started anew {work.title}", work):
        work.begin(*work.goes_on).finish()
    work.require_same(home)


@pytest.mark.slow
@pytest.mark.parametrize("work", ["features", "sweep"], indirect=True)
def test_a_node_that_joins_late_takes_part(work, home):
    work.cluster.remove_node(work.cluster.started[-1])
    work.changes = {"training": {"epochs": 200, "patience": 200}}  # long enough for a node to come up
    command = work.begun()
    with told(f"late node {work.title}", work):
        node = work.cluster.add_node()
        wait_for(lambda: node in nodes_of(work) or command.process.poll() is not None)
        assert node in nodes_of(work), command.told()
        command.finish()
    if work.title == Features.title:
        work.require_same(home)
    else:
        assert len(work.done()) == 6


@pytest.mark.slow
@pytest.mark.parametrize("work", ["features"], indirect=True)
def test_a_node_with_an_older_version_that_joins_late_is_refused(work, home, older):
    work.cluster.remove_node(work.cluster.started[-1])
    command = work.begun()
    node = work.cluster.add_node(PYTHONPATH=str(older))
    assert "is refused, as it has bitcorn_ray 0.1.0 (code " in command.finish(status=2)
    work.cluster.remove_node(node)
    work.cluster.add_node()
    with told(f"without the older node {work.title}", work):
        work.begin(*work.goes_on).finish()
    work.require_same(home)


@pytest.mark.slow
def test_an_elastic_training_grows_with_the_cluster(site, request):
    """Ray looks once a minute whether there are more nodes, and lets all workers go on from the last checkpoint."""
    work = make_work("training", site, request)
    work.changes = {"workers": [1, 2], "training": {**_TRAINING, "epochs": 100_000, "patience": 100_000}}
    work.cluster.remove_node(work.cluster.started[-1])
    command = work.begun()
    node, started = work.cluster.add_node(), time.monotonic()
    wait_for(lambda: node in nodes_of(work) or command.process.poll() is not None, seconds=300)
    print(f"\nelastic training: on the new node after {time.monotonic() - started:.1f} s")
    before = max(work.done())
    wait_for(lambda: max(work.done()) > before or command.process.poll() is not None, seconds=300)
    assert len(nodes_of(work)) == 2
    command.kill()


def nodes_of(work):
    """The nodes that do it."""
    return [node for node, _ in work.cluster.running(work.title)]


# Storage


@works(quick="training")
def test_the_store_is_too_busy(work, home, s3_server):
    command = work.begun()
    with told(f"503 {work.title}", work), s3_server[2].having(busy(seconds=4, every=16)) as faults:
        command.finish()
    assert faults.answered > 10
    work.require_same(home)


@works()
def test_the_store_is_slow(work, home, s3_server):
    command = work.begun()
    with told(f"slow store {work.title}", work), s3_server[2].having(slow(seconds=7, every=15)):
        command.finish()
    work.require_same(home)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("work", "answer"), [("features", FULL), ("training", NO_SPACE), ("sweep", FULL)], indirect=["work"]
)
def test_the_storage_is_full(work, home, s3_server, answer):
    command, started = work.begun(), time.monotonic()
    with s3_server[2].having(full(work.name, answer)):
        said = command.finish(status=2)
    print(f"\nfull {work.title}: told after {time.monotonic() - started:.1f} s: {said.splitlines()[-1]}")
    assert "cannot be written" in said
    assert answer[2] in said
    with told(f"room again {work.title}", work):
        work.begin(*work.goes_on).finish()
    work.require_same(home)


# Memory


@pytest.fixture
def own_site(storage, at_home):
    """A cluster that nothing else is tried on."""
    with real_cluster(2, PAUSE="1", **QUICK_TO_NOTICE, **storage) as cluster:
        yield SimpleNamespace(cluster=cluster, **vars(at_home))


@pytest.mark.slow
def test_an_object_store_that_is_too_small_spills(storage, at_home, tmp_path, monkeypatch):
    """Matrices of 87 features of 300,000 bars are larger than the store of each node."""
    write_bars(
        [("simulated", Partition("BIGUSDT", "1m"), simulate_bars(300_000, seed=1, step_ms=60_000))], tmp_path / "m.db"
    )
    export_bars(tmp_path / "m.db", at_home.uri("failures/big"))
    monkeypatch.setenv("BITCORN_CACHE_DIR", str(tmp_path / "cache"))
    big = {"symbol": "BIGUSDT", "timeframe": "1m", "features": "vol"}
    run = {**train_values(tmp_path / "run", db=str(tmp_path / "m.db"), workers=0), **big}
    run["training"] = {**_TRAINING, "epochs": 1, "batch_size": 2_048}
    swept = small_sweep(tmp_path / "m.db", tmp_path / "sweep")
    swept = {**swept, **big, "training": run["training"], "folds": {**swept["folds"], "train": "90d", "last": 2}}
    train_from_config(RunConfig.load(None, run))
    folder, _, data = make_sweep(swept)
    store_bytes = 80_000_000
    assert all(variant.matrix.nbytes > store_bytes for variant in data.variants.values())
    with real_cluster(2, store_bytes, **storage) as cluster:
        for name, values in (("train", run), ("tune", swept)):
            there = {**values, "db": "s3://bucket/failures/big", "out": f"s3://bucket/failures/small/{name}"}
            (tmp_path / "config.yaml").write_text(yaml.safe_dump({**there, "workers": 1}))
            words = ("--config", "config.yaml") if name == "train" else ("config.yaml",)
            started = time.monotonic()
            cluster.begin("bitcorn", name, *words, "--address", cluster.address, folder=tmp_path).finish()
            print(f"\nsmall object store: {name} in {time.monotonic() - started:.1f} s")
    trained = load_run(at_home.uri("failures/small/train"))
    assert losses(trained) == losses(load_run(tmp_path / "run"))
    assert same_weights(trained, load_run(tmp_path / "run"))
    require_same_folds(folds_of(SweepFolder(at_home.uri("failures/small/tune"))), folds_of(folder))
