import shutil
import subprocess
from pathlib import Path

import pytest

import bitcorn_ray
from bitcorn_ray.errors import BitcornError
from bitcorn_ray.features.fingerprint import syntax
from bitcorn_ray.features.fingerprint.syntax import code_shape, globals_read, source_facts

PACKAGE = Path(bitcorn_ray.__file__).parent


def tree(source):
    return source_facts(source.encode()).tree


SOURCE = 'def f(x, w=1):\n    return [x + w, f"a{x}", "text"]\n'


@pytest.mark.parametrize(
    "other",
    [
        "# comment\n\n" + SOURCE,
        SOURCE.replace("):\n", "):  # comment\n    'docstring'\n"),
        '"""Docstring."""\n' + SOURCE + '"""Of what stands above."""\n',
        SOURCE.replace("x + w", "(x\n  +    w)"),
        SOURCE.replace("\n", "\r\n"),
        SOURCE.replace('"text"', "'te' u'xt'"),
        SOURCE.replace('f"a{x}"', "f'' 'a' f'{x}'"),
        "\ufeff" + SOURCE,
    ],
)
def test_comments_docstrings_and_layout_do_not_count(other):
    assert tree(other) == tree(SOURCE)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("w=1", "w=2"),
        ("w=1", "w=1.0"),
        ("w=1", "w=True"),
        ("x + w", "x - w"),
        ("x + w", "w + x"),
        ('"text"', '"Text"'),
        ('"text"', 'b"text"'),
        ('"text"', '""'),
        ("def f", "def g"),
        ("{x}", "{x:.2f}"),
        ("{x}", "{x!r}"),
        ('f"a{x}"', '"a{x}"'),
        ("w=1", "w=None"),
        ("w=1", "w=..."),
        ("x, w", "x, /, w"),
        ("x, w", "x, *, w"),
        ("return", "yield"),
    ],
)
def test_names_operators_and_constants_count(old, new):
    assert tree(SOURCE.replace(old, new)) != tree(SOURCE)


def test_nothing_else_can_look_like_the_ends_of_a_node():
    assert tree("x = ['a', 'b']") != tree("""x = ["a;,Constant(value=str:'b'"]""")


def test_long_sums_and_large_numbers_can_be_written():
    assert tree("x = " + " + ".join(["1"] * 800)) != tree("x = " + " + ".join(["1"] * 799))
    assert tree("x = 0x" + "f" * 9_000) != tree("x = 0x" + "e" * 9_000)


def test_what_is_no_python_is_refused():
    with pytest.raises(BitcornError, match="is no Python"):
        source_facts(b"def f(:")


def test_imports_are_those_that_can_run():
    source = """
import a.b as c, d
from . import e
from ..f import g, h as i
if TYPE_CHECKING:
    import never
else:
    import other
if typing.TYPE_CHECKING:
    import never
if not TYPE_CHECKING:
    import j
if __name__ == "__main__":
    import never
def f():
    try:
        import k
    except ImportError:
        import l
from m import *
"""
    found = source_facts(source.encode()).imports
    expected = [
        ("a.b", 0, ()),
        ("d", 0, ()),
        ("", 1, ("e",)),
        ("f", 2, ("g", "h")),
        ("other", 0, ()),
        ("j", 0, ()),
        ("k", 0, ()),
        ("l", 0, ()),
        ("m", 0, ("*",)),
    ]
    assert sorted(found) == sorted(expected)


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("exec('x')", ("exec in line 1",)),
        ("\ng = eval", ("eval in line 2",)),
        ("import builtins\nbuiltins.exec('x')", ("exec in line 2",)),
        ("__import__('x')", ("__import__ in line 1",)),
        ("importlib.import_module('x')", ("import_module in line 1",)),
        ("from importlib import import_module as m", ("import_module in line 1",)),
        ("import runpy\nrunpy.run_path('x')", ("run_path in line 2",)),
        ("df.eval('a + b')", ()),
        ("self.exec('a')", ()),
        ("from mine import run_path", ()),
    ],
)
def test_code_that_is_not_named_is_found(source, found):
    assert source_facts(source.encode()).dynamic == found


