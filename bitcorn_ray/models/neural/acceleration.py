"""The arithmetic of a training: precision, threads, reproducibility, and the machine that it ran on.

Autocast computes matrix products and recurrent layers in bfloat16 and keeps weights, optimiser and losses in float32.
It pays if the processor multiplies bfloat16: AVX512-BF16 or AMX on a CPU, tensor cores on a GPU.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.models.neural.config import TrainingConfig

_SECONDS = 1.0  # of measuring, unless one step takes longer
_ROUNDS = 5
_GAIN = 0.95  # bfloat16 must take at most this share of float32's time
_CPU_FIELDS = ("vendor_id", "cpu family", "model")


@contextmanager
def torch_runtime(config: TrainingConfig, device: str) -> Iterator[None]:
    """Set PyTorch's seed, threads, TF32 and determinism for the length of a training, and restore them afterwards.

    Raises BitcornError for a missing device.
    """
    cuda = device.startswith("cuda")
    if cuda and not torch.cuda.is_available():
        raise BitcornError(f"device is {device!r}, but this machine has no CUDA device: use 'cpu'")
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    precision = torch.get_float32_matmul_precision()
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    if config.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS needs it
        torch.use_deterministic_algorithms(True)
    elif cuda:
        torch.set_float32_matmul_precision("high")  # TF32
        torch.backends.cudnn.allow_tf32 = True
    try:
        with torch.random.fork_rng():
            torch.manual_seed(config.seed)
            yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(deterministic)
        torch.set_float32_matmul_precision(precision)


def choose_precision(wanted: str, deterministic: bool, device: torch.device, step: Callable[[str], object]) -> str:
    """Return "float32" or "bfloat16" for a wanted precision; "auto" measures which one is faster.

    step: one forward and backward pass in a given precision, without side effects. Deterministic training never
    measures: times differ from run to run, and losses would differ with them.
    """
    if wanted != "auto":
        return wanted
    if deterministic or not supports_bfloat16(device):
        return "float32"
    seconds: dict[str, list[float]] = {"float32": [], "bfloat16": []}
    started = time.perf_counter()
    for turn in range(1 + _ROUNDS):
        for precision, durations in seconds.items():
            before = time.perf_counter()
            step(precision)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            if turn:  # the first turn warms up
                durations.append(time.perf_counter() - before)
        if turn and time.perf_counter() - started > _SECONDS:
            break
    return "bfloat16" if min(seconds["bfloat16"]) < _GAIN * min(seconds["float32"]) else "float32"


def supports_bfloat16(device: torch.device) -> bool:
    """Return True if a device computes bfloat16 natively."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def autocast(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """Return the context of a forward pass in a precision."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bfloat16" else nullcontext()


def machine(device: torch.device) -> dict[str, Any]:
    """Return what the last bits of results depend on.

    cpu: its family. instructions: those that PyTorch's kernels use. threads: of PyTorch. gpu: its name, or None.
    """
    return {
        "cpu": cpu_family(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
    }


def cpu_family() -> str:
    """Return the family of this machine's CPU, such as "x86_64 GenuineIntel 6 143"."""
    facts = dict[str, str]()
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n\n")[0].splitlines():
            name, _, value = line.partition(":")
            facts[name.strip()] = value.strip()
    except OSError:  # not Linux
        facts["vendor_id"] = platform.processor()
    return " ".join(filter(None, [platform.machine(), *(facts.get(name, "") for name in _CPU_FIELDS)]))
