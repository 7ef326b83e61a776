import importlib
import os
import py_compile
import sys
from types import ModuleType

import pytest

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.features.fingerprint import loaded
from bitcorn_ray.features.fingerprint.code import code_identity
from bitcorn_ray.features.fingerprint.loaded import (
    function_mark,
    has_version,
    home_of_import,
    kind_of_place,
    load,
    module_facts,
    version_of,
)

SOURCE = "def f(bars): return bars + 1\nclass K:\n    def m(self): return 1\n"


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


def test_an_edit_after_the_source_was_read_does_not_count_before_a_reload(module):
    before = module_facts(module)
    write(module, SOURCE.replace("+ 1", "+ 2"))
    assert module_facts(module) == before
    importlib.reload(module)
    assert module_facts(module).tree != before.tree


def test_a_reload_counts_where_there_are_no_functions(module):
    write(module, "from os.path import join\n")
    importlib.reload(module)
    for name in ("f", "K"):
        delattr(module, name)
    before = module_facts(module)
    write(module, "from os.path import split\n")
    importlib.reload(module)
    assert module_facts(module).imports != before.imports


@pytest.mark.parametrize("edit", [("+ 1", "+ 2"), ("return 1", "return 2"), ("def f", "def g")])
def test_an_edit_between_import_and_reading_is_refused(module, edit):
    write(module, SOURCE.replace(*edit))
    with pytest.raises(BitcornError, match=r"lo_a.py says: it was changed after lo_a was imported. Start anew"):
        function_mark(module.f, module)


def test_a_source_that_keeps_its_old_time_is_refused_as_well(module):
    write(module, SOURCE.replace("+ 1", "+ 2"))
    os.utime(module.__file__, (1, 1))
    with pytest.raises(BitcornError, match="was changed after"):
        module_facts(module)


def test_a_comment_that_was_added_or_a_docstring_that_was_edited_since_is_no_change(module):
    write(module, SOURCE.replace("return bars", "\n    'One.'\n    return bars"))
    importlib.reload(module)
    write(module, "# more\n\n" + SOURCE.replace("return bars", "\n    'Two.'\n    return bars"))
    assert function_mark(module.f, module) == ""


def test_what_a_reload_left_over_is_refused_only_where_it_is_used(module):
    left = module.K.m
    write(module, "def f(bars): return bars\n")
    importlib.reload(module)
    assert function_mark(module.f, module) == ""
    with pytest.raises(BitcornError, match=r"K\.m is not what"):
        function_mark(left, module)


def test_code_that_an_import_hook_changed_is_taken_for_its_source(module, monkeypatch):
    write(module, SOURCE.replace("+ 1", "+ 2"))  # stands for what the hook did
    monkeypatch.setattr(loaded, "_PROCESS_START", os.stat(module.__file__).st_ctime + 10)
    assert module_facts(module).tree


def test_functions_from_before_a_reload_or_another_import_are_refused(module):
    old = module.f
    write(module, SOURCE.replace("+ 1", "+ 2"))
    importlib.reload(module)
    with pytest.raises(BitcornError, match="use the functions that it has then"):
        function_mark(old, module)
    old = module.f
    del sys.modules["lo_a"]
    with pytest.raises(BitcornError, match="of an earlier import of lo_a"):
        function_mark(old, importlib.import_module("lo_a"))


def test_a_lambda_in_a_collection_that_was_edited_since_is_refused(module):
    """Poison otherwise: what the old code computes would be kept as the new code's."""
    write(module, "T = {'a': lambda x: x + 1}\ndef f(bars): return T['a'](bars)\n")
    importlib.reload(module)
    write(module, "T = {'a': lambda x: x + 2}\ndef f(bars): return T['a'](bars)\n")
    with pytest.raises(BitcornError, match="was changed after"):
        code_identity(module.f)


def test_functions_of_one_name_are_told_apart(module):
    write(module, "def f(x): return 1\nold = f\ndef f(x): return 2\ndef g(x): return 3\n")
    importlib.reload(module)
    assert [function_mark(each, module) for each in (module.old, module.f, module.g)] == ["#0", "#1", ""]


def test_a_function_that_was_made_while_the_program_ran_is_refused(module):
    exec(compile("def made(x): return x", "<made>", "exec"), vars(module))
    with pytest.raises(BitcornError, match=r"made in lo_a was made while the program ran \(<made>\)"):
        function_mark(module.made, module)


def test_modules_without_a_source_are_refused(tmp_path, module):
    with pytest.raises(BitcornError, match=r"module typed_in \(made while the program ran\) has no source file"):
        module_facts(ModuleType("typed_in"))
    (tmp_path / "source.py").write_text(SOURCE)
    py_compile.compile(str(tmp_path / "source.py"), cfile=str(tmp_path / "lo_compiled.pyc"))
    with pytest.raises(BitcornError, match=r"lo_compiled.pyc\) has no source file.*install it as a library"):
        module_facts(importlib.import_module("lo_compiled"))


def test_a_module_whose_source_is_gone_is_refused(module):
    os.remove(module.__file__)
    with pytest.raises(BitcornError, match="the source of lo_a cannot be read"):
        module_facts(module)


def test_a_namespace_package_has_no_code(tmp_path, module):
    (tmp_path / "lo_space").mkdir()
    assert module_facts(importlib.import_module("lo_space")).functions == {}
    assert kind_of_place("lo_space") == "project"


def test_places_tell_what_a_package_is(module):
    kinds = {name: kind_of_place(name) for name in ("numpy", "json", "lo_a", "sys", "there_is_no_such")}
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
    loaded._installed_version.cache_clear()
    yield tmp_path / "lo_library.py"
    sys.modules.pop("lo_library", None)
    loaded._installed_version.cache_clear()


def test_a_version_is_the_same_before_and_after_a_library_is_loaded(library):
    assert version_of("lo_library") == "1.2"
    importlib.import_module("lo_library")
    assert version_of("lo_library") == "1.2"


def test_a_process_that_has_not_loaded_a_library_has_the_version_that_another_found(library):
    library.write_text("__version__ = '1.2+cpu'\n")
    assert not has_version("lo_library", "1.3")
    del sys.modules["lo_library"]
    assert has_version("lo_library", "1.2+cpu")
    assert has_version("lo_library", "1.2")  # as one finds it that has not loaded it
    assert has_version("there_is_no_such", "missing")
    assert not has_version("there_is_no_such", "1.2")


def test_an_import_leads_to_the_home_of_what_it_binds(tmp_path, module):
    (tmp_path / "lo_pack").mkdir()
    (tmp_path / "lo_pack" / "__init__.py").write_text("from lo_a import f, K\nX = 1\n")
    (tmp_path / "lo_pack" / "sub.py").write_text("")
    found = {name: home_of_import("lo_pack", name) for name in ("f", "K", "X", "sub", "*")}
    assert found == {"f": "lo_a", "K": "lo_a", "X": "lo_pack", "sub": "lo_pack.sub", "*": "lo_pack"}


def test_a_module_that_fails_or_exits_on_import_is_none(tmp_path, module):
    for name, source in (("lo_fails", "1 / 0"), ("lo_exits", "raise SystemExit(3)")):
        (tmp_path / f"{name}.py").write_text(source)
        assert load(name) is None
