"""The lineage of a run: the data, code, configuration and machines that made it, see `reproduce`.

    data        the source; for each partition the chunks of its cache entry with the digests of their bars; and a
                digest of all data that the training used
    code        fingerprints of this package, room by room; the run's `features` identify the code of its features
    config      the configuration that trained it, of a sweep for the run of its best trial (`sweep`); None if a
                training was given in Python
    cluster     nodes, CPUs and GPUs, and the machine of each worker
    versions, seeds

URIs are recorded without their secrets.
"""

from __future__ import annotations

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.fingerprint.syntax import package_fingerprint, package_rooms
from bitcorn_ray.storage.location import shown_uri

_PACKAGES = ("bitcorn_ray", "ray", "torch", "numpy", "pandas", "pyarrow", "scikit-learn", "TA-Lib")
_SHOWING = ("__init__", "__main__", "cli", "report")


def run_lineage(run: str | Path) -> dict[str, Any]:
    """Return the lineage of a run in plain values. run: its folder or URI.

    Raises BitcornError if there is no run, or if it recorded no lineage: imported, or of an older version.
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


def package_code() -> dict[str, str]:
    """Return the fingerprint of each room of this package whose code can change a result."""
    return {room: package_fingerprint(room) for room in package_rooms() if room not in _SHOWING}


def installed_versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that results depend on, by name."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def machine_shape() -> dict[str, Any]:
    """Return the nodes, CPUs and GPUs of this machine, as for a cluster."""
    torch = sys.modules.get("torch")
    return {"nodes": 1, "cpus": os.cpu_count(), "gpus": torch.cuda.device_count() if torch else 0}
