"""A real cluster on loopback: a head with its dashboard, started as an operator would, and nodes that join it."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

_BIN = Path(sys.executable).parent
_PATIENCE = 120
# What another Ray of this machine, or its user, has set.
_NOT_PASSED_ON = ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "BITCORN_CACHE_DIR", "PYTHONPATH")


class RealCluster:
    """A head without CPUs, and nodes of one CPU each. environment: of all its processes, and of what talks to it."""

    def __init__(self, environment):
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
        self.started = []
        gcs, dashboard, client = free_ports(3)
        self.address, self.dashboard = f"{_ip(0)}:{gcs}", f"http://127.0.0.1:{dashboard}"
        self._head = [
            *("--head", f"--port={gcs}", "--num-cpus=0", f"--temp-dir={self.folder}"),
            *("--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}", f"--ray-client-server-port={client}"),
        ]

    def start(self, nodes):
        """Start the head, and so many nodes."""
        self._ray_start(self._head, {})
        wait_for(lambda: self.nodes() == 1, self.started)
        for _ in range(nodes):
            self.add_node()

    def add_node(self, **environment):
        """Let a node of one CPU join; environment: further variables of its processes."""
        known = self.nodes()
        self._ray_start([f"--address={self.address}", "--num-cpus=1"], environment)
        wait_for(lambda: self.nodes() > known, self.started)
        return self.started[-1]

    def remove_node(self, process):
        """Let a node leave in good order."""
        self.started.remove(process)
        left = self.nodes() - 1
        end(process)
        wait_for(lambda: self.nodes() == left, self.started)

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

    def _ray_start(self, options, environment):
        agent, grpc, metrics, runtime = free_ports(4)
        command = [
            *(_BIN / "ray", "start", "--block", f"--node-ip-address={_ip(len(self.started))}", "--disable-usage-stats"),
            *(f"--dashboard-agent-listen-port={agent}", f"--dashboard-agent-grpc-port={grpc}"),
            *(f"--metrics-export-port={metrics}", f"--runtime-env-agent-port={runtime}"),
            "--object-store-memory=200000000",
            *options,
        ]
        log = open(Path(self.folder) / f"start-{len(self.started)}.log", "wb")  # noqa: SIM115
        self.started.append(
            subprocess.Popen(command, env={**self.environment, **environment}, stdout=log, stderr=log, cwd=self.folder)
        )
        log.close()

    def stop(self):
        """End all that was started, the head last, and remove what it wrote."""
        for process in reversed(self.started):
            end(process)
        shutil.rmtree(self.folder, ignore_errors=True)


def end(process):
    """End what was started here, with the processes that it looks after."""
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(60)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextmanager
def real_cluster(nodes, **environment):
    """Run a cluster for the length of a block."""
    cluster = RealCluster(environment)
    try:
        cluster.start(nodes)
        yield cluster
    finally:
        cluster.stop()


def _ip(number):
    """Address of a node; Ray would take the machine's own in place of 127.0.0.1."""
    return f"127.0.0.{2 + number}"


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
        assert all(process.poll() is None for process in started), "a node ended"
        time.sleep(0.2)
