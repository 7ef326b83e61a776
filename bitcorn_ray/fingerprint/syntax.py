"""Digests of source code that ignore comments, docstrings and layout, and what a source imports and reads.

The digest is of the normalised syntax tree: names, operators and constants, the same in all versions of Python.
"""

from __future__ import annotations

import ast
import functools
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bitcorn_ray.errors import BitcornError


@dataclass(frozen=True)
class SourceFacts:
    """What the syntax tree of a source says.

    tree: digest of the normalised tree. imports: module, level of a relative import, and imported names of each import.
    dynamic: the first use of code that the source does not name, "" if there is none. names, attributes: that functions
    read; attributes include strings, which may name one for `getattr`.
    """

    tree: str
    imports: list[tuple[str, int, list[str]]]
    dynamic: str
    names: list[str]
    attributes: list[str]


FORMAT = "1"  # of SourceFacts in a memo
_CALLABLES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
_BUILT_IN = frozenset({"exec", "eval", "__import__"})
_DYNAMIC = _BUILT_IN | {"import_module", "exec_module", "spec_from_file_location", "run_path", "run_module"}


def facts_of(source: bytes) -> SourceFacts:
    """Return the facts of a source. Raises BitcornError if it is not valid Python."""
    return facts_of_tree(parsed(source))


def parsed(source: bytes | str) -> ast.Module:
    """Return the tree of a source. Raises BitcornError if it is not valid Python."""
    try:
        return ast.parse(source)
    except (SyntaxError, ValueError, RecursionError) as error:
        raise BitcornError(f"the source of a feature system is not valid Python: {error}") from error


def facts_of_tree(tree: ast.AST) -> SourceFacts:
    """Return the facts of a tree: of a module, or of one function."""
    nodes = list(_executed(tree))
    read = [node for function in nodes if isinstance(function, _CALLABLES) for node in ast.walk(function)]
    constants = {node.value for node in read if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    attributes = {node.attr for node in read if isinstance(node, ast.Attribute)}
    return SourceFacts(
        tree=_tree_digest(tree),
        imports=list(_imports(nodes)),
        dynamic=next(_dynamic(nodes), ""),
        names=sorted({node.id for node in read if isinstance(node, ast.Name)}),
        attributes=sorted(attributes | {text for text in constants if text.isidentifier()}),
    )


def _tree_digest(tree: ast.AST) -> str:
    return hashlib.sha256("".join(_normal_form(tree)).encode()).hexdigest()


def _normal_form(tree: ast.AST) -> Iterator[str]:
    """Write a tree without docstrings, positions and empty fields, so that versions of Python agree.

    It uses its own stack, because long sums are nested more deeply than Python's stack allows.
    """
    stack: list[tuple[str, Any]] = [("", tree)]
    while stack:
        text, item = stack.pop()
        if text:
            yield text
        elif isinstance(item, ast.AST):
            yield f"{type(item).__name__}("
            stack.append((")", None))
            for name in reversed(item._fields):
                value = getattr(item, name, None)
                if name not in _IGNORED_FIELDS and value is not None and value != []:
                    stack += [("", value), (f"{name}=", None)]
        elif isinstance(item, list):
            yield "["
            stack.append(("]", None))
            for part in reversed(item):
                if not _is_docstring(part):
                    stack += [(",", None), ("", part)]
        else:
            yield f"int:{item:x};" if type(item) is int else f"{type(item).__name__}:{item!a};"


_IGNORED_FIELDS = frozenset({"ctx", "kind", "type_comment", "type_ignores"})


def _is_docstring(node: Any) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _executed(tree: ast.AST) -> Iterator[ast.AST]:
    """Yield all nodes except those under `if TYPE_CHECKING` and `if __name__ == "__main__"`."""
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


def _imports(nodes: list[ast.AST]) -> Iterator[tuple[str, int, list[str]]]:
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from ((alias.name, 0, []) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or "", node.level, [alias.name for alias in node.names]


def _dynamic(nodes: list[ast.AST]) -> Iterator[str]:
    for node in nodes:
        found = ""
        if isinstance(node, ast.Name) and node.id in _BUILT_IN:
            found = node.id
        elif isinstance(node, ast.Attribute):
            builtin = isinstance(node.value, ast.Name) and node.value.id in ("builtins", "__builtins__")
            found = node.attr if node.attr in (_DYNAMIC if builtin else _DYNAMIC - {"exec", "eval"}) else ""
        elif isinstance(node, ast.ImportFrom) and node.module in ("builtins", "importlib", "importlib.util", "runpy"):
            found = next((alias.name for alias in node.names if alias.name in _DYNAMIC), "")
        if found:
            yield f"{found} in line {node.lineno}"  # type: ignore[attr-defined]


# This package


@functools.cache
def package_fingerprint(*rooms: str) -> str:
    """Return a digest of this package's source, or of some of its rooms (folders and top-level modules).

    Raises BitcornError for an unknown room.
    """
    known = package_rooms()
    if unknown := sorted(set(rooms) - set(known)):
        raise BitcornError(f"bitcorn_ray has no room {', '.join(unknown)}: it has {', '.join(known)}")
    return digest_of([f"{room} {_room_digest(room)}" for room in sorted(rooms or known)])[:32]


def package_rooms() -> list[str]:
    """Return the names of this package's rooms: its folders and its top-level modules."""
    root = Path(__file__).parents[1]
    return sorted({path.relative_to(root).parts[0].removesuffix(".py") for path in root.rglob("*.py")})


@functools.cache
def _room_digest(room: str) -> str:
    root = Path(__file__).parents[1]
    paths = sorted((root / room).rglob("*.py")) or [root / f"{room}.py"]
    return digest_of(
        [f"{path.relative_to(root).as_posix()} {_tree_digest(parsed(path.read_bytes()))}" for path in paths]
    )


def digest_of(texts: list[str]) -> str:
    """Return a hash of texts."""
    return hashlib.sha256("\n".join(texts).encode("utf-8", "surrogatepass")).hexdigest()
