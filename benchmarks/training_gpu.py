"""Training speed on a GPU against a bare cuDNN loop, the same model without a loop around it, and a plain loop.

Windows of 64 x 14, horizons 1, 4, 12, hidden 256, two layers.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import repeat

import torch
from torch import nn

from benchmarks.plain_loop import FEATURES, HORIZONS, SEQ_LEN, plain_epoch
from benchmarks.timing import Figure, seconds_of
from benchmarks.training import bare_steps, random_data, turns, windows_rate
from bitcorn_ray.models.neural.config import LSTMConfig, TrainingConfig

_HIDDEN, _BATCH, _STEPS, _PLAIN_WINDOWS, _ROUNDS = 256, 1024, 200, 6_000, 5


def training_gpu() -> list[Figure]:
    """Epochs of 204,800 windows in batches of 1,024, turn by turn; the plain loop's 6,000 in batches of 64.

    Without a GPU nothing is measured.
    """
    if not torch.cuda.is_available():
        print("there is no CUDA device here: not measured")
        return []
    print(f"{torch.cuda.get_device_name()}, PyTorch {torch.__version__}")
    plain, windows = plain_epoch(_HIDDEN, _PLAIN_WINDOWS, "cuda"), _STEPS * _BATCH
    figures = list[Figure]()
    for precision in ("bfloat16", "float32"):
        ours, on_one_batch, bare, plains = _timed(precision, plain)
        mine = windows_rate(f"ours, {precision}", ours, windows)
        for what, seconds, count, limit in (
            ("cuDNN's LSTM alone on one batch again and again", bare, windows, 0.9),
            ("the same model on one batch again and again", on_one_batch, windows, 0.9),
            ("plain loop in batches of 64, float32, in turns with ours", plains, _PLAIN_WINDOWS, 10.0),
        ):
            reference = windows_rate(f"{what}, {precision}", seconds, count)
            figures += [mine.beside(reference, limit), reference]
    return figures


def _timed(precision: str, plain: Callable[[], None]) -> tuple[tuple[float, ...], ...]:
    """Seconds of each epoch but the first, which warms up: ours, on one batch, of cuDNN alone, and plain."""
    model = LSTMConfig(horizons=HORIZONS, hidden_size=_HIDDEN, seq_len=SEQ_LEN)
    epochs = 1 + _ROUNDS
    config = TrainingConfig(epochs=epochs, patience=epochs, batch_size=_BATCH, precision=precision)
    data = random_data(_STEPS * _BATCH, config, model)
    without_us = [synchronised(bare_steps(data, model, config, "cuda")), synchronised(cudnn_steps(precision)), plain]
    return turns(data, model, config, [partial(seconds_of, work) for work in without_us], "cuda")


def cudnn_steps(precision: str) -> Callable[[], None]:
    """Return steps with nothing but cuDNN's LSTM, one linear layer on its last state, a mean square and AdamW."""
    dtype = getattr(torch, precision)
    lstm = nn.LSTM(FEATURES, _HIDDEN, 2, dropout=0.2).to("cuda", dtype)
    head = nn.Linear(_HIDDEN, 2 * len(HORIZONS)).to("cuda", dtype)
    optimiser = torch.optim.AdamW([*lstm.parameters(), *head.parameters()], fused=True)
    x_LBF = torch.randn(SEQ_LEN, _BATCH, FEATURES, device="cuda", dtype=dtype)

    def steps() -> None:
        for _ in repeat(None, _STEPS):
            optimiser.zero_grad()
            head(lstm(x_LBF)[0][-1]).square().mean().backward()
            optimiser.step()

    return steps


def synchronised(work: Callable[[], None]) -> Callable[[], None]:
    """Return the work with the wait for what it left running on the GPU."""

    def waited() -> None:
        work()
        torch.cuda.synchronize()

    return waited
