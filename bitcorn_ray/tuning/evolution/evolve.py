"""Front door to evolution: which features, of several systems together, forecast with the fewest of them.

1. Read the configuration, cut the folds, and hold out the last ones. 2. Prepare the features of each system once, and
put them side by side into Ray's object store. 3. Let NSGA-II choose a generation, train each of its individuals on the
search folds, on Ray Tune, tell what came of them, and so on. 4. Of the Pareto front of all, choose the winner by the
search folds. 5. Train the front, and each system whole, on the folds held out, and judge them on test windows that
nothing was chosen by; shuffle the winner's features there. 6. Write the results, the winner as a feature system.

With `resume` the generations are gone through again: what is recorded is not trained, and comes out as it did.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.tuning.data import fold_plan
from bitcorn_ray.tuning.evolution.config import EvolveConfig
from bitcorn_ray.tuning.evolution.data import evolve_data
from bitcorn_ray.tuning.evolution.importance import Importance, Shuffles, importance_trial, is_known, read_importance
from bitcorn_ray.tuning.evolution.population import Individual, Population, pareto_front, survival
from bitcorn_ray.tuning.evolution.results import (
    EvaluatedIndividual,
    Evolution,
    Generation,
    choose_winner,
    write_results,
)
from bitcorn_ray.tuning.folder import SweepFolder
from bitcorn_ray.tuning.records import Trial
from bitcorn_ray.tuning.results import fold_records
from bitcorn_ray.tuning.search import Outcome
from bitcorn_ray.tuning.space import Point, point_key
from bitcorn_ray.tuning.study import trial_plan
from bitcorn_ray.tuning.trial import TrialPlan, run_trial

OnTrial = Callable[[Trial], None]
OnGeneration = Callable[[Generation], None]


def evolve(
    config: str | Path | Mapping[str, Any] | EvolveConfig,
    *,
    out: str | Path | None = None,
    generations: int | None = None,
    max_hours: float | None = None,
    resume: bool = False,
    cache_dir: str | Path | None = None,
    address: str | None = None,
    on_trial: OnTrial | None = None,
    on_generation: OnGeneration | None = None,
    draw_page: Callable[[Mapping[str, Any]], str] | None = None,
    log_fn: Callable[[str], None] | None = None,
) -> Evolution:
    """Search subsets of features with a low validation loss and few features, and judge them on folds held out.

    config: a YAML file, or its values: see `EvolveConfig`. out, generations, max_hours: before the file's. resume: go
    on with an evolution in that folder. address: of a Ray cluster, see `ray_session`; the folder must be seen by all
    its nodes. on_trial: called whenever a trial begins, has done a fold, or ends. on_generation: called after each.
    draw_page: returns the page of a result, evolution.html; None writes no page. log_fn: called with a line now and
    then.
    Raises BitcornError for impossible configurations, too few folds, a folder that holds something already, more failed
    trials than `evolve.max_failures` allows (what was done is kept), and as `sweep_data` does.
    """
    from bitcorn_ray.on_ray.session import ray_session
    from bitcorn_ray.tuning.distribute import hold

    overrides = {"out": None if out is None else str(out), "generations": generations, "max_hours": max_hours}
    loaded, say = EvolveConfig.load(config, overrides), log_fn or (lambda line: None)
    folder = SweepFolder(loaded.sweep.run.out)
    folder.require_free(resume)
    data = evolve_data(loaded, cache_dir=cache_dir, log_fn=log_fn)
    searched = len(data.folds) - loaded.options.held_out
    if searched < 1:
        raise BitcornError(
            f"there are {len(data.folds)} folds and evolve.held_out is {loaded.options.held_out}: no fold is left to "
            "search on; give shorter ranges, or hold out fewer"
        )
    plan = trial_plan(loaded.sweep, data, folder)
    folder.begin(loaded.sweep, data.identities, data.bars, plan.code, loaded.to_json())
    told = _Told(folder, on_trial, say)
    say(f"{searched} folds to search on, {loaded.options.held_out} held out; {len(loaded.features)} features")
    every = fold_plan(loaded.sweep, data).to_json()["folds"]
    cut = {"search": every[:searched], "held_out": every[searched:]}
    with ray_session(address):
        shared: dict[str, Any] = {"bars": data.bars, **data.variants}
        data.variants.clear()
        trials = _Trials(loaded, folder, hold(shared), told, time.monotonic())
        made, ended = _generations(trials, replace(plan, folds=plan.folds[:searched]), on_generation)
        front = pareto_front([each for each in told.individuals() if each.losses])
        evolution = Evolution(
            folder=folder.storage.address,
            ended=ended,
            tried=len(told.trials),
            generations=tuple(made),
            front=tuple(EvaluatedIndividual(individual=each) for each in front),
        )
        write_results(folder, loaded, evolution, cut, draw_page)
        if ended == "failures":
            raise BitcornError(told.failures(loaded))
        if ended != "interrupted":
            evolution = _judged(trials, evolution, replace(plan, folds=plan.folds[searched:]), say)
            write_results(folder, loaded, evolution, cut, draw_page)
    return evolution


class _Told:
    """Keeps the trials as they stand, notes them in the journal, and hands them on."""

    def __init__(self, folder: SweepFolder, on_trial: OnTrial | None, say: Callable[[str], None]) -> None:
        self._journal, self._on_trial, self._say = folder.journal, on_trial or (lambda trial: None), say
        self.trials: dict[str, Trial] = {}
        self._before = {point_key(each.point): each for each in folder.journal.read().values()}

    def known(self, point: Point) -> Trial | None:
        """The trial of a point that is over, of this or an interrupted evolution."""
        key = point_key(point)
        if key not in self.trials and (before := self._before.get(key)) and before.state in ("finished", "failed"):
            self.trials[key] = before
            self._on_trial(before)
        trial = self.trials.get(key)
        return trial if trial is not None and trial.state in ("finished", "failed") else None

    def individual(self, point: Point) -> Individual:
        """What came of a point."""
        trial = self.trials[point_key(point)]
        return Individual(
            name=trial.name, point=dict(trial.point), losses=trial.losses if trial.state == "finished" else ()
        )

    def individuals(self) -> list[Individual]:
        """All points that were tried, in the order in which they were chosen."""
        ordered = sorted(self.trials.values(), key=lambda trial: int(trial.name.removeprefix("t")))
        return [self.individual(dict(trial.point)) for trial in ordered]

    def failures(self, config: EvolveConfig) -> str:
        """Say how many trials failed, and why the first one did."""
        failed = [each for each in self.trials.values() if each.state == "failed"]
        return (
            f"{len(failed)} of {len(self.trials)} trials failed, of each generation at most "
            f"{config.options.max_failures:.0%} may; the first, {failed[0].name}: {failed[0].error}"
        )

    def __call__(self, event: Any) -> None:
        """Take in an event of `run_trials`."""
        key = point_key(event.point)
        trial = self._journal.take(self.trials.get(key), event)
        if event.error is not None:
            self._say(f"trial {trial.name} failed: {event.error}")
        self.trials[key] = trial
        self._on_trial(trial)


class _Given:
    """Suggests nothing: `run_trials` is given the points."""

    def ask(self) -> Point | None:
        return None

    def expect(self, point: Point) -> None:
        pass

    def tell(self, point: Point, outcome: Outcome) -> None:
        pass


@dataclass
class _Trials:
    """Runs trials on what lies in the object store. held: references to it. started: by the monotonic clock."""

    config: EvolveConfig
    folder: SweepFolder
    held: Mapping[str, Any]
    told: _Told
    started: float
    errors: dict[str, str] = field(default_factory=dict)

    def run(self, points: Sequence[tuple[str, Point]], work: Any, folds: int, on_event: Any, timed: bool) -> str:
        """Run the trials of some points by their names; returns why they ended, see `run_trials`."""
        from bitcorn_ray.tuning.distribute import Past, run_trials

        options = self.config.options.sweep(len(points))
        hours = None
        if timed and options.max_hours is not None:
            hours = options.max_hours - (time.monotonic() - self.started) / 3600
            if hours <= 0:
                return "time"
        return run_trials(
            work,
            self.held,
            lambda point: self.config.at(point).to_json(),
            _Given(),
            replace(options, max_hours=hours),
            folds=folds,
            storage=self.folder.storage,
            on_event=on_event,
            past=Past(begun=points),
        )

    def also(self, event: Any) -> None:
        """Take in an event of trials that are no part of the evolution."""
        if event.error is not None:
            self.errors[event.trial] = event.error


def _generations(trials: _Trials, plan: TrialPlan, on_generation: OnGeneration | None) -> tuple[list[Generation], str]:
    """Go through the generations; returns them, and why they ended."""
    config, told = trials.config, trials.told
    population = Population(config.groups, config.sweep.space, config.options.population, config.options.seed)
    made, names = list[Generation](), dict[str, str]()
    for number in range(1, config.options.generations + 1):
        points = population.ask()
        unique = {point_key(point): point for point in points}
        for key in unique:  # by the order in which points are chosen, whatever of them is known already
            names.setdefault(key, f"t{len(names) + 1:04d}")
        new = [(names[key], point) for key, point in unique.items() if told.known(point) is None]
        ended = trials.run(new, partial(run_trial, plan), len(plan.folds), told, True) if new else "done"
        if ended != "done":
            return made, ended
        survivors = population.tell({key: told.individual(point).loss for key, point in unique.items()})
        alive = [told.individual(dict(told.trials[key].point)) for key in survivors]
        made.append(
            Generation(
                number=number,
                individuals=tuple(told.individual(point) for point in points),
                survivors=tuple(each.name for each in alive),
                front=tuple(each.name for each in pareto_front(told.individuals())),
                trained=len(new),
                survival=survival(alive, config.features),
            )
        )
        if on_generation:
            on_generation(made[-1])
    return made, "done"


def _judged(trials: _Trials, evolution: Evolution, plan: TrialPlan, say: Callable[[str], None]) -> Evolution:
    """Judge the front and the systems whole on the test windows of held-out folds, which choose nothing."""
    config, front = trials.config, [each.individual for each in evolution.front]
    winner = choose_winner(front)
    say(f"winner {winner.name}: {len(winner.features)} features; judging the front of {len(front)} on held-out folds")
    wholes = dict(zip(config.systems, config.groups, strict=True)) if len(config.systems) > 1 else {}
    wholes["all features"] = config.features
    others = [
        Individual(name=name, point={**winner.point, "features": list(features)}) for name, features in wholes.items()
    ]

    def losses_of(one: Individual) -> tuple[float, ...] | None:
        trial = Trial(name=one.name, point=one.point, setting=config.at(one.point).to_json())
        records = fold_records(plan, trial)
        losses = tuple(sum(each.test_loss for each in of_fold) / len(of_fold) for of_fold in records)
        return losses if len(losses) == len(plan.folds) else None

    waiting = {point_key(each.point): each for each in (*others, *front) if losses_of(each) is None}
    pending = [(each.name, each.point) for each in waiting.values()]
    # Those that fail are told; a front with gaps is worth more than none.
    ended = trials.run(pending, partial(run_trial, plan), len(plan.folds), trials.also, False) if pending else "done"
    importance = _importance(trials, winner, plan) if ended != "interrupted" else []
    for name, error in trials.errors.items():
        say(f"{name} could not be judged on held-out folds: {error}")
    return replace(
        evolution,
        ended=ended if ended == "interrupted" else evolution.ended,
        front=tuple(EvaluatedIndividual(individual=one, held_out=losses_of(one)) for one in front),
        winner=winner.name,
        system=config.system_of(winner.features).spec,
        compared=tuple(EvaluatedIndividual(individual=one, held_out=losses_of(one)) for one in others),
        importance=tuple(importance),
    )


def _importance(trials: _Trials, winner: Individual, plan: TrialPlan) -> list[Importance]:
    """What the winner's features are worth on the held-out folds; nothing where that could not be found out."""
    options, setting = trials.config.options, trials.config.at(winner.point)
    shuffles = Shuffles(count=options.shuffles, block=options.block or setting.model.seq_len, seed=options.seed)
    if not is_known(plan, shuffles, trials.folder, setting):
        work = partial(importance_trial, plan, shuffles, trials.folder)
        trials.run([("importance", winner.point)], work, len(plan.folds), trials.also, False)
    return read_importance(plan, shuffles, trials.folder, setting)
