"""One trial of a sweep: from a configuration to the losses of each fold, a pure function of its data.

1. For each fold, take the rows that it needs, a copy of the shared, read-only features: scaled by the fold's own
   training rows. 2. Train, as any training. 3. Forecast the validation windows, whose loss compares trials, and the
   test windows, whose forecasts are kept. 4. Record the fold, report, and go on to the next.

Losses are of the bars at which the longest window of any trial is whole: a longer one is left out for longer after a
gap, where markets are wild, and would look better for that alone.

It runs in any process: the data come from a function, which on Ray reads the object store.
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
from bitcorn_ray.errors import BitcornError
from bitcorn_ray.logging import logged, logger_of
from bitcorn_ray.metrics.calibration import conformal_scores
from bitcorn_ray.metrics.losses import gaussian_nll, qlike
from bitcorn_ray.models.neural.config import ModelConfig
from bitcorn_ray.models.neural.network import LSTMMultiHead, build_model
from bitcorn_ray.models.neural.predict import predict_windows
from bitcorn_ray.models.neural.trainer import FitResult, fit
from bitcorn_ray.tuning.config import Setting
from bitcorn_ray.tuning.records import FoldRecord, Records, record_key

if TYPE_CHECKING:
    from sklearn.preprocessing import StandardScaler

__all__ = [
    "SweepBars",
    "TrialPlan",
    "Variant",
    "fitted_model",
    "fold_inputs",
    "fold_keys",
    "forecast_rows",
    "mean_loss",
    "run_trial",
    "train_fold",
]

_log = logger_of(__name__)

Rows = NDArray[np.int64]
Float = NDArray[np.float64]
Floats = NDArray[np.float32]

# What does not change what is learnt.
_FREE = ("threads", "checkpoint_epochs", "checkpoint_minutes", "val_frac", "test_frac")


@dataclass(frozen=True, kw_only=True, eq=False)
class SweepBars:
    """The bars of one partition, (T,) each: timestamp int64 ms at which they open, prices; step: timeframe in ms.

    barred: bars at which no window may end, as they were filled from later ones; None where there are none.
    """

    symbol: str
    timeframe: str
    step: int
    timestamp: Rows
    high: Float
    low: Float
    close: Float
    barred: NDArray[np.bool_] | None = None

    @property
    def name(self) -> str:
        """For messages."""
        return f"{self.symbol} {self.timeframe}"


@dataclass(frozen=True, kw_only=True, eq=False)
class Variant:
    """Features of all partitions by one system.

    matrix: (T, F) float32, the rows of one partition after those of another, NaN in warm-up rows; nobody writes to it.
    features: their names. spec, version: of the system. keys: of the cache's entries, one a partition. origins: what a
    run records of these, see `partition_record`.
    """

    spec: str
    version: int
    features: tuple[str, ...]
    matrix: NDArray[np.float32]
    keys: tuple[str, ...]
    origins: tuple[Mapping[str, Any], ...] = ()

    def columns(self, wanted: Sequence[str] | None) -> list[int]:
        """Places of some features, None for all. Raises BitcornError for names that it does not have."""
        names = self.features if wanted is None else wanted
        if absent := [name for name in names if name not in self.features]:
            raise BitcornError(f"system {self.spec} has no feature {', '.join(absent)}: it has {self.features}")
        return [self.features.index(name) for name in names]


@dataclass(frozen=True, kw_only=True)
class TrialPlan:
    """What all trials have in common.

    folds: in the order in which they are trained. seeds: trainings of each. objective: see `SweepOptions`.
    judged_seq_len: length of the windows that are whole wherever losses are taken, the longest of any trial.
    device: "cpu" or "cuda". records: the finished ones. identities: of the data, by system.
    """

    folds: tuple[Fold, ...]
    seeds: int
    objective: str
    judged_seq_len: int
    device: str
    records: Records
    identities: Mapping[str, str]


def run_trial(
    plan: TrialPlan,
    fetch: Callable[[str], Any],
    configuration: Mapping[str, Any],
    report: Callable[[Mapping[str, Any]], None],
) -> None:
    """Train all folds of a configuration, or take them from their records, and report each.

    fetch: returns the `SweepBars` of all partitions for "bars", and a system's `Variant` for its text.
    configuration: a `Setting` in plain values. report: told `fold` (how many are done), `fold_loss`, `loss` (mean so
    far), `seconds`, and `reused` where nothing was trained.
    Raises BitcornError for impossible configurations and as `fit` does.
    """
    setting, records, losses = Setting.from_json(configuration), plan.records, list[float]()
    if setting.system not in plan.identities:
        raise BitcornError(f"no features of system {setting.system} were prepared: there is {list(plan.identities)}")
    for done, fold in enumerate(plan.folds, start=1):
        found, trained = [], 0.0
        with logged(_log, "fold", fold=fold.number) as known:
            for offset, key in enumerate(fold_keys(plan, setting, fold)):
                record = records.load(key)
                if record is None:
                    seeded = replace(setting, training=replace(setting.training, seed=setting.training.seed + offset))
                    record = train_fold(
                        fetch("bars"),
                        fetch(setting.system),
                        seeded,
                        fold.rows,
                        plan.objective,
                        plan.device,
                        plan.judged_seq_len,
                    )
                    records.save(key, record)
                    trained += record.seconds
                found.append(record.loss)
            losses.append(float(np.mean(found)))
            known.update(loss=losses[-1], reused=not trained)
        report(
            {
                "fold": done,
                "fold_loss": losses[-1],
                "loss": float(np.mean(losses)),
                "seconds": trained,
                "reused": not trained,
            }
        )


def fold_keys(plan: TrialPlan, setting: Setting, fold: Fold) -> list[str]:
    """Keys of the records of a fold, one a seed."""
    values = setting.to_json()
    training = {name: value for name, value in values["training"].items() if name not in _FREE}
    rows = [asdict(own) for own in fold.rows]
    return [
        record_key(
            plan.identities[setting.system],
            plan.objective,
            values["model"],
            {**training, "seed": training["seed"] + offset},
            values["features"],
            rows,
            # Where all windows are as long it says nothing.
            *([plan.judged_seq_len] if plan.judged_seq_len != setting.model.seq_len else []),
        )
        for offset in range(plan.seeds)
    ]


def train_fold(
    bars: Sequence[SweepBars],
    variant: Variant,
    setting: Setting,
    fold: Sequence[FoldRows],
    objective: str,
    device: str = "cpu",
    judged_seq_len: int = 1,
) -> FoldRecord:
    """Train one fold and forecast its windows. Raises BitcornError where it can't be, or forecasts are not finite.

    judged_seq_len: losses are of the windows at whose end so many bars are whole.
    """
    started = time.perf_counter()
    data, _, _ = fold_inputs(bars, variant, setting, fold, reach=judged_seq_len)
    judged = data.whole_windows([one.step for one in bars], judged_seq_len)
    if not len(np.intersect1d(data.validation_ends, judged)):
        raise BitcornError(
            f"no validation window has {judged_seq_len} whole bars: search shorter seq_len, or fill gaps"
        )
    model, fitted = fitted_model(data, setting, device)
    loss, expected, sigma = _judged(model, data, setting.model, data.validation_ends, judged, objective)
    test_loss, returns, volatilities = _judged(model, data, setting.model, data.test_ends, judged, objective)
    assert data.timestamp is not None
    return FoldRecord(
        loss=loss,
        test_loss=test_loss,
        best_epoch=fitted.best_epoch.epoch,
        epochs=len(fitted.history),
        seconds=time.perf_counter() - started,
        times=data.timestamp[data.test_ends],
        places=_places(data, data.test_ends).astype(np.int16),
        returns=returns,
        volatilities=volatilities,
        past_times=data.timestamp[data.validation_ends],
        past_places=_places(data, data.validation_ends).astype(np.int16),
        past_scores=conformal_scores(expected, sigma, data.returns[data.validation_ends]).astype(np.float32),
    )


def fitted_model(data: Dataset, setting: Setting, device: str) -> tuple[LSTMMultiHead, FitResult]:
    """Train a setting's model on the data of a fold. Raises BitcornError as `fit` does."""
    fitted = fit(data, setting.model, setting.training, device=device)
    model = build_model(data.matrix.shape[1], setting.model, len(data.names))
    model.load_state_dict(fitted.weights)
    model.to(device)
    return model, fitted


