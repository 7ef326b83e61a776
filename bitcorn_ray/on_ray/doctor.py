"""Check of an installation: this machine, the nodes of a cluster, and the storage that they share.

1. Compare the installed packages with the tested ones. 2. Write and read a file in the cache. 3. Start a private Ray or
connect to a cluster. 4. Ask each node for its packages, then for its devices, its clock, and its view of the cache.
"""

from __future__ import annotations

import glob
import importlib.metadata
import importlib.resources
import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from bitcorn_ray.cache.store import open_cache
from bitcorn_ray.errors import BitcornError
from bitcorn_ray.on_ray.session import ray_session
from bitcorn_ray.on_ray.versions import MISSING, differences, installed, libraries

_OLDEST_PYTHON = (3, 11)
_CLOCK_WARNS, _CLOCK_FAILS = 2.0, 300.0  # seconds; S3 refuses a request that is 15 minutes off
_PROBE = "uses/.writing-doctor-"  # `prune` removes it like other files of killed writers
_INSTALL = "pip install -c constraints.txt bitcorn_ray, in the same way on all nodes"
_SHARE = "set --cache-dir or BITCORN_CACHE_DIR to a place that all nodes share, such as s3://bucket/cache"


@dataclass(frozen=True, kw_only=True)
class Check:
    """Result of one check.

    state: "ok", "warn" (works, but slowly or untested) or "fail". found: what was found. remedy: what to do if the
    state is not "ok".
    """

    name: str
    state: str = "ok"
    found: str
    remedy: str | None = None


@dataclass(frozen=True, kw_only=True)
class _Probe:
    """A file in the cache for the nodes to find. address: of the cache, None if it cannot be used."""

    address: str | None
    name: str
    content: bytes


def doctor(
    address: str | None = None,
    cache_dir: str | Path | None = None,
    on_check: Callable[[Check], None] = lambda check: None,
) -> list[Check]:
    """Check an installation, and return the results in order. A problem is a check that failed, not an exception.

    address: of a Ray cluster, host:port, or of its dashboard, http://host:port, of which only the version is checked;
    by default RAY_ADDRESS, else a private Ray is started. cache_dir: folder or URI of the feature cache, by default
    that of all commands; a file is written there and removed. on_check: called with each check when it is done.
    """
    checks = []
    for check in _checks(address or os.environ.get("RAY_ADDRESS") or "local", cache_dir):
        on_check(check)
        checks.append(check)
    return checks


def pins() -> dict[str, str]:
    """Return the versions of the packages that bitcorn_ray was tested with, of its constraints.txt."""
    lines = (importlib.resources.files("bitcorn_ray") / "constraints.txt").read_text(encoding="utf-8").split()
    return dict(line.split("==", 1) for line in lines)


def _checks(address: str, cache_dir: str | Path | None) -> Iterator[Check]:
    yield _check_python()
    yield _check_packages()
    storage, probe = _check_storage(cache_dir)
    try:
        yield storage
        if address.startswith(("http://", "https://")):
            yield _check_dashboard(address)
        else:
            yield from _check_cluster(address, probe)
    finally:
        if probe.address is not None:
            open_cache(probe.address).storage.delete([probe.name])


# This machine


def _check_python() -> Check:
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info < _OLDEST_PYTHON:
        return Check(name="python", state="fail", found=version, remedy="use Python 3.11 or newer")
    return Check(name="python", found=f"{version}, {sys.executable}")


def _check_packages() -> Check:
    missing = [name for name, version in installed(libraries()).items() if version == MISSING]
    if missing:
        return Check(name="packages", state="fail", found=f"{', '.join(missing)} missing", remedy=_INSTALL)
    tested = {_plain(name): (name, version) for name, version in pins().items()}
    here = {_plain(package.metadata["Name"]): package.version for package in importlib.metadata.distributions()}
    common = [tested[name] for name in tested if name in here]
    versions = {name: here[_plain(name)].partition("+")[0] for name, _ in common}
    if other := differences(versions, dict(common)):
        return Check(name="packages", state="warn", found=f"other than tested: {', '.join(other)}", remedy=_INSTALL)
    own = installed([])["bitcorn_ray"]
    return Check(name="packages", found=f"bitcorn_ray {own}, {len(common)} packages as in constraints.txt")


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _check_storage(cache_dir: str | Path | None) -> tuple[Check, _Probe]:
    """Write and read a probe in the cache, for the nodes to find."""
    name, content, started = _probe_name(), os.urandom(8), time.time()
    unusable = _Probe(address=None, name=name, content=content)
    try:
        storage = open_cache(cache_dir).storage
        storage.publish(name, content)
        read, written = bytes(storage.read(name)), storage.existing([name])[name].written
    except (BitcornError, OSError, KeyError) as error:
        return Check(name="storage", state="fail", found=_line(error), remedy=_SHARE), unusable
    ended = time.time()
    if read != content:
        found = f"{storage.shown} returns other content than was written"
        return Check(name="storage", state="fail", found=found, remedy=_SHARE), unusable
    free = f", {shutil.disk_usage(storage.address).free / 1e9:.0f} GB free" if storage.is_local else ""
    found = f"{storage.shown} written and read in {1e3 * (ended - started):.0f} ms{free}"
    offset = max(0.0, started - written - 1, written - ended - 1)  # stores know whole seconds
    return _with_clock(Check(name="storage", found=found), offset), replace(unusable, address=storage.address)


def _probe_name() -> str:
    return f"{_PROBE}{os.urandom(4).hex()}"  # unique: another doctor may run


