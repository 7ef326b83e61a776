"""Identity of code: digests that change when a computation may change, and not when a comment does.

`code_identity` identifies a function:

1. Start with the module that defines the function. Follow every import in it, at the top or inside a function, except
   under `if TYPE_CHECKING` and `if __name__ == "__main__"`. `from package import name` leads to the module that defines
   `name`. A module that cannot be imported counts as missing.
2. Stop at installed libraries: they count by their version. The standard library does not count. Modules of this
   package and of the function's own package are always followed, and so is a library without a version.
3. A followed module counts by its normalised syntax tree: names, operators and constants, without comments, docstrings
   and layout.
4. In modules outside this package, the values of the globals that functions read count too, because they may come from
   the environment or from an assignment at run time: plain values, arrays, functions with their closures and defaults,
   classes, and objects made of these. Other objects are ignored, since the source that creates them counts already.
5. A function of a notebook or script (`__main__`) counts by its own tree and by the globals that it reads.

Code without a stable identity is refused with a remedy: code without a source, code that was edited after its import,
`exec`, `eval`, and imports of computed names; in a closure, a default or a notebook also an object that has no stable
description. What a function reads when it is called, such as files and the clock, is no code (see `features.reads`).
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.machinery
import linecache
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import date, timedelta
from pathlib import PurePath
from types import BuiltinFunctionType, CellType, CodeType, FunctionType, ModuleType, SimpleNamespace
from typing import Any, Protocol

import numpy as np

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.fingerprint.libraries import MISSING, home_of_import, kind_of_package, load, version_of
from bitcorn_ray.fingerprint.syntax import FORMAT, SourceFacts, digest_of, facts_of, facts_of_tree, parsed

_OWN = __name__.partition(".")[0]
_STARTED = time.time()
_LIBRARIES = ("numpy", "pandas", "talib")
_FUTURE_FLAGS = 0x1FE0000  # of `from __future__ import` in a code object
# Types of values that their repr describes completely.
_PLAIN = (
    *(type(None), bool, int, float, complex, str, bytes, type(...), range, slice),
    *(date, timedelta, PurePath, np.generic),
)


class Memo(Protocol):
    """Stores what was parsed, so that another process need not parse it again."""

    def recall(self, name: str) -> dict[str, Any] | None:
        """Return the value stored under a name, or None."""

    def keep(self, name: str, value: dict[str, Any]) -> None:
        """Store a JSON value under a name; may do nothing."""


@dataclass(frozen=True, kw_only=True)
class CodeIdentity:
    """Identity of a function's code, in plain values that can be compared part by part.

    function: `module:qualified name`. modules: digest of each followed module and of each function of a notebook.
    values: digest of the values that each of these reads. libraries: version of each library.
    """

    function: str
    modules: Mapping[str, str]
    values: Mapping[str, str]
    libraries: Mapping[str, str]


def code_identity(
    function: Callable[..., Any], memo: Memo | None = None, callers: tuple[str, ...] = ()
) -> CodeIdentity:
    """Return the identity of a function's code.

    memo: makes repeated calls cheap across processes. callers: modules that call the function and count as well.
    Raises BitcornError for code that has no stable identity.
    """
    if getattr(function, "__qualname__", None) is None:
        raise BitcornError(f"{function!r} is not a plain function: define the features in a function of a .py file")
    name = f"{function.__module__}:{function.__qualname__}"
    record = digest_of([FORMAT, name, *callers])[:32]
    known = (memo.recall(record) if memo else None) or {}
    _facts.update({digest: SourceFacts(**facts) for digest, facts in known.items()})
    walk = _Walk(packages=frozenset({_OWN, function.__module__.partition(".")[0]}))
    try:
        walk.identify(function, name, [function.__module__, *callers])
    except RecursionError:
        raise BitcornError(f"the values that {name} reads are nested too deeply: store them in arrays") from None
    digests = {_loaded[module].digest for module in walk.modules if module in _loaded}
    if memo and digests != known.keys():
        memo.keep(record, {digest: asdict(_facts[digest]) for digest in sorted(digests)})
    for library in _LIBRARIES:
        walk.libraries.setdefault(library, version_of(library) or MISSING)
    return CodeIdentity(
        function=name,
        modules=dict(sorted(walk.modules.items())),
        values=dict(sorted(walk.values.items())),
        libraries=dict(sorted(walk.libraries.items())),
    )


def require_same_code(driver: CodeIdentity) -> None:
    """Raise BitcornError if this process has other bitcorn_ray modules or libraries than the process of an identity.

    A worker calls it before it computes under a key that the driver made.
    """
    for name, digest in driver.modules.items():
        if _is_own(name):
            module = load(name)
            if (_loaded_source(module).facts.tree if module else MISSING) != digest:
                raise BitcornError(
                    f"this worker has another version of {name}: install the same bitcorn_ray on all nodes"
                )
    for name, version in driver.libraries.items():
        if (here := version_of(name) or MISSING) != version:
            raise BitcornError(
                f"this worker has {name} {here} and the driver has {version}: install the same versions on all nodes"
            )


def loaded_user_modules(code: CodeIdentity) -> list[ModuleType]:
    """Return the loaded modules of an identity that belong neither to this package nor to a library."""
    names = [name for name in code.modules if not _is_own(name) and ":" not in name]
    return [sys.modules[name] for name in names if name in sys.modules]


def _is_own(module: str) -> bool:
    return module.partition(".")[0] == _OWN


# Walk from a function to all that it depends on


class _NoIdentityError(BitcornError):
    """A value has no stable description."""


@dataclass
class _Walk:
    packages: frozenset[str]  # followed even where they are installed as libraries
    modules: dict[str, str] = field(default_factory=dict)
    values: dict[str, str] = field(default_factory=dict)
    libraries: dict[str, str] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)  # names that functions of the user's modules read
    waiting: list[str] = field(default_factory=list)
    texts: dict[int, tuple[Any, str]] = field(default_factory=dict)  # by address, with the object to keep it alive

    def identify(self, function: Callable[..., Any], name: str, modules: list[str]) -> None:
        self.waiting += modules
        while self.waiting:  # modules read values, and values lead to further modules
            self._follow_waiting()
            self.texts.clear()
            self.values = {name: digest_of([self.text(function, name)])}
            for module in sorted(self.modules):
                if not _is_own(module) and self.modules[module] != MISSING and ":" not in module:
                    self._read_globals(sys.modules[module])
            self.waiting = [name for name in self.waiting if self._is_new(name)]

    def _is_new(self, name: str) -> bool:
        if name in self.modules or (kind := self._kind(name)) == "standard":
            return False
        return kind == "project" or name.partition(".")[0] not in self.libraries

    def _follow_waiting(self) -> None:
        while self.waiting:
            name = self.waiting.pop()
            if not self._is_new(name):
                continue
            if (kind := self._kind(name)) != "project":
                top = name.partition(".")[0]
                self.libraries[top] = (version_of(top) if kind == "library" else None) or MISSING
            elif (module := load(name)) is None:
                self.modules[name] = MISSING
            else:
                facts = _loaded_source(module).facts
                self.modules[name] = facts.tree
                self._follow_imports(facts, module.__package__ or "", name)

    def _follow_imports(self, facts: SourceFacts, package: str, where: str) -> None:
        if not _is_own(where):
            self.used.update(facts.names, facts.attributes)
            if facts.dynamic:
                raise BitcornError(
                    f"{where} uses {facts.dynamic}, so its code has no stable identity: import what the features need "
                    "by name, or move them to a module that does without"
                )
        for name, level, names in facts.imports:
            base = package.rsplit(".", level - 1)[0] if level > 1 else package
            target = ".".join(filter(None, (base, name))) if level else name
            if not names or self._kind(target) != "project":
                self.waiting.append(target)
            else:
                self.waiting += [home_of_import(target, imported) for imported in names]

    def _kind(self, name: str) -> str:
        top = name.partition(".")[0]
        return "project" if top in self.packages or top == "__main__" else kind_of_package(top)

    def _follow(self, module: Any) -> None:
        if isinstance(module, str) and module != "__main__":
            self.waiting.append(module)

    # Values

    def _read_globals(self, module: ModuleType) -> None:
        names, texts = vars(module), []
        for name in sorted(self.used & names.keys()):
            if not name.startswith("__"):
                with suppress(_NoIdentityError):
                    texts.append(f"{name}={self.text(names[name], f'{name} in {module.__name__}')}")
        if texts:
            self.values[module.__name__] = digest_of(texts)

    def text(self, value: Any, where: str) -> str:
        """Return a description of a value that is the same in all processes. Raises _NoIdentityError if it has none."""
        if isinstance(value, _PLAIN):
            return f"{type(value).__name__}:{value!r}"
        if id(value) not in self.texts:
            self.texts[id(value)] = value, "itself"  # for values that contain themselves
            try:
                self.texts[id(value)] = value, self._describe(value, where)
            except BitcornError:
                del self.texts[id(value)]
                raise
        return self.texts[id(value)][1]

    def _all(self, kind: str, values: Iterable[Any], where: str) -> str:
        return f"{kind}:{digest_of([self.text(value, where) for value in values])}"

    def _describe(self, value: Any, where: str) -> str:
        kind = type(value)
        if isinstance(value, ModuleType):
            self._follow(value.__name__)
            return f"module:{value.__name__}"
        if isinstance(value, FunctionType):
            return self._function(value, where)
        if isinstance(value, type):
            return self._class(value, where)
        if kind is np.ndarray and not value.dtype.hasobject:
            content = hashlib.sha256(np.ascontiguousarray(value).data).hexdigest()
            return f"array:{value.dtype.str}:{value.shape}:{content}"
        if kind is dict:
            return self._all("dict", [part for item in value.items() for part in item], where)
        if kind in (list, tuple):
            return self._all(kind.__name__, value, where)
        if kind in (set, frozenset):
            return f"set:{digest_of(sorted(self.text(part, where) for part in value))}"
        if kind is functools.partial:
            return self._all("partial", [value.func, value.args, value.keywords], where)
        of_module = isinstance(getattr(value, "__self__", None), ModuleType | None)  # else a method of an object
        if (kind is BuiltinFunctionType and of_module) or (kind is np.ufunc and "(vectorized)" not in value.__name__):
            self._follow(home := getattr(value, "__module__", None) or "numpy")
            return f"builtin:{home}:{value.__name__}"
        return self._instance(value, where)

    def _instance(self, value: Any, where: str) -> str:
        kind, state = type(value), getattr(value, "__dict__", None)
        if kind.__module__ == "weakref":
            return "weakref"  # the state of a cache
        for name in ("__wrapped__", "py_func"):  # of functools.lru_cache and numba
            if isinstance(state, dict) and name in state:
                return self._all(f"wrapped by {kind.__qualname__}", [state[name]], where)
        if not isinstance(state, dict) or not (self._kind(kind.__module__) == "project" or kind is SimpleNamespace):
            raise _NoIdentityError(
                f"{where} is an object of {kind.__module__}.{kind.__qualname__}, which has no stable identity: create "
                "it inside the function, use plain values, arrays and functions, or pass it as a parameter of the "
                "feature system"
            )
        parts = [self.text(kind, where)]
        for name, content in sorted(state.items()):
            lazy = isinstance(getattr(kind, name, None), functools.cached_property)
            if not lazy and not name.startswith("__"):
                parts.append(f"{name}={self.text(content, f'{name} of {where}')}")
        return f"object:{digest_of(parts)}"

    def _class(self, kind: type, where: str) -> str:
        self._follow(kind.__module__)
        name = f"class:{kind.__module__}:{kind.__qualname__}"
        if self._kind(kind.__module__) != "project" or _is_own(kind.__module__):
            return name
        parts = [name, *(self.text(base, where) for base in kind.__bases__)]
        for member, value in sorted(vars(kind).items()):
            inside = f"{member} of {kind.__qualname__}"
            if functions := [f for f in _functions_inside(value) if self._is_written(f)]:
                parts.append(f"{member}={self._all('functions', functions, inside)}")
            elif member == "__match_args__" or (isinstance(value, _PLAIN) and not member.startswith("__")):
                parts.append(f"{member}={self.text(value, inside)}")
        return f"class:{digest_of(parts)}"

    def _is_written(self, function: FunctionType) -> bool:
        """Return False for a method that a library such as dataclasses generated: the fields say what it does."""
        home = str(function.__globals__.get("__name__"))
        return function.__code__.co_filename != "<string>" and self._kind(home) == "project"

    def _function(self, function: FunctionType, where: str) -> str:
        home, code = str(function.__globals__.get("__name__")), function.__code__
        parts, inside = [f"function:{home}:{code.co_qualname}"], f"{code.co_qualname} in {home}"
        self._follow(home)
        if home == "__main__":
            parts += self._notebook_function(function)
        elif self._kind(home) != "project":
            if "<locals>" not in code.co_qualname:
                return parts[0]  # its library's version counts
        elif not _is_own(home):
            if (module := load(home)) is None:
                raise BitcornError(f"{where} is defined in {home}, which cannot be imported: define it in a .py file")
            parts.append(_loaded_source(module).number(function))
        for variable, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
            parts.append(f"{variable}={self._all('cell', _contents(cell), f'{variable} in {inside}')}")
        for defaults in (function.__defaults__, function.__kwdefaults__):
            parts.append(self.text(defaults, f"a default of {inside}"))
        return f"function:{digest_of(parts)}"

    def _notebook_function(self, function: FunctionType) -> Iterator[str]:
        facts = _notebook_facts(function)
        self.modules.setdefault(f"__main__:{function.__qualname__}", facts.tree)
        self._follow_imports(facts, function.__globals__.get("__package__") or "", function.__qualname__)
        yield facts.tree
        for name in sorted(function.__globals__.keys() & set(facts.names)):
            yield f"{name}={self.text(function.__globals__[name], f'{name} in a notebook or script')}"


def _contents(cell: CellType) -> list[Any]:
    try:
        return [cell.cell_contents]
    except ValueError:  # the variable is not assigned yet
        return []


def _functions_inside(value: Any) -> list[FunctionType]:
    """Return the functions of a class member: a method, or what a property, staticmethod or classmethod wraps."""
    inside = (value, *(getattr(value, name, None) for name in ("__func__", "__wrapped__", "func", "fget", "fset")))
    return [function for function in inside if isinstance(function, FunctionType)]


# Sources of loaded modules


@dataclass(frozen=True)
class _Source:
    """Source of a module as it was loaded. spec: importlib.reload makes another one."""

    module: ModuleType
    spec: Any
    text: bytes
    digest: str
    facts: SourceFacts

    @functools.cached_property
    def codes(self) -> list[CodeType]:
        """The compiled functions, in the order of the source."""
        return list(_nested_codes(compile(self.text, str(self.module.__file__), "exec", dont_inherit=True)))

    def number(self, function: FunctionType) -> str:
        """Return which of the source's functions of its name a loaded function is, such as "#0".

        Raises BitcornError if the source does not contain it: it was edited after the import, or made at run time.
        """
        module, code = self.module.__name__, function.__code__
        if function.__globals__ is not vars(self.module):
            raise BitcornError(
                f"{function.__qualname__} is from an earlier import of {module}: take it from the module that is "
                "loaded now"
            )
        found = [candidate for candidate in self.codes if candidate.co_qualname == code.co_qualname]
        if code in found:
            return f"#{found.index(code)}"
        # An import hook may change code: pytest rewrites assertions.
        if len(found) == 1 and type(getattr(self.spec, "loader", None)) is not importlib.machinery.SourceFileLoader:
            return "#0"
        raise BitcornError(
            f"{code.co_qualname} is not what {code.co_filename} contains now: it was edited after {module} was "
            "imported, or made while the program ran. Restart, or importlib.reload the module and use its new functions"
        )


_loaded: dict[str, _Source] = {}  # by the name of the module
_facts: dict[str, SourceFacts] = {}  # by the digest of the source


def _loaded_source(module: ModuleType) -> _Source:
    """Return the source of a module; read once, so that an edit counts only after a reload.

    Raises BitcornError for a module without a Python source.
    """
    spec, source = getattr(module, "__spec__", None), _loaded.get(module.__name__)
    if source is None or source.module is not module or source.spec is not spec:
        text = _read_source(module)
        digest = hashlib.sha256(text).hexdigest()[:32]
        if digest not in _facts:
            _facts[digest] = facts_of(text)
        source = _loaded[module.__name__] = _Source(module, spec, text, digest, _facts[digest])
    return source


def _read_source(module: ModuleType) -> bytes:
    path = getattr(module, "__file__", None)
    if path is None and getattr(module, "__path__", None) is not None:
        return b""  # a namespace package
    if not path or not path.endswith(".py"):
        raise BitcornError(
            f"module {module.__name__} ({path or 'made while the program ran'}) has no source file, so its code has no "
            "stable identity: write it as a .py file, or install it as a library with a version"
        )
    try:
        with open(path, "rb") as file:
            changed, text = os.fstat(file.fileno()).st_ctime, file.read()
    except OSError as error:
        raise BitcornError(f"the source of {module.__name__} cannot be read: {error}") from error
    if _is_own(module.__name__) and _STARTED < changed <= time.time():  # not by a clock that is ahead
        raise BitcornError(f"{path} was changed while this process runs: restart it to use the new code")
    return text


def _nested_codes(code: CodeType) -> Iterator[CodeType]:
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield constant
            yield from _nested_codes(constant)


def _notebook_facts(function: FunctionType) -> SourceFacts:
    """Return the facts of a function that was defined in a notebook or script.

    Raises BitcornError if its text is unknown, was edited since it ran, or has two functions in one line.
    """
    code = function.__code__
    where = f"{function.__qualname__} in {code.co_filename}, line {code.co_firstlineno},"
    linecache.checkcache(code.co_filename)
    text = "".join(linecache.getlines(code.co_filename, function.__globals__))
    if not text:
        raise BitcornError(f"{where} has no source: define it in a .py file or in a notebook")
    tree = parsed(text)
    flags = (code.co_flags & _FUTURE_FLAGS) | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    if code not in _nested_codes(compile(tree, code.co_filename, "exec", flags=flags, dont_inherit=True)):
        raise BitcornError(f"{where} is not what its source says now: run the cell or script again")
    nodes = [node for node in ast.walk(tree) if _first_line(node) == code.co_firstlineno]
    if len(nodes) != 1:
        raise BitcornError(f"{where} shares its first line with another function: give each a line of its own")
    return facts_of_tree(nodes[0])


def _first_line(node: ast.AST) -> int | None:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return (node.decorator_list[0] if node.decorator_list else node).lineno
    return node.lineno if isinstance(node, ast.Lambda) else None
