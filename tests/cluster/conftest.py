"""A cluster for what is tried on it, a project as its user has it, and an S3 server that all nodes reach."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from real_cluster import QUICK_TO_NOTICE, real_cluster
from small_sweeps import MODEL, TRAINING

import bitcorn_ray
from bitcorn_ray.market.partition import Partition
from bitcorn_ray.market.simulate import simulate_bars
from bitcorn_ray.sources.export import export_bars
from bitcorn_ray.sources.ingest import write_bars

_OWN_FEATURES = """
import posix
import time

from bitcorn_ray import feature_system


@feature_system(name="momentum", warmup=lambda window: window)
def momentum(bars, *, window=20):
    close = bars.to_frame()["close"]
    return {"momentum": close / close.shift(window) - 1}


@feature_system(name="slow", warmup=20)
def slow(bars):
    time.sleep(float(posix.environ.get(b"PAUSE", b"0")))  # it decides no feature, and is not to be noticed
    close = bars.to_frame()["close"]
    return {"momentum": close / close.shift(20) - 1}
"""


@pytest.fixture(scope="session")
def older(tmp_path_factory):
    """A folder with an older bitcorn_ray, which does not compare versions yet."""
    folder, package = tmp_path_factory.mktemp("older"), Path(bitcorn_ray.__file__).parent
    shutil.copytree(package, folder / "bitcorn_ray", ignore=shutil.ignore_patterns("__pycache__"))
    front = folder / "bitcorn_ray" / "__init__.py"
    front.write_text(front.read_text().replace(f'"{bitcorn_ray.__version__}"', '"0.1.0"'))
    (folder / "bitcorn_ray" / "on_ray" / "versions.py").unlink()
    return folder


@pytest.fixture(scope="session")
def storage(s3_server):
    """What the nodes have in their environment to reach the S3 server; what is submitted has none of it."""
    endpoint = s3_server[0]("").partition("endpoint_override=")[2].partition("&")[0]
    return {
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_ENDPOINT_URL": f"http://{endpoint}",
        "AWS_REGION": "us-east-1",
        "BITCORN_CACHE_DIR": "s3://bucket/on_a_cluster/cache",
    }


@pytest.fixture(scope="session")
def at_home(s3_server, tmp_path_factory):
    """What a user has: a project with a database, a module of features and configurations, and the bars on S3."""
    uri, folder = s3_server[0], tmp_path_factory.mktemp("project")
    write_bars(
        [
            ("simulated", Partition("AAAUSDT", "1h"), simulate_bars(1_500, seed=1, gaps=2)),
            ("simulated", Partition("BBBUSDT", "1h"), simulate_bars(900, seed=2, gaps=0)),
        ],
        folder / "market.db",
    )
    export_bars(folder / "market.db", uri("on_a_cluster/bars"))
    bars = "s3://bucket/on_a_cluster/bars"
    (folder / ".gitignore").write_text("*.db\n")
    (folder / "own.py").write_text(_OWN_FEATURES)
    run = {
        **{"db": bars, "symbol": "AAAUSDT", "timeframe": "1h", "features": "own:momentum:window=10"},
        **{"out": "s3://bucket/on_a_cluster/run", "workers": 1, "model": MODEL, "training": TRAINING},
    }
    (folder / "train.yaml").write_text(yaml.safe_dump(run))
    return SimpleNamespace(project=folder, bars=bars, run=run, uri=uri)


@pytest.fixture(scope="module")
def site(storage, at_home):
    """A cluster with two nodes, and the project of its user."""
    with real_cluster(2, PAUSE="1", **QUICK_TO_NOTICE, **storage) as cluster:
        yield SimpleNamespace(cluster=cluster, **vars(at_home))
