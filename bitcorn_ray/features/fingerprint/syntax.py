"""The normal form of a source: what its syntax tree says, whatever it looks like.

Each node is written as its type and its fields; docstrings and other strings that stand alone, the places of nodes,
empty fields and those that only some versions of Python fill are left out, and the pieces of an f-string are put
together. So comments, layout and the version of Python do not count, and all else does.
"""

from __future__ import annotations

import ast
import dis
import hashlib
import inspect
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from types import CodeType
from typing import Any, Protocol

from bitcorn_ray.errors import BitcornError

__all__ = ["Memo", "SourceFacts", "code_shape", "facts_of_tree", "globals_read", "source_facts"]

_FORM = f"2:{sys.hexversion}:{sys.flags.optimize}"  # of what is kept: the shapes of compiled code are of one Python
_SILENT = frozenset({"ctx", "kind", "type_comment", "type_ignores"})
_BUILT_IN = frozenset({"exec", "eval", "__import__"})
_DYNAMIC = frozenset(
    {"import_module", "exec_module", "spec_from_file_location", "run_path", "run_module", "__import__"}
)
_HOMES_OF_DYNAMIC = frozenset({"builtins", "importlib", "importlib.util", "runpy"})

_HAS_DOCSTRING = 0x4000000  # flag of code; `inspect` has no name for it in Python 3.13


class Memo(Protocol):
    """Keeps facts by the hash of the source that they are of."""

    def recall(self, name: str) -> dict[str, Any] | None:
        """Return what was kept under a name, or None."""

    def keep(self, name: str, value: dict[str, Any]) -> None:
        """Keep a value; may do nothing."""


@dataclass(frozen=True)
class SourceFacts:
    """What a source says.

    tree: digest of the normal form, the same in all versions of Python.
    imports: (module, level of a relative import, names or none) of each statement that can run.
    dynamic: where it could run code that it does not name.
    used: names of globals and attributes that its functions read, or may read by `getattr`.
    functions: shapes of the functions of each qualified name, in their order; see `code_shape`.
    """

    tree: str
    imports: tuple[tuple[str, int, tuple[str, ...]], ...]
    dynamic: tuple[str, ...]
    used: tuple[str, ...]
    functions: Mapping[str, tuple[str, ...]]


