"""The command that evolves feature subsets."""

from __future__ import annotations

import json
from typing import Any

import click

from bitcorn_ray.cli.options import common_options, look_in_working_folder, say, search_options
from bitcorn_ray.report.console import show
from bitcorn_ray.report.evolution import front_table, generation_line, generations_table, importance_table


@click.command()
@click.option("--generations", type=int, help="How many; before the file's evolve.generations.")
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
