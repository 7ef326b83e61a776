"""The result of an evolution, and its files.

evolution.json      generations, front, winner, importance
evolution.parquet   a row per individual of each generation: losses, and whether it has each feature
evolution.html      front and survival of the features, as a page that opens offline
system.json         the winner's features, as a feature system: `--system evolved/first/system.json`
winner.yaml         its configuration: `bitcorn train --config evolved/first/winner.yaml`

The other files are those of a sweep, see `tuning.folder`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
import yaml

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.storage.location import shown_uri
from bitcorn_ray.training.artifacts import strict_json
from bitcorn_ray.training.config import recorded_config
from bitcorn_ray.tuning.evolution.config import EvolveConfig
from bitcorn_ray.tuning.evolution.importance import Importance
from bitcorn_ray.tuning.evolution.population import Individual
from bitcorn_ray.tuning.folder import SweepFolder
from bitcorn_ray.tuning.results import loss_columns, parquet_bytes, point_columns


@dataclass(frozen=True, kw_only=True)
class Generation:
    """One generation.

    number: from 1. survivors: names of the individuals, of all generations so far, that the next one is bred from.
    front: names on the Pareto front of all so far. trained: number of new individuals. survival: share of the survivors
    that have each feature.
    """

    number: int
    individuals: tuple[Individual, ...]
    survivors: tuple[str, ...]
    front: tuple[str, ...]
    trained: int
    survival: dict[str, float]

    @property
    def best(self) -> float:
        """Return the lowest loss of this generation."""
        return min(individual.loss for individual in self.individuals)

    def to_json(self) -> dict[str, Any]:
        """Return plain values, with the names of the individuals."""
        return {
            "generation": self.number,
            "individuals": [one.name for one in self.individuals],
            "survivors": list(self.survivors),
            "front": list(self.front),
            "best": self.best,
            "trained": self.trained,
            "survival": self.survival,
        }


@dataclass(frozen=True, kw_only=True)
class EvaluatedIndividual:
    """An individual with its losses on the test windows of the folds that the search does not read.

    held_out: a loss per fold; None if the individual was not evaluated or failed.
    """

    individual: Individual
    held_out: tuple[float, ...] | None = None

    def to_json(self) -> dict[str, Any]:
        """Return plain values, with the means."""
        own, held_out = self.individual, self.held_out
        return {
            "name": own.name,
            "count": len(own.features),
            "features": list(own.features),
            "loss": own.loss,
            "losses": list(own.losses),
            "held_out_loss": None if held_out is None else float(np.mean(held_out)),
            "held_out_losses": None if held_out is None else list(held_out),
            "search": {name: value for name, value in own.point.items() if name != "features"},
        }


@dataclass(frozen=True, kw_only=True)
class Evolution:
    """The result of an evolution.

    folder: of its files, a URI with its secrets. ended: "done", "time" or "interrupted". tried: number of different
    individuals. front: the Pareto front of all, fewest features first. winner: name of one of the front, chosen on the
    search folds. system: spec of its feature system. compared: each complete system, and all together, with the
    winner's hyperparameters, on the held-out folds. importance: of the winner's features, the most important first.
    The last four are empty after an interruption.
    """

    folder: str = field(repr=False)
    ended: str
    tried: int
    generations: tuple[Generation, ...]
    front: tuple[EvaluatedIndividual, ...]
    winner: str | None = None
    system: str | None = None
    compared: tuple[EvaluatedIndividual, ...] = ()
    importance: tuple[Importance, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "format": 1,
            "evolution": shown_uri(self.folder),
            "ended": self.ended,
            "tried": self.tried,
            "winner": self.winner,
            "system": self.system,
            "front": [individual.to_json() for individual in self.front],
            "compared": [individual.to_json() for individual in self.compared],
            "importance": [asdict(importance) for importance in self.importance],
            "generations": [generation.to_json() for generation in self.generations],
        }


def choose_winner(front: Sequence[Individual]) -> Individual:
    """Return the individual with the fewest features whose loss is within one standard error of the best.

    The standard error is that of the mean difference from the best over the folds. With one fold there is none, and the
    best wins. Raises BitcornError for an empty front.
    """
    if not front:
        raise BitcornError("no individual was trained on all folds: give more time, or see why trials failed")
    best = min(front, key=lambda individual: individual.loss)
    for individual in sorted(front, key=lambda individual: len(individual.features)):
        differences = np.subtract(individual.losses, best.losses)
        error = np.std(differences, ddof=1) / np.sqrt(len(differences)) if len(differences) > 1 else 0.0
        if differences.mean() <= error:
            return individual
    return best


def write_results(
    folder: SweepFolder,
    config: EvolveConfig,
    folds: Mapping[str, Any],
    draw_page: Callable[[Mapping[str, Any]], str] | None,
    evolution: Evolution,
) -> None:
    """Write the results of an evolution.

    folds: the search folds and the held-out ones, for the JSON. draw_page: returns the page of the result in plain
    values.
    """
    result = {**evolution.to_json(), "folds": dict(folds), "config": recorded_config(config.to_json())}
    folder.storage.publish("evolution.parquet", _parquet(evolution, config.features))
    if evolution.winner is not None:
        winner = {member.individual.name: member.individual for member in evolution.front}[evolution.winner]
        named = {"name": folder.storage.name, "system": evolution.system, "features": list(winner.features)}
        folder.storage.publish("system.json", strict_json(named).encode())
        folder.storage.publish("winner.yaml", _run_yaml(folder, config, winner, str(evolution.system)))
    if evolution.generations and draw_page is not None:
        page = draw_page(json.loads(strict_json(result)))
        folder.storage.publish("evolution.html", page.encode())
    folder.storage.publish("evolution.json", strict_json(result).encode())


def _run_yaml(folder: SweepFolder, config: EvolveConfig, winner: Individual, system: str) -> bytes:
    """Return the winner's configuration for `bitcorn train`."""
    setting = config.sweep.at(winner.point)
    run = replace(
        config.sweep.run,
        features=system,
        model=setting.model,
        training=setting.training,
        out=folder.storage.child("run").address,
    )
    plain = recorded_config(json.loads(strict_json(asdict(run))))
    values = {name: value for name, value in plain.items() if value not in (None, [])}
    return str(yaml.safe_dump(values, sort_keys=False)).encode()


def _parquet(evolution: Evolution, features: Sequence[str]) -> bytes:
    rows = [(generation, one) for generation in evolution.generations for one in generation.individuals]
    individuals = [one for _, one in rows]
    front = {member.individual.name for member in evolution.front}
    columns: dict[str, Any] = {
        "generation": pa.array([generation.number for generation, _ in rows], pa.int32()),
        "individual": pa.array([one.name for one in individuals], pa.string()),
        "survives": pa.array([one.name in generation.survivors for generation, one in rows], pa.bool_()),
        "front": pa.array([one.name in front for one in individuals], pa.bool_()),
        "count": pa.array([len(one.features) for one in individuals], pa.int32()),
        "loss": pa.array([one.loss if one.losses else None for one in individuals], pa.float64()),
    }
    columns |= loss_columns(
        [one.losses for one in individuals], max((len(one.losses) for one in individuals), default=0)
    )
    columns |= point_columns([{name: v for name, v in one.point.items() if name != "features"} for one in individuals])
    for name in features:
        columns[f"feature.{name}"] = pa.array([name in one.features for one in individuals], pa.bool_())
    return parquet_bytes(pa.table(columns))
