"""Connection to Ray: a private one on this machine unless the user names a cluster."""

from __future__ import annotations

import logging
import os
import secrets
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.logging import current_output
from bitcorn_ray.on_ray.monitoring import record_own_traffic, repeated_gauges
from bitcorn_ray.on_ray.versions import PRIVATE, require_same_everywhere

_CONNECT_SECONDS = 10
_RECONNECT, _SECONDS_BEFORE_RAY = "RAY_gcs_rpc_server_reconnect_timeout_s", 5


@contextmanager
def ray_session(address: str | None = None, cpus: int | None = None, compare: bool = True) -> Iterator[None]:
    """Connect to Ray for the length of a block, or use an existing connection.

    address: of a cluster; by default RAY_ADDRESS, else a private Ray ("local") that ends with the block. cpus: of a
    private Ray, by default all of the machine. compare: refuse nodes with another installation than this one.
    Raises BitcornError if a cluster cannot be reached or is lost, and for a refused node.
    """
    if "ray" in sys.modules and sys.modules["ray"].is_initialized():
        yield
        return
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    _connect(address, cpus)
    import ray

    head, stopped = "" if address == "local" else ray.get_runtime_context().gcs_address, threading.Event()
    if head:
        threading.Thread(target=_exit_if_lost, args=(head, stopped), daemon=True).start()
    try:
        record_own_traffic()
        with repeated_gauges():
            if head and compare:
                require_same_everywhere()
            yield
    except Exception as error:
        if head and (reason := _connection_error(head)):  # whatever failed first, this is the cause
            raise BitcornError(_lost(head, reason)) from error
        raise
    finally:
        record_own_traffic()
        ray.shutdown()  # exports the last records
        stopped.set()


def cluster_shape() -> dict[str, Any]:
    """Return the numbers of nodes, CPUs and GPUs of the connected Ray."""
    import ray

    resources = ray.cluster_resources()
    nodes = sum(bool(node["Alive"]) for node in ray.nodes())
    return {"nodes": nodes, "cpus": resources.get("CPU", 0.0), "gpus": resources.get("GPU", 0.0)}


def _connect(address: str, cpus: int | None) -> None:
    if address == "local":
        _set_private_token()
    else:
        _require_listening(address)
    output = current_output()
    if output:
        os.environ.setdefault("RAY_DEDUP_LOGS", "0")  # it would take records of several partitions for one
    import ray

    options: dict[str, Any] = {"log_to_driver": output is not None}
    if output:
        # As part of the job: an option of `ray.init` would set up the logs of this process as well.
        options["job_config"] = ray.job_config.JobConfig()
        options["job_config"].set_py_logging_config(
            ray.LoggingConfig(
                encoding=output.format.upper(), log_level=output.level.upper(), additional_log_standard_attrs=["name"]
            )
        )
    if address == "local":
        options |= {"include_dashboard": False, "num_cpus": cpus, "namespace": PRIVATE}
    try:
        # "local" keeps Ray from joining any cluster that happens to run on this machine.
        ray.init(address=address, logging_level=logging.ERROR, **options)
    except Exception as error:  # Ray raises OSError and plain Exception too
        ray.shutdown()  # what has started
        raise BitcornError(_why_no_ray(address, error)) from error


def _why_no_ray(address: str, error: Exception) -> str:
    """Return why Ray cannot start or be reached, in one line with the remedy."""
    first = (str(error).splitlines() or [type(error).__name__])[0]
    if address != "local":
        return f"no Ray cluster at {address!r}: {first}"
    text = str(error).lower()
    if "af_unix path" in text:
        folder = os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()
        return (
            f"Ray cannot start: the folder for temporary files, {folder}, is too long for its sockets (107 bytes); set "
            "TMPDIR to a shorter one, such as TMPDIR=/tmp"
        )
    if "timed out" in text or isinstance(error, TimeoutError):
        return f"Ray did not start in time ({first}): the machine is busy; run the command again when it is less so"
    if "memory" in text or isinstance(error, MemoryError):
        return f"Ray cannot start: {first}; free memory or shared memory (/dev/shm), then run the command again"
    if "address already in use" in text or "port" in text:
        return f"Ray cannot start: {first}; stop the program on that port, or `ray stop` an earlier Ray"
    return f"Ray cannot start: {first}; --debug shows the whole error"


def _set_private_token() -> None:
    """Give a private Ray a token of its own; otherwise Ray writes one into the user's home folder.

    Ray reads these variables when it is imported.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if "ray" not in sys.modules and "RAY_AUTH_MODE" not in os.environ:
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)


def _require_listening(address: str) -> None:
    """Raise BitcornError if nothing listens at host:port: Ray itself would try for minutes."""
    host, _, port = address.rpartition("://")[2].partition("/")[0].rpartition(":")
    if not (host and port.isdigit()):
        return  # "auto", or a name that Ray resolves
    if address.startswith(("http://", "https://")):
        raise BitcornError(
            f"{address!r} is a dashboard, which takes jobs: give it before the command, as in bitcorn --address "
            f"{address} --submit ..., or give the address of the cluster's head, such as {host}:6379"
        )
    if error := _connection_error(f"{host}:{port}"):
        raise BitcornError(f"no Ray cluster at {address!r}: {error}; start one or give another --address") from error


def _connection_error(address: str) -> OSError | None:
    """Return the error of a connection to host:port, or None."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), _CONNECT_SECONDS).close()
    except OSError as error:
        return error
    return None


def _exit_if_lost(head: str, stopped: threading.Event) -> None:
    """Exit this process with status 2 if the head of its cluster does not answer for a minute.

    Ray would exit some seconds later, with a message about its internals.
    """
    timeout = float(os.environ.get(_RECONNECT, 60)) - _SECONDS_BEFORE_RAY
    answered = time.monotonic()
    while not stopped.wait(1):
        if (error := _connection_error(head)) is None:
            answered = time.monotonic()
        elif time.monotonic() - answered > timeout:
            print(f"bitcorn: {_lost(head, error)}", file=sys.stderr, flush=True)
            os._exit(2)


def _lost(head: str, reason: OSError) -> str:
    return (
        f"the connection to the Ray cluster at {head} is lost: {reason}; finished work is kept: run the same command "
        "again to continue (train, tune and evolve with --resume)"
    )
