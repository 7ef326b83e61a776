"""In which precision to train: float32, or bfloat16 by autocast, whichever a short trial finds faster.

Autocast computes matrix products and recurrent layers in bfloat16 and keeps weights, optimiser and losses in float32.
It pays where the processor multiplies bfloat16: AVX512-BF16 or AMX on a CPU, tensor cores on a GPU.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch

__all__ = ["autocast", "choose_precision", "supports_bfloat16"]

_SECONDS = 1.0  # for the trial, unless one step takes longer
_ROUNDS = 5
_GAIN = 0.95  # bfloat16 has to take at most this share of float32's time


def choose_precision(wanted: str, deterministic: bool, device: torch.device, step: Callable[[str], object]) -> str:
    """Return "float32" or "bfloat16" for a wanted precision, of which "auto" leaves the choice to a trial.

    step: one forward and backward pass in a given precision, which changes nothing. Deterministic training never tries:
    times differ from run to run, and losses would with them.
    """
    if wanted != "auto":
        return wanted
    if deterministic or not supports_bfloat16(device):
        return "float32"
    seconds: dict[str, list[float]] = {"float32": [], "bfloat16": []}
    started = time.perf_counter()
    for turn in range(1 + _ROUNDS):
        for precision, taken in seconds.items():
            begun = time.perf_counter()
            step(precision)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            if turn:  # the first turn warms up
                taken.append(time.perf_counter() - begun)
        if turn and time.perf_counter() - started > _SECONDS:
            break
    return "bfloat16" if min(seconds["bfloat16"]) < _GAIN * min(seconds["float32"]) else "float32"


def supports_bfloat16(device: torch.device) -> bool:
    """Tell whether a device computes bfloat16 by itself."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def autocast(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """Return the context of a forward pass in a precision."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bfloat16" else nullcontext()
