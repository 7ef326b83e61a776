"""The identity of a cache entry: the one place where a key is made.

A key is a hash of everything that decides the content, and of nothing else:
1. the bars: times and all price and volume columns, bit by bit;
2. the feature system: name, version, parameters, features;
3. the code: the source of the module that defines the system's function and of every module of the same package, or
   of this one, whose functions, classes or modules it uses, and so on from there; and the versions of the libraries
   that compute.
File times, paths, symbols, workers and machines are not in it: equal bars share one entry wherever they come from.
"""

from __future__ import annotations

import hashlib
import json
import sys
from functools import cache
from types import ModuleType
from typing import Any

import numpy as np
import talib

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.features.registry import FeatureSystem
from bitcorn_ray.market.bars import Bars

__all__ = ["KEY_LENGTH", "code_digest", "entry_key"]

KEY_LENGTH = 32  # hexadecimal digits: 128 bits
_FORMAT = 1  # of the stored files; another one makes other keys


def entry_key(bars: Bars, system: FeatureSystem) -> str:
    """Key of the features of these bars: 32 hexadecimal digits.

    Raises BitcornError where the system's parameters are not JSON or its code cannot be read.
    """
    columns = bars.columns()
    what = {
        "format": _FORMAT,
        "system": system.name,
        "version": system.version,
        "parameters": dict(system.parameters),
        "features": system.features,
        "code": code_digest(system.function.__module__),
        "libraries": {"numpy": np.__version__, "talib": talib.__version__},
        "columns": {name: [column.dtype.str, len(column)] for name, column in columns.items()},
    }
    try:
        digest = hashlib.sha256(json.dumps(what, sort_keys=True, allow_nan=False).encode())
    except (TypeError, ValueError) as error:
        raise BitcornError(f"parameters of feature system {system.name!r} are no plain JSON values: {error}") from error
    for column in columns.values():
        digest.update(np.ascontiguousarray(column).data)
    return digest.hexdigest()[:KEY_LENGTH]


@cache
def code_digest(module_name: str) -> str:
    """Hash of the sources of a module and of what it uses in its own package and in this one.

    Raises BitcornError for code that has no source file (typed into a session): its identity would be a guess.
    """
    packages = {module_name.partition(".")[0], __name__.partition(".")[0]}
    reached: dict[str, bytes] = {}
    waiting = [module_name]
    while waiting:
        name = waiting.pop()
        if name in reached:
            continue
        module = sys.modules[name]
        reached[name] = _source(module)
        waiting += _used_modules(module, packages) - reached.keys()
    digest = hashlib.sha256()
    for name in sorted(reached):
        digest.update(f"{name}\0{len(reached[name])}\0".encode() + reached[name])
    return digest.hexdigest()[:KEY_LENGTH]


def _source(module: ModuleType) -> bytes:
    path = getattr(module, "__file__", None)
    if path is None:
        raise BitcornError(f"module {module.__name__!r} has no source file: define the feature system in a .py file")
    with open(path, "rb") as file:
        return file.read()


def _used_modules(module: ModuleType, packages: set[str]) -> set[str]:
    def home(value: Any) -> str:
        return value.__name__ if isinstance(value, ModuleType) else str(getattr(value, "__module__", ""))

    homes = {home(value) for value in vars(module).values()}
    return {name for name in homes if name in sys.modules and name.partition(".")[0] in packages}
