"""The source that loaded code was compiled from.

A source on disk may have been edited since its module was imported, here or by a colleague, while this process goes on
computing with what it loaded. So the functions of a module are compared with what its source compiles to, and the
source is read once: what it says is kept until the module is loaded anew.

Functions of a notebook, or of a script that is run, are found in the text of their cell or script.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib
import importlib.metadata
import importlib.util
import linecache
import os
import re
import sys
import sysconfig
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import PurePath
from types import CodeType, FunctionType, ModuleType
from typing import Any

import numpy as np

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.features.fingerprint.syntax import Memo, SourceFacts, code_shape, facts_of_tree, source_facts

__all__ = [
    "MISSING", "function_facts", "function_mark", "functions_inside", "has_version", "home_of_import", "kind_of_place",
    "load", "module_facts", "of_class", "of_module", "simple_text", "version_of",
]  # fmt: skip

MISSING = "missing"
_DISTRIBUTIONS = {"talib": "TA-Lib"}

_FUTURE = 0x1FE0000  # flags of `from __future__ import` in code


@dataclass
class _Known:
    """What the source of a module said when it was loaded as `spec`. marks: of its functions' code, by address.

    old: the source is older than this process, so that what was loaded can only be of it.
    """

    module: ModuleType
    spec: Any  # reloading a module makes another one
    old: bool
    facts: SourceFacts
    marks: dict[int, tuple[CodeType, str]] = field(default_factory=dict)


_known: dict[str, _Known] = {}
_cells: dict[int, tuple[CodeType, SourceFacts]] = {}


def module_facts(module: ModuleType, memo: Memo | None = None) -> SourceFacts:
    """Return what the source of a loaded module says.

    Raises BitcornError for a module without a Python source, and for one that was edited after it was imported.
    """
    return _known_of(module, memo).facts


def function_mark(function: FunctionType, module: ModuleType, memo: Memo | None = None) -> str:
    """Return which of the functions of its name in a module a function is; "" where there is one only.

    Raises BitcornError for a function that the module's source does not have.
    """
    if function.__globals__ is not vars(module):
        raise BitcornError(
            f"{function.__qualname__} is of an earlier import of {module.__name__}: take it from the module as it is "
            "loaded now"
        )
    return _mark(_known_of(module, memo), function.__code__)


def functions_inside(value: Any) -> Iterator[FunctionType]:
    """Functions that a descriptor or wrapper stands for; a plain function stands for itself."""
    if isinstance(value, FunctionType):
        yield value
        return
    for name in ("__func__", "__wrapped__", "py_func", "func", "fget", "fset"):
        try:
            inside = getattr(value, name, None)
        except Exception:
            continue
        if isinstance(inside, FunctionType):
            yield inside


def function_facts(function: FunctionType) -> SourceFacts:
    """Return what the source of a function of a notebook or script says.

    Raises BitcornError where its text is not known, is no longer what was run, or holds two functions in one line.
    """
    code = function.__code__
    if id(code) in _cells:
        return _cells[id(code)][1]
    where = f"{function.__qualname__} in {code.co_filename}, line {code.co_firstlineno},"
    linecache.checkcache(code.co_filename)
    source = "".join(linecache.getlines(code.co_filename, function.__globals__))
    if not source:
        raise BitcornError(f"{where} has no source: define it in a .py file or in a notebook")
    flags = code.co_flags & _FUTURE
    try:
        tree = ast.parse(source)
        compiled = compile(
            tree, code.co_filename, "exec", flags=flags | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True
        )
    except (SyntaxError, ValueError, RecursionError) as error:
        raise BitcornError(f"the source of {where} is no Python: {error}") from error
    nodes = [node for node in ast.walk(tree) if _begins(node) == (code.co_firstlineno, code.co_name)]
    here = [each for each in _all_codes(compiled) if each.co_firstlineno == code.co_firstlineno]
    if code_shape(code) not in map(code_shape, here):
        raise BitcornError(f"{where} is not what its source says now: run the cell or script again")
    if len(nodes) != 1:
        raise BitcornError(f"{where} shares its first line with another function: give each a line of its own")
    _cells[id(code)] = code, facts_of_tree(nodes[0], compiled.replace(co_consts=(code,)))
    return _cells[id(code)][1]


def _begins(node: ast.AST) -> tuple[int, str] | None:
    """First line and name of a function, as its code has them."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return (node.decorator_list[0] if node.decorator_list else node).lineno, node.name
    return (node.lineno, "<lambda>") if isinstance(node, ast.Lambda) else None


def _all_codes(code: CodeType) -> Iterator[CodeType]:
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield constant
            yield from _all_codes(constant)


# Modules


def _known_of(module: ModuleType, memo: Memo | None) -> _Known:
    known = _known.get(module.__name__)
    spec = getattr(module, "__spec__", None)
    if known is None or known.module is not module or known.spec is not spec:
        old = not _touched(getattr(module, "__file__", None) or "")
        known = _Known(module, spec, old, source_facts(_source(module), memo))
        for code in () if old else _codes_defined(module):
            if code.co_qualname in known.facts.functions:  # what a reload left over is refused where it is used
                _mark(known, code)
        _known[module.__name__] = known
    return known


