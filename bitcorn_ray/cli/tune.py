"""Commands on many trials: folds, tune, evolve, leaderboard."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict
from typing import Any

import click

from bitcorn_ray.cli import options
from bitcorn_ray.cli.session import import_from_working_folder, print_status, settings, show
from bitcorn_ray.report.evolution import front_table, generation_line, generations_table, importance_table
from bitcorn_ray.report.sweeps import leaderboard_tables, live_trials, trials_table
from bitcorn_ray.storage.location import shown_uri


@click.command()
@click.argument("config")
@click.option("--plot", help="HTML file for a chart of the folds over time.")
@options.common
def folds(config: str, plot: str | None) -> None:
    """Show the walk-forward folds of a configuration; nothing is trained.

    CONFIG is a YAML file with the bars (db, symbol or symbols, timeframe), the model's horizons and the section
    `folds`: train, validation, test, step, window, purge, embargo, ...

    \b
    Example:
      bitcorn folds sweep.yaml
      bitcorn folds sweep.yaml --plot folds.html --json
    """
    from bitcorn_ray.report.folds import folds_table, write_folds
    from bitcorn_ray.tuning.data import plan_folds

    plan = plan_folds(config).to_json()
    written = {}
    if plot is not None:
        write_folds(plan, plot)
        written = {"plot": shown_uri(plot)}
    show({**plan, **written}, lambda _: (folds_table(plan), f"chart: {written['plot']}" if written else None))


@click.command()
@click.option("--max-trials", type=int, help="Maximum number of trials; overrides sweep.trials of the file.")
@options.search
@options.common
def tune(
    config: str,
    out: str | None,
    max_trials: int | None,
    max_hours: float | None,
    resume: bool,
    cache_dir: str | None,
) -> None:
    """Search the best configuration over walk-forward folds, on Ray Tune, and train it.

    CONFIG is a YAML file with the fields of a run (see `bitcorn train`) and the sections `folds` (see `bitcorn folds`),
    `search` (fields and their possible values) and `sweep` (search, scheduler, trials, seeds, resources, ...). Trials
    are compared on validation windows; `bitcorn leaderboard` compares them on test windows.

    \b
    Example:
      bitcorn tune sweep.yaml
      bitcorn tune sweep.yaml --max-hours 8 --resume
      bitcorn leaderboard sweeps/first
    """
    from bitcorn_ray.tuning.config import SweepConfig
    from bitcorn_ray.tuning.study import tune as run_sweep

    import_from_working_folder()
    sweep = SweepConfig.load(config, {"out": out, "trials": max_trials, "max_hours": max_hours})
    with live_trials(sweep.sweep.trials, settings().as_json) as update:
        done = run_sweep(
            sweep,
            resume=resume,
            cache_dir=cache_dir,
            address=settings().address,
            on_trial=update,
            log_fn=print_status,
        )
    result = {
        "sweep": shown_uri(done.folder),
        "ended": done.ended,
        "run": done.run and shown_uri(done.run),
        "best": None if done.best is None else {**asdict(done.best), "loss": done.best.loss},
        "trials": [asdict(trial) for trial in done.trials],
    }

    def render(result: Mapping[str, Any]) -> tuple[Any, ...]:
        best = f"run of the best trial in {result['run']}" if result["run"] else "no run was trained"
        return trials_table(done.trials), f"{best}; evaluate it with: bitcorn leaderboard {result['sweep']}"

    show(result, render)
    _exit_if_interrupted(done.ended)


@click.command()
@click.option("--generations", type=int, help="Number of generations; overrides evolve.generations of the file.")
@options.search
@options.common
def evolve(config: str, generations: int | None, **arguments: Any) -> None:
    """Evolve feature subsets of several systems together: low loss with few features, on Ray Tune.

    CONFIG is a YAML file with the fields of a run (see `bitcorn train`), `systems` (whose features are searched), and
    the sections `folds`, `search` (further fields) and `evolve` (population, generations, held_out, ...). Individuals
    are compared on the validation windows of all but the last folds; the held-out folds compare the final front. The
    winner is a feature system, system.json in the folder, that every command takes.

    \b
    Example:
      bitcorn evolve evolve.yaml
      bitcorn evolve evolve.yaml --generations 20 --resume
      bitcorn train --config evolved/first/winner.yaml
      bitcorn audit market.db --system evolved/first/system.json
    """
    from rich.console import Console
    from rich.live import Live

    from bitcorn_ray.report.evolution import evolve as run_evolution
    from bitcorn_ray.tuning.evolution.config import EvolveConfig

    import_from_working_folder()
    evolution = EvolveConfig.load(config, {"generations": generations})
    console, finished = Console(stderr=True), list[dict[str, Any]]()
    live = Live(console=console, auto_refresh=False) if console.is_terminal and not settings().as_json else None

    def on_generation(generation: Any) -> None:
        finished.append(generation.to_json())
        if live is None:
            print_status(generation_line(finished[-1], evolution.options.generations))
        else:
            live.update(generations_table(finished), refresh=True)

    with live or nullcontext():
        done = run_evolution(
            evolution, address=settings().address, on_generation=on_generation, log_fn=print_status, **arguments
        )

    def render(result: Mapping[str, Any]) -> tuple[Any, ...]:
        folder = result["evolution"]
        winner = f"feature system of the winner in {folder}/system.json; charts in {folder}/evolution.html"
        importance = [importance_table(result)] if result["importance"] else []
        return (front_table(result), *importance, winner if result["winner"] else "no winner was chosen")

    show(done.to_json(), render)
    _exit_if_interrupted(done.ended)


def _exit_if_interrupted(ended: str) -> None:
    """Exit with the status of an interruption if a search was interrupted: its result was shown all the same."""
    if ended == "interrupted":
        raise KeyboardInterrupt


@click.command()
@click.argument("sweep")
@click.option("--level", default=0.01, show_default=True, help="Significance level of the whole verdict.")
@options.cache_dir
@options.common
def leaderboard(sweep: str, level: float, cache_dir: str | None) -> None:
    """Compare the trials of a sweep with each other and with baselines on test windows, all trials counted.

    SWEEP is the folder that `bitcorn tune` wrote. The verdict says whether any trial has skill in volatility or
    direction beyond the luck of so many trials, and which baselines the best one beats.

    \b
    Example:
      bitcorn leaderboard sweeps/first
      bitcorn leaderboard sweeps/first --json
    """
    from bitcorn_ray.tuning.leaderboard import leaderboard as compare_trials

    import_from_working_folder()
    result = compare_trials(sweep, level=level, cache_dir=cache_dir)
    show(result.to_json(), lambda _: leaderboard_tables(result), f"{shown_uri(sweep)}, on test windows")


COMMANDS = (folds, tune, evolve, leaderboard)