def source_facts(source: bytes, memo: Memo | None = None) -> SourceFacts:
    """Read a source. Raises BitcornError where it is no Python."""
    name = hashlib.sha256(_FORM.encode() + b"\n" + source).hexdigest()[:32]
    kept = None if memo is None else memo.recall(name)
    if kept is not None:
        return SourceFacts(
            kept["tree"],
            tuple((module, level, tuple(names)) for module, level, names in kept["imports"]),
            tuple(kept["dynamic"]),
            tuple(kept["used"]),
            {function: tuple(shapes) for function, shapes in kept["functions"].items()},
        )
    try:
        tree = ast.parse(source)
        compiled = compile(tree, "<source>", "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError) as error:
        raise BitcornError(f"the source of a feature system is no Python: {error}") from error
    facts = facts_of_tree(tree, compiled)
    if memo is not None:
        memo.keep(name, json.loads(json.dumps(asdict(facts))))
    return facts


def facts_of_tree(tree: ast.AST, compiled: CodeType) -> SourceFacts:
    """Read a tree that was compiled to `compiled`."""
    digest = hashlib.sha256("".join(_written(tree)).encode()).hexdigest()
    seen = list(_executed(tree))
    functions: dict[str, list[str]] = {}
    used = set(_named_by_text(seen))
    for code in _functions(compiled):
        used |= _names_used(code)
        for each in _nested(code):
            functions.setdefault(each.co_qualname, []).append(code_shape(each))
    shapes = {name: tuple(found) for name, found in functions.items()}
    return SourceFacts(digest, tuple(_imports(seen)), tuple(_dynamic(seen)), tuple(sorted(used)), shapes)


# The normal form


def _written(tree: ast.AST) -> Iterator[str]:
    """Write a tree; with a stack of its own, as long sums are nested more deeply than Python's stack allows."""
    stack: list[tuple[str, Any]] = [("", tree)]
    while stack:
        text, item = stack.pop()
        if text:
            yield text
        elif isinstance(item, ast.AST):
            yield f"{type(item).__name__}("
            stack.append((")", None))
            for name, value in reversed(list(ast.iter_fields(item))):
                if name in _SILENT or value is None or value == []:
                    continue
                parts = list(_pieces(value)) if isinstance(item, ast.JoinedStr) else value
                stack += [("", parts), (f"{name}=", None)]
        elif isinstance(item, list):
            yield "["
            stack.append(("]", None))
            for each in reversed(item):
                if not _says_nothing(each):
                    stack += [(",", None), ("", each)]
        elif type(item) is int:
            yield f"int:{item:x};"  # a number of any length
        else:
            yield f"{type(item).__name__}:{item!a};"  # which characters can be printed depends on the version


def _says_nothing(node: Any) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _pieces(values: list[ast.expr]) -> Iterator[ast.expr]:
    """Pieces of an f-string: neighbouring texts as one, empty ones left out."""
    text = ""
    for value in values:
        if isinstance(value, ast.Constant) and isinstance(value.value, str):
            text += value.value
            continue
        if text:
            yield ast.Constant(text)
        text = ""
        yield value
    if text:
        yield ast.Constant(text)


# What a tree leads to


def _executed(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those under `if TYPE_CHECKING` and `if __name__ == "__main__"`."""
    stack = [tree]
    while stack:
        node = stack.pop()
        yield node
        skipped = isinstance(node, ast.If) and _is_never_true(node.test)
        stack += reversed(node.orelse if skipped else list(ast.iter_child_nodes(node)))  # type: ignore[attr-defined]


def _is_never_true(test: ast.expr) -> bool:
    if isinstance(test, ast.Compare):
        return ast.unparse(test) == "__name__ == '__main__'"
    return getattr(test, "id", getattr(test, "attr", None)) == "TYPE_CHECKING"


def _imports(nodes: list[ast.AST]) -> Iterator[tuple[str, int, tuple[str, ...]]]:
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from ((alias.name, 0, ()) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or "", node.level, tuple(alias.name for alias in node.names)


def _dynamic(nodes: list[ast.AST]) -> Iterator[str]:
    for node in nodes:
        found = ""
        if isinstance(node, ast.Name) and node.id in _BUILT_IN:
            found = node.id
        elif isinstance(node, ast.Attribute):
            builtin = isinstance(node.value, ast.Name) and node.value.id in ("builtins", "__builtins__")
            found = node.attr if node.attr in (_BUILT_IN if builtin else _DYNAMIC) else ""
        elif isinstance(node, ast.ImportFrom) and node.module in _HOMES_OF_DYNAMIC:
            found = next((alias.name for alias in node.names if alias.name in _DYNAMIC | _BUILT_IN), "")
        if found:
            yield f"{found} in line {node.lineno}"  # type: ignore[attr-defined]


def _named_by_text(nodes: list[ast.AST]) -> Iterator[str]:
    """Texts that can name an attribute or global: arguments, as of `getattr`, and subscripts, as of `globals()`."""
    for node in nodes:
        given = node.args if isinstance(node, ast.Call) else [node.slice] if isinstance(node, ast.Subscript) else []
        for each in given:
            if isinstance(each, ast.Constant) and isinstance(each.value, str) and each.value.isidentifier():
                yield each.value


# Compiled code


def _names_used(code: CodeType) -> set[str]:
    """Names of globals and attributes that code refers to, nested functions included."""
    return {name for each in _nested(code) for name in each.co_names}


def globals_read(code: CodeType) -> set[str]:
    """Names of globals that code reads, nested functions included; attributes left out."""
    reads = (each for nested in _nested(code) for each in dis.get_instructions(nested))
    return {str(each.argval) for each in reads if each.opname in ("LOAD_GLOBAL", "LOAD_NAME")}


def code_shape(code: CodeType) -> str:
    """Digest of what a compiled function does, without where it stands and its docstring; of one version of Python."""
    return hashlib.sha256(repr(_shape(code)).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _shape(code: CodeType) -> tuple[Any, ...]:
    first = 1 if _has_docstring(code) else 0
    constants = tuple(map(_constant, code.co_consts[first:]))
    return code.co_qualname, code.co_code, code.co_names, code.co_varnames, code.co_freevars, constants


def _constant(value: Any) -> Any:
    if isinstance(value, CodeType):
        return _shape(value)
    if isinstance(value, tuple):
        return tuple(map(_constant, value))
    if isinstance(value, frozenset):
        return "frozenset", sorted(map(repr, value))  # its order differs with how it was loaded
    return type(value).__name__, repr(value)


def _has_docstring(code: CodeType) -> bool:
    if sys.version_info >= (3, 13):
        return bool(code.co_flags & _HAS_DOCSTRING)
    return not code.co_name.startswith("<") and bool(code.co_consts) and isinstance(code.co_consts[0], str)


def _functions(code: CodeType) -> Iterator[CodeType]:
    """Outermost functions of a module or class; not what some versions of Python make a function of."""
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            own = constant.co_name in ("<lambda>", "<genexpr>") or not constant.co_name.startswith(("<", "__annotate"))
            if own and constant.co_flags & inspect.CO_OPTIMIZED:
                yield constant
            else:
                yield from _functions(constant)


def _nested(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _nested(constant)
