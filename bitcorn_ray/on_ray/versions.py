"""Comparison of installations: features, weights and pickled jobs agree only if all nodes have the same code.

1. `installed` returns the digest of this package's code and the versions of the libraries.
2. `require_same_everywhere` asks each node when a command connects to a cluster, so that it fails at once.
3. `guarded` lets each worker compare before it works (30 ms), because a node may join later.

The functions that compare travel by value, because an older package on a node may lack them or do something else. A
private Ray has no other nodes, and nothing is compared.
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
"""Namespace of a private Ray, to distinguish it from a cluster."""


def libraries() -> tuple[str, ...]:
    """Return the names of the packages that bitcorn_ray requires, without those of its extras."""
    required = importlib.metadata.requires(_OWN) or []
    return tuple(re.split(r"[^\w.-]", text, maxsplit=1)[0] for text in required if "extra ==" not in text)


def installed(names: Iterable[str]) -> dict[str, str]:
    """Return the versions of Python, of bitcorn_ray with the digest of its code, and of the named packages.

    The build of a version, such as +cpu in 2.13.0+cpu, is left out: it differs between nodes with and without GPUs.
    """
    memo = dict[tuple[str, ...], dict[str, str]]()
    with suppress(ImportError):
        # Stored in the package, once per process: a function that travels by value has globals of its own.
        memo = vars(importlib.import_module(_OWN)).setdefault("_installed", memo)
    key = tuple(names)
    if key not in memo:
        python = f"{sys.version_info.major}.{sys.version_info.minor}"
        memo[key] = {"python": python, _OWN: _own_version(), **{name: _version(name) for name in key}}
    return dict(memo[key])


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name).partition("+")[0]
    except importlib.metadata.PackageNotFoundError:
        return MISSING


def _own_version() -> str:
    # The bytes of the files, and not `package_fingerprint`, which takes 50 times as long and which older nodes lack.
    found = importlib.util.find_spec(_OWN)
    if found is None or not found.submodule_search_locations:
        return MISSING
    folder, digest = Path(found.submodule_search_locations[0]), hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(f"{path.relative_to(folder).as_posix()}\n".encode() + path.read_bytes())
    version = getattr(importlib.import_module(_OWN), "__version__", "unknown")
    return f"{version} (code {digest.hexdigest()[:12]})"


def differences(there: Mapping[str, str], here: Mapping[str, str]) -> list[str]:
    """Return a text for each package whose version differs from this installation's."""
    return [
        f"{name} {there.get(name, MISSING)} and not {version}"
        for name, version in here.items()
        if there.get(name) != version
    ]


def require_same_everywhere() -> None:
    """Raise BitcornError if a node of the connected cluster has another installation than this process.

    A node that does not answer is skipped: it cannot work either, or its workers compare later.
    """
    from bitcorn_ray.on_ray.nodes import ask_nodes

    here = installed(libraries())
    for reply in ask_nodes(partial(installed, libraries())):
        if reply.error is None and (different := differences(reply.value, here)):
            raise BitcornError(_refusal(reply.node, different))


def guarded(work: Callable[..., Any], refused: Callable[..., Any] | None = None) -> Callable[..., Any]:
    """Return a function that compares the worker's installation with this process's before it does the work.

    refused: takes the difference and the arguments, and makes the result of a worker with another installation; by
    default such a worker raises BitcornError.
    """
    if is_private():
        return work
    from bitcorn_ray.on_ray.pickling import dumped_by_value

    names = libraries()
    check = dumped_by_value(partial(_difference, installed(names), names))

    @wraps(work)
    def checked(*arguments: Any) -> Any:
        if (difference := pickle.loads(check)()) is None:
            return work(*arguments)
        if refused is None:
            raise BitcornError(difference)
        return refused(difference, *arguments)

    return checked


def is_private() -> bool:
    """Return True if this process is connected to a private Ray."""
    import ray

    return bool(ray.is_initialized()) and ray.get_runtime_context().namespace == PRIVATE


def _difference(driver: Mapping[str, str], names: tuple[str, ...]) -> str | None:
    """Return how this worker's installation differs from the driver's, or None."""
    different = differences(installed(names), driver)
    return _refusal(socket.gethostname(), different) if different else None


def _refusal(node: str, different: list[str]) -> str:
    return (
        f"node {node} is refused, as it has {', '.join(different)}: install the same versions on all nodes, "
        "from one image or by pip install -c constraints.txt"
    )
