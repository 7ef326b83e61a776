"""A file or folder on any file system of pyarrow: a local path, or a URI such as s3://bucket/bars.

A file system of fsspec has the prefix `fsspec+`, as in fsspec+sftp://host/bars. A URI may have a secret, as user and
password or as options. `address` is the complete URI, which a worker needs; `shown` may be printed and stored.
"""

from __future__ import annotations

import os
import re
import socket
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

_ATTEMPTS, _ATTEMPTS_UNDER_RAY = 6, 10  # with pauses of up to 1, 2, 4, ... and at most 20 seconds
_CONNECT_SECONDS, _REQUEST_SECONDS = 5, 20  # timeouts of an attempt; pyarrow's own are 1 and 3
_SMALL_BYTES = 1 << 20  # a smaller file is read by one request, and not column by column
# Error of pyarrow for a 503 that is longer than the requested part; it retries other errors itself.
_CUT_OFF = "Failed to flush response stream"
_PAUSES = (1, 2, 4, 8)  # seconds before a retry
_RECORDED_OPTIONS = ("region", "endpoint_override", "scheme", "allow_bucket_creation")  # without secrets
_SET_BY_RAY = ("RAY_JOB_CONFIG_JSON_ENV_VAR", "RAY_RAYLET_PID")  # for the command of a job, and for workers
_JOB_FOLDERS = "working_dir_files"  # the folder of Ray's copies of submitted folders


