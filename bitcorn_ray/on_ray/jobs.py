"""Submitting a command to a cluster as a Ray job, with the files of a folder, and following it.

1. What the folder would send is counted by Ray's own rules: .gitignore and .rayignore leave out, and .git, .venv and
__pycache__ are. Too much is refused before anything is sent. 2. The job runs the command in a copy of the folder, on
the head; every worker has that copy too. 3. Its log is followed, and where the connection breaks, gone on with.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import shlex
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiohttp import ClientError
from ray.exceptions import AuthenticationError

from bitcorn_ray.errors import BitcornError

_MOST_BYTES = 50 << 20  # configurations and modules are kilobytes; Ray keeps what is sent in the head's memory
_LARGEST_SHOWN = 3
_PACKAGING = "ray._private.runtime_env.packaging"
_TRIES = 5  # to reach a dashboard that answered before, one after another
_UNREACHED = (RuntimeError, OSError, ClientError)  # those of requests are an OSError
_CACHE = "BITCORN_CACHE_DIR"
_ADDRESSES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")


@dataclass(frozen=True, kw_only=True)
class Job:
    """A command that was submitted. name: its submission id. address: of the dashboard. client: Ray's, to it."""

    name: str
    address: str
    client: Any

    def follow(self, on_text: Callable[[str], None]) -> int:
        """Hand the log on as it comes, until the job ends; returns its exit code, 1 where it has none.

        Raises BitcornError where the cluster is no longer reached, though the job may go on.
        """
        log, failures = _Log(on_text), 0
        while True:
            whole = log.tail(self.client.tail_job_logs(self.name))
            try:
                details = self.client.get_job_info(self.name)
            except _UNREACHED as error:
                failures += 1
                if failures == _TRIES:
                    raise BitcornError(f"{self.address} is no longer reached: {_line(error)}") from error
            else:
                over = details.status.is_terminal()
                failures = failures + 1 if over and not whole else 0
                if over and (whole or failures == _TRIES):
                    return 1 if details.driver_exit_code is None else int(details.driver_exit_code)
            time.sleep(1)


class _Log:
    """A log that is told once, though it comes from its beginning whenever a connection is made."""

    def __init__(self, on_text: Callable[[str], None]) -> None:
        self.on_text, self.told = on_text, 0

    def tail(self, texts: AsyncIterator[str]) -> bool:
        """Hand on what is new; tells whether it came to its end, or broke off, as idle connections do."""
        try:
            asyncio.run(self._tail(texts))
        except _UNREACHED:
            return False
        return True

    async def _tail(self, texts: AsyncIterator[str]) -> None:
        seen = 0
        async for text in texts:
            if new := text[max(0, self.told - seen) :]:
                self.on_text(new)
            seen += len(text)
            self.told = max(self.told, seen)


def submit_job(address: str | None, command: Sequence[str], folder: str | Path = ".") -> Job:
    """Submit a command line as a job, with the files of a folder.

    address: of the dashboard, http://host:8265; by default RAY_API_SERVER_ADDRESS or RAY_ADDRESS. command: its words,
    without secrets, as Ray shows them. folder: where the job runs a copy of, see `files_to_send`.
    Raises BitcornError where no dashboard is reached, and for more files than should be sent that way.
    """
    address = _dashboard(address)
    for word in command:
        _require_open(word)
    environment = {"PYTHONUNBUFFERED": "1"}
    if "://" in (cache := os.environ.get(_CACHE, "")):  # a folder of this machine says nothing there
        _require_open(cache)
        environment[_CACHE] = cache
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
    """Return the files of a folder that would go with a job, and their bytes.

    Raises BitcornError where these are more than a job should bring along, with the largest of them.
    """
    from ray._private import ray_constants
    from ray._private.runtime_env import packaging  # Ray has no other way to ask for what it would send

    root, sizes = Path(folder).absolute(), dict[Path, int]()

    def count(path: Path) -> None:
        if path.is_file():
            sizes[path.relative_to(root)] = path.stat().st_size

    excludes = [packaging._get_excludes(root, ray_constants.get_runtime_env_default_excludes())]
    with_gitignore = os.environ.get(ray_constants.RAY_RUNTIME_ENV_IGNORE_GITIGNORE, "0") != "1"
    packaging._dir_travel(root, excludes, count, include_gitignore=with_gitignore, logger=_silent())
    if (total := sum(sizes.values())) > _MOST_BYTES:
        largest = sorted(sizes, key=lambda path: -sizes[path])[:_LARGEST_SHOWN]
        told = ", ".join(f"{path} {sizes[path] / 1e6:.0f} MB" for path in largest)
        raise BitcornError(
            f"{root} would send {total / 1e6:.0f} MB with the job, of at most {_MOST_BYTES / 1e6:.0f} MB, the largest "
            f"{told}: name them in .rayignore or submit from a folder of its own; bars go to shared storage by "
            "bitcorn export SOURCE --to s3://bucket/bars, and features by --cache-dir s3://bucket/cache"
        )
    return sizes


def cluster_version(address: str) -> str:
    """Version of Ray at a dashboard's address. Raises BitcornError where it is not reached."""
    client = _client(address)
    with _reaching(address):
        return str(client._do_request("GET", "/api/version").json()["ray_version"])


def _dashboard(address: str | None) -> str:
    found = address or next(filter(None, map(os.environ.get, _ADDRESSES)), None)
    if found is None:
        raise BitcornError("nowhere to submit to: give the dashboard, bitcorn --address http://head:8265 --submit ...")
    if not found.startswith(("http://", "https://")):
        raise BitcornError(f"{found!r} is no dashboard to submit to: give its address, such as http://head:8265")
    return found.rstrip("/")


def _client(address: str) -> Any:
    # Ray would go by these before the address that it is given.
    hidden = {name: os.environ.pop(name) for name in _ADDRESSES if name in os.environ}
    try:
        with _reaching(address):
            from ray.job_submission import JobSubmissionClient

            _silent()
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


def _require_open(word: str) -> None:
    """Raise BitcornError for a URI with a secret: Ray stores and shows the command and environment of a job."""
    if re.search(r"://[^/@]*:[^@]*@", word):
        raise BitcornError(
            f"{re.sub('//.*@', '//', word.partition('?')[0])} was given with a secret, which the cluster would store "
            "and show: leave it out, and give the nodes its credentials, as AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY or by a role"
        )


def _silent() -> logging.Logger:
    """Set Ray's loggers to warnings, which set themselves otherwise when they are imported; return that of packages."""
    for name in ("ray.dashboard.modules.dashboard_sdk", "ray.dashboard.modules.job.sdk", _PACKAGING):
        logging.getLogger(name).setLevel(logging.WARNING)
    return logging.getLogger(_PACKAGING)


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
