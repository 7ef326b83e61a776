"""One trial of a sweep: from a configuration to the losses of its folds, a pure function of its data.

1. For each fold, copy the rows that it needs from the shared, read-only features, and scale them by the fold's own
   training rows. 2. Fit the model. 3. Forecast the validation windows, whose loss compares trials, and the test
   windows, whose forecasts are recorded. 4. Record the fold, report, and continue with the next one.

Losses are taken at the bars at which the longest window of any trial is complete. A long window is missing for longer
after a gap, when markets are volatile, and would otherwise look better for that alone.

A trial runs in any process: a function fetches the data, on Ray from the object store.
Shapes: T rows of all partitions, F features, N windows, H horizons.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bitcorn_ray.datasets.dataset import Dataset, PartitionBars, build_fold_dataset
from bitcorn_ray.datasets.folds import Fold, FoldRows
from bitcorn_ray.datasets.load import FeatureMatrix
from bitcorn_ray.errors import BitcornError
from bitcorn_ray.logging import logged, logger_of
from bitcorn_ray.metrics.calibration import conformal_scores
from bitcorn_ray.metrics.losses import gaussian_nll, qlike
from bitcorn_ray.models.base import FitContext, FitResult, Model, Shape, WindowSet
from bitcorn_ray.models.registry import model_class
from bitcorn_ray.tuning.config import SweepConfig, TrialConfig
from bitcorn_ray.tuning.records import FoldRecord, Records, record_key, training_code

if TYPE_CHECKING:
    from sklearn.preprocessing import StandardScaler


_log = logger_of(__name__)

Rows = NDArray[np.int64]
Floats = NDArray[np.float32]

# Options that do not change the result.
_NOT_IN_KEY = ("threads", "checkpoint_epochs", "checkpoint_minutes", "val_frac", "test_frac")


@dataclass(frozen=True, kw_only=True)
class TrialPlan:
    """The data and options that all trials of a sweep share.

    folds: in the order of training. seeds: trainings of each fold. objective: see `TrialOptions`. longest_seq_len:
    length of the longest window of any trial, which is complete wherever losses are taken. device: "cpu" or "cuda".
    records: of the finished folds. identities: hashes of the data, by system. code: fingerprint, see `training_code`.
    """

    folds: tuple[Fold, ...]
    seeds: int
    objective: str
    longest_seq_len: int
    device: str
    records: Records
    identities: Mapping[str, str]
    code: str

    @classmethod
    def of(
        cls,
        config: SweepConfig,
        folds: Sequence[Fold],
        identities: Mapping[str, str],
        records: Records,
        code: str | None = None,
    ) -> TrialPlan:
        """Return the plan of a sweep. code: fingerprint of the code that trained, by default of the present code."""
        return cls(
            folds=tuple(folds),
            seeds=config.sweep.seeds,
            objective=config.sweep.objective,
            longest_seq_len=config.longest_seq_len,
            device="cuda" if config.sweep.resources.gpu else "cpu",
            records=records,
            identities=identities,
            code=training_code(*config.model_kinds) if code is None else code,
        )


def run_trial(
    plan: TrialPlan,
    fetch: Callable[[str], Any],
    configuration: Mapping[str, Any],
    report: Callable[[Mapping[str, Any]], None],
) -> None:
    """Train all folds of a configuration, or read their records, and report each.

    fetch: returns the `PartitionBars` of all partitions for "bars", and the `FeatureMatrix` of a system for its spec.
    configuration: a `TrialConfig` in plain values. report: called with `fold` (number of finished folds), `fold_loss`,
    `loss` (mean so far), `seconds`, and `reused`, True if nothing was trained.
    Raises BitcornError for impossible configurations and as fitting does.
    """
    setting, records, losses = TrialConfig.from_json(configuration), plan.records, list[float]()
    if setting.system not in plan.identities:
        raise BitcornError(f"no features of system {setting.system} were prepared: there is {list(plan.identities)}")
    for done, fold in enumerate(plan.folds, start=1):
        fold_losses, trained = [], 0.0
        with logged(_log, "fold", fold=fold.number) as facts:
            for offset, key in enumerate(fold_keys(plan, setting, fold)):
                record = records.load(key)
                if record is None:
                    seeded = replace(setting, training=replace(setting.training, seed=setting.training.seed + offset))
                    data = fetch("bars"), fetch(setting.system)
                    record = train_fold(*data, seeded, fold.rows, plan.objective, plan.device, plan.longest_seq_len)
                    records.save(key, record)
                    trained += record.seconds
                fold_losses.append(record.loss)
            losses.append(float(np.mean(fold_losses)))
            facts.update(loss=losses[-1], reused=not trained)
        mean = float(np.mean(losses))
        report({"fold": done, "fold_loss": losses[-1], "loss": mean, "seconds": trained, "reused": not trained})


def fold_keys(plan: TrialPlan, setting: TrialConfig, fold: Fold) -> list[str]:
    """Return the keys of the records of a fold, one per seed, see `records`."""
    values = setting.to_json()
    training = {name: value for name, value in values["training"].items() if name not in _NOT_IN_KEY}
    rows = [asdict(own) for own in fold.rows]
    return [
        record_key(
            plan.identities[setting.system],
            plan.objective,
            values["model"],
            {**training, "seed": training["seed"] + offset},
            values["features"],
            rows,
            plan.code,
            # If all windows have one length, it is in the model's configuration.
            *([plan.longest_seq_len] if plan.longest_seq_len != setting.model.seq_len else []),
        )
        for offset in range(plan.seeds)
    ]


def train_fold(
    bars: Sequence[PartitionBars],
    variant: FeatureMatrix,
    setting: TrialConfig,
    fold: Sequence[FoldRows],
    objective: str,
    device: str = "cpu",
    longest_seq_len: int = 1,
) -> FoldRecord:
    """Train one fold and forecast its windows.

    longest_seq_len: losses are taken at the windows at whose end so many bars are complete.
    Raises BitcornError if the fold cannot be trained, or if forecasts are not finite.
    """
    started = time.perf_counter()
    data, _, _ = fold_dataset(bars, variant, setting, fold, history=longest_seq_len)
    compared = data.whole_windows([one.step for one in bars], longest_seq_len)
    if not len(np.intersect1d(data.validation_ends, compared)):
        raise BitcornError(
            f"no validation window has {longest_seq_len} complete bars: search shorter seq_len, or fill gaps"
        )
    model, result = fitted_model(data, setting, device)
    loss, expected, sigma = _forecast_and_loss(model, data, data.validation_ends, compared, objective)
    test_loss, returns, volatilities = _forecast_and_loss(model, data, data.test_ends, compared, objective)
    assert data.timestamp is not None
    return FoldRecord(
        loss=loss,
        test_loss=test_loss,
        best_epoch=result.best_epoch.epoch,
        epochs=len(result.history),
        seconds=time.perf_counter() - started,
        times=data.timestamp[data.test_ends],
        partitions=data.partition_of(data.test_ends).astype(np.int16),
        returns=returns,
        volatilities=volatilities,
        validation_times=data.timestamp[data.validation_ends],
        validation_partitions=data.partition_of(data.validation_ends).astype(np.int16),
        validation_scores=conformal_scores(expected, sigma, data.returns[data.validation_ends]).astype(np.float32),
    )


def fitted_model(data: Dataset, setting: TrialConfig, device: str) -> tuple[Model, FitResult]:
    """Return the model of a trial, fitted on the dataset of a fold. Raises BitcornError as fitting does."""
    shape = Shape(data.matrix.shape[1], len(data.names), data.bars[0].step)
    model = model_class(setting.model.kind).create(setting.model, shape)
    return model, model.fit(data, setting.training, FitContext(device=device))


def fold_dataset(
    bars: Sequence[PartitionBars],
    variant: FeatureMatrix,
    setting: TrialConfig,
    fold: Sequence[FoldRows],
    *,
    all_rows: bool = False,
    history: int = 1,
) -> tuple[Dataset, StandardScaler, dict[str, Any]]:
    """Return the dataset of a fold, its scaler and facts, see `build_fold_dataset`."""
    columns = variant.columns(setting.features)
    return build_fold_dataset(variant.matrix, columns, bars, setting.model, fold, all_rows=all_rows, history=history)


def _forecast_and_loss(
    model: Model, data: Dataset, ends: Rows, compared: Rows, objective: str
) -> tuple[float, Floats, Floats]:
    """Return the mean loss of the windows that are compared, and the forecast returns and volatilities (N, H) of all.

    ends: last rows of the windows. compared: rows at which losses are taken.
    """
    returns, volatilities = forecast_rows(model, data, data.matrix, ends)
    if not (np.isfinite(returns).all() and np.isfinite(volatilities).all() and (volatilities > 0).all()):
        raise BitcornError("forecasts are not finite, or volatilities not above 0: lower the learning rate")
    kept = np.isin(ends, compared)
    if not kept.any():
        return float("nan"), returns, volatilities
    return mean_loss(data, ends[kept], returns[kept], volatilities[kept], objective), returns, volatilities


def forecast_rows(model: Model, data: Dataset, matrix: Floats, ends: Rows) -> tuple[Floats, Floats]:
    """Return the forecast returns and volatilities (N, H) of windows that end at some rows.

    matrix: (T, F), in place of the dataset's.
    """
    forecast = model.predict(WindowSet.of_dataset(data, ends, model.config, matrix))
    return forecast.returns.astype(np.float32), forecast.volatilities.astype(np.float32)


def mean_loss(data: Dataset, ends: Rows, returns: Floats, volatilities: Floats, objective: str) -> float:
    """Return the mean of the objective over windows and horizons, for forecasts (N, H)."""
    if objective == "qlike":
        losses = qlike(np.square(volatilities, dtype=np.float64), np.square(data.volatilities[ends], dtype=np.float64))
    else:
        losses = gaussian_nll(returns, volatilities, data.returns[ends])
    return float(losses.mean())
