"""Forecast returns by NeuralForecast's LSTM or AutoLSTM: run by an interpreter that has them, not this package.

    PYTHON_WITH_NEURALFORECAST benchmarks/neuralforecast_accuracy.py TABLE OUT --steps N [--auto TRIALS] ...

TABLE: Parquet with a row a bar: ``ret`` (one-bar log return) and the features, which are known of the past. Rows are
taken as they follow. The last --test rows test, the --validate rows before them validate, all others train; cutoffs are
every row from the last one before the test range on whose --horizon returns are in the table. OUT: Parquet with a row
for each cutoff and bar ahead: ``cutoff`` (row), ``ahead`` (1 to --horizon) and ``forecast`` of the bar's return.
--auto: search so many settings with AutoLSTM on Ray Tune first; without it the LSTM has the sizes that are given.
Prints one line of JSON: seconds, cutoffs and versions. Ray Tune's folder is made where this runs.
Made for NeuralForecast 3.3 (``pip install -c constraints.txt 'neuralforecast==3.3.*'``).
"""

from __future__ import annotations

import argparse
import json
import logging
import platform
import time
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import ray
from neuralforecast import NeuralForecast  # type: ignore[import-not-found]
from neuralforecast.auto import AutoLSTM, RayOptions  # type: ignore[import-not-found]
from neuralforecast.losses.pytorch import MAE, MSE  # type: ignore[import-not-found]
from neuralforecast.models import LSTM  # type: ignore[import-not-found]
from ray import tune
from ray.tune.search.basic_variant import BasicVariantGenerator

_LAYERS, _DROPOUT, _BATCH = 2, 0.2, 64
_VALIDATIONS = 5  # that early stopping looks at, over all steps


def main() -> None:
    """Train, forecast every cutoff, and write the forecasts."""
    args = _arguments()
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    table = pd.read_parquet(args.table)
    features = [str(name) for name in table if name != "ret"]
    frame = table.rename(columns={"ret": "y"}).assign(ds=range(len(table)), unique_id="bars")
    if args.auto:  # a Ray of its own, whose workers' lines do not mix with the report
        ray.init(address="local", include_dashboard=False, log_to_driver=False)
    started = time.perf_counter()
    forecaster = NeuralForecast(models=[_model(args, features)], freq=1)
    told = forecaster.cross_validation(
        frame, n_windows=None, step_size=1, val_size=args.validate, test_size=args.test, refit=False
    )
    seconds = time.perf_counter() - started
    out = pd.DataFrame(
        {"cutoff": told["cutoff"], "ahead": told["ds"] - told["cutoff"], "forecast": told["peer"].astype("float64")}
    )
    out.to_parquet(args.out, index=False)
    packages = ("neuralforecast", "torch", "pytorch-lightning", "ray")
    versions = {"python": platform.python_version(), **{package: version(package) for package in packages}}
    print(json.dumps({"seconds": seconds, "cutoffs": int(out["cutoff"].nunique()), "versions": versions}))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Forecast returns by NeuralForecast.")
    parser.add_argument("table")
    parser.add_argument("out")
    parser.add_argument("--horizon", type=int, default=12)
    parser.add_argument("--window", type=int, default=64, help="bars a window")
    parser.add_argument("--hidden", type=int, default=64)
    parser.add_argument("--steps", type=int, required=True, help="of the optimiser, 64 windows each, at most")
    parser.add_argument("--validate", type=int, required=True, help="rows")
    parser.add_argument("--test", type=int, required=True, help="rows")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--loss", choices=("mae", "mse"), default="mae")
    parser.add_argument("--auto", type=int, default=0, help="trials of AutoLSTM")
    return parser.parse_args()


def _model(args: argparse.Namespace, features: list[str]) -> Any:
    """The LSTM with the sizes given, or the search over settings that has the same windows and steps."""
    loss = MAE() if args.loss == "mae" else MSE()
    common = {
        "input_size": args.window,
        "hist_exog_list": features,
        "max_steps": args.steps,
        "val_check_steps": max(1, args.steps // _VALIDATIONS),
        "early_stop_patience_steps": 2,
        "batch_size": 1,
        "windows_batch_size": _BATCH,
        "random_seed": args.seed,
        "accelerator": "cpu",
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    if not args.auto:
        return LSTM(
            h=args.horizon,
            loss=loss,
            encoder_n_layers=_LAYERS,
            encoder_hidden_size=args.hidden,
            encoder_dropout=_DROPOUT,
            decoder_hidden_size=args.hidden // 2,
            enable_checkpointing=False,
            alias="peer",
            **common,
        )
    sizes = [args.hidden // 4, args.hidden // 2, args.hidden]
    space = {
        **common,
        "encoder_hidden_size": tune.choice(sizes),
        "encoder_n_layers": tune.choice([1, 2]),
        "encoder_dropout": tune.uniform(0.0, 0.5),
        "decoder_hidden_size": tune.choice(sizes),
        "learning_rate": tune.loguniform(1e-4, 1e-2),
    }
    return AutoLSTM(
        h=args.horizon,
        loss=loss,
        config=space,
        search_alg=BasicVariantGenerator(random_state=args.seed),
        num_samples=args.auto,
        ray_options=RayOptions(
            cpus=1, gpus=0, run_config=tune.RunConfig(storage_path=str(Path("tune").absolute()), verbose=0)
        ),
        alias="peer",
    )


if __name__ == "__main__":
    main()
