"""Code of the user's own in a process that cannot import it."""

import importlib
import pickle
import subprocess
import sys

import pytest

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.fingerprint.code import code_identity
from bitcorn_ray.on_ray.pickling import pack

_HELPER = "SCALE = 2.0\ndef scaled(x):\n    return x * SCALE\n"

_MODULE = """
import functools, threading
from bitcorn_ray.features.system import feature_system


@functools.lru_cache(maxsize=7)
def cached(x):
    CALLS.append(x)
    return x * 10


CALLS = []


@functools.cache
def fibonacci(n):
    return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)


class Line:
    def __init__(self, slope):
        self.slope = slope

    def at(self, x):
        return self.slope * cached(x)


line = Line(3)


def of_a_cache(x):
    return cached(x) + cached(x), len(CALLS), fibonacci(20), cached.cache_info().maxsize


def of_an_object(x):
    return line.at(x)


def imported_inside(x):
    from ca_pack.helper import scaled
    return scaled(x)


def imported_beside(x):
    from . import helper
    import ca_pack.helper
    return helper.scaled(x), ca_pack.helper is helper


LOCK = threading.Lock()


def of_what_cannot_be_sent(x):
    return several(x)


@functools.singledispatch
def several(x):
    return x
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package of the user with a helper, and how to import its module."""
    folder = tmp_path / "ca_pack"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "helper.py").write_text(_HELPER)
    (folder / "module.py").write_text(_MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    yield importlib.import_module("ca_pack.module")
    for name in [name for name in sys.modules if name.startswith("ca_pack")]:
        del sys.modules[name]


def elsewhere(*packed, call=4):
    """Results of packed functions in one other process, which finds no module of the user's."""
    code = (
        "import pickle, sys\n"
        "from bitcorn_ray.on_ray.pickling import unpack\n"
        f"found = [unpack(each)({call}) for each in pickle.load(sys.stdin.buffer)]\n"
        "sys.stdout.buffer.write(pickle.dumps(found))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], input=pickle.dumps(packed), capture_output=True, check=True)
    return pickle.loads(done.stdout)


def packed(function):
    return pack(function, code_identity(function))


def test_functions_with_a_cache_travel_and_have_one_of_their_own(package):
    package.cached(4)
    assert elsewhere(packed(package.of_a_cache)) == [(80, 2, 6765, 7)]


def test_functions_with_a_cache_travel_inside_objects_and_classes(package):
    assert elsewhere(packed(package.of_an_object)) == [120]


def test_modules_that_are_imported_inside_functions_travel(package):
    assert elsewhere(packed(package.imported_inside), packed(package.imported_beside)) == [8.0, (8.0, True)]


def test_what_a_module_holds_when_it_is_packed_counts_and_no_earlier_version(package):
    before = packed(package.imported_inside)
    importlib.import_module("ca_pack.helper").SCALE = 5.0
    after, beside = packed(package.imported_inside), packed(package.imported_beside)
    assert elsewhere(before, after, before, beside) == [8.0, 20.0, 8.0, (20.0, True)]


def test_what_cannot_be_sent_is_refused_with_what_to_do(package):
    with pytest.raises(
        BitcornError, match=r"of_what_cannot_be_sent reads cannot be sent to workers \(TypeError: .*keep plain"
    ):
        packed(package.of_what_cannot_be_sent)
