"""Being connected to Ray: a private one on this machine unless the user names a cluster."""

from __future__ import annotations

import logging
import os
import secrets
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.logging import asked_output
from bitcorn_ray.on_ray.monitoring import count_own_traffic, held_gauges
from bitcorn_ray.on_ray.versions import PRIVATE, require_same_everywhere

_REACH_SECONDS = 10
_LOOK_SECONDS = 1
_RECONNECT, _SECONDS_BEFORE_RAY = "RAY_gcs_rpc_server_reconnect_timeout_s", 5


@contextmanager
def ray_session(address: str | None = None, cpus: int | None = None) -> Iterator[None]:
    """Connect to Ray for the length of a block; inside a session that exists already, use that one.

    address: of a cluster; by default RAY_ADDRESS, else a private Ray ("local") that ends with the block. cpus: of a
    private Ray, by default all that the machine has.
    Raises BitcornError where a cluster cannot be reached, and where a node has another installation than this one.
    """
    if _is_connected():
        yield
        return
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    with connected(address, cpus):
        if address != "local":
            require_same_everywhere()
        yield


@contextmanager
def connected(address: str, cpus: int | None = None) -> Iterator[None]:
    """Connect to Ray, whatever its nodes have installed; see `ray_session`."""
    if _is_connected():
        yield
        return
    if address == "local":
        _private_token()
    else:
        _require_listening(address)
    if asked_output():
        os.environ.setdefault("RAY_DEDUP_LOGS", "0")  # it takes records of several partitions for one
    import ray

    try:
        # "local" keeps Ray from joining whatever cluster happens to run on this machine.
        private: dict[str, Any] = (
            {"include_dashboard": False, "num_cpus": cpus, "namespace": PRIVATE} if address == "local" else {}
        )
        ray.init(address=address, logging_level=logging.ERROR, **private, **_logs_of_workers())
    except (ConnectionError, RuntimeError, ValueError, TimeoutError, ray.exceptions.RayError) as error:
        raise BitcornError(f"no Ray cluster at {address!r}: {str(error).splitlines()[0]}") from error
    head, over = "" if address == "local" else ray.get_runtime_context().gcs_address, threading.Event()
    if head:
        threading.Thread(target=_end_where_lost, args=(head, over), daemon=True).start()
    try:
        count_own_traffic()
        with held_gauges():
            yield
    except Exception as error:
        if head and (why := _not_answering(head)):  # then it is no matter what failed first
            raise BitcornError(_lost(head, why)) from error
        raise
    finally:
        count_own_traffic()
        ray.shutdown()  # which exports what was recorded last
        over.set()


def cluster_shape() -> dict[str, Any]:
    """Nodes, CPUs and GPUs of the Ray that this process is connected to."""
    import ray

    have = ray.cluster_resources()
    nodes = sum(bool(node["Alive"]) for node in ray.nodes())
    return {"nodes": nodes, "cpus": have.get("CPU", 0.0), "gpus": have.get("GPU", 0.0)}


def _is_connected() -> bool:
    return "ray" in sys.modules and bool(sys.modules["ray"].is_initialized())


def _require_listening(address: str) -> None:
    """Raise BitcornError where nothing listens at host:port: Ray itself would try for minutes."""
    host, _, port = address.rpartition("://")[2].partition("/")[0].rpartition(":")
    if not (host and port.isdigit()):
        return  # "auto" or a name that Ray resolves
    if address.startswith(("http://", "https://")):
        raise BitcornError(
            f"{address!r} is the address of a dashboard, to which jobs are submitted: put it before the command, "
            f"bitcorn --address {address} --submit ...; work from here takes the head's own, such as {host}:6379"
        )
    try:
        socket.create_connection((host, int(port)), timeout=_REACH_SECONDS).close()
    except OSError as error:
        raise BitcornError(f"no Ray cluster at {address!r}: {error}; start one or give another --address") from error


def _logs_of_workers() -> dict[str, Any]:
    """Options of `ray.init` that bring the workers' logs here, in the format that was asked for; none by default."""
    import ray

    if (asked := asked_output()) is None:
        return {"log_to_driver": False}
    job = ray.job_config.JobConfig()
    # Not as an option, by which Ray would set up this process as well.
    job.set_py_logging_config(
        ray.LoggingConfig(
            encoding=asked.format.upper(), log_level=asked.level.upper(), additional_log_standard_attrs=["name"]
        )
    )
    return {"log_to_driver": True, "job_config": job}


def _end_where_lost(head: str, over: threading.Event) -> None:
    """End this process where the head of its cluster, at host:port, has not answered for a minute.

    Ray would do that itself some seconds later, from a thread of its own, and with a message about itself.
    """
    patience = float(os.environ.get(_RECONNECT, 60)) - _SECONDS_BEFORE_RAY
    answered = time.monotonic()
    while not over.wait(_LOOK_SECONDS):
        if (why := _not_answering(head)) is None:
            answered = time.monotonic()
        elif time.monotonic() - answered > patience:
            print(f"bitcorn: {_lost(head, why)}", file=sys.stderr, flush=True)
            os._exit(2)


def _not_answering(head: str) -> OSError | None:
    host, _, port = head.rpartition(":")
    try:
        socket.create_connection((host, int(port)), _REACH_SECONDS).close()
    except OSError as error:
        return error
    return None


def _lost(head: str, why: OSError) -> str:
    return (
        f"the connection to the Ray cluster at {head} is lost: {why}; what was finished is kept, and the same command "
        "goes on from there (train, tune and evolve with --resume)"
    )


def _private_token() -> None:
    """Give a private Ray a token of its own; otherwise Ray writes one into the user's home folder.

    Ray reads its mode once, when it is imported: later than that, nothing here would be heard.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if "ray" not in sys.modules and "RAY_AUTH_MODE" not in os.environ:
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
