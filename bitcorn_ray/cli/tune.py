"""Commands on many trials: folds, tune, evolve, leaderboard."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import click

from bitcorn_ray.cli.options import cache_dir_option, common_options, look_in_working_folder, say, search_options
from bitcorn_ray.report.console import show
from bitcorn_ray.report.evolution import front_table, generation_line, generations_table, importance_table
from bitcorn_ray.report.sweeps import leaderboard_tables, live_trials, trials_table
from bitcorn_ray.storage.location import shown_uri


@click.command()
@click.argument("config")
@click.option("--plot", help="Write a picture of the folds over time to this page.")
@common_options
def folds(config: str, plot: str | None, as_json: bool, address: str | None) -> None:
    """Show how walk-forward folds cut the bars that a configuration names; nothing is trained.

    CONFIG is a YAML file with the bars (db, symbol or symbols, timeframe), the model's horizons and the section
    `folds`: train, validation, test, step, window, purge, embargo, ...

    \b
    Example:
      bitcorn folds sweep.yaml
      bitcorn folds sweep.yaml --plot folds.html --json
    """
    from bitcorn_ray.report.folds import folds_table, write_folds
    from bitcorn_ray.tuning.plan_folds import plan_folds

    plan = plan_folds(config).to_json()
    if plot is not None:
        write_folds(plan, plot)
    shown = {**plan, **({"plot": shown_uri(plot)} if plot else {})}
    show(shown, lambda: (folds_table(plan), f"picture: {shown_uri(plot)}" if plot else None), as_json)


@click.command()
@click.option("--max-trials", type=int, help="Maximum number of trials; overrides sweep.trials of the file.")
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


@click.command()
@click.option("--generations", type=int, help="Number of generations; overrides evolve.generations of the file.")
@search_options
@common_options
def evolve(
    config: str,
    out: str | None,
    generations: int | None,
    max_hours: float | None,
    resume: bool,
    cache_dir: str | None,
    as_json: bool,
    address: str | None,
) -> None:
    """Evolve feature subsets of several systems together: low loss with few features, on Ray Tune.

    CONFIG is a YAML file with the fields of a run (see `bitcorn train`), `systems` (whose features are searched), and
    the sections `folds`, `search` (further fields) and `evolve` (population, generations, held_out, ...). Individuals
    are compared on the validation windows of all but the last folds; those held out judge the final front. What wins
    is a feature system, system.json in the folder, that every command takes.

    \b
    Example:
      bitcorn evolve evolve.yaml
      bitcorn evolve evolve.yaml --generations 20 --resume
      bitcorn train --config evolved/first/winner.yaml
      bitcorn audit market.db --system evolved/first/system.json
    """
    from rich.console import Console
    from rich.live import Live

    from bitcorn_ray.report.evolution import evolve as search
    from bitcorn_ray.training.artifacts import strict_json
    from bitcorn_ray.tuning.evolution.config import EvolveConfig

    look_in_working_folder()
    loaded = EvolveConfig.load(config, {"generations": generations})
    console, told = Console(stderr=True), list[dict[str, Any]]()
    live = Live(console=console, auto_refresh=False) if console.is_terminal and not as_json else None

    def on_generation(generation: Any) -> None:
        told.append(generation.to_json())
        if live is None:
            say(generation_line(told[-1], loaded.options.generations))
        else:
            live.update(generations_table(told), refresh=True)

    if live is not None:
        live.start()
    try:
        done = search(
            loaded,
            out=out,
            max_hours=max_hours,
            resume=resume,
            cache_dir=cache_dir,
            address=address,
            on_generation=on_generation,
            log_fn=say,
        )
    finally:
        if live is not None:
            live.stop()
    result = json.loads(strict_json(done.to_json()))

    def shown() -> tuple[Any, ...]:
        place = result["evolution"]
        where = f"feature system of the winner in {place}/system.json; pictures in {place}/evolution.html"
        parts = (front_table(result), *([importance_table(result)] if result["importance"] else ()))
        return (*parts, where if result["winner"] else "no winner was chosen")

    show(result, shown, as_json)
    if done.ended == "interrupted":
        raise KeyboardInterrupt


@click.command()
@click.argument("sweep")
@click.option("--level", default=0.01, show_default=True, help="Significance level of the whole verdict.")
@cache_dir_option
@common_options
def leaderboard(sweep: str, level: float, cache_dir: str | None, as_json: bool, address: str | None) -> None:
    """Compare the trials of a sweep on test windows with each other and with baselines, all trials counted.

    SWEEP is the folder that `bitcorn tune` wrote. The verdict says whether any trial knows something about volatility
    or direction beyond the luck of so many tries, and which baselines the best one beats.

    \b
    Example:
      bitcorn leaderboard sweeps/first
      bitcorn leaderboard sweeps/first --json
    """
    from bitcorn_ray.training.artifacts import strict_json
    from bitcorn_ray.tuning.leaderboard import leaderboard as judge_sweep

    look_in_working_folder()
    result = json.loads(strict_json(judge_sweep(sweep, level=level, cache_dir=cache_dir).to_json()))
    show(result, lambda: leaderboard_tables(result), as_json, f"{shown_uri(sweep)}, on test windows")
