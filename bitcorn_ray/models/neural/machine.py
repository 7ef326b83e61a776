"""What a training ran on and with: the machine of each of its processes, and the versions of what it was made with."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

__all__ = ["cpu_family", "installed_versions", "machine", "own_shape"]

_PACKAGES = ("bitcorn_ray", "ray", "torch", "numpy", "pandas", "pyarrow", "scikit-learn", "TA-Lib")
_CPU_FIELDS = ("vendor_id", "cpu family", "model")


def machine(device: str) -> dict[str, Any]:
    """Describe where this process computes, as far as the last bits of its results depend on it.

    cpu: its family. instructions: those that PyTorch's kernels use. threads: of PyTorch. gpu: its name, None without.
    """
    return {
        "cpu": cpu_family(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name(torch.device(device)) if device.startswith("cuda") else None,
    }


def own_shape() -> dict[str, Any]:
    """Nodes, CPUs and GPUs where there is no cluster: those of this machine."""
    return {"nodes": 1, "cpus": os.cpu_count(), "gpus": torch.cuda.device_count()}


def cpu_family() -> str:
    """Name the family of this machine's CPU, such as "x86_64 GenuineIntel 6 143"."""
    facts = dict[str, str]()
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n\n")[0].splitlines():
            name, _, value = line.partition(":")
            facts[name.strip()] = value.strip()
    except OSError:  # not Linux
        facts["vendor_id"] = platform.processor()
    return " ".join(filter(None, [platform.machine(), *(facts.get(name, "") for name in _CPU_FIELDS)]))


def installed_versions() -> dict[str, str]:
    """Versions of Python and of the packages that results depend on, by name."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
