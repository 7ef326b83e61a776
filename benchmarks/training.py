"""Training speed against a plain PyTorch loop and NeuralForecast, the cost of the loop and of Ray, and peak memory.

All on random features of 64 x 14, horizons 1, 4, 12, batch 64, two layers, as PyTorch's threads are set.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.peers import asked_peer
from benchmarks.plain_loop import BATCH, FEATURES, HORIZONS, SEQ_LEN, plain_epoch
from benchmarks.timing import Figure, seconds_of
from bitcorn_ray.datasets.dataset import Dataset, PartitionBars, build_dataset
from bitcorn_ray.datasets.folds import Shares
from bitcorn_ray.models.base import EpochResult, FitContext, FitResult, Shape
from bitcorn_ray.models.neural.checkpoint import CheckpointFolder
from bitcorn_ray.models.neural.config import LSTMConfig, TrainingConfig
from bitcorn_ray.models.neural.losses import Objective
from bitcorn_ray.models.neural.network import Network
from bitcorn_ray.models.neural.steps import DeviceData, Steps
from bitcorn_ray.models.neural.trainer import fit

_ROUNDS = 7


def random_data(windows: int, training: TrainingConfig, model: LSTMConfig, features: int = FEATURES) -> Dataset:
    """Training data with about so many training windows, of one partition without a market in it."""
    rng = np.random.default_rng(0)
    rows = round(windows / (1 - training.val_frac)) + model.seq_len + 3 * max(model.horizons)
    close = np.exp(rng.normal(0, 0.01, rows).cumsum())
    matrix = rng.standard_normal((rows, features), np.float32)
    shares = Shares(validation=training.val_frac, test=training.test_frac)
    untimed = PartitionBars(
        symbol="random", timeframe="1h", close=close, timestamp=np.arange(rows), step=1, timed=False
    )
    return build_dataset(matrix, [untimed], model, shares)[0]


def training() -> list[Figure]:
    """An epoch of 6,000 windows at 64 units and of 1,500 at 256, ours and plain, and NeuralForecast's at 64."""
    with neuralforecast(64) as peer:
        figures = side_by_side(64, 6_000, 2.3, peer)
    return [*figures, *side_by_side(256, 1_500, 1.6, None)]


@contextmanager
def neuralforecast(hidden: int) -> Iterator[Callable[[], dict[str, Any]] | None]:
    """Let NeuralForecast train an epoch of its LSTM whenever it is asked to.

    NEURALFORECAST_PYTHON names the interpreter of an environment with neuralforecast 3.3; without it there is nothing
    to ask.
    """
    python = os.environ.get("NEURALFORECAST_PYTHON")
    if not python:
        print("NEURALFORECAST_PYTHON names no interpreter with neuralforecast 3.3: not measured")
        yield None
        return
    with (
        tempfile.TemporaryDirectory() as folder,  # Lightning leaves folders where it runs
        asked_peer(python, "neuralforecast_peer.py", ["--hidden", hidden], Path(folder)) as ask,
    ):
        yield ask


def windows_rate(what: str, seconds: Sequence[float], windows: int, peer: bool = False) -> Figure:
    """Windows a second from the seconds of epochs."""
    return Figure(what, tuple(windows / each for each in seconds), unit="windows/s", peer=peer)


@contextmanager
def plain_elsewhere(hidden: int, windows: int) -> Iterator[Callable[[], float]]:
    """Let a process of its own train epochs of the plain loop; the function returns the seconds of one."""
    with asked_peer(sys.executable, "plain_loop.py", [hidden, windows], Path.cwd()) as ask:
        yield lambda: float(ask()["seconds"])


def side_by_side(hidden: int, windows: int, faster: float, peer: Callable[[], dict[str, Any]] | None) -> list[Figure]:
    """Our epochs, the same model on one batch that is there already, plain epochs, and a peer's, turn by turn.

    The plain loop runs in a process of its own, and in ours as well. faster: how many times as fast as in its own ours
    should be. peer: trains an epoch and tells of it, or None.
    """
    model = LSTMConfig(horizons=HORIZONS, hidden_size=hidden, seq_len=SEQ_LEN)
    here = partial(seconds_of, plain_epoch(hidden, windows))
    figures, told = list[Figure](), dict[str, Any]()

    def ask(peer: Callable[[], dict[str, Any]]) -> float:
        told.update(peer())
        return float(told["seconds"])

    asked = [partial(ask, peer)] if peer else []
    for precision in ("bfloat16", "float32"):
        config = TrainingConfig(epochs=1 + _ROUNDS, patience=1 + _ROUNDS, batch_size=BATCH, precision=precision)
        data = random_data(windows, config, model)
        bare = partial(seconds_of, bare_steps(data, model, config))
        with plain_elsewhere(hidden, windows) as plain:
            ours, on_one_batch, plains, plains_here, *peers = turns(data, model, config, [bare, plain, here, *asked])
        fast = precision == "bfloat16"
        count = len(data.train_ends)
        mine = windows_rate(f"ours, hidden {hidden}, {precision}", ours, count)
        for what, seconds, number, limit in (
            ("plain loop in a process of its own", plains, windows, faster if fast else None),
            ("plain loop in our process, which keeps freed memory", plains_here, windows, None),
            ("the same model on one batch again and again", on_one_batch, count, 0.9),
        ):
            reference = windows_rate(f"{what}, hidden {hidden}, {precision}", seconds, number)
            figures += [mine.beside(reference, limit), reference]
        for seconds in peers:
            what = f"NeuralForecast {told['versions']['neuralforecast']}, hidden {hidden}, beside {precision}"
            other = windows_rate(what, seconds, told["windows"], peer=True)
            figures += [mine.beside(other, 3.0 if fast else None), other]
    return figures


