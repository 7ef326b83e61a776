"""A sweep that takes seconds, for the tests that need one."""

from __future__ import annotations

from dataclasses import replace

from bitcorn_ray.tuning.config import SweepConfig
from bitcorn_ray.tuning.data import sweep_data
from bitcorn_ray.tuning.folder import SweepFolder
from bitcorn_ray.tuning.search import Trial
from bitcorn_ray.tuning.trial import TrialPlan, run_trial

MODEL = {"horizons": [1, 4], "seq_len": 8, "num_layers": 1, "hidden_size": 4, "reference_span": 24, "dropout": 0.0}
TRAINING = {"epochs": 1, "threads": 1, "deterministic": True, "batch_size": 128}
FOLDS = {"train": "20d", "validation": "5d", "test": "5d", "last": 2}


def sweep_values(db, out, /, **changes):
    """Values of a sweep of two trials over two folds of AAAUSDT 1h; sections among the changes are merged."""
    values = {
        "db": str(db),
        "symbol": "AAAUSDT",
        "timeframe": "1h",
        "out": str(out),
        "workers": 0,
        "model": MODEL,
        "training": TRAINING,
        "folds": FOLDS,
        "search": {"training.learning_rate": {"choice": [0.001, 0.01]}},
        "sweep": {"trials": 2, "search": "grid"},
    }
    for name, change in changes.items():
        merged = isinstance(change, dict) and name != "search"
        values[name] = {**values.get(name, {}), **change} if merged else change
    return {name: value for name, value in values.items() if value is not None}


def make_sweep(values, stop_last_after=None):
    """Run a sweep's grid in this process, without Ray or a search; returns its folder, plan and data.

    stop_last_after: folds after which the last trial is stopped.
    """
    config = SweepConfig.load(values)
    folder, data = SweepFolder(config.run.out), sweep_data(config)
    plan = TrialPlan.of(config, data.folds, data.identities, folder.records)
    folder.begin(config, data.identities, data.bars, plan.code)
    points = list(config.space.points())
    for number, point in enumerate(points, start=1):
        setting, losses = config.at(point).to_json(), []
        kept = stop_last_after if number == len(points) else None
        own = plan if kept is None else replace(plan, folds=plan.folds[:kept])
        run_trial(
            own,
            lambda name: data.bars if name == "bars" else data.variants[name],
            setting,
            lambda fold, losses=losses: losses.append(fold["fold_loss"]),
        )
        state = "finished" if len(losses) == len(plan.folds) else "stopped"
        folder.journal.write(
            Trial(name=f"t{number:04d}", point=point, setting=setting, state=state, losses=tuple(losses))
        )
    return folder, plan, data
