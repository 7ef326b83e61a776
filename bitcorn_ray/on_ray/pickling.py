"""Pickling by value, for code that workers do not have or have in another version.

1. Functions and classes of the user's modules are pickled by value and not by the names of their modules.
2. A function with an `lru_cache` is pickled as the wrapped function, with an empty cache.
3. For imports inside functions the modules travel too: each is unpickled when a worker imports its name.
"""

from __future__ import annotations

import copyreg
import functools
import importlib.abc
import importlib.machinery
import pickle
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from types import ModuleType
from typing import Any

from ray import cloudpickle

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.fingerprint.code import CodeIdentity, loaded_user_modules


def pack(value: Any, code: CodeIdentity) -> bytes:
    """Pickle a function or object with the user's modules of its code, for `unpack` in another process.

    Raises BitcornError for what cannot be pickled.
    """
    modules = loaded_user_modules(code)
    with _by_value(modules):
        try:
            stored = cloudpickle.dumps(value)
        except Exception as error:
            raise BitcornError(
                f"what {code.function} reads cannot be sent to workers ({type(error).__name__}: {error}): create it "
                "inside the function, or keep plain values, arrays and functions in the module"
            ) from error
        sources = {}
        for module in modules:
            with suppress(Exception):  # without it, only an import inside a function fails
                sources[module.__name__] = cloudpickle.dumps(module)
    return pickle.dumps((sources, stored))


def dumped_by_value(function: Callable[..., Any]) -> bytes:
    """Pickle a function, or a partial of one, with the code of its module: the receiver may have another version."""
    with _by_value([sys.modules[getattr(function, "func", function).__module__]]):
        return cloudpickle.dumps(function)


def unpack(stored: bytes) -> Any:
    """Return what was packed, with globals of its own; its code can import the modules that travelled with it."""
    sources, value = pickle.loads(stored)
    for name in sources:  # remove an earlier version
        sys.modules.pop(name, None)
        package, _, last = name.rpartition(".")
        vars(sys.modules.get(package, ModuleType(""))).pop(last, None)
    sys.meta_path[:] = [_Finder(sources), *(finder for finder in sys.meta_path if not isinstance(finder, _Finder))]
    return pickle.loads(value)


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds packed modules by name. A parent package that exists nowhere else is empty."""

    def __init__(self, sources: Mapping[str, bytes]) -> None:
        self.sources = sources
        self.packages = {
            ".".join(parts[:end]) for name in sources for parts in [name.split(".")] for end in range(1, len(parts))
        }

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name not in self.sources and (
            name not in self.packages or importlib.machinery.PathFinder.find_spec(name, path)
        ):
            return None
        return importlib.machinery.ModuleSpec(name, self, is_package=name in self.packages)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return pickle.loads(self.sources[spec.name]) if spec.name in self.sources else None

    def exec_module(self, module: ModuleType) -> None:
        """Do nothing: the module was executed before it was packed."""


@contextmanager
def _by_value(modules: Sequence[ModuleType]) -> Iterator[None]:
    for module in modules:
        cloudpickle.register_pickle_by_value(module)
    copyreg.pickle(functools._lru_cache_wrapper, _reduced)
    try:
        yield
    finally:
        del copyreg.dispatch_table[functools._lru_cache_wrapper]
        for module in modules:
            cloudpickle.unregister_pickle_by_value(module)


def _reduced(function: Any) -> str | tuple[Any, ...]:
    """Return how to pickle a function with a cache: by its name, or by value if it is the user's."""
    name, home = function.__qualname__, function.__module__
    if home == "__main__" or home in cloudpickle.list_registry_pickle_by_value() or "<locals>" in name:
        return _cached, (function.__wrapped__, function.cache_parameters())
    return str(name)


def _cached(function: Callable[..., Any], parameters: Mapping[str, Any]) -> Callable[..., Any]:
    return functools.lru_cache(**parameters)(function)
