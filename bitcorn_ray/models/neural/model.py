"""Networks as models: fitted by the trainer, saved as a state dict of tensors.

Shapes: N windows, T rows, F features, L seq_len, H horizons.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar, Self, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bitcorn_ray.datasets.dataset import Dataset
from bitcorn_ray.models.base import FitContext, FitResult, Prediction, Shape, Traits, WindowSet
from bitcorn_ray.models.neural.config import NetworkConfig, TrainingConfig
from bitcorn_ray.models.neural.network import Network, load_weights
from bitcorn_ray.models.neural.steps import gather
from bitcorn_ray.models.neural.trainer import fit

Floats = NDArray[np.float32]
Result = TypeVar("Result")

WEIGHTS = "model.pt"

# The states of this many windows fit into the caches of a CPU; a GPU needs more work at once.
_BATCH_CPU, _BATCH_GPU = 256, 8_192


class NetworkModel:
    """A network, whose configuration names its encoder.

    network: with the fitted weights, in evaluation mode; unset before the fit.
    """

    Config: ClassVar[type[NetworkConfig]] = NetworkConfig
    traits: ClassVar[Traits] = Traits(distributed=True, gpu=True, iterative=True)
    network: Network

    def __init__(self, config: Any, network: Network | None = None) -> None:
        self.config = config
        if network is not None:
            self.network = network

    @classmethod
    def create(cls, config: NetworkConfig, shape: Shape) -> Self:
        """Return an untrained model."""
        return cls(config)

    def fit(self, data: Dataset, training: TrainingConfig, context: FitContext) -> FitResult:
        """Train a network, see `trainer.fit`."""
        self.network, result = fit(data, self.config, training, context)
        return result

    def predict(self, windows: WindowSet) -> Prediction:
        """Return the forecasts of some windows, computed in float32 on the network's device."""
        reference = windows.reference if self.config.reference_span else None
        symbols = windows.partitions if self.config.symbol_embedding else None
        return Prediction(
            *predict_windows(self.network, windows.matrix, reference, windows.ends, windows.seq_len, symbols)
        )

    @property
    def needs_known_partition(self) -> bool:
        """Return True with a symbol embedding."""
        return bool(self.config.symbol_embedding)

    def history_needed(self, step: int) -> int:
        """Return 1: a network sees the features of its window only."""
        return 1

    def artifacts(self) -> dict[str, bytes]:
        """Return the state dict as a file."""
        content = io.BytesIO()
        torch.save({name: value.detach().cpu() for name, value in self.network.state_dict().items()}, content)
        return {WEIGHTS: content.getvalue()}

    @classmethod
    def restore(cls, config: NetworkConfig, shape: Shape, artifacts: Mapping[str, bytes]) -> Self:
        """Return the model of a state dict. Nothing is unpickled."""
        network = Network(shape.features, config, max(shape.partitions, 1))
        load_weights(network, read_state(artifacts[WEIGHTS]))
        return cls(config, network.eval())


def read_state(content: bytes) -> dict[str, Tensor]:
    """Return the state dict in a file's content, on the CPU. Nothing is unpickled but tensors."""
    state: dict[str, Tensor] = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    return state


def predict_windows(
    network: Network,
    matrix: NDArray[np.floating],
    reference: NDArray[np.floating] | None,
    ends: NDArray[np.int64],
    seq_len: int,
    symbols: NDArray[np.int64] | None = None,
) -> tuple[Floats, Floats]:
    """Return the log returns and volatilities, (N, H) each, of windows of a scaled (T, F) matrix.

    ends: (N,) rows at which the windows end. reference: (T,) volatility of one bar by row; None if the forecasts are
    relative to nothing. symbols: (N,) indexes of the windows' partitions, needed with an embedding.
    The network computes in float32 on its device, so that one window gives the same alone and among many.
    """
    network.eval()
    shape = (len(ends), len(network.horizons))
    if len(ends) == 0:
        return np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    device = next(network.parameters()).device
    first = int(ends.min()) - seq_len + 1
    # A copy of the rows in use: torch refuses shared arrays that cannot be written to.
    rows = torch.tensor(matrix[first : int(ends.max()) + 1], device=device)
    row_N = torch.tensor(ends - first, device=device)
    reference_N = None if reference is None else torch.tensor(reference[ends], dtype=torch.float32, device=device)
    symbol_N = None if symbols is None else torch.tensor(symbols, device=device)

    @torch.inference_mode()
    def forecast(batch: slice) -> tuple[Tensor, Tensor]:
        window = gather(rows, row_N[batch], seq_len)
        return network(window, *(None if given is None else given[batch] for given in (reference_N, symbol_N)))  # type: ignore[no-any-return]

    size = _BATCH_CPU if device.type == "cpu" else _BATCH_GPU
    batches = [slice(start, start + size) for start in range(0, len(ends), size)]
    parts = _on_all_cores(forecast, batches) if device.type == "cpu" else list(map(forecast, batches))
    returns, volatilities = (torch.cat(part).reshape(shape).cpu().numpy() for part in zip(*parts, strict=True))
    return returns, volatilities


def _on_all_cores(work: Callable[[slice], Result], batches: list[slice]) -> list[Result]:
    """Compute batches in parallel, each on a thread of its own.

    PyTorch would divide every product inside a batch, and at each step of a recurrence all threads would wait for the
    slowest: four times as slow if another process uses a core.
    """
    threads = torch.get_num_threads()
    if threads == 1 or len(batches) < 2:
        return list(map(work, batches))
    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return list(pool.map(work, batches))
    finally:
        torch.set_num_threads(threads)  # the setting of the pool's threads applies to later threads too
