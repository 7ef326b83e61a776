"""A file or folder on any file system that pyarrow knows: a local path, or a URI such as s3://bucket/bars.

What only fsspec knows is named by its scheme behind `fsspec+`, as in fsspec+sftp://host/bars.
A URI may hold a secret, as user and password or as options. `address` is the whole of it, which a worker needs to
open it; `shown` is what may be printed and stored.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from urllib.parse import quote, unquote

import pyarrow as pa
from pyarrow import fs

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.storage.nodes import on_a_node, remedy_for_missing

# Between two attempts lie up to 1, 2, 4, ... and in the end 20 seconds.
_ATTEMPTS, _ATTEMPTS_ON_A_NODE = 6, 10
_CONNECT_SECONDS, _SILENT_SECONDS = 5, 20  # after which an attempt has failed; pyarrow's own are 1 and 3
_WHOLE_BYTES = 1 << 20  # what is no larger is read by one request, and not column by column
# What pyarrow says of a 503 that is longer than the part that was asked for; it tries others again by itself.
_CUT_OFF = "Failed to flush response stream"
_PAUSES = (1, 2, 4, 8)  # seconds before it is tried again
_NO_SECRETS = ("region", "endpoint_override", "scheme", "allow_bucket_creation")  # options that may be kept


@dataclass(frozen=True)
class Location:
    """A place. address: an absolute path, or a URI. size and changed_ns: of a file that was listed, else None."""

    address: str
    size: int | None = field(default=None, compare=False)
    changed_ns: int | None = field(default=None, compare=False)

    @classmethod
    def of(cls, place: str | Path | Location) -> Location:
        """Return the location of a path or URI."""
        if isinstance(place, Location):
            return place
        text = str(place)
        return cls(text if "://" in text else str(Path(text).expanduser().absolute()))

    def __str__(self) -> str:
        return self.shown

    @property
    def shown(self) -> str:
        """The address without user, password and options."""
        return shown_uri(self.address) if self.is_remote else self.address

    @property
    def is_remote(self) -> bool:
        """Tell whether it is a URI."""
        return "://" in self.address

    @property
    def name(self) -> str:
        """Last part of the path."""
        name = self.shown.rstrip("/").rpartition("/")[2]
        return unquote(name) if self.is_remote else name

    @property
    def path(self) -> Path:
        """The path of a local place."""
        return Path(self.address)

    def child(self, name: str, size: int | None = None, changed_ns: int | None = None) -> Location:
        """Return a place below this one; options of a URI stay with it."""
        if self.is_remote:
            head, mark, options = self.address.partition("?")
            address = f"{head.rstrip('/')}/{quote(name, safe='/=')}{mark}{options}"
        else:
            address = str(self.path / name)
        return Location(address, size, changed_ns)

    def relative_to(self, root: Location) -> str:
        """Return the path of a place below a root, without it."""
        below = self.shown[len(root.shown.rstrip("/")) + 1 :]
        return unquote(below) if self.is_remote else below

    def files(self, entered: Callable[[str], bool] = lambda _: True) -> list[Location]:
        """Every file below a folder, sorted by name.

        entered: which local folders are, by their name; a store lists all that is below in one answer anyway.
        Raises BitcornError where it cannot be listed.
        """
        if not self.is_remote:
            return self._local_files(entered)
        filesystem, root = self._opened
        with self._reading():
            infos = filesystem.get_file_info(fs.FileSelector(root, recursive=True, allow_not_found=True))
        found = (info for info in infos if info.type == fs.FileType.File)
        named = sorted(((info.path[len(root.rstrip("/")) + 1 :], info) for info in found), key=lambda each: each[0])
        return [self.child(name, info.size, info.mtime_ns) for name, info in named]

    def _local_files(self, entered: Callable[[str], bool]) -> list[Location]:
        found = []
        for folder, folders, names in os.walk(self.path):
            folders[:] = [name for name in folders if entered(name)]
            found += [Path(folder) / name for name in names]
        stats = ((path, path.stat()) for path in sorted(found, key=str) if path.is_file())
        return [Location(str(path), stat.st_size, stat.st_mtime_ns) for path, stat in stats]

    def info(self) -> Location | None:
        """Return the same place with the size and time that it has now, or None where there is no such file."""
        filesystem, root = self._opened
        with self._reading():
            info = filesystem.get_file_info(root)
        return Location(self.address, info.size, info.mtime_ns) if info.type == fs.FileType.File else None

    @contextmanager
    def opened(self) -> Iterator[pa.NativeFile]:
        """Open a file for reading, with seeking. Raises BitcornError where it cannot be read, then or later."""
        with self._reading():
            filesystem, root = self._opened
            with filesystem.open_input_file(root) as file:
                small = self.is_remote and file.size() <= _WHOLE_BYTES
                yield pa.BufferReader(read_whole(filesystem, root)) if small else file

    @cached_property
    def _opened(self) -> tuple[fs.FileSystem, str]:
        return filesystem_of(self.address, f"{self.shown} cannot be opened")

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            remedy = ": check the path" if self.is_remote else remedy_for_missing(self.path)
            raise BitcornError(f"no file at {self.shown}{remedy}") from None
        except (OSError, pa.ArrowException) as error:
            if not self.is_remote and self.path.is_dir():
                raise BitcornError(f"no file at {self.shown}, but a folder: give the files in it") from None
            raise BitcornError(f"{self.shown} cannot be read: {reason_of(error, self.address)}") from error


def filesystem_of(address: str, failing: str) -> tuple[fs.FileSystem, str]:
    """Return the file system of a URI or an absolute path, and the path in it.

    failing: what to say that failed. Raises BitcornError for a URI that pyarrow does not understand, or for which a
    package is missing.
    """
    if "://" not in address:
        return fs.LocalFileSystem(), address
    try:
        system, path = fs.FileSystem.from_uri(address)
        if system.type_name == "s3":
            system = _patient(system)
        elif system.type_name.startswith("py::fsspec"):
            system, path = fs.PyFileSystem(_Fsspec(system.handler.fs)), unquote(path)  # it takes a URI by its letters
    except (pa.ArrowException, OSError, ValueError, ImportError) as error:
        # Without the cause, whose text may hold the secret.
        raise BitcornError(f"{failing}: {reason_of(error, address)}") from None
    return system, str(path)


def _patient(system: fs.S3FileSystem) -> fs.S3FileSystem:
    """Return the same S3, which is asked again where it is slow, or asks to be asked later (503).

    AWS_MAX_ATTEMPTS says how often. By default who waits at a terminal is told after some ten seconds; a worker has
    work to lose, and goes on asking for a minute or two.
    """
    attempts = int(os.environ.get("AWS_MAX_ATTEMPTS") or (_ATTEMPTS_ON_A_NODE if on_a_node() else _ATTEMPTS))
    rebuild, (options,) = system.__reduce__()
    return rebuild(
        {
            **options,
            # A file of less than five megabytes is then written by one PUT, not by an upload in parts.
            "allow_delayed_open": True,
            "connect_timeout": _CONNECT_SECONDS,
            "request_timeout": _SILENT_SECONDS,
            "retry_strategy": fs.AwsStandardS3RetryStrategy(max_attempts=attempts),
        }
    )


def read_whole(filesystem: fs.FileSystem, path: str) -> pa.Buffer:
    """Content of a file: a memory map, where the file system gives one. Raises OSError where it cannot be read."""
    for pause in _PAUSES:
        try:
            return _content(filesystem, path)
        except OSError as error:
            if _CUT_OFF not in str(error):
                raise
        time.sleep(pause)
    return _content(filesystem, path)


def _content(filesystem: fs.FileSystem, path: str) -> pa.Buffer:
    with filesystem.open_input_file(path) as file:
        return file.read_buffer()


class _Fsspec(fs.FSSpecHandler):  # type: ignore[misc]  # pyarrow has no types
    """A file system of fsspec, of which single files are renamed: not each takes the `recursive` that Arrow gives."""

    def move(self, src: str, dest: str) -> None:
        self.fs.mv(src, dest)


def local_file(path: str | Path, what: str, instead: str) -> Path:
    """Return the path of what can only be a file on this machine. what: it is, instead: what to do, for messages.

    Raises BitcornError for a URI.
    """
    if "://" in str(path):
        raise BitcornError(f"the {what} cannot be at {shown_uri(path)}: it must be a file on this machine; {instead}")
    return Path(path).expanduser()


def reason_of(error: BaseException, address: str) -> str:
    """Say in a line why a place could not be used, without what of its address may not be shown."""
    text = (str(error).splitlines() or [""])[0] or type(error).__name__
    return text.replace(address, shown_uri(address))


def shown_uri(address: str | Path) -> str:
    """Return a path or URI as it may be shown: a URI without user, password and options.

    >>> shown_uri("s3://key:secret@bucket/bars?region=us-east-1")
    's3://bucket/bars'
    """
    text = str(address)
    if "://" not in text:
        return text
    # A secret may hold a slash that was not escaped.
    return re.sub(r"(?<=://)([^/@]*|[^@]*:[^@]*)@", "", text).partition("?")[0]


def recorded_uri(address: str) -> str:
    """Return a path or URI as it may be kept: a URI without its secrets, but with what leads to the same place.

    >>> recorded_uri("s3://key:secret@bucket/bars?region=us-east-1&session_token=secret")
    's3://bucket/bars?region=us-east-1'
    """
    if "://" not in address:
        return address
    options = [pair for pair in address.partition("?")[2].split("&") if pair.partition("=")[0] in _NO_SECRETS]
    return shown_uri(address) + ("?" + "&".join(options) if options else "")
