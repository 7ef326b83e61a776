"""Equal installations on all nodes: features, weights and pickled jobs are only equal where the code is.

1. `installed` tells what this process has: the digest of bitcorn_ray's code and the versions of the libraries.
2. A command that connects to a cluster asks each of its nodes, see `require_same_everywhere`: what differs is told at
   once, and not after hours.
3. A node may join later, so work is `guarded`: the worker itself compares before its first job, in some 30 ms.
   A private Ray has no other nodes, and there nothing is compared.

The functions that compare travel by value: whether a worker is too old is not for its own old code to say.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import pickle
import re
import socket
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial, wraps
from pathlib import Path
from typing import Any

from bitcorn_ray.errors import BitcornError

_OWN = "bitcorn_ray"
MISSING = "missing"
PRIVATE = "bitcorn-private"
"""Namespace of a private Ray, which tells it from a cluster."""


def libraries() -> list[str]:
    """Names of the packages that bitcorn_ray needs, without those of its extras."""
    required = importlib.metadata.requires(_OWN) or []
    return [re.split(r"[^\w.-]", text, maxsplit=1)[0] for text in required if "extra ==" not in text]


def installed(names: Iterable[str]) -> dict[str, str]:
    """What this process has: Python, bitcorn_ray with its code's digest, and the named packages, by their versions.

    Which build of a version it is, as in 2.13.0+cpu, does not count: nodes with and without GPUs differ there.
    """
    known = dict[tuple[str, ...], dict[str, str]]()
    with suppress(ImportError):
        # Looked up once a process, as its code is what it has loaded; what travels by value has no memory of its own.
        known = vars(importlib.import_module(_OWN)).setdefault("_installed", known)
    asked = tuple(names)
    if asked not in known:
        known[asked] = _looked_up(asked)
    return dict(known[asked])


def _looked_up(names: Iterable[str]) -> dict[str, str]:
    versions = {"python": f"{sys.version_info.major}.{sys.version_info.minor}", _OWN: _own_version()}
    for name in names:
        try:
            versions[name] = importlib.metadata.version(name).partition("+")[0]
        except importlib.metadata.PackageNotFoundError:
            versions[name] = MISSING
    return versions


def _own_version() -> str:
    found = importlib.util.find_spec(_OWN)
    if found is None or not found.submodule_search_locations:
        return MISSING
    folder, digest = Path(found.submodule_search_locations[0]), hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(f"{path.relative_to(folder).as_posix()}\n".encode() + path.read_bytes())
    version = getattr(importlib.import_module(_OWN), "__version__", "of no version")
    return f"{version} (code {digest.hexdigest()[:12]})"


def differences(there: Mapping[str, str], here: Mapping[str, str]) -> list[str]:
    """Say in words what an installation has otherwise than this one; nothing where they are the same."""
    return [
        f"{name} {there.get(name, MISSING)} and not {version}"
        for name, version in here.items()
        if there.get(name) != version
    ]


def require_same_everywhere() -> None:
    """Ask each node of the cluster that this process is connected to. Raises BitcornError with what differs."""
    from bitcorn_ray.on_ray.nodes import ask_nodes

    here = installed(libraries())
    for answer in ask_nodes(partial(installed, list(here)[2:])):
        # A node that does not answer is gone, or cannot work either.
        if answer.error is None and (different := differences(answer.value, here)):
            raise BitcornError(_refusal(answer.node, different))


def guarded(work: Callable[..., Any], refused: Callable[..., Any] | None = None) -> Callable[..., Any]:
    """Let a worker compare its installation with that of this process before it does any work.

    refused: called with what differs and the arguments, gives the result in place of the work's; by default the worker
    raises BitcornError.
    """
    if is_private():
        return work
    from bitcorn_ray.on_ray.pickling import dumped_by_value

    check = dumped_by_value(partial(_found_different, installed(libraries())))

    @wraps(work)
    def checked(*arguments: Any) -> Any:
        if (why := pickle.loads(check)()) is None:
            return work(*arguments)
        if refused is None:
            raise BitcornError(why)
        return refused(why, *arguments)

    return checked


def is_private() -> bool:
    """Tell whether this process is connected to a private Ray."""
    import ray

    return bool(ray.is_initialized()) and ray.get_runtime_context().namespace == PRIVATE


def _found_different(there: Mapping[str, str]) -> str | None:
    """Say what this worker has otherwise than the process that sent it work; None where nothing is."""
    different = differences(installed(list(there)[2:]), there)
    return _refusal(socket.gethostname(), different) if different else None


def _refusal(node: str, different: list[str]) -> str:
    return (
        f"node {node} is refused, as it has {', '.join(different)}: install the same versions on all nodes, "
        "from one image or by pip install -c constraints.txt"
    )
