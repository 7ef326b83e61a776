"""Evolution: search the subsets of several systems' features that forecast well with few features.

1. Read the configuration, cut the folds, and hold out the last ones. 2. Prepare the features of each system once, and
put them side by side into Ray's object store. 3. Let NSGA-II choose a generation, train its individuals on the search
folds, on Ray Tune, tell it their losses, and repeat. 4. Choose the winner from the Pareto front of all individuals, by
the search folds. 5. Train the front, and each complete system, on the held-out folds, and evaluate them on test windows
that chose nothing; shuffle the winner's features there. 6. Write the results, the winner as a feature system.

With `resume` the generations are repeated from the start: recorded trials are not trained again, and give the same.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.tuning.evolution.config import EvolveConfig, evolve_data
from bitcorn_ray.tuning.evolution.importance import Shuffles, importance_trial, is_known, read_importance
from bitcorn_ray.tuning.evolution.population import Individual, Population, pareto_front, survival
from bitcorn_ray.tuning.evolution.results import (
    EvaluatedIndividual,
    Evolution,
    Generation,
    choose_winner,
    write_results,
)
from bitcorn_ray.tuning.folder import OnTrial, SweepFolder, TrialRecorder
from bitcorn_ray.tuning.results import fold_records
from bitcorn_ray.tuning.search import Suggester, Trial
from bitcorn_ray.tuning.space import point_key
from bitcorn_ray.tuning.trial import TrialPlan, run_trial

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
    """Search subsets of features with a low validation loss and few features, and evaluate them on held-out folds.

    config: a YAML file, or its values: see `EvolveConfig`. out, generations, max_hours: override the file's. resume:
    continue an evolution in that folder. address: of a Ray cluster, see `ray_session`; all its nodes must see the
    folder. on_trial: called when a trial begins, finishes a fold or ends. on_generation: called after each generation.
    draw_page: returns the page of a result, evolution.html; None writes no page. log_fn: called with lines about the
    progress.
    Raises BitcornError for impossible configurations, too few folds, a folder with other files, more failed trials than
    `evolve.max_failures` allows (finished folds are kept), and as `sweep_data` does.
    """
    from bitcorn_ray.on_ray.session import ray_session
    from bitcorn_ray.tuning.distribute import put_shared

    overrides = {"out": None if out is None else str(out), "generations": generations, "max_hours": max_hours}
    loaded, log = EvolveConfig.load(config, overrides), log_fn or (lambda line: None)
    options, folder = loaded.options, SweepFolder(loaded.sweep.run.out)
    folder.require_free(resume)
    data = evolve_data(loaded, cache_dir=cache_dir, log_fn=log_fn)
    searched = len(data.folds) - options.held_out
    if searched < 1:
        raise BitcornError(
            f"there are {len(data.folds)} folds and evolve.held_out is {options.held_out}: no fold is left to "
            "search on; give shorter ranges, or hold out fewer"
        )
    plan = TrialPlan.of(loaded.sweep, data.folds, data.identities, folder.records)
    folder.begin(loaded.sweep, data.identities, data.bars, plan.code, loaded.to_json())
    recorder = TrialRecorder(folder, on_trial, log)
    log(f"{searched} folds to search on, {options.held_out} held out; {len(loaded.features)} features")
    folds = data.plan.to_json()["folds"]
    write = partial(
        write_results, folder, loaded, {"search": folds[:searched], "held_out": folds[searched:]}, draw_page
    )
    with ray_session(address):
        shared: dict[str, Any] = {"bars": data.bars, **data.variants}
        data.variants.clear()
        runner = _Runner(loaded, folder, put_shared(shared), log)
        search_plan = replace(plan, folds=plan.folds[:searched])
        made, ended = _evolve_generations(runner, search_plan, recorder, on_generation)
        front = pareto_front([individual for individual in _individuals(recorder) if individual.losses])
        evolution = Evolution(
            folder=folder.storage.address,
            ended=ended,
            tried=len(recorder.trials),
            generations=tuple(made),
            front=tuple(EvaluatedIndividual(individual=individual) for individual in front),
        )
        write(evolution)
        if ended == "failures":
            raise BitcornError(recorder.failures(f"of each generation at most {options.max_failures:.0%}"))
        if ended != "interrupted":
            evolution = _evaluate(runner, evolution, replace(plan, folds=plan.folds[searched:]))
            write(evolution)
    return evolution


@dataclass
class _Runner:
    """Runs trials on data in the object store. errors: of trials on the held-out folds, by name."""

    config: EvolveConfig
    folder: SweepFolder
    shared: Mapping[str, Any]
    log: Callable[[str], None]
    started: float = field(default_factory=time.monotonic)
    errors: dict[str, str] = field(default_factory=dict)

    def search(self, trials: Sequence[Trial], plan: TrialPlan, recorder: TrialRecorder) -> str:
        """Run trials on the search folds within `max_hours`, and return why they ended, see `run_trials`."""
        hours = self.config.options.max_hours
        if hours is not None:
            hours -= (time.monotonic() - self.started) / 3600
            if hours <= 0:
                return "time"
        return self._run(trials, partial(run_trial, plan), plan, recorder, hours)

    def evaluate(self, trials: Sequence[Trial], work: Any, plan: TrialPlan) -> str:
        """Run trials on the held-out folds, and return why they ended. Failures are logged, and leave gaps."""

        def on_trial(trial: Trial) -> None:
            if trial.error is not None:
                self.errors[trial.name] = trial.error

        return self._run(trials, work, plan, on_trial, None)

    def _run(self, trials: Sequence[Trial], work: Any, plan: TrialPlan, on_trial: OnTrial, hours: float | None) -> str:
        from bitcorn_ray.tuning.distribute import run_trials

        return run_trials(
            work,
            self.shared,
            lambda point: self.config.sweep.at(point).to_json(),
            Suggester(),
            replace(self.config.options.sweep(len(trials)), max_hours=hours),
            folds=len(plan.folds),
            storage=self.folder.storage,
            on_trial=on_trial,
            earlier=trials,
        )


def _individuals(recorder: TrialRecorder) -> list[Individual]:
    """Return the individual of every trial, in the order in which the points were chosen."""
    return [Individual.of(trial) for trial in sorted(recorder.trials.values(), key=lambda trial: int(trial.name[1:]))]


def _evolve_generations(
    runner: _Runner, plan: TrialPlan, recorder: TrialRecorder, on_generation: OnGeneration | None
) -> tuple[list[Generation], str]:
    """Run the generations, and return them and why they ended."""
    config, options = runner.config, runner.config.options
    population = Population(config.groups, config.sweep.space, options.population, options.seed)
    journal = runner.folder.journal.read().values()
    ended_before = {point_key(trial.point): trial for trial in journal if trial.state in ("finished", "failed")}
    made, names = list[Generation](), dict[str, str]()
    for number in range(1, options.generations + 1):
        points = population.ask()
        unique = {point_key(point): point for point in points}
        for key in unique:  # names follow the order in which points are chosen, trained before or not
            names.setdefault(key, f"t{len(names) + 1:04d}")
            if key not in recorder.trials and key in ended_before:
                recorder.restore(ended_before[key])
        new = [Trial(name=names[key], point=point) for key, point in unique.items() if key not in recorder.trials]
        ended = runner.search(new, plan, recorder) if new else "done"
        if ended != "done":
            return made, ended
        known = {key: Individual.of(trial) for key, trial in recorder.trials.items()}
        alive = [known[key] for key in population.tell({key: known[key].loss for key in unique})]
        made.append(
            Generation(
                number=number,
                individuals=tuple(known[point_key(point)] for point in points),
                survivors=tuple(individual.name for individual in alive),
                front=tuple(individual.name for individual in pareto_front(_individuals(recorder))),
                trained=len(new),
                survival=survival(alive, config.features),
            )
        )
        if on_generation:
            on_generation(made[-1])
    return made, "done"


def _evaluate(runner: _Runner, evolution: Evolution, plan: TrialPlan) -> Evolution:
    """Evaluate the front and the complete systems on the test windows of held-out folds, which choose nothing."""
    config, options = runner.config, runner.config.options
    front = [member.individual for member in evolution.front]
    winner = choose_winner(front)
    runner.log(
        f"winner {winner.name}: {len(winner.features)} features; evaluating the front of {len(front)} on held-out folds"
    )
    complete = dict(zip(config.systems, config.groups, strict=True)) if len(config.systems) > 1 else {}
    complete["all features"] = config.features
    compared = [
        Individual(name=name, point={**winner.point, "features": list(features)}) for name, features in complete.items()
    ]

    def evaluated(one: Individual) -> EvaluatedIndividual:
        trial = Trial(name=one.name, point=one.point, setting=config.sweep.at(one.point).to_json())
        records = fold_records(plan, trial)
        losses = tuple(sum(record.test_loss for record in of_fold) / len(of_fold) for of_fold in records)
        return EvaluatedIndividual(individual=one, held_out=losses if len(losses) == len(plan.folds) else None)

    pending = {
        point_key(individual.point): Trial(name=individual.name, point=individual.point)
        for individual in (*compared, *front)
        if evaluated(individual).held_out is None
    }
    ended = runner.evaluate(list(pending.values()), partial(run_trial, plan), plan) if pending else "done"
    setting = config.sweep.at(winner.point)
    shuffles = Shuffles(count=options.shuffles, block=options.block or setting.model.seq_len, seed=options.seed)
    importance = (plan, shuffles, runner.folder)
    if ended != "interrupted" and not is_known(*importance, setting):
        trial = Trial(name="importance", point=winner.point)
        runner.evaluate([trial], partial(importance_trial, *importance), plan)
    for name, error in runner.errors.items():
        runner.log(f"{name} could not be evaluated on held-out folds: {error}")
    return replace(
        evolution,
        ended=ended if ended == "interrupted" else evolution.ended,
        front=tuple(evaluated(individual) for individual in front),
        winner=winner.name,
        system=config.system_of(winner.features).spec,
        compared=tuple(evaluated(individual) for individual in compared),
        importance=() if ended == "interrupted" else tuple(read_importance(*importance, setting)),
    )
