import pytest

from bitcorn_ray.cache.store import FeatureCache
from bitcorn_ray.features import identity


@pytest.fixture(params=["folder", "s3"])
def any_cache(request, tmp_path):
    """A cache of its own: in a folder, and on an S3 server."""
    return FeatureCache(tmp_path / "cache" if request.param == "folder" else request.getfixturevalue("s3_uri"))


@pytest.fixture
def cache(tmp_path):
    """A cache in a folder of its own."""
    return FeatureCache(tmp_path / "cache")


@pytest.fixture
def small_chunks(monkeypatch):
    """Chunks of 64 bars, so that few bars make many."""
    monkeypatch.setattr(identity, "CHUNK_BARS", 64)
