import importlib
import importlib.machinery
import json
import linecache
import os
import py_compile
import subprocess
import sys
import textwrap

import pytest

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.features.system import FeatureSystem
from bitcorn_ray.features.systems import v2, v4
from bitcorn_ray.fingerprint import code
from bitcorn_ray.fingerprint.code import code_identity, loaded_user_modules, require_same_code
from bitcorn_ray.fingerprint.libraries import version_of


class Project:
    """Modules in a folder; `identity` imports them anew, as another process would."""

    def __init__(self, folder):
        self.folder = folder

    def write(self, **modules):
        for name, source in modules.items():
            path = self.folder / f"{name.replace('__', '/').replace('INIT', '__init__')}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            for package in (each for each in path.parents if self.folder in each.parents):
                (package / "__init__.py").touch()
            path.write_text(textwrap.dedent(source))

    def forget(self):
        for name, module in list(sys.modules.items()):
            if str(getattr(module, "__file__", "")).startswith(str(self.folder)):
                del sys.modules[name]
        importlib.invalidate_caches()

    def function(self, module="sys_a", name="f"):
        return getattr(importlib.import_module(module), name)

    def identity(self, module="sys_a", name="f", **modules):
        self.write(**modules)
        self.forget()
        function = self.function(module, name)
        return code_identity(function.function if isinstance(function, FeatureSystem) else function)


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # two edits in a second would share their compiled file
    made = Project(tmp_path)
    yield made
    made.forget()


USES = {
    "plain import": "import helper_a\ndef f(bars): return helper_a.h(bars)\n",
    "from import": "from helper_a import h\ndef f(bars): return h(bars)\n",
    "lazy": "def f(bars):\n    from helper_a import h\n    return h(bars)\n",
    "lazy module": "def f(bars):\n    import helper_a as x\n    return x.h(bars)\n",
    "star": "from helper_a import *\ndef f(bars): return h(bars)\n",
    "in try": "try:\n    from helper_a import h\nexcept ImportError:\n    h = None\ndef f(bars): return h(bars)\n",
    "partial": "from functools import partial\nfrom helper_a import h\ng = partial(h)\ndef f(bars): return g(bars)\n",
    "cached": "from functools import lru_cache\nfrom helper_a import h\n@lru_cache\ndef g(x): return h(x)\n"
    "def f(b): return g(b)\n",
    "decorator": "from helper_a import wrap\n@wrap\ndef f(bars): return bars\n",
    "base class": "from helper_a import K\nclass L(K): pass\ndef f(bars): return L().m(bars)\n",
    "two away": "import middle_a\ndef f(bars): return middle_a.g(bars)\n",
    "version branch": "import sys\nif sys.version_info > (3, 99):\n    import nothing_there\nelse:\n"
    "    from helper_a import h\ndef f(b): return h(b)\n",
}
HELPER = """
import functools
def h(x): return x + 1
def wrap(g):
    @functools.wraps(g)
    def inner(x): return g(x) + 1
    return inner
class K:
    def m(self, x): return x + 1
"""
MIDDLE = "from helper_a import h\ndef g(x): return h(x)\n"


@pytest.mark.parametrize("use", USES)
def test_editing_a_nested_helper_invalidates_and_editing_a_comment_does_not(project, use):
    before = project.identity(sys_a=USES[use], helper_a=HELPER, middle_a=MIDDLE)
    assert project.identity() == before
    assert (
        project.identity(helper_a="# comment\n" + HELPER.replace("    return inner", "\n    # more\n    return inner"))
        == before
    )
    assert project.identity(helper_a=HELPER.replace("x + 1", "x + 2").replace("g(x) + 1", "g(x) + 2")) != before


@pytest.mark.parametrize(
    "use",
    [
        "import pack.deep.low\ndef f(b): return pack.deep.low.h(b)\n",
        "import pack.deep.low as x\ndef f(b): return x.h(b)\n",
        "from pack.deep import low\ndef f(b): return low.h(b)\n",
        "from pack.deep.low import h\ndef f(b): return h(b)\n",
        "def f(b):\n    from pack.deep import low\n    return low.h(b)\n",
    ],
)
def test_modules_of_packages_and_relative_imports_are_followed(project, use):
    modules = {
        "pack__deep__low": "from ..top import t\ndef h(x): return t(x)\n",
        "pack__top": "def t(x): return x + 1\n",
    }
    before = project.identity(sys_a=use, **modules)
    assert project.identity(pack__top="def t(x): return x + 2\n") != before