def fold_inputs(
    bars: Sequence[SweepBars],
    variant: Variant,
    setting: Setting,
    fold: Sequence[FoldRows],
    whole: bool = False,
    reach: int = 1,
) -> tuple[Dataset, StandardScaler, dict[str, Any]]:
    """Make the training data of a fold, their scaler, and facts; the features are copied and not written to.

    whole: of all rows, which gives the same windows and values as of those alone that the fold needs. reach: rows up to
    the first window's end that are to be there at least, as a window's own are.
    """
    partitions = [
        PartitionBars(
            symbol=one.symbol,
            timeframe=one.timeframe,
            close=one.close,
            timestamp=one.timestamp,
            step=one.step,
            high=one.high,
            low=one.low,
            excluded_ends=one.barred,
        )
        for one in bars
    ]
    columns = variant.columns(setting.features)
    return build_fold_dataset(variant.matrix, columns, partitions, setting.model, fold, all_rows=whole, history=reach)


def _judged(
    model: LSTMMultiHead, data: Dataset, config: ModelConfig, ends: Rows, judged: Rows, objective: str
) -> tuple[float, NDArray[np.float32], NDArray[np.float32]]:
    """Mean loss of the judged among some windows, and the forecasts of returns and volatilities (N, H) of all."""
    returns, volatilities = forecast_rows(model, data, data.matrix, config, ends)
    if not (np.isfinite(returns).all() and np.isfinite(volatilities).all() and (volatilities > 0).all()):
        raise BitcornError("forecasts are not finite, or volatilities not above 0: lower the learning rate")
    kept = np.isin(ends, judged)
    if not kept.any():
        return float("nan"), returns, volatilities
    return mean_loss(data, ends[kept], returns[kept], volatilities[kept], objective), returns, volatilities


def forecast_rows(
    model: LSTMMultiHead, data: Dataset, matrix: Floats, config: ModelConfig, ends: Rows
) -> tuple[Floats, Floats]:
    """Returns and volatilities (N, H) of the windows that end at some rows. matrix: (T, F), as the data have it."""
    symbols = _places(data, ends) if config.symbol_embedding else None
    reference = data.reference if config.reference_span else None
    return predict_windows(model, matrix, reference, ends, config.seq_len, symbols)


def _places(data: Dataset, ends: Rows) -> Rows:
    """Numbers of the partitions that rows belong to."""
    return np.searchsorted(data.partition_starts, ends, side="right") - 1


def mean_loss(data: Dataset, ends: Rows, returns: Floats, volatilities: Floats, objective: str) -> float:
    """Mean of the objective over windows and horizons, for forecasts (N, H)."""
    if objective == "qlike":
        losses = qlike(np.square(volatilities, dtype=np.float64), np.square(data.volatilities[ends], dtype=np.float64))
    else:
        losses = gaussian_nll(returns, volatilities, data.returns[ends])
    return float(losses.mean())
