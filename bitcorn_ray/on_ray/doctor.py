"""Front door to the check of an installation: this machine, the nodes of a cluster, and the storage that they share.

1. What is installed here, beside what was tested. 2. Ray: a private one is started, a cluster is connected to. 3. Each
node is asked what it has installed, and then, all at once, for its devices, its clock, and what it sees of the cache.
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
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from bitcorn_ray.cache.store import open_cache
from bitcorn_ray.errors import BitcornError
from bitcorn_ray.on_ray.versions import differences, installed, libraries

_OLDEST_PYTHON = (3, 11)
_CLOCK_WARNS, _CLOCK_FAILS = 2.0, 300.0  # seconds; S3 refuses a request that is 15 minutes off
_PROBE = "uses/.writing-doctor-"  # as `prune` removes what killed writers left
_INSTALL = "pip install -c constraints.txt bitcorn_ray, in the same way on all nodes"
_SHARED = "give --cache-dir or BITCORN_CACHE_DIR a place that all nodes share, such as s3://bucket/cache"


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing that was looked at.

    state: "ok", "warn" (works, but slowly or untested) or "fail". found: what there is. remedy: what to do, where it is
    not ok.
    """

    name: str
    state: str
    found: str
    remedy: str | None = None


def doctor(
    address: str | None = None,
    cache_dir: str | Path | None = None,
    on_check: Callable[[Check], None] = lambda check: None,
) -> list[Check]:
    """Check an installation, and return what was found, in order.

    address: of a Ray cluster, host:port, or of its dashboard, http://host:port, of which only the version is asked; by
    default RAY_ADDRESS, else a private Ray is started. cache_dir: folder or URI of the feature cache, by default as all
    commands have it; a file is written there and removed. on_check: called with each check as it is done.
    Whatever is wrong is a check that failed, and not an exception.
    """
    checks = []
    for check in _checks(address or os.environ.get("RAY_ADDRESS") or "local", cache_dir):
        on_check(check)
        checks.append(check)
    return checks


def pins() -> dict[str, str]:
    """Versions of all packages that bitcorn_ray was tested with, by their names: its constraints.txt."""
    lines = (importlib.resources.files("bitcorn_ray") / "constraints.txt").read_text(encoding="utf-8").split()
    return dict(line.split("==", 1) for line in lines)


def _checks(address: str, cache_dir: str | Path | None) -> Iterator[Check]:
    yield _python()
    yield _packages()
    with _Probe(cache_dir) as probe:
        yield probe.here
        if address.startswith(("http://", "https://")):
            yield _dashboard(address)
        else:
            yield from _cluster(address, probe)


# This machine


def _python() -> Check:
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info < _OLDEST_PYTHON:
        return Check(name="python", state="fail", found=version, remedy="use Python 3.11 or newer")
    return Check(name="python", state="ok", found=f"{version}, {sys.executable}")


def _packages() -> Check:
    tested = pins()
    missing = [name for name, version in installed(libraries()).items() if version == "missing"]
    if missing:
        return Check(name="packages", state="fail", found=f"{', '.join(missing)} missing", remedy=_INSTALL)
    here = {_plain(each.metadata["Name"]): each.version for each in importlib.metadata.distributions()}
    common = {name: here[_plain(name)].partition("+")[0] for name in tested if _plain(name) in here}
    other = differences(common, {name: tested[name] for name in common})
    if other:
        return Check(name="packages", state="warn", found=f"other than tested: {', '.join(other)}", remedy=_INSTALL)
    own = installed([])["bitcorn_ray"]
    return Check(name="packages", state="ok", found=f"bitcorn_ray {own}, {len(common)} packages as in constraints.txt")


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


# Storage


class _Probe:
    """A file in the cache for the length of a block, for the nodes to find."""

    def __init__(self, cache_dir: str | Path | None) -> None:
        self.name = f"{_PROBE}{os.urandom(4).hex()}"  # another doctor may be at work
        self.here, self.address, self.content = self._written(cache_dir)

    def _written(self, cache_dir: str | Path | None) -> tuple[Check, str | None, bytes]:
        content, began = os.urandom(8), time.time()
        try:
            storage = open_cache(cache_dir).storage
            storage.publish(self.name, content)
            read, written = bytes(storage.read(self.name)), storage.existing([self.name])[self.name].written
        except (BitcornError, OSError, KeyError) as error:
            return Check(name="storage", state="fail", found=_line(error), remedy=_SHARED), None, content
        ended = time.time()
        off = max(0.0, began - written - 1, written - ended - 1)  # stores know whole seconds
        if read != content:
            found = f"{storage.shown} gives other content than was written"
            return Check(name="storage", state="fail", found=found, remedy=_SHARED), None, content
        found = f"{storage.shown} written and read in {1e3 * (ended - began):.0f} ms{_room(storage)}"
        return _by_clock(Check(name="storage", state="ok", found=found), off), storage.address, content

    def __enter__(self) -> _Probe:
        return self

    def __exit__(self, *_: object) -> None:
        if self.address is not None:
            open_cache(self.address).storage.delete([self.name])


def _room(storage: Any) -> str:
    return f", {shutil.disk_usage(storage.address).free / 1e9:.0f} GB free" if storage.is_local else ""


def _by_clock(check: Check, off: float) -> Check:
    if off <= _CLOCK_WARNS:
        return check
    state = "fail" if off > _CLOCK_FAILS else "warn"
    found = f"{check.found}; its clock and this one differ by {off:.0f} s"
    return Check(name=check.name, state=state, found=found, remedy="set the clocks by NTP (chrony, systemd-timesyncd)")


# Ray


