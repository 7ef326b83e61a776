"""The rooms and the direction in which data flows between them."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import bitcorn_ray

PACKAGE = Path(bitcorn_ray.__file__).parent
# What each room may import of the others. Front doors (the files of the top level, and cli) may import all.
MAY_IMPORT = {
    "storage": set(),
    "market": {"storage"},
    "features": {"storage", "market"},
    "cache": {"storage", "market", "features"},
    "validation": set(),
    "learning": {"storage", "market", "validation"},
    "report": {"storage"},
    "on_ray": {"storage", "market", "features", "cache", "validation", "learning"},
}
_BELOW_ALL = ("errors", "logs", "memory")
# Sweeps stand on all rooms and on the doors through which a single training goes; evolution stands on sweeps.
_BELOW_SWEEPS = {
    *MAY_IMPORT,
    "config",
    "data_loader",
    "forecaster",
    "lineage",
    "training_inputs",
    "training_job",
    "walk_forward",
}
MAY_IMPORT |= {"sweeps": _BELOW_SWEEPS, "evolution": {*_BELOW_SWEEPS, "sweeps"}}
MODULES = sorted(PACKAGE.rglob("*.py"))


def imports(path):
    """Every module that a file imports, at the top or inside a function."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            yield node.module


def room(path):
    """Name of the room that a file is in; None for a front door."""
    first = path.relative_to(PACKAGE).parts[0]
    return first if first in MAY_IMPORT else None


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_data_flows_one_way(path):
    mine = room(path)
    for name in imports(path):
        parts = name.split(".")
        if parts[0] == "ray":
            assert mine == "on_ray" or path.name == "session.py"
        if parts[0] == "torch":
            assert mine in ("learning", "on_ray")
        if parts[0] == "bitcorn_ray" and mine is not None and len(parts) > 1:
            assert parts[1] in {mine, *_BELOW_ALL} | MAY_IMPORT[mine], f"{mine} imports {name}"


def test_every_room_is_known():
    assert {path.parent.name for path in PACKAGE.glob("*/__init__.py")} == {*MAY_IMPORT, "cli"}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_files_and_functions_stay_short(path):
    source = path.read_text()
    assert len(source.splitlines()) <= 350
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno < 75, f"{node.name} has {node.end_lineno - node.lineno + 1} lines"


def loaded_after(statement):
    code = f"import sys; {statement}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_the_package_loads_nothing_heavy():
    assert not loaded_after("import bitcorn_ray") & {"torch", "ray", "pandas", "numpy", "pyarrow", "sklearn"}


def test_computing_features_never_loads_torch_or_ray():
    loaded = loaded_after(
        "from bitcorn_ray import load_market_data, prepare_features, build_sequences, invalidate_cache"
    )
    assert not loaded & {"torch", "ray", "sklearn"}


def test_every_public_name_can_be_imported():
    assert set(bitcorn_ray.__all__) == set(bitcorn_ray._HOMES)
    for name in bitcorn_ray.__all__:
        assert getattr(bitcorn_ray, name) is not None
        assert name in dir(bitcorn_ray)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        bitcorn_ray.nothing  # noqa: B018


def test_every_source_has_its_test():
    here = Path(__file__).parent
    missing = []
    for path in MODULES:
        if path.name in ("__init__.py", "__main__.py", "errors.py"):
            continue
        relative = path.relative_to(PACKAGE)
        if not (here / relative.parent / f"test_{relative.name}").is_file():
            missing.append(str(relative))
    assert missing == []
