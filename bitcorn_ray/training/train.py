"""Train as a configuration says: the public `train_from_config`, and what it checks and prints.

While a training runs, its folder holds

    checkpoints/    the snapshots to resume from after an interruption; removed when the run is saved
    tensorboard/    event files: loss by horizon, learning rate, samples per second
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bitcorn_ray.datasets.folds import Shares
from bitcorn_ray.datasets.load import TrainingInputs, inputs_from_source
from bitcorn_ray.errors import BitcornError
from bitcorn_ray.models.base import EpochResult
from bitcorn_ray.models.neural.checkpoint import CheckpointFolder
from bitcorn_ray.storage.location import shown_uri
from bitcorn_ray.training.config import RunConfig
from bitcorn_ray.training.job import OnEpoch, OnProgress, TrainingJob, checkpoint_folder
from bitcorn_ray.training.run import Run, is_run, run_storage

if TYPE_CHECKING:
    from sklearn.preprocessing import StandardScaler

_OF_A_TRAINING = frozenset({"checkpoints", "tensorboard"})  # what its folder holds until it is a run


@dataclass
class TrainingResult:
    """A trained model, its scaler, and the run's metadata in plain values, as in metadata.json.

    model: the network of a neural model, else the model.
    """

    model: Any
    scaler: StandardScaler
    metadata: dict[str, Any]


def train_from_config(
    config: RunConfig,
    *,
    cache_dir: str | Path | None = None,
    resume: bool = False,
    max_failures: int = 3,
    until: Sequence[int] | None = None,
    on_epoch: OnEpoch | None = None,
    on_progress: OnProgress | None = None,
    log_fn: Callable[[str], None] | None = None,
) -> TrainingResult:
    """Load the bars of a configuration's symbols, prepare their features through the cache, train, and save the run.

    Several symbols train one model, whose windows are drawn from all. With workers the training runs on Ray as
    `train_on_ray` does, with 0 in this process. resume: continue an interrupted training into the same folder. until:
    for each symbol the open of the last bar to train on in ms, to leave out later ones.
    Raises BitcornError as `load_market_data`, `prepare_features` and `train_on_ray` do.
    """

    def inputs() -> TrainingInputs:
        return inputs_from_source(
            config.db,
            config.all_symbols,
            config.timeframe,
            config.features,
            config.model,
            Shares(validation=config.training.val_frac, test=config.training.test_frac),
            options=config.source_options,
            cache_dir=cache_dir,
            until=until,
            log_fn=log_fn,
        )

    job = TrainingJob.of(config, max_failures=max_failures, log_fn=log_fn)
    return result_of(job.run(inputs, resume=resume, on_epoch=on_epoch, on_progress=on_progress))


def require_free(folder: str | Path, *, resume: bool, overwrite: bool) -> None:
    """Raise BitcornError if a training into a folder or URI would overwrite something.

    resume: an interrupted training may be there. overwrite: anything may.
    """
    storage, shown = run_storage(folder), shown_uri(folder)
    storage.require_writable()
    names = storage.names()
    if overwrite or not names:
        return
    if is_run(folder):
        raise BitcornError(f"{shown} holds a finished run: give another --out, or --overwrite")
    if not CheckpointFolder(checkpoint_folder(storage)):
        if _OF_A_TRAINING.issuperset(names):
            return  # it was interrupted before its first checkpoint
        raise BitcornError(f"{shown} holds other files: give another --out, or --overwrite")
    if not resume:
        raise BitcornError(f"{shown} holds an interrupted training: --resume continues it, --overwrite starts anew")


def epoch_line(result: EpochResult, epochs: int) -> str:
    """Return a line about an epoch, and its warnings."""
    mark = " *" if result.best else ""
    line = (
        f"epoch {result.epoch}/{epochs}: training loss {result.train_loss:.4f}, validation loss {result.val_loss:.4f}, "
        f"{result.samples_per_second:,.0f} samples/s{mark}"
    )
    return "\n".join([line, *result.warnings])


def result_of(run: Run) -> TrainingResult:
    """Return the result of a run."""
    return TrainingResult(getattr(run.model, "network", run.model), run.scaler, run.metadata)