def _dashboard(address: str) -> Check:
    from bitcorn_ray.on_ray.jobs import cluster_version

    here = installed(["ray"])["ray"]
    try:
        there = cluster_version(address)
    except BitcornError as error:
        return Check(name="ray", state="fail", found=_line(error), remedy="start the cluster, or give its --address")
    if there != here:
        found = f"{address} runs Ray {there}, and this machine has {here}"
        return Check(name="ray", state="fail", found=found, remedy=_INSTALL)
    inside = f"; its nodes are checked from inside: bitcorn --address {address} --submit doctor"
    return Check(name="ray", state="ok", found=f"{here}, jobs are taken at {address}{inside}")


def _cluster(address: str, probe: _Probe) -> Iterator[Check]:
    from bitcorn_ray.on_ray.session import connected

    try:
        with connected(address):
            yield Check(name="ray", state="ok", found=_connection(address))
            yield from _nodes(probe)
    except BitcornError as error:
        yield Check(
            name="ray", state="fail", found=_line(error), remedy="start Ray, or give the --address of a cluster"
        )


def _connection(address: str) -> str:
    version = installed(["ray"])["ray"]
    return f"{version}, a private one starts" if address == "local" else f"{version}, connected at {address}"


def _nodes(probe: _Probe) -> Iterator[Check]:
    from bitcorn_ray.on_ray.nodes import ask_nodes

    here = installed(libraries())
    answers = ask_nodes(partial(installed, list(here)[2:]))
    silent = [f"{answer.node} {answer.error}" for answer in answers if answer.error]
    yield _all("nodes", _resources(answers), silent, "look at Ray's logs on it, or take it out of the cluster")
    known = [answer for answer in answers if answer.error is None]
    other = [f"{a.node} has {', '.join(d)}" for a in known if (d := differences(a.value, here))]
    yield _all("versions", "the same everywhere", other, _INSTALL)
    if other:
        return  # what is asked next is this version's own
    began = time.time()
    answers = ask_nodes(partial(_node_facts, probe.address, probe.name, probe.content))
    ended = time.time()
    known = [answer for answer in answers if answer.error is None]
    yield from (_gpus(known), _shared_memory(known), _clock(known, began, ended))
    if probe.address is not None:
        blind = [f"{answer.node}: {answer.value['storage']}" for answer in known if answer.value["storage"]]
        yield _all("storage on the nodes", "all see the cache and can write it", blind, _SHARED)


def _node_facts(cache: str | None, name: str, content: bytes) -> dict[str, Any]:
    """What a node has, and sees of the cache; the clock is read first."""
    now, shared = time.time(), Path("/dev/shm")
    return {
        "time": now,
        "shared_memory": shutil.disk_usage(shared).total if shared.is_dir() else None,
        "devices": len(glob.glob("/dev/nvidia[0-9]*")),
        "storage": None if cache is None else _seen(cache, name, content),
    }


def _seen(cache: str, name: str, content: bytes) -> str | None:
    """What keeps this node from sharing the cache, None for nothing. name, content: of the probe."""
    own = f"{_PROBE}{os.urandom(4).hex()}"
    try:
        storage = open_cache(cache).storage
        if bytes(storage.read(name)) != content:
            return f"another {storage.shown} than that of this command"
        storage.publish(own, content)
        storage.delete([own])
    except FileNotFoundError:
        return f"does not see {storage.shown} of this command, but a folder of its own"
    except (BitcornError, OSError) as error:
        return _line(error)
    return None


def _resources(answers: list[Any]) -> str:
    cpus, gpus = (sum(answer.resources.get(kind, 0) for answer in answers) for kind in ("CPU", "GPU"))
    return f"{len(answers)} node{'s' * (len(answers) != 1)}, {cpus:g} CPUs, {gpus:g} GPUs"


def _gpus(answers: list[Any]) -> Check:
    devices = sum(answer.value["devices"] for answer in answers)
    unused = [
        f"Ray has {answer.resources.get('GPU', 0):g} of {answer.value['devices']} GPUs of {answer.node}"
        for answer in answers
        if answer.value["devices"] > answer.resources.get("GPU", 0)
    ]
    told = f"Ray has all {devices}" if devices else "none"
    return _all("gpus", told, unused, "start the node with --num-gpus, or leave them to others", state="warn")


def _shared_memory(answers: list[Any]) -> Check:
    small, sizes = [], []
    for answer in answers:
        size, store = answer.value["shared_memory"], answer.resources.get("object_store_memory", 0)
        if size is not None:
            sizes.append(size)
            if size < store:
                small.append(f"{size / 1e9:.2f} GB on {answer.node} for an object store of {store / 1e9:.2f} GB")
    told = f"{min(sizes) / 1e9:.1f} GB or more, the object stores fit" if sizes else "not on this system"
    remedy = "an emptyDir of medium Memory at /dev/shm, or docker run --shm-size: the store is slow on disk"
    return _all("/dev/shm", told, small, remedy, state="warn")


def _clock(answers: list[Any], began: float, ended: float) -> Check:
    off = {answer.node: max(0.0, began - answer.value["time"], answer.value["time"] - ended) for answer in answers}
    worst = max(off, key=lambda node: off[node], default="")
    if not worst or off[worst] <= _CLOCK_WARNS:
        return Check(name="clock", state="ok", found="those of the nodes agree with this one")
    return _by_clock(Check(name="clock", state="ok", found=f"worst on {worst}"), off[worst])


def _all(name: str, found: str, wrong: list[str], remedy: str, state: str = "fail") -> Check:
    """The check of all nodes: one that fails where anything is wrong, with all of it."""
    if wrong:
        return Check(name=name, state=state, found="; ".join(wrong), remedy=remedy)
    return Check(name=name, state="ok", found=found)


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())
