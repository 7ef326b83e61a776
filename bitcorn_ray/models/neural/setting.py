"""PyTorch's global settings for the length of a training; the caller's come back afterwards."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.models.neural.config import TrainingConfig

__all__ = ["torch_setting"]


@contextmanager
def torch_setting(config: TrainingConfig, device: str) -> Iterator[None]:
    """Seed PyTorch, and set its threads, TF32 and whether only reproducible algorithms are allowed.

    Raises BitcornError for a device that is not there.
    """
    cuda = device.startswith("cuda")
    if cuda and not torch.cuda.is_available():
        raise BitcornError(f"device is {device!r}, but there is no CUDA device here: use 'cpu'")
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    precision = torch.get_float32_matmul_precision()
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    if config.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS asks for it
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
