import importlib
import importlib.machinery
import os
import py_compile
import sys

import pytest

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.features.systems import v2
from bitcorn_ray.fingerprint import code, libraries
from bitcorn_ray.fingerprint.code import code_identity
from bitcorn_ray.fingerprint.libraries import kind_of_package, version_of

SOURCE = "def f(bars): return bars + 1, K().m()\nclass K:\n    def m(self): return 1\n"


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Write and import a module; `write` edits it afterwards."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = set(sys.modules)
    importlib.invalidate_caches()
    (tmp_path / "lo_a.py").write_text(SOURCE)
    yield importlib.import_module("lo_a")
    for name in set(sys.modules) - before:
        if name.startswith("lo_"):
            del sys.modules[name]


def write(module, source):
    with open(module.__file__, "w") as file:
        file.write(source)


def test_an_edit_after_the_first_look_counts_only_after_a_reload(module):
    before = code_identity(module.f)
    write(module, SOURCE.replace("+ 1", "+ 2"))
    assert code_identity(module.f) == before
    importlib.reload(module)
    assert code_identity(module.f).modules["lo_a"] != before.modules["lo_a"]


@pytest.mark.parametrize("edit", [("+ 1", "+ 2"), ("return 1", "return 2"), ("def f", "def g")])
def test_an_edit_between_the_import_and_the_first_look_is_refused(module, edit):
    """Otherwise what the loaded code computes would be stored as the edited code's."""
    write(module, SOURCE.replace(*edit))
    with pytest.raises(BitcornError, match=r"edited after lo_a was imported.*importlib.reload"):
        code_identity(module.f)


def test_an_edit_of_an_imported_helper_before_the_first_look_is_refused(tmp_path, module):
    (tmp_path / "lo_user.py").write_text("from lo_a import f as g\ndef f(bars): return g(bars)\n")
    user = importlib.import_module("lo_user")
    write(module, SOURCE.replace("+ 1", "+ 2"))
    with pytest.raises(BitcornError, match="edited after lo_a was imported"):
        code_identity(user.f)


def test_functions_from_before_a_reload_or_another_import_are_refused(module):
    old = module.f
    write(module, SOURCE.replace("+ 1", "+ 2"))
    importlib.reload(module)
    with pytest.raises(BitcornError, match="use its new functions"):
        code_identity(old)
    old = module.f
    del sys.modules["lo_a"]
    importlib.import_module("lo_a")
    with pytest.raises(BitcornError, match="from an earlier import of lo_a"):
        code_identity(old)


def test_a_lambda_in_a_collection_that_was_edited_since_is_refused(module):
    write(module, "T = {'a': lambda x: x + 1}\ndef f(bars): return T['a'](bars)\n")
    importlib.reload(module)
    write(module, "T = {'a': lambda x: x + 2}\ndef f(bars): return T['a'](bars)\n")
    with pytest.raises(BitcornError, match="edited after"):
        code_identity(module.f)


def test_two_functions_of_one_name_differ(module):
    write(module, "def f(x): return 1\nold = f\ndef f(x): return 2\n")
    importlib.reload(module)
    assert code_identity(module.old) != code_identity(module.f)


def test_code_that_an_import_hook_changed_counts_by_its_source(module, monkeypatch):
    hooked = importlib.machinery.ModuleSpec("lo_a", loader=object())
    monkeypatch.setattr(module, "__spec__", hooked)
    write(module, SOURCE.replace("+ 1", "+ 2"))  # stands for what the hook did
    assert "lo_a" in code_identity(module.f).modules


def test_a_function_that_was_made_while_the_program_ran_is_refused(module):
    exec(compile("def made(x): return x", "<made>", "exec"), vars(module))
    with pytest.raises(BitcornError, match=r"made is not what <made> contains"):
        code_identity(module.made)


def test_modules_without_a_source_are_refused(tmp_path, module):
    (tmp_path / "source.py").write_text(SOURCE)
    py_compile.compile(str(tmp_path / "source.py"), cfile=str(tmp_path / "lo_compiled.pyc"))
    with pytest.raises(BitcornError, match=r"lo_compiled.pyc\) has no source file.*install it as a library"):
        code_identity(importlib.import_module("lo_compiled").f)


def test_a_module_without_its_source_file_is_refused(module):
    os.remove(module.__file__)
    with pytest.raises(BitcornError, match="the source of lo_a cannot be read"):
        code_identity(module.f)


def test_an_own_module_that_was_changed_while_the_process_runs_is_refused(monkeypatch):
    monkeypatch.setattr(code, "_STARTED", 0.0)
    monkeypatch.setattr(code, "_loaded", {})
    with pytest.raises(BitcornError, match=r"v2\.py was changed while this process runs: restart"):
        code_identity(v2.compute)


def test_a_namespace_package_has_no_code(tmp_path, module):
    (tmp_path / "lo_space").mkdir()
    (tmp_path / "lo_space" / "sub.py").write_text("import lo_space\ndef f(bars): return bars\n")
    importlib.invalidate_caches()
    assert "lo_space" in code_identity(importlib.import_module("lo_space.sub").f).modules


def test_a_package_is_classified_by_its_location(module):
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
