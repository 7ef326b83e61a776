"""Front door to the lineage of a run: what it was made of, so that it can be made again, see `reproduction`.

    data        where the bars were; of each partition its cache entry's chunks, with the digests of their bars; and a
                digest of everything that the training saw
    code        digests of this package, room by room; that of the features' code is the run's `features`
    config      the configuration that trained it, of a sweep for the run of its best trial (`sweep`); None where a
                training was given in Python
    cluster     nodes, CPUs and GPUs, and the machine of each worker
    versions, seeds

A place is recorded without its secrets.
"""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path
from typing import Any

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.storage.location import shown_uri

__all__ = ["package_code", "run_lineage"]

_SHOWING = ("cli", "report")


def run_lineage(run: str | Path) -> dict[str, Any]:
    """Return the lineage of a run in plain values. run: its folder or URI.

    Raises BitcornError where there is no run, and for one that recorded none: imported, or of an older version.
    """
    from bitcorn_ray.training.run import read_metadata

    metadata = read_metadata(run)
    recorded = metadata.get("lineage")
    if recorded is None:
        raise BitcornError(
            f"the run in {shown_uri(run)} recorded no lineage: it was imported, or trained by an older version"
        )
    return {
        "run": shown_uri(run),
        "created": metadata["created"],
        **recorded,
        "features": metadata.get("features"),
        "sweep": metadata.get("sweep"),
        "versions": metadata["versions"],
        "seeds": {"training": metadata["training"]["seed"]},
        "deterministic": metadata["training"]["deterministic"],
        "precision": metadata["precision"],
    }


@cache
def package_code() -> dict[str, str]:
    """Digests of this package's source, by room, what only shows results apart; "doors" is the top level's files."""
    root, digests = Path(__file__).parents[1], dict[str, Any]()
    for path in sorted(root.rglob("*.py")):
        name = path.relative_to(root)
        room = name.parts[0] if len(name.parts) > 1 else "doors"
        if room in _SHOWING:
            continue
        of_room = digests.setdefault(room, hashlib.sha256())
        of_room.update(name.as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return {room: of_room.hexdigest()[:32] for room, of_room in sorted(digests.items())}
