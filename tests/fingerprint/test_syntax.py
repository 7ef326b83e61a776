import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import bitcorn_ray
from bitcorn_ray.errors import BitcornError
from bitcorn_ray.fingerprint.syntax import facts_of as facts_of_bytes
from bitcorn_ray.fingerprint.syntax import package_fingerprint, package_rooms

PACKAGE = Path(bitcorn_ray.__file__).parent


def facts_of(source):
    return facts_of_bytes(source.encode())


def tree(source):
    return facts_of(source).tree


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


def test_invalid_python_is_refused():
    with pytest.raises(BitcornError, match="not valid Python"):
        facts_of("def f(:")


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
    found = [(name, level, tuple(names)) for name, level, names in facts_of(source).imports]
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
        ("exec('x')", "exec in line 1"),
        ("\ng = eval", "eval in line 2"),
        ("import builtins\nbuiltins.exec('x')", "exec in line 2"),
        ("__import__('x')", "__import__ in line 1"),
        ("importlib.import_module('x')", "import_module in line 1"),
        ("from importlib import import_module as m", "import_module in line 1"),
        ("import runpy\nrunpy.run_path('x')", "run_path in line 2"),
        ("df.eval('a + b')", ""),
        ("self.exec('a')", ""),
        ("from mine import run_path", ""),
    ],
)
def test_dynamic_code_is_found(source, found):
    assert facts_of(source).dynamic == found


PRINT_TREES = """
import sys, types
for name, folder in (("bitcorn_ray", ""), ("bitcorn_ray.fingerprint", "/fingerprint")):
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = [sys.argv[1] + folder]
from bitcorn_ray.fingerprint.syntax import facts_of
for path in sys.argv[2:]:
    print(facts_of(open(path, "rb").read()).tree)
"""
CURIOUS = """
def f(x, *a, w=3, **k):
    y = f"a{x!r:>9}b"; z = u"\U0001fae9"
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
    done = subprocess.run([python, "-c", PRINT_TREES, str(PACKAGE), *paths], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [facts_of_bytes(Path(path).read_bytes()).tree for path in paths]
    assert len(paths) > 5


def _runs(path, version):
    shown = subprocess.run(
        [path, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"], capture_output=True, text=True
    )
    return shown.stdout.strip() == version


def test_the_package_has_a_digest_for_each_selection_of_its_rooms():
    everything, features, both = (
        package_fingerprint(),
        package_fingerprint("features"),
        package_fingerprint("features", "cache"),
    )
    assert len({everything, features, both}) == 3
    assert package_fingerprint("cache", "features") == both
    assert {"features", "errors", "data_loader"} <= set(package_rooms())
    with pytest.raises(BitcornError, match="no room kitchen"):
        package_fingerprint("kitchen")


def test_the_digest_of_a_room_ignores_comments_and_notices_code(tmp_path):
    copy = tmp_path / "bitcorn_ray"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    script = "from bitcorn_ray.fingerprint.syntax import package_fingerprint as p; print(p('errors'), p('metrics'))"

    def digests():
        return subprocess.run(
            [sys.executable, "-c", script],
            capture_output=True,
            text=True,
            check=True,
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(tmp_path)},
        ).stdout.split()

    before = digests()
    with open(copy / "errors.py", "a") as file:
        file.write("# A comment.\n")
    assert digests() == before
    with open(copy / "errors.py", "a") as file:
        file.write("ANSWER = 42\n")
    after = digests()
    assert after[0] != before[0]
    assert after[1] == before[1]