def test_an_import_by_name_follows_the_defining_module_only(project):
    before = project.identity(
        sys_a="def f(b):\n    from pack import h\n    return h(b)\n",
        pack__low="def h(x): return x + 1\n",
        pack__other="def o(x): return x\n",
        pack__INIT="from pack.low import h\nfrom pack.other import o\n",
    )
    assert {"pack.low", "sys_a"} <= set(before.modules)
    assert not {"pack", "pack.other"} & set(before.modules)
    # A second look in a process that has loaded them finds the same.
    assert code_identity(project.function()) == before
    assert project.identity(pack__other="def o(x): return x * 9\n") == before


def test_imports_for_type_checkers_or_scripts_are_not_followed(project):
    source = """
    from typing import TYPE_CHECKING
    if TYPE_CHECKING:
        from helper_a import h
    def f(bars): return bars
    if __name__ == "__main__":
        import script_a
    """
    before = project.identity(sys_a=source, helper_a=HELPER, script_a="")
    assert not {"helper_a", "script_a"} & set(before.modules)


def test_a_missing_or_failing_optional_module_is_noted_and_its_coming_invalidates(project):
    source = """
    try:
        import fast_lib_a
    except ImportError:
        fast_lib_a = None
    def f(bars):
        try:
            from failing_a import h
        except ImportError:
            h = None
        return bars
    """
    before = project.identity(sys_a=source, failing_a="import not_there_at_all\n")
    assert before.libraries["fast_lib_a"] == "missing"
    assert before.modules["failing_a"] == "missing"
    assert project.identity(failing_a="def h(x): return x\n") != before
    require_same_code(before)


def test_circular_imports_end(project):
    before = project.identity(
        sys_a="import helper_a\ndef f(b): return helper_a.h(b)\ndef s(x): return x + 1\n",
        helper_a="import sys_a\ndef h(b): return sys_a.s(b)\n",
    )
    assert {"sys_a", "helper_a"} <= set(before.modules)


def test_a_project_module_with_the_name_of_a_standard_one_counts(project, monkeypatch):
    monkeypatch.delitem(sys.modules, "this", raising=False)
    project.write(this="def h(x): return x + 1\n", sys_a="import this\ndef f(b): return this.h(b)\n")
    before = project.identity()
    assert "this" in before.modules
    assert project.identity(this="def h(x): return x + 2\n") != before


# Values

VALUES = {
    "imported constant": ("from consts_a import V\ndef f(b): return b * V\n", "import os\nV = os.environ['SCALE_A']\n"),
    "attribute": ("import consts_a\ndef f(b): return b * consts_a.V\n", "import os\nV = [os.environ['SCALE_A']]\n"),
    "getattr": (
        "import consts_a\ndef f(b): return getattr(consts_a, 'V')\n",
        "import os\nV = {'a': os.environ['SCALE_A']}\n",
    ),
    "class attribute": (
        "from consts_a import C\ndef f(b): return C.V\n",
        "import os\nclass C:\n    V = os.environ['SCALE_A']\n",
    ),
    "instance": (
        "from consts_a import c\ndef f(b): return c.go()\n",
        "import os\nclass C:\n    def __init__(self): self.v = os.environ['SCALE_A']\n"
        "    def go(self): return self.v\nc = C()\n",
    ),
    "default": (
        "from consts_a import h\ndef f(b): return h()\n",
        "import os\ndef h(v=os.environ['SCALE_A']): return v\n",
    ),
    "closure": (
        "from consts_a import h\ndef f(b): return h()\n",
        "import os\ndef make(v):\n    def inner(): return v\n    return inner\nh = make(os.environ['SCALE_A'])\n",
    ),
    "partial": (
        "from consts_a import h\ndef f(b): return h()\n",
        "import os\nfrom functools import partial\nh = partial(max, os.environ['SCALE_A'])\n",
    ),
    "array": (
        "from consts_a import V\ndef f(b): return V\n",
        "import os\nimport numpy as np\nV = np.full(3, float(os.environ['SCALE_A']))\n",
    ),
    "namespace": (
        "from consts_a import V\ndef f(b): return V.a\n",
        "import os\nfrom types import SimpleNamespace\nV = SimpleNamespace(a=os.environ['SCALE_A'])\n",
    ),
    "dataclass": (
        "from consts_a import V\ndef f(b): return V.a\n",
        "import os\nfrom dataclasses import dataclass\n@dataclass(frozen=True)\nclass P:\n    a: str\n"
        "V = P(os.environ['SCALE_A'])\n",
    ),
    "which function": (
        "from consts_a import h\ndef f(b): return h(b)\n",
        "import os\nif os.environ['SCALE_A'] == '1':\n    def h(x): return x\nelse:\n    def h(x): return -x\n",
    ),
    "which lambda": (
        "from consts_a import T\ndef f(b): return T['a'](b)\n",
        "import os\nT = {'a': (lambda x: x) if os.environ['SCALE_A'] == '1' else (lambda x: -x)}\n",
    ),
}


