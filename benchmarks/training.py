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
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from benchmarks.peers import run_peer
from benchmarks.timing import Figure, seconds_of
from bitcorn_ray.learning.batches import DeviceData
from bitcorn_ray.learning.checkpoint import CheckpointFolder
from bitcorn_ray.learning.config import ModelConfig, TrainingConfig
from bitcorn_ray.learning.dataset import PartitionRows, TrainingData, training_data
from bitcorn_ray.learning.losses import Objective
from bitcorn_ray.learning.model import build_model
from bitcorn_ray.learning.progress import EpochResult
from bitcorn_ray.learning.steps import Steps
from bitcorn_ray.learning.training import fit

HORIZONS = (1, 4, 12)
FEATURES, SEQ_LEN, BATCH = 14, 64, 64
_ROUNDS = 3


def random_data(windows: int, training: TrainingConfig, model: ModelConfig, features: int = FEATURES) -> TrainingData:
    """Training data with about so many training windows, of one partition without a market in it."""
    rng = np.random.default_rng(0)
    rows = round(windows / (1 - training.val_frac)) + model.seq_len + 3 * max(model.horizons)
    close = np.exp(rng.normal(0, 0.01, rows).cumsum())
    matrix = rng.standard_normal((rows, features), np.float32)
    return training_data(matrix, [PartitionRows(name="random", close=close)], model, training)[0]


def training() -> list[Figure]:
    """An epoch of 6,000 windows at 64 units and of 1,500 at 256, ours and plain, and NeuralForecast's at 64."""
    peer = neuralforecast(64)
    return [*side_by_side(64, 6_000, 2.3, peer), *side_by_side(256, 1_500, 1.6, [])]


def neuralforecast(hidden: int) -> list[Figure]:
    """Windows a second of NeuralForecast's LSTM.

    NEURALFORECAST_PYTHON names the interpreter of an environment with neuralforecast 3.3; without it nothing is
    measured.
    """
    python = os.environ.get("NEURALFORECAST_PYTHON")
    if not python:
        print("NEURALFORECAST_PYTHON names no interpreter with neuralforecast 3.3: not measured")
        return []
    with tempfile.TemporaryDirectory() as folder:  # Lightning leaves folders where it runs
        told = run_peer(python, "neuralforecast_peer.py", ["--hidden", hidden], Path(folder))
    what = f"NeuralForecast {told['versions']['neuralforecast']}, hidden {hidden}"
    return [windows_rate(what, told["seconds"], told["windows"], peer=True)]


def windows_rate(what: str, seconds: Sequence[float], windows: int, peer: bool = False) -> Figure:
    """Windows a second from the seconds of epochs."""
    return Figure(what, tuple(windows / each for each in seconds), unit="windows/s", peer=peer)


def side_by_side(hidden: int, windows: int, faster: float, peer: list[Figure]) -> list[Figure]:
    """Our epochs, the same model on one batch that is there already, and plain epochs, turn by turn.

    faster: how many times as fast as the plain loop ours should be. peer: NeuralForecast's figure, or none.
    """
    model = ModelConfig(horizons=HORIZONS, hidden_size=hidden, seq_len=SEQ_LEN)
    plain = plain_epoch(hidden, windows)
    figures = list[Figure]()
    for precision in ("bfloat16", "float32"):
        config = TrainingConfig(epochs=1 + _ROUNDS, patience=1 + _ROUNDS, batch_size=BATCH, precision=precision)
        data = random_data(windows, config, model)
        ours, on_one_batch, plains = turns(data, model, config, plain)
        count = len(data.train_ends)
        mine = windows_rate(f"ours, hidden {hidden}, {precision}", ours, count)
        bare = windows_rate(f"the same model on one batch again and again, {precision}", on_one_batch, count)
        reference = windows_rate(f"plain loop, hidden {hidden}, in turns with {precision}", plains, windows)
        figures += [
            mine.beside(reference, faster if precision == "bfloat16" else None),
            reference,
            mine.beside(bare, 0.9),
            bare,
        ]
    for each in peer:
        figures += [figures[0].beside(each, 3.0), each]
    return figures


def turns(
    data: TrainingData, model: ModelConfig, config: TrainingConfig, plain: Callable[[], None]
) -> tuple[list[float], list[float], list[float]]:
    """Seconds of each epoch but the first, which warms up: ours, on one batch, and plain."""
    bare = bare_steps(data, model, config)
    ours, on_one_batch, plains = list[float](), list[float](), list[float]()

    def turn(result: EpochResult) -> None:
        ours.append(len(data.train_ends) / result.samples_per_second)
        on_one_batch.append(seconds_of(bare))
        plains.append(seconds_of(plain))

    fit(data, model, config, report=turn)
    return ours[1:], on_one_batch[1:], plains[1:]


