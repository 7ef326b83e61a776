"""What all tests share: the real data, a cache of their own, one Ray for the session."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

_ROOT = Path(__file__).parent.parent

# On a busy machine any example may take long: that is no failure.
settings.register_profile("no deadlines", deadline=None)
settings.load_profile("no deadlines")


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder of the real market data; where BITCORN_TEST_DATA is set, its absence is a failure and not a skip."""
    named = os.environ.get("BITCORN_TEST_DATA")
    folder = Path(named) if named else _ROOT.parent / "shared" / "data"
    if not (folder / "bars").is_dir():
        message = f"no real market data at {folder}: set BITCORN_TEST_DATA to the folder that holds bars/ and golden/"
        if named:
            pytest.fail(message)
        pytest.skip(message)
    return folder


@pytest.fixture(autouse=True)
def cache_dir(tmp_path, monkeypatch) -> Path:
    """Every test has a cache of its own."""
    folder = tmp_path / "feature_cache"
    monkeypatch.setenv("BITCORN_CACHE_DIR", str(folder))
    return folder


@pytest.fixture(params=["folder", "s3"])
def any_cache(request, tmp_path):
    """A cache of its own: in a folder, and on an S3 server."""
    from bitcorn_ray.cache.store import FeatureCache

    return FeatureCache(tmp_path / "cache" if request.param == "folder" else request.getfixturevalue("s3_uri"))


@pytest.fixture
def cache(tmp_path):
    """A cache in a folder of its own."""
    from bitcorn_ray.cache.store import FeatureCache

    return FeatureCache(tmp_path / "cache")


@pytest.fixture
def small_chunks(monkeypatch):
    """Chunks of 64 bars, so that few bars make many."""
    from bitcorn_ray.features import identity

    monkeypatch.setattr(identity, "CHUNK_BARS", 64)


@pytest.fixture(scope="session")
def ray_cluster():
    """One private Ray with two CPUs for the whole session."""
    from bitcorn_ray.on_ray.session import ray_session

    with ray_session("local", cpus=2):
        yield


@pytest.fixture
def random_bars():
    """A function that makes n clean one-hour bars from a seed."""
    from bitcorn_ray.market.simulate import simulate_bars

    def make(n: int, seed: int = 0, gaps: int = 0):
        return simulate_bars(n, seed=seed, gaps=gaps)

    return make


@pytest.fixture
def market_db(tmp_path, random_bars) -> Path:
    """A database with 1h bars of AAAUSDT (1,500, two gaps) and BBBUSDT (900, clean)."""
    from bitcorn_ray.market.partition import Partition
    from bitcorn_ray.sources.ingest import write_bars

    path = tmp_path / "market.db"
    write_bars(
        [
            ("simulated", Partition("AAAUSDT", "1h"), random_bars(1_500, seed=1, gaps=2)),
            ("simulated", Partition("BBBUSDT", "1h"), random_bars(900, seed=2)),
        ],
        path,
    )
    return path


@pytest.fixture(scope="session")
def s3_server():
    """A real S3 server on loopback with a bucket: a function from a folder to its URI, the requests, its faults."""
    import logging
    import urllib.request

    from faulty_store import Faults
    from moto.server import ThreadedMotoServer

    requests: list[str] = []

    class Recorded(logging.Handler):
        def emit(self, record):
            requests.append(record.getMessage())

    log = logging.getLogger("werkzeug")
    log.setLevel(logging.INFO)
    log.propagate = False
    log.addHandler(Recorded())
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    faults = server._server.app = Faults(server._server.app)
    host, port = server.get_host_and_port()
    urllib.request.urlopen(urllib.request.Request(f"http://{host}:{port}/bucket", method="PUT")).close()
    options = f"endpoint_override={host}:{port}&scheme=http&region=us-east-1"
    yield (lambda folder: f"s3://key:secret@bucket/{folder}?{options}"), requests, faults
    server.stop()


@pytest.fixture
def s3_uri(s3_server, request) -> str:
    """A place on the S3 server that no other test uses."""
    return s3_server[0](f"{abs(hash(request.node.nodeid)):x}")


@pytest.fixture(autouse=True)
def _seeded():
    np.random.seed(0)  # noqa: NPY002 - only what a library draws from the global state
