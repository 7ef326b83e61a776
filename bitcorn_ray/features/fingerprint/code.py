"""What counts as the code of a feature system, and its digest.

1. Start with the module that defines the system's function, and with `features.system`, which calls it.
2. From a module, go on to every module that it imports, at its top or inside a function (not under `if TYPE_CHECKING`
   or `if __name__ == "__main__"`). `from package import name` leads to where a function or class was defined, and to
   the package's `__init__` only for other values. A module that cannot be imported counts as missing.
3. A module of an installed library ends the walk: its version counts, and numpy, pandas and TA-Lib always do. The
   standard library does not count. Modules of this package, and of the package that the function is from, are followed
   wherever they are installed, and so is what has no version.
4. A followed module counts by its syntax tree: names, operators and constants, without comments, docstrings, layout and
   whatever differs between versions of Python.
5. What the names that functions of followed modules read are bound to when the digest is made counts too: it may come
   from the environment, a file or an assignment from outside: plain values; functions with their defaults, closures and
   what they wrap, and the modules that these are from; classes with their attributes; other objects by their class and
   what pickle would store of them.
6. A function of a notebook or a script that is run counts by its own tree, and by the names that it reads.

What cannot be identified is refused, never guessed: code without a source, a source that was edited after it was
imported, `exec`, `eval` and imports of computed names, a name bound to an object that pickle cannot store.

Not seen: files, environment and clock that are read while it computes, and attributes of computed names.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import logging
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import (
    BuiltinFunctionType,
    CellType,
    FunctionType,
    GenericAlias,
    MappingProxyType,
    MethodType,
    ModuleType,
    UnionType,
)
from typing import Any

import numpy as np

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.features.fingerprint import loaded
from bitcorn_ray.features.fingerprint.loaded import MISSING, has_version, load, module_facts, version_of
from bitcorn_ray.features.fingerprint.syntax import Memo, SourceFacts, globals_read

__all__ = ["CodeIdentity", "code_identity", "loaded_user_modules", "require_same_code"]

_OWN = __name__.partition(".")[0]
_CALLER = f"{_OWN}.features.system"
_LIBRARIES = ("numpy", "pandas", "talib")
_ATOMS = frozenset({type(None), bool, int, float, complex, str, bytes, type(...)})
# They say nothing but that they are there.
_SILENT = (logging.Logger, type(threading.Lock()), type(threading.RLock()), GenericAlias, UnionType)


@dataclass(frozen=True, kw_only=True)
class CodeIdentity:
    """What the code of a system is, in plain values that can be compared part by part.

    function: module and qualified name. modules: digest of each followed module (or function of a notebook).
    values: digest of what each one's names are bound to. libraries: version of each.
    """

    function: str
    modules: Mapping[str, str]
    values: Mapping[str, str]
    libraries: Mapping[str, str]


def code_identity(function: Callable[..., Any], memo: Memo | None = None) -> CodeIdentity:
    """Identify the code of a system's function.

    memo: keeps what sources say by the sources' bytes, as parsing takes longer than all the rest.
    Raises BitcornError for what cannot be identified, with what it is and what to do.
    """
    if (name := getattr(function, "__qualname__", None)) is None:
        raise BitcornError(f"{function!r} is no plain function: define the features in a function of a .py file")
    walk = _Walk(frozenset({_OWN, str(function.__module__).partition(".")[0]}), memo)
    walk.lead(function.__module__)
    try:
        while walk.find(function):  # more modules read more names, and more names lead to more modules
            pass
    except RecursionError:
        raise BitcornError(f"what {name} reads is nested too deeply to be identified: keep it in arrays") from None
    for library in _LIBRARIES:
        walk.libraries.setdefault(library, version_of(library) or MISSING)
    return CodeIdentity(
        function=f"{function.__module__}:{name}",
        modules=dict(sorted(walk.modules.items())),
        values=dict(sorted(walk.values.items())),
        libraries=dict(sorted(walk.libraries.items())),
    )


def require_same_code(driver: CodeIdentity) -> None:
    """Check that this process has the modules of this package, and the libraries, that another process identified.

    Raises BitcornError with the difference. A worker calls it before it computes under a key that the driver made.
    """
    for name, digest in driver.modules.items():
        if name.partition(".")[0] == _OWN:
            module = load(name)
            if (module_facts(module).tree if module else MISSING) != digest:
                raise BitcornError(
                    f"this worker has another version of {name}: install the same bitcorn_ray everywhere"
                )
    for name, version in driver.libraries.items():
        if not has_version(name, version):
            here = version_of(name) or MISSING
            raise BitcornError(
                f"this worker has {name} {here} and the driver {version}: install the same versions everywhere"
            )


def loaded_user_modules(code: CodeIdentity) -> list[ModuleType]:
    """Return the modules of an identity that are neither this package's nor libraries."""
    names = [name for name in code.modules if name.partition(".")[0] != _OWN and ":" not in name]
    return [sys.modules[name] for name in names if name in sys.modules]


