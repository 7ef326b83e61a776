"""The nodes of a cluster one by one: what they answer, and what there is room for on them.

A question is one task a node, which needs no CPU and so does not wait for one.
"""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from bitcorn_ray.on_ray.pickling import dumped_by_value

_PATIENCE_SECONDS = 60  # a first worker process may take a while on a busy node


@dataclass(frozen=True, kw_only=True)
class NodeReply:
    """What a node answered. node: its name and address. resources: as Ray counts them. error: None, or why it did not.

    value: what the function returned.
    """

    node: str
    resources: dict[str, float]
    value: Any = None
    error: str | None = None


def ask_nodes(question: Callable[[], Any], patience: float = _PATIENCE_SECONDS) -> list[NodeReply]:
    """Call a function on each node that is alive, all at once, and return the answers in the order of their names.

    question: sent with its code, and with that of its module: the nodes' own may be older.

    patience: seconds after which a node counts as silent.
    """
    nodes = sorted((node for node in ray.nodes() if node["Alive"]), key=_name)
    sent = dumped_by_value(question)
    # A function inside a function travels by value as well.
    task = ray.remote(num_cpus=0, max_retries=0)(lambda: pickle.loads(sent)())
    asked = [
        task.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)).remote()
        for node in nodes
    ]
    ready = set(ray.wait(asked, num_returns=len(asked), timeout=patience)[0])
    return [
        _collected(node, reference, reference in ready, patience) for node, reference in zip(nodes, asked, strict=True)
    ]


def room_for(cpus: float, gpus: float) -> int:
    """How many pieces of work with so many CPUs and GPUs the nodes hold, each on one of them."""
    held = 0
    for node in ray.nodes():
        if node["Alive"]:
            have = node["Resources"]
            by_gpus = have.get("GPU", 0.0) / gpus if gpus else math.inf
            held += int(min(have.get("CPU", 0.0) / cpus, by_gpus) + 1e-9)  # 0.3 / 0.1 is less than 3
    return held


def at_once(cpus: float, gpus: float, waiting: int) -> int:
    """How many pieces of work with so many CPUs and GPUs may be under way now; nodes come and go.

    waiting: more than there is room for, so that what adds nodes on demand sees that they are wanted.
    """
    return max(1, room_for(cpus, gpus)) + waiting


def _collected(node: dict[str, Any], reference: Any, ready: bool, patience: float) -> NodeReply:
    value = error = None
    if not ready:
        ray.cancel(reference, force=True)
        error = f"did not answer within {patience:g} seconds"
    else:
        try:
            value = ray.get(reference)
        except ray.exceptions.RayError as failure:
            error = str(failure).strip().splitlines()[-1]
    return NodeReply(node=_name(node), resources=dict(node["Resources"]), value=value, error=error)


def _name(node: dict[str, Any]) -> str:
    name, address = node.get("NodeManagerHostname", ""), node["NodeManagerAddress"]
    return f"{name} ({address})" if name and name != address else str(address)