@pytest.mark.parametrize("case", VALUES)
def test_values_of_globals_count(project, monkeypatch, case):
    system, consts = VALUES[case]
    monkeypatch.setenv("SCALE_A", "1")
    before = project.identity(sys_a=system, consts_a=consts)
    assert project.identity() == before
    monkeypatch.setenv("SCALE_A", "2")
    after = project.identity()
    assert after.modules == before.modules
    assert after.values != before.values


def test_values_that_no_function_reads_do_not_count(project, monkeypatch):
    monkeypatch.setenv("SCALE_A", "1")
    before = project.identity(sys_a="import os\nHOME = os.environ['SCALE_A']\ndef f(b): return b\n")
    monkeypatch.setenv("SCALE_A", "2")
    assert project.identity() == before


def test_values_and_functions_that_are_replaced_at_run_time_count(project):
    identity = project.identity(
        sys_a="import helper_a\nLEVELS = [1, 2]\ndef f(b): return helper_a.h(b), LEVELS\n",
        helper_a=HELPER,
        other_a="def h(x): return -x\n",
    )
    function, helper = project.function(), sys.modules["helper_a"]
    sys.modules["sys_a"].LEVELS.append(3)
    grown = code_identity(function)
    assert grown != identity
    helper.h = importlib.import_module("other_a").h
    assert "other_a" in code_identity(function).modules


def test_two_lambdas_of_a_module_differ(project):
    project.write(sys_a="one, two = lambda b: b + 1, lambda b: b + 2\n")
    assert project.identity(name="one") != project.identity(name="two")


def test_closures_of_a_factory_differ_by_their_values(project):
    project.write(
        sys_a="def make(w):\n    def f(b): return b * w\n    return f\none, two, same = make(1), make(2), make(1)\n"
    )
    assert project.identity(name="one") == project.identity(name="same")
    assert project.identity(name="one") != project.identity(name="two")


def test_locks_loggers_and_cached_properties_do_not_count(project):
    project.write(
        sys_a="""
        import logging, threading
        from functools import cached_property
        log, lock = logging.getLogger("a"), threading.Lock()
        class K:
            def __init__(self): self.a = 1
            @cached_property
            def b(self): return self.a + 1
        k = K()
        def f(bars):
            with lock: log.debug("x")
            return k.b
        """
    )
    before = project.identity()
    project.function()(None)
    assert code_identity(project.function()) == before


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("def f(b): return eval('b')\n", "sys_a uses eval in line 1"),
        ("import importlib\ndef f(b): return importlib.import_module('x')\n", "sys_a uses import_module in line 2"),
        ("from importlib import import_module as load\ndef f(b): return load('x')\n", "uses import_module in line 1"),
        ("g = exec\ndef f(b): return g('b')\n", "sys_a uses exec in line 1"),
        (
            "def make(file):\n    def f(b): return file.read()\n    return f\nf = make(open(__file__))\n",
            "file in .*TextIOWrapper",
        ),
    ],
)
def test_code_without_identity_is_refused_with_its_location(project, source, message):
    with pytest.raises(BitcornError, match=message):
        project.identity(sys_a=source)


def test_an_object_that_is_not_a_function_is_refused():
    with pytest.raises(BitcornError, match="not a plain function"):
        code_identity(object())