@dataclass
class _Walk:
    """What has been found so far, and what is to be looked at."""

    packages: frozenset[str]  # followed wherever they are installed
    memo: Memo | None
    modules: dict[str, str] = field(default_factory=dict)
    values: dict[str, str] = field(default_factory=dict)
    libraries: dict[str, str] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)  # names that functions of the modules read
    waiting: list[str] = field(default_factory=lambda: [_CALLER])
    kinds: dict[str, str] = field(default_factory=dict)
    texts: dict[int, tuple[Any, str]] = field(default_factory=dict)  # of objects by address, and the object

    def find(self, function: Callable[..., Any]) -> bool:
        """Follow what is waiting, then look at all values; tells whether these led to anything new."""
        self._follow()
        known = len(self.modules), len(self.libraries)
        self.texts.clear()
        self.values.clear()
        name = f"{function.__module__}:{function.__qualname__}"
        self.values[name] = _digest([self.text(function, name)])
        for name in sorted(self.modules):
            module = sys.modules.get(name)
            if module is not None and self.modules[name] != MISSING:
                self._read_values(module)
        self._follow()
        return known != (len(self.modules), len(self.libraries))

    # Modules

    def _follow(self) -> None:
        while self.waiting:
            name = self.waiting.pop()
            if name in self.modules or (kind := self._kind(name)) == "standard":
                continue
            if kind in ("library", MISSING):
                top = name.partition(".")[0]
                self.libraries[top] = (version_of(top) if kind == "library" else None) or MISSING
                continue
            module = load(name)
            if module is None:
                self.modules[name] = MISSING
                continue
            facts = module_facts(module, self.memo)
            self.modules[name] = facts.tree
            self.used.update(facts.used)
            self._follow_imports(facts, module.__package__ or "", name)

    def _follow_imports(self, facts: SourceFacts, package: str, where: str) -> None:
        if facts.dynamic and where.partition(".")[0] != _OWN:
            raise BitcornError(
                f"{where} uses {facts.dynamic[0]}, so that its code cannot be identified: import what the features "
                "need by name, or keep them in a module that does without"
            )
        for name, level, names in facts.imports:
            base = package.rsplit(".", level - 1)[0] if level > 1 else package
            target = ".".join(filter(None, (base, name))) if level else name
            if not names or self._kind(target) != "project":
                self.waiting.append(target)
            for imported in names if self._kind(target) == "project" else ():
                self.waiting.append(loaded.home_of_import(target, imported))

    def _kind(self, name: str) -> str:
        """Tell whether a module is of the standard library, of a library, of the project, or missing."""
        if (top := name.partition(".")[0]) in self.packages or top == "__main__":
            return "project"
        if top not in self.kinds:
            self.kinds[top] = loaded.kind_of_place(top)
        return self.kinds[top]

    # Values

    def _read_values(self, module: ModuleType) -> None:
        """Describe what the names that functions read are bound to in a module."""
        names = vars(module)
        if "__getattr__" in names:  # it makes names when they are asked for
            for name in sorted(self.used & set(dir(module)) - set(names)):
                getattr(module, name, None)
        texts = [
            f"{name}={self.text(names[name], f'{name} in {module.__name__}')}"
            for name in sorted(self.used & set(names))
            if not (name.startswith("__") and name.endswith("__"))
        ]
        if texts:
            self.values[module.__name__] = _digest(texts)

    def text(self, value: Any, where: str) -> str:
        """Describe a value, the same in all processes. Raises BitcornError for one that has no stable description."""
        if type(value) in _ATOMS:
            return f"{type(value).__name__}:{value!r}"
        if id(value) not in self.texts:
            self.texts[id(value)] = value, "itself"  # where it holds itself
            self.texts[id(value)] = value, self._describe(value, where)
        return self.texts[id(value)][1]

    def _all(self, kind: str, values: Iterator[Any] | list[Any] | tuple[Any, ...], where: str) -> str:
        return f"{kind}:{_digest([self.text(value, where) for value in values])}"

    def _describe(self, value: Any, where: str) -> str:
        kind = type(value)
        if isinstance(value, ModuleType):
            self.lead(value.__name__)
            return f"module:{value.__name__}"
        if isinstance(value, _SILENT) or kind.__module__ in ("typing", "weakref"):
            return f"silent:{kind.__name__}"
        if kind is FunctionType:
            return self._function(value, where)
        if isinstance(value, type):
            return self._class(value, where)
        if simple := loaded.simple_text(value):
            return simple
        if kind is dict or kind is MappingProxyType:
            return self._all("dict", [each for item in value.items() for each in item], where)
        if kind in (list, tuple):
            return self._all(kind.__name__, value, where)
        if kind in (set, frozenset):
            return f"set:{_digest(sorted(self.text(each, where) for each in value))}"
        if kind is MethodType:
            return self._all("method", [value.__func__, value.__self__], where)
        if kind is BuiltinFunctionType and not isinstance(value.__self__, ModuleType | None):
            return self._all(f"method {value.__qualname__}", [value.__self__], where)
        if kind is functools._lru_cache_wrapper or hasattr(value, "py_func"):  # of functools and numba
            return self._all(f"{kind.__module__}.{kind.__name__}", [*loaded.functions_inside(value)], where)
        return self._object(value, where)

    def _object(self, value: Any, where: str) -> str:
        kind = type(value)
        self.lead(kind.__module__)
        try:
            if isinstance(value, np.ufunc) and "(vectorized)" in value.__name__:
                raise TypeError("the function inside cannot be seen")
            stored = value.__name__ if isinstance(value, np.ufunc) else value.__reduce_ex__(4)
        except BitcornError:
            raise
        except Exception as error:
            raise BitcornError(
                f"{where} is bound to an object of {kind.__module__}.{kind.__qualname__}, which has no stable identity "
                f"({error}): make it inside the function, use plain values, arrays and functions, or pass it as a "
                "parameter of the feature system"
            ) from error
        if isinstance(stored, str):
            self.lead(getattr(value, "__module__", None))
            return f"named:{getattr(value, '__module__', kind.__module__)}:{stored}"
        make, arguments, state, items, pairs = (*stored, None, None, None)[:5]
        if isinstance(state, dict):  # without what is only kept to be quick
            state = {
                k: v for k, v in state.items() if not isinstance(loaded.of_class(kind, k), functools.cached_property)
            }
        contents = [kind, make, arguments, state, list(items or ()), list(pairs or ())]
        return self._all("object", contents, where)

    def _class(self, kind: type, where: str) -> str:
        self.lead(kind.__module__)
        name = f"class:{kind.__module__}:{kind.__qualname__}"
        if self._kind(kind.__module__) != "project":
            return name
        parts = [name, *(self.text(base, where) for base in (type(kind), *kind.__bases__))]
        if dataclasses.is_dataclass(kind):
            defaults = [(each.name, each.default, each.default_factory) for each in dataclasses.fields(kind)]
            parts.append(self.text(defaults, f"a default of {kind.__qualname__}"))
        for name, member in sorted(vars(kind).items()):
            inside = f"{name} of {kind.__qualname__} in {kind.__module__}"
            if isinstance(member, FunctionType | staticmethod | classmethod | property | functools.cached_property):
                written = [f for f in loaded.functions_inside(member) if not self._is_generated(f)]
                if written and not name.startswith("__annotate"):  # which others there are depends on the version
                    parts.append(f"{name}={self._all(type(member).__name__, written, inside)}")
            elif name in ("__slots__", "__match_args__") or (name in self.used and not name.startswith("__")):
                parts.append(f"{name}={self.text(member, inside)}")
        return f"class:{_digest(parts)}"

    def _is_generated(self, function: FunctionType) -> bool:
        """Tell whether a method was made for a class by a library, such as dataclasses; its fields say what it does."""
        home = str(function.__globals__.get("__name__"))
        return function.__code__.co_filename == "<string>" or self._kind(home) in ("standard", MISSING)

    def _function(self, function: FunctionType, where: str) -> str:
        home, code = str(function.__globals__.get("__name__")), function.__code__
        name = f"function:{home}:{code.co_qualname}"
        self.lead(home)
        parts = [name]
        if home == "__main__":
            facts = loaded.function_facts(function)
            self.modules.setdefault(f"__main__:{function.__qualname__}", facts.tree)
            self.used.update(facts.used)
            self._follow_imports(facts, function.__globals__.get("__package__") or "", function.__qualname__)
            read = sorted(globals_read(code) & set(function.__globals__))
            parts += [
                facts.tree,
                *(f"{n}={self.text(function.__globals__[n], f'{n} in a notebook or script')}" for n in read),
            ]
        elif self._kind(home) == "project":
            if (module := load(home)) is None:
                raise BitcornError(f"{where} is of {home}, which cannot be imported: define it in a .py file")
            parts.append(loaded.function_mark(function, module, self.memo))
        elif loaded.of_module(home, code.co_qualname) is function:
            return name
        if not (function.__closure__ or function.__defaults__ or function.__kwdefaults__ or vars(function)):
            return ":".join(parts)
        inside = f"{code.co_qualname} in {home}"
        for variable, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
            parts.append(f"{variable}={self._cell(cell, f'{variable} in {inside}')}")
        for defaults in (function.__defaults__, function.__kwdefaults__):
            parts.append(self.text(defaults, f"a default of {inside}"))
        for name, value in sorted(vars(function).items()):
            if name in self.used or name == "__wrapped__":
                parts.append(f"{name}={self.text(value, f'{name} of {inside}')}")
        return f"function:{_digest(parts)}"

    def _cell(self, cell: CellType, where: str) -> str:
        try:
            content = cell.cell_contents
        except ValueError:
            return "empty"
        return self.text(content, where)

    def lead(self, module: str | None) -> None:
        if isinstance(module, str) and module != "__main__":
            self.waiting.append(module)


def _digest(texts: list[str]) -> str:
    return hashlib.sha256("\n".join(texts).encode("utf-8", "surrogatepass")).hexdigest()