def _with_clock(check: Check, offset: float) -> Check:
    """Return a check, or a problem of it if its clock is some seconds off."""
    if offset <= _CLOCK_WARNS:
        return check
    state = "fail" if offset > _CLOCK_FAILS else "warn"
    found = f"{check.found}; its clock and this one differ by {offset:.0f} s"
    return replace(check, state=state, found=found, remedy="set the clocks by NTP (chrony, systemd-timesyncd)")


# Ray


def _check_dashboard(address: str) -> Check:
    from bitcorn_ray.on_ray.jobs import cluster_version

    here = installed(["ray"])["ray"]
    try:
        there = cluster_version(address)
    except BitcornError as error:
        return Check(name="ray", state="fail", found=_line(error), remedy="start the cluster, or give its --address")
    if there != here:
        found = f"{address} runs Ray {there}, and this machine has {here}"
        return Check(name="ray", state="fail", found=found, remedy=_INSTALL)
    remedy = f"to check its nodes: bitcorn --address {address} --submit doctor"
    return Check(name="ray", found=f"{here}, {address} takes jobs; {remedy}")


def _check_cluster(address: str, probe: _Probe) -> Iterator[Check]:
    version = installed(["ray"])["ray"]
    try:
        with ray_session(address, compare=False):
            found = "a private one starts" if address == "local" else f"connected at {address}"
            yield Check(name="ray", found=f"{version}, {found}")
            yield from _check_nodes(probe)
    except BitcornError as error:
        remedy = "start Ray, or give the --address of a cluster"
        yield Check(name="ray", state="fail", found=_line(error), remedy=remedy)


def _check_nodes(probe: _Probe) -> Iterator[Check]:
    from bitcorn_ray.on_ray.nodes import ask_nodes

    here = installed(libraries())
    replies = ask_nodes(partial(installed, libraries()))
    silent = [f"{reply.node} {reply.error}" for reply in replies if reply.error]
    cpus, gpus = (sum(reply.resources.get(kind, 0) for reply in replies) for kind in ("CPU", "GPU"))
    found = f"{len(replies)} node{'s' * (len(replies) != 1)}, {cpus:g} CPUs, {gpus:g} GPUs"
    yield _summary("nodes", found, silent, "look at Ray's logs on it, or remove it from the cluster")
    answered = [reply for reply in replies if reply.error is None]
    other = [f"{reply.node} has {', '.join(d)}" for reply in answered if (d := differences(reply.value, here))]
    yield _summary("versions", "the same everywhere", other, _INSTALL)
    if other:
        return  # the next question needs the same code
    started = time.time()
    answered = [reply for reply in ask_nodes(partial(_node_facts, probe)) if reply.error is None]
    yield from (_check_gpus(answered), _check_shared_memory(answered), _check_clock(answered, started, time.time()))
    if probe.address is not None:
        problems = [f"{reply.node}: {reply.value['storage']}" for reply in answered if reply.value["storage"]]
        yield _summary("storage on the nodes", "all see the cache and can write it", problems, _SHARE)


def _node_facts(probe: _Probe) -> dict[str, Any]:
    """Return facts about a node; the clock is read first."""
    now, shared = time.time(), Path("/dev/shm")
    return {
        "time": now,
        "shared_memory": shutil.disk_usage(shared).total if shared.is_dir() else None,
        "devices": len(glob.glob("/dev/nvidia[0-9]*")),
        "storage": None if probe.address is None else _storage_problem(probe.address, probe),
    }


def _storage_problem(cache: str, probe: _Probe) -> str | None:
    """Return why this node does not share the cache of the probe, or None."""
    try:
        storage = open_cache(cache).storage
        if bytes(storage.read(probe.name)) != probe.content:
            return f"another {storage.shown} than that of this command"
        own = _probe_name()
        storage.publish(own, probe.content)
        storage.delete([own])
    except FileNotFoundError:
        return f"has a folder {storage.shown} of its own, and not that of this command"
    except (BitcornError, OSError) as error:
        return _line(error)
    return None


def _check_gpus(replies: Sequence[Any]) -> Check:
    unused = [
        f"Ray has {reply.resources.get('GPU', 0):g} of {reply.value['devices']} GPUs of {reply.node}"
        for reply in replies
        if reply.value["devices"] > reply.resources.get("GPU", 0)
    ]
    devices = sum(reply.value["devices"] for reply in replies)
    found = f"Ray has all {devices}" if devices else "none"
    return _summary("gpus", found, unused, "start the node with --num-gpus, or leave them to others", state="warn")


def _check_shared_memory(replies: Sequence[Any]) -> Check:
    small, sizes = [], []
    for reply in replies:
        size, store = reply.value["shared_memory"], reply.resources.get("object_store_memory", 0)
        if size is not None:
            sizes.append(size)
            if size < store:
                small.append(f"{size / 1e9:.2f} GB on {reply.node} for an object store of {store / 1e9:.2f} GB")
    found = f"{min(sizes) / 1e9:.1f} GB or more, the object stores fit" if sizes else "not on this system"
    remedy = "an emptyDir of medium Memory at /dev/shm, or docker run --shm-size: the store is slow on disk"
    return _summary("/dev/shm", found, small, remedy, state="warn")


def _check_clock(replies: Sequence[Any], started: float, ended: float) -> Check:
    offsets = [(max(0.0, started - reply.value["time"], reply.value["time"] - ended), reply.node) for reply in replies]
    offset, node = max(offsets, default=(0.0, ""))
    if offset <= _CLOCK_WARNS:
        return Check(name="clock", found="the clocks of the nodes agree with this one")
    return _with_clock(Check(name="clock", found=f"worst on {node}"), offset)


def _summary(name: str, found: str, problems: list[str], remedy: str, state: str = "fail") -> Check:
    """Return the check of all nodes, with every problem if there are any."""
    if problems:
        return Check(name=name, state=state, found="; ".join(problems), remedy=remedy)
    return Check(name=name, found=found)


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())