def test_used_names_are_what_functions_read():
    source = """
LEVELS = make(ONLY_AT_IMPORT)
T = [LOOKUP[i] for i in W]
def f(bars, local=DEFAULT):
    def g(): return NESTED
    return LEVELS, bars.close, getattr(bars, "volume"), globals()["SUBSCRIPT"], "text"
class K:
    A = IN_BODY
    def m(self): return [IN_METHOD for i in self.own]
h = lambda: IN_LAMBDA
"""
    used = set(source_facts(source.encode()).used)
    assert {"LEVELS", "close", "volume", "SUBSCRIPT", "NESTED", "IN_METHOD", "own", "IN_LAMBDA"} <= used
    assert not {"ONLY_AT_IMPORT", "LOOKUP", "W", "DEFAULT", "IN_BODY", "bars", "local", "text"} & used


def function(source, name="f"):
    names = {}
    exec(compile(source, "<test>", "exec"), names)
    return names[name].__code__


def test_the_shape_of_code_is_what_it_does_wherever_it_stands():
    one = function("def f(x):\n    'one'\n    return x in {'a', 'b', 'c'}, 1\n")
    assert code_shape(function("\n\ndef f(x):\n    'two'\n    return x in {'c', 'b', 'a'}, 1\n")) == code_shape(one)
    for other in ("return x in {'a', 'b'}, 1", "return x in {'a', 'b', 'c'}, 1.0", "return y in {'a', 'b', 'c'}, 1"):
        assert code_shape(function(f"def f(x):\n    'one'\n    {other}\n")) != code_shape(one)
    assert code_shape(function("f = lambda: 'a'")) != code_shape(function("f = lambda: 'b'"))
    assert code_shape(function("def f(): return 'a'")) != code_shape(function("def f(): return 'b'"))


def test_globals_are_told_from_attributes():
    assert globals_read(function("def f(x):\n    return [G for y in x.close], lambda: H\n")) == {"G", "H"}


class Kept(dict):
    def recall(self, name):
        return self.get(name)

    keep = dict.__setitem__


def test_a_memo_gives_back_the_same_without_parsing(monkeypatch):
    memo, source = Kept(), SOURCE.encode() + b"from a import b\neval\n"
    first = source_facts(source, memo)
    monkeypatch.setattr(syntax, "facts_of_tree", lambda *_: "read anew")
    assert source_facts(source, memo) == first
    monkeypatch.setattr(syntax, "asdict", lambda _: {})
    assert source_facts(source + b"#", memo) == "read anew"


TELL = """
import sys, types
for name in ("bitcorn_ray", "bitcorn_ray.cache"):  # their __init__ and their libraries are not needed
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = [sys.argv[1] + name.replace(".", "/")[len("bitcorn_ray"):]]
from bitcorn_ray.features.fingerprint.syntax import source_facts
for path in sys.argv[2:]:
    print(source_facts(open(path, "rb").read()).tree)
"""
CURIOUS = """
def f(x, *a, w=3, **k):
    y = f"a{x!r:>{w}}b" "c" f"{x:}" f"{x}{{}}" f"{x=}" f"{'q'}" u"\U0001fae9"
    match x:
        case {"a": 1, **rest}: pass
        case None: pass
    return [len(i) for i in x], {**k}, x[1:2, ...], -1, 1e400
class K: a: "int" = 3
"""


@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13", "3.14"])
def test_all_versions_of_python_agree(tmp_path, version):
    """Skipped for versions that this machine does not have."""
    found = [shutil.which(f"python{version}"), *Path.home().glob(f".pyenv/versions/{version}.*/bin/python")]
    python = next((str(path) for path in found if path and _runs(path, version)), None)
    if python is None:
        pytest.skip(f"no Python {version}")
    (tmp_path / "curious.py").write_text(CURIOUS)
    paths = [*map(str, sorted(PACKAGE.glob("features/*.py"))), str(tmp_path / "curious.py")]
    done = subprocess.run([python, "-c", TELL, str(PACKAGE), *paths], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [source_facts(Path(path).read_bytes()).tree for path in paths]
    assert len(paths) > 5


def _runs(path, version):
    shown = subprocess.run(
        [path, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"], capture_output=True, text=True
    )
    return shown.stdout.strip() == version