def _codes_defined(module: ModuleType) -> Iterator[CodeType]:
    """Code of the functions and methods that stand in a module under a name."""
    for value in list(vars(module).values()):
        inside = isinstance(value, type) and value.__module__ == module.__name__
        for member in list(vars(value).values()) if inside else [value]:
            for function in functions_inside(member):
                if function.__globals__ is vars(module) and not function.__code__.co_filename.startswith("<"):
                    yield function.__code__


def _mark(known: _Known, code: CodeType) -> str:
    kept = known.marks.get(id(code))
    if kept is not None:
        return kept[1]
    shapes = known.facts.functions.get(code.co_qualname, ())
    if known.old and len(shapes) == 1 and code.co_filename == getattr(known.module, "__file__", None):
        return ""
    shape = code_shape(code)
    if shape in shapes:
        mark = f"#{shapes.index(shape)}" if len(shapes) > 1 else ""
    elif code.co_filename.startswith("<"):
        raise BitcornError(
            f"{code.co_qualname} in {known.module.__name__} was made while the program ran ({code.co_filename}), so "
            "that its code cannot be identified: write it into a .py file"
        )
    elif _touched(code.co_filename) or len(shapes) > 1:
        raise BitcornError(
            f"{code.co_qualname} is not what {code.co_filename} says: it was changed after {known.module.__name__} was "
            "imported. Start anew, or importlib.reload it and use the functions that it has then"
        )
    else:
        mark = ""  # the same source, changed by what imported it: pytest, for one, rewrites assertions
    known.marks[id(code)] = code, mark
    return mark


def _source(module: ModuleType) -> bytes:
    path = getattr(module, "__file__", None)
    if path is None and getattr(module, "__path__", None) is not None:
        return b""  # a namespace package has no code
    if not path or not path.endswith(".py"):
        raise BitcornError(
            f"module {module.__name__} ({path or 'made while the program ran'}) has no source file, so that its code "
            "cannot be identified: write it as a .py file, or install it as a library with a version"
        )
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise BitcornError(f"the source of {module.__name__} cannot be read: {error}") from error


def _touched(path: str) -> bool:
    """Tell whether a file was written, replaced or removed since this process started."""
    try:
        state = os.stat(path)
    except OSError:
        return True
    return max(state.st_mtime, state.st_ctime) >= _PROCESS_START


def _process_start() -> float:
    """When this process started, in seconds of the epoch; 0 where the system does not say."""
    try:
        with open("/proc/self/stat") as file:
            ticks = int(file.read().rpartition(")")[2].split()[19])
        with open("/proc/uptime") as file:
            up = float(file.read().split()[0])
        return time.time() - up + ticks / os.sysconf("SC_CLK_TCK") - 2.0  # both clocks are coarse
    except (OSError, ValueError, IndexError):
        return 0.0


_PROCESS_START = _process_start()


def simple_text(value: Any) -> str | None:
    """Describe an array, a number of NumPy, a path or a pattern; None for anything else."""
    if isinstance(value, np.generic) or type(value) is np.ndarray:
        if value.dtype.hasobject:
            return None
        return f"{value.dtype.descr}:{value.shape}:{hashlib.sha256(value.tobytes()).hexdigest()}"
    if isinstance(value, PurePath):
        return f"path:{value}"
    return f"pattern:{value.pattern!r}:{value.flags}" if isinstance(value, re.Pattern) else None


def of_class(kind: type, name: str) -> Any:
    """Return what a class or its bases have under a name, as it stands there, or None."""
    return next((vars(base)[name] for base in kind.__mro__ if name in vars(base)), None)


def of_module(module: str, qualified: str) -> Any:
    """Return what a loaded module has under a qualified name, or None."""
    value: Any = sys.modules.get(module)
    for name in qualified.split("."):
        value = getattr(value, name, None)
    return value


# Modules and libraries


def load(name: str) -> ModuleType | None:
    """Return a module, loaded now if only a function imports it; None where that fails, as it will for the function."""
    try:
        return sys.modules.get(name) or importlib.import_module(name)
    except (Exception, SystemExit):
        return None


def home_of_import(target: str, name: str) -> str:
    """Module where `from target import name` finds what it binds."""
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


def kind_of_place(top: str) -> str:
    """Tell what a top-level package is by where it lies."""
    if top.startswith("_cython_"):
        return "standard"  # types that compiled libraries share; it has no file
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
    """File of a top-level package, or its folders; None where there is none. Nothing is loaded."""
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
    """Version of a library as it is loaded, else as it is installed; None where it has none."""
    version = getattr(sys.modules.get(library), "__version__", None)
    return version if isinstance(version, str) else _installed_version(library)


def has_version(library: str, version: str) -> bool:
    """Tell whether a version that another process found is the one here, which may not have loaded the library yet.

    It is loaded only where that decides: some say more once they are loaded, 2.1+cpu where 2.1 is installed.
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
        if len(versions) == 1:  # as the library itself says it when it is loaded
            return versions[0]
        return ", ".join(f"{name} {version}" for name, version in zip(names, versions, strict=True)) or None