def turns(
    data: Dataset,
    model: LSTMConfig,
    config: TrainingConfig,
    others: Sequence[Callable[[], float]],
    device: str = "cpu",
) -> tuple[tuple[float, ...], ...]:
    """Seconds of each of our epochs but the first, which warms up, and those that the others tell, turn by turn."""
    seconds: list[tuple[float, ...]] = []

    def turn(result: EpochResult) -> None:
        ours = len(data.train_ends) / result.samples_per_second
        seconds.append((ours, *(other() for other in others)))

    fit(data, model, config, FitContext(device=device, report=turn))
    return tuple(zip(*seconds[1:], strict=True))


def bare_steps(data: Dataset, model: LSTMConfig, config: TrainingConfig, device: str = "cpu") -> Callable[[], None]:
    """Return as many steps of the optimiser as an epoch has, all on its first batch, without what a loop does else."""
    network, objective = Network(FEATURES, model).to(device).train(), Objective(config, HORIZONS).to(device)
    batch = config.batch_size
    steps = Steps.for_one_process(
        network, objective, DeviceData(data, SEQ_LEN, torch.device(device)), batch, deterministic=False
    )
    optimiser = torch.optim.AdamW(steps.parameters, fused=True)
    ends = torch.from_numpy(data.train_ends).to(device)

    def bare() -> None:
        with steps.threads():
            for step, own in enumerate(ends.split(batch)):
                steps.gradients(ends[: len(own)], 1 / batch, config.precision, step)
                nn.utils.clip_grad_norm_(steps.parameters, 1.0)
                optimiser.step()

    return bare


def train_on_ray() -> list[Figure]:
    """The same training by one Ray worker, Ray being up, and in process before and after it: fixed cost and epochs."""
    from bitcorn_ray.on_ray.session import ray_session
    from bitcorn_ray.training.distribute import SharedData, fit_on_ray

    model = LSTMConfig(horizons=HORIZONS, seq_len=SEQ_LEN)
    config = TrainingConfig(epochs=8, patience=8, threads=1, deterministic=True)
    data = random_data(6_000, config, model)
    shape = Shape(FEATURES, 1, 3_600_000)

    def in_process() -> tuple[float, FitResult]:
        started = time.perf_counter()
        fitted = fit(data, model, config, FitContext())[1]
        return time.perf_counter() - started, fitted

    before = in_process()
    with ray_session("local"), tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        checkpoints = CheckpointFolder(folder)
        _, there = fit_on_ray(
            SharedData(data), model, shape, config, workers=1, gpus=0, checkpoints=checkpoints, max_failures=0
        )
        on_ray = time.perf_counter() - started
    here = [before, in_process()]
    # Without its epochs a training in process takes as good as nothing.
    fixed = on_ray - _epochs_of(there) - min(whole - _epochs_of(fitted) for whole, fitted in here)
    in_turns = [epoch.seconds for _, fitted in here for epoch in fitted.history[1:]]
    reference = Figure("an epoch in process", tuple(in_turns))
    return [
        Figure("an epoch on Ray Train", tuple(epoch.seconds for epoch in there.history[1:])).beside(reference, 1.03),
        reference,
        Figure("what Ray Train costs beside its epochs", (fixed,), 8.0),
    ]


def _epochs_of(fitted: FitResult) -> float:
    return sum(epoch.seconds for epoch in fitted.history)


def memory() -> list[Figure]:
    """Train on 10 series x 100,000 bars x 90 features with windows of 128, in fresh processes, and say the peak."""
    figures = []
    for place in ("in process", "on Ray"):
        command = [sys.executable, "-m", "benchmarks.training_memory", place]
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parent.parent)
        told = json.loads(done.stdout.splitlines()[-1])
        name = f"10 series of 100,000 bars and 90 features, windows of 128, {place}"
        arrays = Figure("the arrays", (told["arrays"],), unit="MiB")
        figures += [
            Figure(f"{name}: peak above the libraries", (told["above"],), unit="MiB").beside(arrays),
            arrays,
            Figure(f"{name}: peak", (told["peak"],), unit="MiB"),
            Figure(f"{name}: all of it", (told["seconds"],)),
        ]
    return figures
