import pytest

from bitcorn_ray.cache.store import FeatureCache


@pytest.fixture
def cache(tmp_path):
    """A cache in a folder of its own."""
    return FeatureCache(tmp_path / "cache")
