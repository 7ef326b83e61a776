"""A training loop as it is usually written, in PyTorch alone: run as a peer, it trains an epoch for each line it reads.

    python benchmarks/plain_loop.py HIDDEN WINDOWS

It has the processor's memory as any script has it: a process of ours keeps what it frees, which a loop in it gains by.
Prints a line of JSON for each epoch: its seconds.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

HORIZONS = (1, 4, 12)
FEATURES, SEQ_LEN, BATCH = 14, 64, 64


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
    """Return an epoch: windows materialised, a DataLoader, a pair of heads a horizon."""
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
            loss = loss_of(windows_BLF.to(device), returns)
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimiser.step()
            loss.item()

    return epoch


def main() -> None:
    """Train an epoch whenever a line comes."""
    epoch = plain_epoch(int(sys.argv[1]), int(sys.argv[2]))
    for _ in sys.stdin:
        started = time.perf_counter()
        epoch()
        print(json.dumps({"seconds": time.perf_counter() - started}), flush=True)


if __name__ == "__main__":
    main()
