"""What a measurement ran on: the machine and the versions."""

from __future__ import annotations

import os
import platform
import sys
from importlib.metadata import version
from pathlib import Path

__all__ = ["describe_machine", "library_versions"]

_LIBRARIES = ("bitcorn_ray", "numpy", "pandas", "pyarrow", "ta-lib", "torch", "ray")


def describe_machine() -> dict[str, str | int]:
    """Cores that this process may use, model of the CPU, architecture, and the GPU if PyTorch has used one."""
    found: dict[str, str | int] = {
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        "cpu": _cpu_model(),
        "architecture": platform.machine(),
    }
    torch = sys.modules.get("torch")  # not imported for this: it takes seconds
    if torch is not None and torch.cuda.is_initialized():
        found["gpu"] = torch.cuda.get_device_name()
    return found


def library_versions() -> dict[str, str]:
    """Versions of Python and of the libraries that do the work."""
    return {"Python": platform.python_version(), **{name: version(name) for name in _LIBRARIES}}


def _cpu_model() -> str:
    """Name of the CPU as Linux knows it, else as Python does."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
