"""The rooms, and the direction in which data flows between them."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import bitcorn_ray

PACKAGE = Path(bitcorn_ray.__file__).parent
# From the ground up: a room imports itself and the rooms before it.
ROOMS = (
    "errors",
    "memory",
    "logging",
    "storage",
    "fingerprint",
    "cache",
    "on_ray",
    "metrics",
    "market",
    "sources",
    "features",
    "datasets",
    "models",
    "training",
    "forecasting",
    "evaluation",
    "tuning",
    "data_loader",
    "training_service",
    "report",
    "cli",
)
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE or path.stem in ROOMS)


def imports(path):
    """Every module that a file imports, at the top or inside a function."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            yield node.module


def room(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down(path):
    for name in imports(path):
        library, _, rest = name.partition(".")
        if library == "ray":
            assert room(path) == "on_ray" or path.stem == "distribute"
        if library == "torch":
            assert room(path) in ("models", "training", "on_ray") or path.stem == "distribute"
        if library == "bitcorn_ray" and rest:
            other = rest.partition(".")[0]
            assert ROOMS.index(other) <= ROOMS.index(room(path)), f"{room(path)} imports {name}"


def test_every_room_is_known():
    assert {path.parent.name for path in PACKAGE.glob("*/__init__.py")} <= set(ROOMS)
    assert {path.stem for path in PACKAGE.glob("*.py")} - {"__init__", "__main__"} <= set(ROOMS)


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