# Libraries


def test_a_library_counts_by_its_version_and_is_not_loaded_for_it(project):
    identity = project.identity(sys_a="def f(b):\n    import sklearn\n    return sklearn.x(b)\n")
    assert identity.libraries["sklearn"] == version_of("sklearn")
    assert {"numpy", "pandas", "talib"} <= set(identity.libraries)
    assert not [name for name in identity.modules if name.startswith(("sklearn", "numpy"))]


def test_installed_modules_of_the_same_package_or_without_a_version_are_followed(tmp_path, project, monkeypatch):
    project.write(
        **{
            "site-packages__mine_a__low": "def h(x): return x + 1\n",
            "site-packages__mine_a__sys": "from mine_a.low import h\nfrom loose_a import g\ndef f(b): return g(h(b))\n",
            "site-packages__loose_a": "def g(x): return x\n",
        }
    )
    monkeypatch.syspath_prepend(tmp_path / "site-packages")
    before = project.identity("mine_a.sys")
    assert {"mine_a.sys", "mine_a.low", "loose_a"} <= set(before.modules)
    project.write(**{"site-packages__mine_a__low": "def h(x): return x + 2\n"})
    assert project.identity("mine_a.sys") != before


def test_a_system_that_builds_on_ours_depends_on_our_code(project):
    for source in (
        "from bitcorn_ray.features.registry import SYSTEMS\ndef f(bars): return SYSTEMS['v4'](bars)\n",
        "from bitcorn_ray.features.systems import v4\ndef f(bars): return v4.compute(bars)\n",
        "from bitcorn_ray.features.systems.v4 import compute\ndef f(bars): return compute(bars)\n",
    ):
        assert "bitcorn_ray.features.systems.v4" in project.identity(sys_a=source).modules


def test_lazily_resolved_names_of_ours_do_not_lead_to_all_of_the_package(project):
    identity = project.identity(sys_a="from bitcorn_ray import BitcornError\ndef f(b): raise BitcornError('x')\n")
    assert not [name for name in identity.modules if name.startswith(("bitcorn_ray.learning", "bitcorn_ray.training"))]


def test_workers_with_other_code_or_libraries_are_refused():
    identity = code_identity(v4.compute)
    require_same_code(identity)
    for part, name in (("modules", "bitcorn_ray.features.systems.v4"), ("libraries", "numpy")):
        other = {**identity.__dict__, part: {**getattr(identity, part), name: "other"}}
        with pytest.raises(BitcornError, match=name):
            require_same_code(type(identity)(**other))


def test_user_modules_are_those_that_are_not_ours(project):
    identity = project.identity(sys_a=USES["from import"], helper_a=HELPER)
    assert {module.__name__ for module in loaded_user_modules(identity)} == {"sys_a", "helper_a"}


def test_another_process_and_another_order_of_imports_find_the_same(project):
    project.write(sys_a=USES["lazy"] + "S = {'a', 'b', 'c'}\ndef g(x): return S\n", helper_a=HELPER)
    code = """
    import json, sys
    for name in sys.argv[1].split(): __import__(name)
    from bitcorn_ray.fingerprint.code import code_identity
    from bitcorn_ray.features.systems import v4
    import sys_a
    print(json.dumps([vars(code_identity(sys_a.f)), vars(code_identity(v4.compute))]))
    """
    found = []
    for first in ("sys", "helper_a bitcorn_ray.data_loader bitcorn_ray.models.neural.config", "pandas sys_a"):
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code), first], capture_output=True, text=True, cwd=project.folder
        )
        assert done.returncode == 0, done.stderr
        found.append(json.loads(done.stdout))
    assert found[0] == found[1] == found[2]


# Notebooks and scripts


class Notebook:
    def __init__(self):
        self.names, self.count = {"__name__": "__main__", "__package__": None}, 0

    def run(self, source):
        self.count += 1
        source, name = textwrap.dedent(source), f"<ipython-input-{self.count}-{id(self)}>"
        linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
        exec(compile(source, name, "exec", dont_inherit=True), self.names)

    def identity(self):
        return code_identity(self.names["f"])


