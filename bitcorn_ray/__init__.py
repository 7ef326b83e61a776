"""From raw OHLCV bars to an honestly validated multi-horizon forecaster, on a laptop or a Ray cluster.

The public names are imported when first used, so that `import bitcorn_ray` is quick and a worker that computes
features never loads torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bitcorn_ray.data_loader import (
        FEATURE_CACHE_DIR,
        FeaturePrepResult,
        MarketDataResult,
        SequenceBuildResult,
        build_sequences,
        compute_features,
        invalidate_cache,
        load_market_data,
        prepare_features,
    )
    from bitcorn_ray.errors import BitcornError
    from bitcorn_ray.evaluation.evaluate import evaluate
    from bitcorn_ray.features.system import FeatureSystem, feature_system
    from bitcorn_ray.forecasting.forecaster import Forecaster
    from bitcorn_ray.models.neural.network import LSTMMultiHead
    from bitcorn_ray.report.evolution import evolve
    from bitcorn_ray.report.write import write_report
    from bitcorn_ray.training.config import RunConfig
    from bitcorn_ray.training.lineage import run_lineage
    from bitcorn_ray.training.run import load_run
    from bitcorn_ray.training.train import train_from_config
    from bitcorn_ray.training_service import MultiHorizonTrainingRequest, TrainingResult, train_multihorizon_model
    from bitcorn_ray.tuning.leaderboard import leaderboard
    from bitcorn_ray.tuning.reproduce import Reproduction, reproduce
    from bitcorn_ray.tuning.study import SweepResult, tune

__version__ = "0.3.0"

_HOMES = {
    "RunConfig": "training.config",
    "FEATURE_CACHE_DIR": "data_loader",
    "FeaturePrepResult": "data_loader",
    "MarketDataResult": "data_loader",
    "SequenceBuildResult": "data_loader",
    "build_sequences": "data_loader",
    "compute_features": "data_loader",
    "invalidate_cache": "data_loader",
    "load_market_data": "data_loader",
    "prepare_features": "data_loader",
    "BitcornError": "errors",
    "evaluate": "evaluation.evaluate",
    "evolve": "report.evolution",
    "FeatureSystem": "features.system",
    "feature_system": "features.system",
    "Forecaster": "forecasting.forecaster",
    "LSTMMultiHead": "models.neural.network",
    "load_run": "training.run",
    "run_lineage": "training.lineage",
    "Reproduction": "tuning.reproduce",
    "reproduce": "tuning.reproduce",
    "leaderboard": "tuning.leaderboard",
    "SweepResult": "tuning.study",
    "tune": "tuning.study",
    "MultiHorizonTrainingRequest": "training_service",
    "TrainingResult": "training_service",
    "train_from_config": "training.train",
    "train_multihorizon_model": "training_service",
    "write_report": "report.write",
}

__all__ = [
    "FEATURE_CACHE_DIR",
    "BitcornError",
    "FeaturePrepResult",
    "FeatureSystem",
    "Forecaster",
    "LSTMMultiHead",
    "MarketDataResult",
    "MultiHorizonTrainingRequest",
    "Reproduction",
    "RunConfig",
    "SequenceBuildResult",
    "SweepResult",
    "TrainingResult",
    "build_sequences",
    "compute_features",
    "evaluate",
    "evolve",
    "feature_system",
    "invalidate_cache",
    "leaderboard",
    "load_market_data",
    "load_run",
    "prepare_features",
    "reproduce",
    "run_lineage",
    "train_from_config",
    "train_multihorizon_model",
    "tune",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
