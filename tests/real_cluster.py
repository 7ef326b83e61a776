"""A real cluster on loopback: a head with its dashboard, started as an operator would, and nodes that join it."""

from __future__ import annotations

import itertools
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

# A node that is gone is noticed within seconds, sooner than with Ray's own settings; a busy one has its time.
QUICK_TO_NOTICE = {
    "RAY_health_check_initial_delay_ms": "0",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_failure_threshold": "5",
}
_BIN = Path(sys.executable).parent
_PATIENCE = 300
_HEAD = "127.0.0.2"  # Ray would take the machine's own address in place of 127.0.0.1
# What another Ray of this machine, or its user, has set.
_NOT_PASSED_ON = ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "BITCORN_CACHE_DIR", "PYTHONPATH")


@dataclass(frozen=True, eq=False)
class Node:
    """What was started: the process that looks after the node's own, and the node's address."""

    process: subprocess.Popen
    address: str


@dataclass(frozen=True, eq=False)
class Command:
    """A command under way beside a cluster, and the file with what it says."""

    process: subprocess.Popen
    said: IO[str]

    def kill(self):
        """Let it be gone from one moment to the next."""
        assert self.process.poll() is None, f"it ended before it could be killed: {self.told()}"
        self.process.kill()
        self.process.wait()

    def finish(self, status=0):
        """Wait for its end, with this status; returns what it said."""
        try:
            assert self.process.wait(300) == status, self.told()
        finally:
            kill(self.process.pid)
        return self.told()

    def told(self):
        """What it has said so far."""
        self.said.seek(0)
        return self.said.read()


class RealCluster:
    """A head without CPUs, and nodes of one CPU each. environment: of all its processes, and of what talks to it.

    store_bytes: size of each node's object store.
    """

    def __init__(self, environment, store_bytes=200_000_000):
        kept = {name: value for name, value in os.environ.items() if name not in _NOT_PASSED_ON}
        self.environment = {
            **kept,
            "PATH": os.pathsep.join([str(_BIN), os.environ["PATH"]]),
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "RAY_USAGE_STATS_ENABLED": "0",
            **environment,
        }
        self.folder = tempfile.mkdtemp(prefix="bc", dir="/tmp")  # short, as sockets lie in it
        self.started, self.store_bytes, self._addresses = [], store_bytes, itertools.count(3)
        gcs, dashboard, client = free_ports(3)
        self.address, self.dashboard = f"{_HEAD}:{gcs}", f"http://127.0.0.1:{dashboard}"
        self._head = [
            *("--head", f"--port={gcs}", "--num-cpus=0", f"--temp-dir={self.folder}"),
            *("--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}", f"--ray-client-server-port={client}"),
        ]

    def start(self, nodes):
        """Start the head, and so many nodes."""
        self.start_head()
        for _ in range(nodes):
            self.add_node()

    def start_head(self):
        """Start the head, at the address that it always has; it knows of nothing."""
        self._ray_start(self._head, _HEAD, {})
        wait_for(lambda: self.nodes() == 1, self.started)

    def add_node(self, **environment):
        """Let a node of one CPU join; environment: further variables of its processes."""
        wait_for(lambda: self.nodes() == len(self.started), self.started)  # what was killed is missed
        address = f"127.0.0.{next(self._addresses)}"
        self._ray_start([f"--address={self.address}", "--num-cpus=1"], address, environment)
        wait_for(lambda: self.nodes() == len(self.started), self.started)
        return self.started[-1]

    def remove_node(self, node):
        """Let a node leave in good order."""
        self.started.remove(node)
        left = self.nodes() - 1
        end(node.process)
        wait_for(lambda: self.nodes() == left, self.started)

    def kill_node(self, node):
        """Let a node be gone from one moment to the next, with all that runs on it."""
        self.started.remove(node)
        kill_with_all_below(node.process)

    def running(self, title):
        """Nodes and ids of the processes with this in their titles, such as RayTrainWorker."""
        return [
            (node, process)
            for node in self.started
            for process in below(node.process.pid)
            if title in command_line(process)
        ]

    def nodes(self):
        """How many nodes are alive, the head among them."""
        return (self.asked("/nodes?view=summary") or "").count('"ALIVE"')

    def asked(self, path):
        """What the dashboard answers, None where it does not."""
        import requests

        token = {"Authorization": f"Bearer {self.environment['RAY_AUTH_TOKEN']}"}
        try:
            answer = requests.get(self.dashboard + path, headers=token, timeout=10)
        except requests.RequestException:
            return None
        return answer.text if answer.ok else None

    def run(self, *words, folder, **environment):
        """Run a command beside the cluster, as its user would."""
        return subprocess.run(
            [str(word) for word in words],
            cwd=folder,
            env={**self.environment, **environment},
            capture_output=True,
            text=True,
            timeout=600,
        )

    def begin(self, *words, folder, **environment):
        """Begin such a command."""
        said = tempfile.TemporaryFile("w+", dir=self.folder)  # noqa: SIM115
        process = subprocess.Popen(
            [str(word) for word in words],
            cwd=folder,
            env={**self.environment, **environment},
            stdout=said,
            stderr=subprocess.STDOUT,
        )
        return Command(process, said)

    def _ray_start(self, options, address, environment):
        agent, grpc, metrics, runtime = free_ports(4)
        command = [
            *(_BIN / "ray", "start", "--block", f"--node-ip-address={address}", "--disable-usage-stats"),
            *(f"--dashboard-agent-listen-port={agent}", f"--dashboard-agent-grpc-port={grpc}"),
            *(f"--metrics-export-port={metrics}", f"--runtime-env-agent-port={runtime}"),
            f"--object-store-memory={self.store_bytes}",
            *options,
        ]
        with open(Path(self.folder) / f"start-{address}.log", "ab") as log:
            process = subprocess.Popen(
                command, env={**self.environment, **environment}, stdout=log, stderr=log, cwd=self.folder
            )
        self.started.append(Node(process, address))

    def stop(self):
        """End all that was started, the head last, and remove what it wrote; in good order that would take its time."""
        for node in reversed(self.started):
            kill_with_all_below(node.process)
        shutil.rmtree(self.folder, ignore_errors=True)


def end(process):
    """End what was started here, with the processes that it looks after."""
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(60)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def kill_with_all_below(process):
    """Kill a process that was started here, with those that it has started, and so on."""
    for each in [process.pid, *below(process.pid)]:
        kill(each)
    process.wait()


def kill(process):
    """Kill a process, which may be gone already."""
    with suppress(ProcessLookupError):
        os.kill(process, signal.SIGKILL)


def below(process):
    """Ids of the processes that a process has started, and so on."""
    children = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(folder.name))
    found = [process]
    for each in found:
        found += children.get(each, [])
    return found[1:]


def command_line(process):
    """Command line, or title, of a process; empty where it is gone."""
    with suppress(OSError):
        return Path(f"/proc/{process}/cmdline").read_text()
    return ""


@contextmanager
def real_cluster(nodes, store_bytes=200_000_000, **environment):
    """Run a cluster for the length of a block."""
    cluster = RealCluster(environment, store_bytes)
    try:
        cluster.start(nodes)
        yield cluster
    finally:
        cluster.stop()


def free_ports(count):
    """Ports of loopback at which nothing listens, all different."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def wait_for(what, started):
    """Wait until something is so, while what was started still runs."""
    until = time.monotonic() + _PATIENCE
    while not what():
        assert time.monotonic() < until, "a node did not come up in time"
        assert all(node.process.poll() is None for node in started), "a node ended"
        time.sleep(0.2)
