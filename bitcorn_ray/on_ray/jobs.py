"""Submitting a command to a cluster as a Ray job, with the files of a folder, and following it.

1. List the files of the folder by Ray's own rules (.gitignore, .rayignore), and refuse too many bytes.
2. Submit the job. It runs the command in a copy of the folder on the head; every worker has that copy too.
3. Follow the log. If the connection breaks, connect again.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import shlex
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiohttp import ClientError
from ray.exceptions import AuthenticationError

from bitcorn_ray.errors import BitcornError

_MAX_BYTES = 50 << 20  # configurations and modules are kilobytes; Ray keeps the files in the head's memory
_PACKAGING = "ray._private.runtime_env.packaging"
_ATTEMPTS = 5  # in a row, to reach a dashboard that answered before
_CONNECTION_ERRORS = (RuntimeError, OSError, ClientError)  # those of requests are an OSError
_CACHE = "BITCORN_CACHE_DIR"
_ADDRESSES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")


@dataclass(frozen=True, kw_only=True)
class Job:
    """A submitted command. name: its submission id. address: of the dashboard. client: of Ray, for the dashboard."""

    name: str
    address: str
    client: Any

    def follow(self, on_text: Callable[[str], None]) -> int:
        """Call a function with new text of the log until the job ends, and return its exit code, 1 if it has none.

        Raises BitcornError if the cluster cannot be reached any more; the job may still run.
        """
        printed = failures = 0

        async def tail() -> None:
            nonlocal printed
            position = 0  # a new connection starts at the beginning of the log
            async for text in self.client.tail_job_logs(self.name):
                if new := text[max(0, printed - position) :]:
                    on_text(new)
                position += len(text)
                printed = max(printed, position)

        while True:
            try:
                asyncio.run(tail())
                complete = True
            except _CONNECTION_ERRORS:  # an idle connection may break
                complete = False
            try:
                details = self.client.get_job_info(self.name)
            except _CONNECTION_ERRORS as error:
                failures += 1
                if failures == _ATTEMPTS:
                    reason = " ".join(str(error).split()) or type(error).__name__
                    raise BitcornError(f"{self.address} cannot be reached any more: {reason}") from error
            else:
                ended = details.status.is_terminal()
                failures = failures + 1 if ended and not complete else 0
                if ended and (complete or failures == _ATTEMPTS):
                    return 1 if details.driver_exit_code is None else int(details.driver_exit_code)
            time.sleep(1)


def submit_job(address: str | None, command: Sequence[str], folder: str | Path = ".") -> Job:
    """Submit a command line as a job, with the files of a folder, see `files_to_send`.

    address: of the dashboard, http://host:8265; by default RAY_API_SERVER_ADDRESS or RAY_ADDRESS. command: its words.
    Raises BitcornError if no dashboard is reached, for secrets in the command, and for too many files.
    """
    address = _dashboard(address)
    environment = {"PYTHONUNBUFFERED": "1"}
    if "://" in (cache := os.environ.get(_CACHE, "")):  # a folder of this machine means nothing there
        environment[_CACHE] = cache
    for text in (*command, environment.get(_CACHE, "")):
        _require_no_secret(text)
    files_to_send(folder)
    client = _client(address)
    first = next((word for word in command[1:] if not word.startswith("-")), "job")
    name = f"bitcorn-{re.sub('[^a-z]', '', first)}-{uuid.uuid4().hex[:8]}"
    with _reaching(address):
        client.submit_job(
            entrypoint=shlex.join(command),
            submission_id=name,
            runtime_env={"working_dir": str(folder), "env_vars": environment},
        )
    return Job(name=name, address=address, client=client)


def files_to_send(folder: str | Path) -> dict[Path, int]:
    """Return the files of a folder that a job would get, and their bytes.

    Raises BitcornError for more than 50 MB, with the largest files.
    """
    from ray._private import ray_constants
    from ray._private.runtime_env import packaging  # Ray has no public function for this

    root, sizes = Path(folder).absolute(), dict[Path, int]()

    def add(path: Path) -> None:
        if path.is_file():
            sizes[path.relative_to(root)] = path.stat().st_size

    excludes = [packaging._get_excludes(root, ray_constants.get_runtime_env_default_excludes())]
    with_gitignore = os.environ.get(ray_constants.RAY_RUNTIME_ENV_IGNORE_GITIGNORE, "0") != "1"
    packaging._dir_travel(root, excludes, add, include_gitignore=with_gitignore, logger=_quiet_logger())
    if (total := sum(sizes.values())) > _MAX_BYTES:
        largest = sorted(sizes, key=lambda path: -sizes[path])[:3]
        listed = ", ".join(f"{path} {sizes[path] / 1e6:.0f} MB" for path in largest)
        raise BitcornError(
            f"{root} would send {total / 1e6:.0f} MB with the job, of at most {_MAX_BYTES / 1e6:.0f} MB, the largest "
            f"{listed}: name them in .rayignore or submit from another folder; put bars on shared storage by "
            "bitcorn export SOURCE --to s3://bucket/bars, and features by --cache-dir s3://bucket/cache"
        )
    return sizes


def cluster_version(address: str) -> str:
    """Return the version of Ray at a dashboard's address. Raises BitcornError if it is not reached."""
    client = _client(address)
    with _reaching(address):
        return str(client._do_request("GET", "/api/version").json()["ray_version"])


def _dashboard(address: str | None) -> str:
    found = address or next(filter(None, map(os.environ.get, _ADDRESSES)), "")
    if not found.startswith(("http://", "https://")):
        given = f"{found!r} is not a dashboard" if found else "no dashboard was given"
        raise BitcornError(f"{given}: give its address, as in bitcorn --address http://head:8265 --submit ...")
    return found.rstrip("/")


def _client(address: str) -> Any:
    # Ray would prefer these variables to the address that it is given.
    hidden = {name: os.environ.pop(name) for name in _ADDRESSES if name in os.environ}
    try:
        with _reaching(address):
            from ray.job_submission import JobSubmissionClient

            _quiet_logger()
            return JobSubmissionClient(address)
    finally:
        os.environ.update(hidden)


@contextmanager
def _reaching(address: str) -> Iterator[None]:
    try:
        yield
    except (RuntimeError, OSError, ValueError, AuthenticationError) as error:
        remedy = "check the address, and that the port is open or forwarded"
        if isinstance(error, AuthenticationError):
            remedy = "set RAY_AUTH_MODE=token and the cluster's token in RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH"
        reason = str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__
        raise BitcornError(f"the cluster at {address} does not take jobs from here: {reason}; {remedy}") from error


def _require_no_secret(text: str) -> None:
    """Raise BitcornError for a URI with a secret: Ray stores and shows the command and environment of a job."""
    if re.search(r"://[^/@]*:[^@]*@", text):
        raise BitcornError(
            f"{re.sub('//.*@', '//', text.partition('?')[0])} was given with a secret, which the cluster would store "
            "and show: leave it out, and give the nodes its credentials, as AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY or by a role"
        )


def _quiet_logger() -> logging.Logger:
    """Set Ray's loggers, which set their own level when they are imported, to warnings; return that of packages."""
    for name in ("ray.dashboard.modules.dashboard_sdk", "ray.dashboard.modules.job.sdk", _PACKAGING):
        logging.getLogger(name).setLevel(logging.WARNING)
    return logging.getLogger(_PACKAGING)
