"""What a local path means in a process that a cluster runs: that node's own, and in a job's folder not for long."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from bitcorn_ray.errors import BitcornError

# Set by Ray for the command of a job, and for its workers.
_SET_BY_RAY = ("RAY_JOB_CONFIG_JSON_ENV_VAR", "RAY_RAYLET_PID")
_COPIES = "working_dir_files"  # below it lie Ray's copies of what was sent with a job


def on_a_node() -> bool:
    """Tell whether this process was started by Ray, and so may run elsewhere than where the command was given."""
    return any(name in os.environ for name in _SET_BY_RAY)


def remedy_for_missing(path: str | Path) -> str:
    """Say what to do where a local file is not there; begins with a blank or a colon."""
    if not on_a_node():
        return ": check the path"
    return (
        f" on node {socket.gethostname()} of the cluster, which sees shared storage and its own disks, and not the "
        f"machine that submitted the command: there, bitcorn export {path} --to s3://bucket/bars puts the bars where "
        "all nodes find them"
    )


def require_lasting(place: str | Path, what: str, remedy: str) -> None:
    """Raise BitcornError for a folder inside the copy that a job runs in: it goes with the job.

    place: a path or URI. what, remedy: for the message.
    """
    if "://" in str(place) or not on_a_node():
        return
    absolute = Path(place).expanduser().absolute()
    if _COPIES in absolute.parts:
        raise BitcornError(
            f"{what} {place} would lie in the job's copy of the submitted folder, on one node and only until the job "
            f"ends: {remedy}"
        )
