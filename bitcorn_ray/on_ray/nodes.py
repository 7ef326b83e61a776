"""Questions to each node of a cluster, and the room on its nodes."""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from bitcorn_ray.on_ray.pickling import dumped_by_value

_TIMEOUT_SECONDS = 60  # the first worker process of a busy node may take a while


@dataclass(frozen=True, kw_only=True)
class NodeReply:
    """Reply of a node. node: name and address. resources: of Ray. value: result of the question. error: why none."""

    node: str
    resources: dict[str, float]
    value: Any = None
    error: str | None = None


def ask_nodes(question: Callable[[], Any], timeout: float = _TIMEOUT_SECONDS) -> list[NodeReply]:
    """Call a function on each live node, all at once, and return the replies by the names of the nodes.

    question: travels with the code of its module, because the nodes' own may be older. It needs no CPU, so that it does
    not wait for one. timeout: in seconds.
    """
    nodes = sorted((node for node in ray.nodes() if node["Alive"]), key=_name)
    packed = dumped_by_value(question)
    task = ray.remote(num_cpus=0, max_retries=0)(lambda: pickle.loads(packed)())
    references = [
        task.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)).remote()
        for node in nodes
    ]
    ready = set(ray.wait(references, num_returns=len(references), timeout=timeout)[0])
    replies = []
    for node, reference in zip(nodes, references, strict=True):
        value = error = None
        if reference not in ready:
            ray.cancel(reference, force=True)
            error = f"did not answer within {timeout:g} seconds"
        else:
            try:
                value = ray.get(reference)
            except ray.exceptions.RayError as failure:
                error = str(failure).strip().splitlines()[-1]
        replies.append(NodeReply(node=_name(node), resources=dict(node["Resources"]), value=value, error=error))
    return replies


def room_for(cpus: float, gpus: float) -> int:
    """Return how many jobs with so many CPUs and GPUs fit on the nodes, each job on one node."""
    count = 0
    for node in ray.nodes():
        if node["Alive"]:
            resources = node["Resources"]
            by_gpus = resources.get("GPU", 0.0) / gpus if gpus else math.inf
            count += int(min(resources.get("CPU", 0.0) / cpus, by_gpus) + 1e-9)  # 0.3 / 0.1 is less than 3
    return count


def at_once(cpus: float, gpus: float, waiting: int) -> int:
    """Return how many jobs with so many CPUs and GPUs to start now; nodes come and go.

    waiting: jobs beyond the room, which make an autoscaler add nodes.
    """
    return max(1, room_for(cpus, gpus)) + waiting


def _name(node: dict[str, Any]) -> str:
    name, address = node.get("NodeManagerHostname", ""), node["NodeManagerAddress"]
    return f"{name} ({address})" if name and name != address else str(address)
