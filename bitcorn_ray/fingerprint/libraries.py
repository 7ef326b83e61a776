"""Modules and libraries: where they come from, and which version they have."""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import importlib.util
import os
import sys
import sysconfig
from types import FunctionType, ModuleType

MISSING = "missing"
_DISTRIBUTIONS = {"talib": "TA-Lib"}


def load(name: str) -> ModuleType | None:
    """Return a module, imported now if only a function imports it; None if that fails, as it will for the function."""
    try:
        return sys.modules.get(name) or importlib.import_module(name)
    except (Exception, SystemExit):
        return None


def home_of_import(target: str, name: str) -> str:
    """Return the module that defines what `from target import name` binds."""
    module = load(target)
    if module is None or name == "*":
        return target
    value = getattr(module, name, MISSING)
    if value is MISSING:
        return f"{target}.{name}"
    if isinstance(value, ModuleType):
        return value.__name__
    home = value.__module__ if isinstance(value, type) else None
    if isinstance(value, FunctionType):
        home = value.__globals__.get("__name__")
    return home if isinstance(home, str) and home in sys.modules and home != "__main__" else target


def kind_of_package(top: str) -> str:
    """Return "standard", "library", "project" or "missing" for a top-level package, by its location and version."""
    if top.startswith("_cython_"):
        return "standard"  # types that compiled libraries share
    locations, standard = _locations(top), top in sys.stdlib_module_names
    if locations is None:
        return "standard" if standard else MISSING
    in_library_folder = [location.startswith(_library_folders()) for location in locations]
    if standard and all(in_library_folder):
        return "standard"
    installed = bool(locations) and all(
        known or "site-packages" in location or "dist-packages" in location
        for known, location in zip(in_library_folder, locations, strict=True)
    )
    return "library" if installed and version_of(top) is not None else "project"


def _locations(top: str) -> list[str] | None:
    """Return the file or folders of a top-level package without importing it; None if it does not exist."""
    if (module := sys.modules.get(top)) is not None:
        file = getattr(module, "__file__", None)
        return [file] if file else list(getattr(module, "__path__", ()))
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return None
    if spec is None or not spec.has_location or spec.origin is None:
        return None if spec is None else list(spec.submodule_search_locations or ())
    return [spec.origin]


@functools.cache
def _library_folders() -> tuple[str, ...]:
    paths = sysconfig.get_paths()
    return tuple(f"{paths[kind]}{os.sep}" for kind in ("purelib", "platlib", "stdlib", "platstdlib"))


@functools.cache
def _installed_version(library: str) -> str | None:
    try:
        return importlib.metadata.version(_DISTRIBUTIONS.get(library, library))
    except importlib.metadata.PackageNotFoundError:
        names = sorted(set(importlib.metadata.packages_distributions().get(library, ())))
        return ", ".join(importlib.metadata.version(name) for name in names) or None


def version_of(library: str) -> str | None:
    """Return the version of a library as it is loaded, else as it is installed; None if it has none.

    The build, as in 2.1+cpu, is left out: libraries report it only once they are loaded, and nodes with GPUs have
    others.
    """
    loaded = getattr(sys.modules.get(library), "__version__", None)
    version = loaded if isinstance(loaded, str) else _installed_version(library)
    return version and version.partition("+")[0]