@dataclass(frozen=True)
class Location:
    """A file or folder. address: an absolute path or a URI. size, changed_ns: of a listed file, else None."""

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
        """Return the address without user, password and options."""
        return shown_uri(self.address) if self.is_remote else self.address

    @property
    def is_remote(self) -> bool:
        """Return True for a URI."""
        return "://" in self.address

    @property
    def name(self) -> str:
        """Return the last part of the path."""
        name = self.shown.rstrip("/").rpartition("/")[2]
        return unquote(name) if self.is_remote else name

    @property
    def path(self) -> Path:
        """Return the path of a local file or folder."""
        return Path(self.address)

    def child(self, name: str, size: int | None = None, changed_ns: int | None = None) -> Location:
        """Return a file or folder in this folder, with the options of a URI."""
        if self.is_remote:
            head, mark, options = self.address.partition("?")
            address = f"{head.rstrip('/')}/{quote(name, safe='/=')}{mark}{options}"
        else:
            address = str(self.path / name)
        return Location(address, size, changed_ns)

    def relative_to(self, root: Location) -> str:
        """Return the path relative to a root folder."""
        below = self.shown[len(root.shown.rstrip("/")) + 1 :]
        return unquote(below) if self.is_remote else below

    def files(self, entered: Callable[[str], bool] = lambda _: True) -> list[Location]:
        """Return every file in a folder and its subfolders, sorted by name.

        entered: which local subfolders to list, by their names; a store lists all of them in one reply.
        Raises BitcornError if the folder cannot be listed.
        """
        if not self.is_remote:
            return self._local_files(entered)
        filesystem, root = self._opened
        with self._reading():
            infos = filesystem.get_file_info(fs.FileSelector(root, recursive=True, allow_not_found=True))
        found = (info for info in infos if info.type == fs.FileType.File)
        named = sorted(((info.path[len(root.rstrip("/")) + 1 :], info) for info in found), key=lambda item: item[0])
        return [self.child(name, info.size, info.mtime_ns) for name, info in named]

    def _local_files(self, entered: Callable[[str], bool]) -> list[Location]:
        found = []
        for folder, folders, names in os.walk(self.path):
            folders[:] = [name for name in folders if entered(name)]
            found += [Path(folder) / name for name in names]
        stats = ((path, path.stat()) for path in sorted(found, key=str) if path.is_file())
        return [Location(str(path), stat.st_size, stat.st_mtime_ns) for path, stat in stats]

    def info(self) -> Location | None:
        """Return this location with its current size and time, or None if there is no such file."""
        filesystem, root = self._opened
        with self._reading():
            info = filesystem.get_file_info(root)
        return Location(self.address, info.size, info.mtime_ns) if info.type == fs.FileType.File else None

    @contextmanager
    def opened(self) -> Iterator[pa.NativeFile]:
        """Open a file for reading, with seeking. Raises BitcornError if it cannot be read, now or during the block."""
        with self._reading():
            filesystem, root = self._opened
            with filesystem.open_input_file(root) as file:
                small = self.is_remote and file.size() <= _SMALL_BYTES
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

    failing: beginning of the message of an error. Raises BitcornError for an unknown kind of URI, or a missing package.
    """
    if "://" not in address:
        return fs.LocalFileSystem(), address
    try:
        system, path = fs.FileSystem.from_uri(address)
        if system.type_name == "s3":
            system = _with_retries(system)
        elif system.type_name.startswith("py::fsspec"):
            system, path = fs.PyFileSystem(_Fsspec(system.handler.fs)), unquote(path)
    except (pa.ArrowException, OSError, ValueError, ImportError) as error:
        # Without the cause, whose text may have the secret.
        raise BitcornError(f"{failing}: {reason_of(error, address)}") from None
    return system, str(path)


def _with_retries(system: fs.S3FileSystem) -> fs.S3FileSystem:
    """Return the same S3 with retries of slow requests and of 503 replies.

    By default a user at a terminal sees the error after about ten seconds; a worker, which has work to lose, retries
    for a minute or two. AWS_MAX_ATTEMPTS overrides the number of attempts.
    """
    attempts = int(os.environ.get("AWS_MAX_ATTEMPTS") or (_ATTEMPTS_UNDER_RAY if under_ray() else _ATTEMPTS))
    rebuild, (options,) = system.__reduce__()
    return rebuild(
        {
            **options,
            "allow_delayed_open": True,  # one PUT for a file of less than five megabytes, not an upload in parts
            "connect_timeout": _CONNECT_SECONDS,
            "request_timeout": _REQUEST_SECONDS,
            "retry_strategy": fs.AwsStandardS3RetryStrategy(max_attempts=attempts),
        }
    )


def read_whole(filesystem: fs.FileSystem, path: str) -> pa.Buffer:
    """Return the content of a file, as a memory map if the file system has them. Raises OSError if it fails."""
    pauses = iter(_PAUSES)
    while True:
        try:
            with filesystem.open_input_file(path) as file:
                return file.read_buffer()
        except OSError as error:
            pause = next(pauses, None)
            if pause is None or _CUT_OFF not in str(error):
                raise
        time.sleep(pause)


class _Fsspec(fs.FSSpecHandler):  # type: ignore[misc]  # pyarrow has no types
    """A file system of fsspec that renames without the option `recursive`, which some of them do not take."""

    def move(self, src: str, dest: str) -> None:
        self.fs.mv(src, dest)


def local_file(path: str | Path, what: str, instead: str) -> Path:
    """Return the path of a file that must be on this machine. Raises BitcornError for a URI.

    what, instead: name of the file, and the remedy, for the message.
    """
    if "://" in str(path):
        raise BitcornError(f"the {what} cannot be at {shown_uri(path)}: it must be a file on this machine; {instead}")
    return Path(path).expanduser()


def reason_of(error: BaseException, address: str) -> str:
    """Return the reason of an error in one line, without the secrets of an address."""
    text = (str(error).splitlines() or [""])[0] or type(error).__name__
    return text.replace(address, shown_uri(address))


def shown_uri(address: str | Path) -> str:
    """Return a path, or a URI without user, password and options.

    >>> shown_uri("s3://key:secret@bucket/bars?region=us-east-1")
    's3://bucket/bars'
    """
    text = str(address)
    if "://" not in text:
        return text
    # A secret may have a slash that was not escaped.
    return re.sub(r"(?<=://)([^/@]*|[^@]*:[^@]*)@", "", text).partition("?")[0]


def recorded_uri(address: str) -> str:
    """Return a path, or a URI without its secrets but with the options that lead to the same place.

    >>> recorded_uri("s3://key:secret@bucket/bars?region=us-east-1&session_token=secret")
    's3://bucket/bars?region=us-east-1'
    """
    if "://" not in address:
        return address
    options = [pair for pair in address.partition("?")[2].split("&") if pair.partition("=")[0] in _RECORDED_OPTIONS]
    return shown_uri(address) + ("?" + "&".join(options) if options else "")


# Local paths in a process of a cluster


def under_ray() -> bool:
    """Return True if Ray started this process, which may then run on another machine than the user's."""
    return any(name in os.environ for name in _SET_BY_RAY)


def remedy_for_missing(path: str | Path) -> str:
    """Return the remedy for a missing local file, which begins with a blank or a colon."""
    if not under_ray():
        return ": check the path"
    return (
        f" on node {socket.gethostname()} of the cluster, which has shared storage and its own disks only: on the "
        f"machine that submitted the command, run bitcorn export {path} --to s3://bucket/bars, and use that URI"
    )


def require_persistent(location: str | Path, what: str, remedy: str) -> None:
    """Raise BitcornError for a folder in the copy that a job runs in, which is removed with the job.

    what, remedy: for the message.
    """
    if "://" in str(location) or not under_ray():
        return
    if _JOB_FOLDERS in Path(location).expanduser().absolute().parts:
        raise BitcornError(
            f"{what} {location} would be in the job's copy of the submitted folder, on one node and only until the job "
            f"ends: {remedy}"
        )
