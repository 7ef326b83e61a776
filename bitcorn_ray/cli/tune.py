"""The command that sweeps."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from bitcorn_ray.cli.options import common_options, look_in_working_folder, say, search_options
from bitcorn_ray.report.console import show
from bitcorn_ray.report.sweeps import live_trials, trials_table
from bitcorn_ray.storage.location import shown_uri


@click.command()
@click.option("--max-trials", type=int, help="Trials at most; before the file's sweep.trials.")
@search_options
@common_options
def tune(
    config: str,
    out: str | None,
    max_trials: int | None,
    max_hours: float | None,
    resume: bool,
    cache_dir: str | None,
    as_json: bool,
    address: str | None,
) -> None:
    """Search the best configuration over walk-forward folds, on Ray Tune, and train it.

    CONFIG is a YAML file with the fields of a run (see `bitcorn train`) and the sections `folds` (see `bitcorn folds`),
    `search` (fields and what they may be) and `sweep` (search, scheduler, trials, seeds, resources, ...). Trials are
    compared on validation windows; what they are worth on test windows says `bitcorn leaderboard`.

    \b
    Example:
      bitcorn tune sweep.yaml
      bitcorn tune sweep.yaml --max-hours 8 --resume
      bitcorn leaderboard sweeps/first
    """
    from bitcorn_ray.training.artifacts import strict_json
    from bitcorn_ray.tuning.config import SweepConfig
    from bitcorn_ray.tuning.study import tune as sweep

    look_in_working_folder()
    loaded = SweepConfig.load(config, {"out": out, "trials": max_trials, "max_hours": max_hours})
    with live_trials(loaded.sweep.trials, as_json) as told:
        done = sweep(
            loaded,
            resume=resume,
            cache_dir=cache_dir,
            address=address,
            on_trial=lambda trial: told(asdict(trial)),
            log_fn=say,
        )
    summary = {
        "sweep": shown_uri(done.folder),
        "ended": done.ended,
        "run": done.run and shown_uri(done.run),
        "best": None if done.best is None else {**asdict(done.best), "loss": done.best.loss},
        "trials": [asdict(each) for each in done.trials],
    }
    shown = json.loads(strict_json(summary))
    told_of = f"run of the best trial in {shown['run']}" if done.run else "no run was trained"
    show(
        shown,
        lambda: (trials_table(shown["trials"]), f"{told_of}; judge it with: bitcorn leaderboard {shown['sweep']}"),
        as_json,
    )
    if done.ended == "interrupted":
        say(f"--resume goes on with the sweep in {shown['sweep']}")
        raise KeyboardInterrupt