def bare_steps(
    data: TrainingData, model: ModelConfig, config: TrainingConfig, device: str = "cpu"
) -> Callable[[], None]:
    """Return as many steps of the optimiser as an epoch has, all on its first batch, without what a loop does else."""
    network, objective = build_model(FEATURES, model).to(device).train(), Objective(config, HORIZONS).to(device)
    batch = config.batch_size
    steps = Steps.alone(network, objective, DeviceData(data, SEQ_LEN, torch.device(device)), batch, deterministic=False)
    optimiser = torch.optim.AdamW(steps.parameters, fused=True)
    ends = torch.from_numpy(data.train_ends).to(device)

    def bare() -> None:
        with steps.threads():
            for step, own in enumerate(ends.split(batch)):
                steps.gradients(ends[: len(own)], 1 / batch, config.precision, step)
                nn.utils.clip_grad_norm_(steps.parameters, 1.0)
                optimiser.step()

    return bare


class _Samples(Dataset[tuple[Tensor, dict[int, Tensor]]]):
    """Windows in memory, each with a dict of its targets by horizon."""

    def __init__(self, windows: int) -> None:
        self.x = torch.randn(windows, SEQ_LEN, FEATURES)
        self.returns = {horizon: 0.01 * torch.randn(windows) for horizon in HORIZONS}

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, place: int) -> tuple[Tensor, dict[int, Tensor]]:
        return self.x[place], {horizon: values[place] for horizon, values in self.returns.items()}


def plain_epoch(hidden: int, windows: int, device: str = "cpu") -> Callable[[], None]:
    """Return an epoch as it is usually written: windows materialised, a DataLoader, a pair of heads a horizon."""
    torch.manual_seed(0)
    lstm = nn.LSTM(FEATURES, hidden, 2, batch_first=True, dropout=0.2).to(device)
    heads = nn.ModuleList(
        nn.Sequential(nn.Linear(hidden, hidden // 2), nn.ReLU(), nn.Linear(hidden // 2, 1))
        for _ in range(2 * len(HORIZONS))
    ).to(device)
    parameters = [*lstm.parameters(), *heads.parameters()]
    optimiser = torch.optim.Adam(parameters)
    loader = DataLoader(_Samples(windows), BATCH, shuffle=True)

    def loss_of(windows_BLF: Tensor, returns: dict[int, Tensor]) -> Tensor:
        last_BD = lstm(windows_BLF)[0][:, -1]
        total = torch.zeros((), device=device)
        for horizon, mean, scale in zip(HORIZONS, heads[::2], heads[1::2], strict=True):
            sigma_B = nn.functional.softplus(scale(last_BD)).squeeze(1).clamp(1e-4, 10)
            error_B = (returns[horizon].to(device) - mean(last_BD).squeeze(1)) / sigma_B
            total = total + (sigma_B.log() + 0.5 * error_B.square().clamp(max=100)).mean()
        return total

    def epoch() -> None:
        for windows_BLF, returns in loader:
            optimiser.zero_grad()
            loss = loss_of(windows_BLF.to(device), returns)
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimiser.step()
            loss.item()

    return epoch


def train_on_ray() -> list[Figure]:
    """The same training in process and by one Ray worker with as many threads, Ray being up: fixed cost and epochs."""
    from bitcorn_ray.on_ray.session import ray_session
    from bitcorn_ray.on_ray.training import SharedData, fit_on_ray

    model = ModelConfig(horizons=HORIZONS, seq_len=SEQ_LEN)
    config = TrainingConfig(epochs=4, patience=4, threads=1, deterministic=True)
    data = random_data(6_000, config, model)
    started = time.perf_counter()
    here = fit(data, model, config)
    in_process = time.perf_counter() - started
    with ray_session("local"), tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        there = fit_on_ray(
            SharedData(data), model, config, workers=1, gpus=0, checkpoints=CheckpointFolder(folder), max_failures=0
        )
        on_ray = time.perf_counter() - started
    here_epochs, there_epochs = (tuple(each.seconds for each in fitted.history[1:]) for fitted in (here, there))
    fixed = on_ray - in_process - sum(each.seconds for each in there.history) + sum(e.seconds for e in here.history)
    reference = Figure("an epoch in process", here_epochs)
    return [
        Figure("an epoch on Ray Train", there_epochs).beside(reference, 1.03),
        reference,
        Figure("what Ray Train costs beside its epochs", (fixed,), 8.0),
    ]


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
