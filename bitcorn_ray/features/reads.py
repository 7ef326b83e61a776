"""What a feature function reads besides its bars: files, databases, the network, programs, the environment.

What is read decides the features, so it belongs to their key. A system declares it by `feature_system(files=...,
env=...)`, and content and values go into the key. What is not declared is noticed while the function runs, and refused:

1. Python's audit events tell each file that is opened, each database, connection and program. Files of Python and of
   its packages, modules that are imported, and the system's own folders (`/proc`, time zones) do not count.
2. Environment variables are watched in `os.environ`; those that libraries read do not count.

What the function does in threads of its own, and files that a library opens in C (Parquet by pyarrow), are not noticed.
"""

from __future__ import annotations

import hashlib
import inspect
import os
import sys
import sysconfig
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bitcorn_ray.errors import BitcornError

_EVENTS = {
    "sqlite3.connect": "opens the database",
    "socket.connect": "connects to",
    "subprocess.Popen": "runs",
    "os.system": "runs",
}
# The files of the methods between the reader of a variable and the dictionary.
_ENVIRON = {method.__code__.co_filename for method in (os.getenv, type(os.environ).__getitem__, Mapping.get)}
_CODE = (".py", ".pyc", ".so", ".pyd", ".dll", ".pth")
_FOLDERS = tuple(
    dict.fromkeys(
        f"{os.path.realpath(folder)}{os.sep}"
        for folder in (
            *("/proc", "/sys", "/dev", "/usr/share/zoneinfo", "/usr/lib", "/etc"),
            *(sys.prefix, sys.base_prefix, str(Path(__file__).parents[1])),
            *(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")),
        )
    )
)


@dataclass
class Reads:
    """What was read: resolved paths of files, names of environment variables, and other sources in words."""

    files: list[str] = field(default_factory=list)
    variables: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)


class _Watched(threading.local):
    """What the function that runs in this thread has read; None if none runs."""

    reads: Reads | None = None


_watched = _Watched()
_installed = threading.Lock()


@contextmanager
def watched_reads() -> Iterator[Reads]:
    """Note what this thread reads during a block."""
    _install()
    before, found = _watched.reads, Reads()
    _watched.reads = found
    try:
        yield found
    finally:
        _watched.reads = before


def require_declared(reads: Reads, system: str, files: Sequence[str], variables: Sequence[str]) -> None:
    """Raise BitcornError if something was read that is not declared. files: resolved paths."""
    undeclared = [f"reads {path}" for path in dict.fromkeys(reads.files) if path not in files]
    undeclared += [f"reads the variable {name}" for name in dict.fromkeys(reads.variables) if name not in variables]
    if undeclared:
        raise BitcornError(
            f"feature system {system!r} {undeclared[0]} while it computes, so that its features would stay when that "
            "changes: declare it by feature_system(files=[...]) or (env=[...])"
        )
    if reads.others:
        raise BitcornError(
            f"feature system {system!r} {reads.others[0]} while it computes, so that its features would stay when that "
            "changes: save what it reads to a file, and declare it by feature_system(files=[...])"
        )


def resolved_files(function: Callable[..., Any], files: Sequence[str]) -> tuple[str, ...]:
    """Return the paths of declared files; a relative one is in the folder of the function's module."""
    try:
        folder = Path(inspect.getfile(inspect.unwrap(function))).parent
    except (TypeError, OSError):  # of a notebook
        folder = Path()
    return tuple(os.path.realpath(folder / file) for file in files)


def read_identity(
    function: Callable[..., Any], system: str, files: Sequence[str], variables: Sequence[str]
) -> dict[str, Any]:
    """Return the names and digests of declared files, and the digests of variables by name; empty without any.

    Folders are in no identity. Raises BitcornError for a file that cannot be read.
    """
    contents = list[list[str]]()
    for name, path in zip(files, resolved_files(function, files), strict=True):
        try:
            contents.append([Path(path).name, hashlib.sha256(Path(path).read_bytes()).hexdigest()])
        except OSError as error:
            raise BitcornError(f"feature system {system!r} declares {name}, which cannot be read: {error}") from error
    values = {name: None if (value := os.environ.get(name)) is None else _hashed(value) for name in variables}
    return {kind: found for kind, found in (("files", contents), ("env", values)) if found}


def _hashed(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()  # a variable may hold a secret


def _install() -> None:
    """Install the audit hook, which stays until the process ends, and the watched environment."""
    with _installed:
        if not isinstance(os.environ, _Environment):
            os.environ.__class__ = _Environment
            sys.addaudithook(_note_event)


def _note_event(event: str, arguments: tuple[Any, ...]) -> None:
    reads = _watched.reads
    if reads is None:
        return
    if event == "open":
        is_written = (arguments[2] or 0) & os.O_WRONLY
        if isinstance(arguments[0], str | bytes | os.PathLike) and not is_written:
            path = os.path.realpath(os.fsdecode(arguments[0]))
            if not path.endswith(_CODE) and not path.startswith(_FOLDERS):
                reads.files.append(path)
    elif event in _EVENTS:
        what = arguments[-1] if event.startswith("socket") else arguments[0]
        reads.others.append(f"{_EVENTS[event]} {what}")


class _Environment(type(os.environ)):  # type: ignore[misc]
    """`os.environ`, which notes the variables that a watched function reads."""

    def __getitem__(self, key: str) -> str:
        if _watched.reads is not None and not _by_library():
            _watched.reads.variables.append(key)
        return str(super().__getitem__(key))


def _by_library() -> bool:
    """Return True if the code that reads a variable is of Python or of a package."""
    frame = sys._getframe(2)
    while frame.f_back is not None and frame.f_code.co_filename in _ENVIRON:
        frame = frame.f_back
    name = frame.f_code.co_filename
    return name.startswith("<frozen") or os.path.realpath(name).startswith(_FOLDERS)
