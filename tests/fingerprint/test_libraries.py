import importlib
import sys

import pytest

from bitcorn_ray.fingerprint import libraries
from bitcorn_ray.fingerprint.libraries import kind_of_package, version_of


def test_a_package_is_classified_by_its_location(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "lo_a.py").touch()
    importlib.invalidate_caches()
    kinds = {name: kind_of_package(name) for name in ("numpy", "json", "lo_a", "sys", "there_is_no_such")}
    assert kinds == {
        "numpy": "library",
        "json": "standard",
        "lo_a": "project",
        "sys": "standard",
        "there_is_no_such": "missing",
    }


def test_versions_are_those_that_are_loaded(monkeypatch):
    numpy = importlib.import_module("numpy")
    assert version_of("numpy") == numpy.__version__
    monkeypatch.setattr(numpy, "__version__", "0.0")
    assert version_of("numpy") == "0.0"
    assert version_of("there_is_no_such") is None


@pytest.fixture
def library(tmp_path, monkeypatch):
    """Install a library whose distribution has another name, and which says of which build it is once loaded."""
    info = tmp_path / "another_name-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: another-name\nVersion: 1.2\n")
    (info / "top_level.txt").write_text("lo_library\n")
    (tmp_path / "lo_library.py").write_text("__version__ = '1.2'\n")
    monkeypatch.syspath_prepend(tmp_path)
    libraries._installed_version.cache_clear()
    yield tmp_path / "lo_library.py"
    sys.modules.pop("lo_library", None)
    libraries._installed_version.cache_clear()


def test_a_version_is_the_same_before_and_after_a_library_is_loaded(library):
    assert version_of("lo_library") == "1.2"
    importlib.import_module("lo_library")
    assert version_of("lo_library") == "1.2"


def test_the_build_of_a_version_does_not_count(library):
    library.write_text("__version__ = '1.2+cpu'\n")
    before = version_of("lo_library")
    importlib.import_module("lo_library")
    assert version_of("lo_library") == before == "1.2"