def test_a_function_of_a_notebook_counts_with_the_globals_it_reads(project):
    project.write(helper_a=HELPER, lazy_a="def l(x): return x\n")
    notebook = Notebook()
    notebook.run("import helper_a\nW, close = 3, object()\ndef g(x):\n    return x * W\n")
    notebook.run("class K:\n    A = 1\n    def m(self, x): return x + 1\nk = K()\n")
    run = "def f(bars):\n    import lazy_a\n    return helper_a.h(g(bars.close)) + k.m(lazy_a.l(1)) + k.A\n"
    notebook.run(run)
    before = notebook.identity()
    assert {"helper_a", "lazy_a", "__main__:f", "__main__:g"} <= set(before.modules)
    notebook.run("# again\n\n" + run)
    assert notebook.identity() == before
    seen = [before]
    for change in (
        "W = 4",
        "def g(x):\n    return x + W\n",
        "class K:\n    A = 1\n    def m(self, x): return x + 2\nk = K()\n",
        "K.A = 5",
        run.replace("k.A", "k.A * 2"),
    ):
        notebook.run(change)
        assert notebook.identity() not in seen
        seen.append(notebook.identity())


def test_notebook_code_without_a_current_source_is_refused():
    names = {"__name__": "__main__"}
    exec(compile("def f(bars): return bars\n", "<stdin>", "exec"), names)
    with pytest.raises(BitcornError, match=r"f in <stdin>, line 1, has no source"):
        code_identity(names["f"])
    notebook = Notebook()
    notebook.run("def f(bars): return bars\n")
    name = notebook.names["f"].__code__.co_filename
    linecache.cache[name] = (1, None, ["def f(bars): return -bars\n"], name)
    with pytest.raises(BitcornError, match="not what its source says now"):
        notebook.identity()


def test_two_functions_in_one_line_of_a_notebook_are_refused():
    notebook = Notebook()
    notebook.run("f, g = lambda b: b, lambda b: -b\n")
    with pytest.raises(BitcornError, match="a line of its own"):
        notebook.identity()


def test_a_function_of_a_script_counts_and_its_edit_while_it_runs_is_refused(project):
    project.write(helper_a=HELPER)
    script = """
    import sys
    from bitcorn_ray.fingerprint.code import code_identity
    import helper_a
    W = 1
    def f(bars):
        return helper_a.h(bars) * W
    if len(sys.argv) > 1:
        with open(__file__) as file: text = file.read()
        with open(__file__, "w") as file: file.write(text.replace("* W", "+ W"))
    found = code_identity(f)
    print(found.values["__main__:f"], found.modules["__main__:f"], found.modules["helper_a"])
    """

    def run(text, *arguments):
        (project.folder / "script.py").write_text(textwrap.dedent(text))
        return subprocess.run(
            [sys.executable, "script.py", *arguments], capture_output=True, text=True, cwd=project.folder
        )

    first, commented = run(script), run("    # comment\n\n" + script)
    assert first.returncode == 0, first.stderr
    assert commented.stdout == first.stdout
    assert run(script.replace("W = 1", "W = 2")).stdout != first.stdout
    assert run(script.replace("* W", "- W")).stdout != first.stdout
    assert "not what its source says now: run the cell or script again" in run(script, "edit").stderr


def test_functions_of_numpy_and_generic_functions_can_be_used(project):
    source = """
    from functools import singledispatch
    from numpy import mean, sqrt
    @singledispatch
    def g(x): return sqrt(mean(x))
    @g.register
    def of_int(x: int): return x + 1
    def f(bars): return g(bars)
    """
    before = project.identity(sys_a=source)
    project.function()(1)  # the dispatch keeps what it found
    assert code_identity(project.function()) == before
    assert project.identity(sys_a=source.replace("x + 1", "x + 2")) != before


def test_the_order_of_a_dataclass_in_a_notebook_counts():
    notebook, seen = Notebook(), []
    for names in (("x", "y"), ("y", "x")):
        fields = "\n".join(f"    {name}: int = 1" for name in names)
        notebook.run(
            f"from dataclasses import dataclass\n@dataclass\nclass P:\n{fields}\ndef f(bars):\n    return P(3).x\n"
        )
        seen.append(notebook.identity())
    assert seen[0].modules == seen[1].modules
    assert seen[0].values != seen[1].values


# Sources of loaded modules

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
