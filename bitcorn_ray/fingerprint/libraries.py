"""Modules and libraries: where they come from, and which version they have."""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import importlib.util
import os
import sys
import sysconfig
from pathlib import PurePath
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
    places = _places(top)
    if places is None:
        return "standard" if top in sys.stdlib_module_names else MISSING
    folders = _library_folders()
    if top in sys.stdlib_module_names and all(place.startswith(folders) for place in places):
        return "standard"
    installed = bool(places) and all(
        place.startswith(folders) or {"site-packages", "dist-packages"} & set(PurePath(place).parts) for place in places
    )
    return "library" if installed and version_of(top) is not None else "project"


def _places(top: str) -> list[str] | None:
    """Return the file or folders of a top-level package without importing it; None if there is no such package."""
    module = sys.modules.get(top)
    if module is not None:
        file = getattr(module, "__file__", None)
        return [file] if file else list(getattr(module, "__path__", ()))
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    return [spec.origin] if spec.has_location and spec.origin else list(spec.submodule_search_locations or ())


@functools.cache
def _library_folders() -> tuple[str, ...]:
    paths = sysconfig.get_paths()
    return tuple(f"{paths[kind]}{os.sep}" for kind in ("purelib", "platlib", "stdlib", "platstdlib"))


def version_of(library: str) -> str | None:
    """Return the version of a library as it is loaded, else as it is installed; None if it has none."""
    version = getattr(sys.modules.get(library), "__version__", None)
    return version if isinstance(version, str) else _installed_version(library)


def has_version(library: str, version: str) -> bool:
    """Return True if a library has a version that another process found.

    It is imported only if that decides: a loaded library may report a build, 2.1+cpu, where 2.1 is installed.
    """
    if version in (version_of(library) or MISSING, _installed_version(library)):
        return True
    return load(library) is not None and version_of(library) == version


@functools.cache
def _installed_version(library: str) -> str | None:
    try:
        return importlib.metadata.version(_DISTRIBUTIONS.get(library, library))
    except importlib.metadata.PackageNotFoundError:
        names = sorted(set(importlib.metadata.packages_distributions().get(library, ())))
        versions = [importlib.metadata.version(name) for name in names]
        if len(versions) == 1:  # the same text as the loaded library gives
            return versions[0]
        return ", ".join(f"{name} {version}" for name, version in zip(names, versions, strict=True)) or None
