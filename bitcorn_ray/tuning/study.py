"""Front door to sweeps: many trials over walk-forward folds, and the best of them as a run.

1. Read the configuration, cut the folds, and prepare the features of every variant that the search can reach. 2. Run
the trials on Ray Tune; each finished fold is recorded, each trial noted. 3. Write the results, with the best trial's
out-of-sample forecasts of all test folds. 4. Train the best configuration on the last fold, on Ray Train, and save it.

A sweep that was cut short, by Ctrl-C or a power cut, goes on with `resume`: what is recorded is not done again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from bitcorn_ray.datasets.load import TrainingInputs
from bitcorn_ray.errors import BitcornError
from bitcorn_ray.training.job import TrainingJob
from bitcorn_ray.training.run import is_run, read_metadata
from bitcorn_ray.tuning.config import SweepConfig, TrialConfig
from bitcorn_ray.tuning.data import SweepData, fold_plan, sweep_data
from bitcorn_ray.tuning.folder import SweepFolder
from bitcorn_ray.tuning.records import Trial, training_code
from bitcorn_ray.tuning.results import best_of, stitched, write_results
from bitcorn_ray.tuning.search import Outcome, suggester_of
from bitcorn_ray.tuning.trial import TrialPlan, fold_dataset, run_trial

OnTrial = Callable[[Trial], None]


@dataclass(frozen=True, kw_only=True)
class SweepResult:
    """The result of a sweep.

    folder: of its files (see `results`), a URI with its secrets. ended: "done", "time" (max_hours are over) or
    "interrupted" (by Ctrl-C).
    trials: all of them. best: the one with the lowest validation loss over all folds, None where no trial has a fold.
    run: folder of its run, None where it was not trained.
    """

    folder: str = field(repr=False)
    ended: str
    trials: tuple[Trial, ...]
    best: Trial | None
    run: str | None = field(repr=False)


def tune(
    config: str | Path | Mapping[str, Any] | SweepConfig,
    *,
    out: str | Path | None = None,
    trials: int | None = None,
    max_hours: float | None = None,
    resume: bool = False,
    cache_dir: str | Path | None = None,
    address: str | None = None,
    on_trial: OnTrial | None = None,
    log_fn: Callable[[str], None] | None = None,
) -> SweepResult:
    """Search the configuration with the lowest validation loss over walk-forward folds, and train it.

    config: a YAML file, or its values: see `SweepConfig`. out, trials, max_hours: before the file's. resume: go on with
    a sweep in that folder. address: of a Ray cluster, see `ray_session`; the folder must be seen by all its nodes.
    on_trial: called whenever a trial begins, has done a fold, or ends. log_fn: called with a line now and then.
    Raises BitcornError for impossible configurations, a folder that holds something already, more failed trials than
    `sweep.max_failures` allows (what was done is kept), and as `train_from_config` does.
    """
    from bitcorn_ray.on_ray.session import ray_session

    overrides = {"out": None if out is None else str(out), "trials": trials, "max_hours": max_hours}
    loaded = SweepConfig.load(config, overrides)
    folder = SweepFolder(loaded.run.out)
    folder.require_free(resume)
    say = log_fn or (lambda line: None)
    data = sweep_data(loaded, cache_dir=cache_dir, log_fn=log_fn)
    plan = trial_plan(loaded, data, folder)
    folder.begin(loaded, plan.identities, data.bars, plan.code)
    told = _Told(folder, loaded, on_trial, say)
    say(f"{len(data.folds)} folds, up to {loaded.sweep.trials} trials")
    with ray_session(address):
        ended = _run(loaded, data, plan, told)
        every = tuple(told.trials.values())
        best = best_of(every)
        forecasts = None if best is None else stitched(plan, data.bars, best, loaded.run.model.horizons)
        write_results(folder, ended, every, fold_plan(loaded, data).to_json(), forecasts)
        if ended == "failures":
            raise BitcornError(_failures(every, loaded))
        run = None
        if best is not None and ended != "interrupted":
            say(f"best trial {best.name}, validation loss {best.loss:.5f}: training it on the last fold")
            run, trial = folder.run, {"trial": best.name, "loss": best.loss, "setting": dict(best.setting)}
            if not is_run(run) or read_metadata(run).get("sweep", {}).get("setting") != trial["setting"]:
                ends = [int(one.timestamp[-1]) for one in data.bars]  # bars that have come since are not the sweep's
                refit(loaded, trial, run, cache_dir=cache_dir, until=ends, log_fn=log_fn)
    if best is None and ended != "interrupted":
        raise BitcornError(f"no trial finished a fold: {_failures(every, loaded)}")
    return SweepResult(folder=folder.storage.address, ended=ended, trials=every, best=best, run=run)


def trial_plan(config: SweepConfig, data: SweepData, folder: SweepFolder) -> TrialPlan:
    """Return what all trials of a sweep share."""
    return TrialPlan(
        folds=data.folds,
        seeds=config.sweep.seeds,
        objective=config.sweep.objective,
        judged_seq_len=config.longest_seq_len,
        device="cuda" if config.sweep.resources.gpu else "cpu",
        records=folder.records,
        identities=data.identities,
        code=training_code(*config.model_kinds),
    )


def _run(config: SweepConfig, data: SweepData, plan: TrialPlan, told: _Told) -> str:
    """Run the trials; the variants go to the object store, and this process lets go of them."""
    from bitcorn_ray.tuning.distribute import Past, hold, run_trials

    shared: dict[str, Any] = {"bars": data.bars, **data.variants}
    data.variants.clear()
    past = Past(
        ended=[(each.point, Outcome(each.state, each.losses)) for each in told.trials.values() if _is_over(each)],
        begun=[(each.name, each.point) for each in told.trials.values() if not _is_over(each)],
    )
    return run_trials(
        partial(run_trial, plan),
        hold(shared),
        lambda point: config.at(point).to_json(),
        suggester_of(config.sweep.search, config.space, config.sweep.seed),
        config.sweep,
        folds=len(plan.folds),
        storage=told.folder.storage,
        on_event=told,
        past=past,
    )


class _Told:
    """Keeps the trials as they stand, notes them in the journal, and hands them on."""

    def __init__(
        self, folder: SweepFolder, config: SweepConfig, on_trial: OnTrial | None, say: Callable[[str], None]
    ) -> None:
        self.folder, self._on_trial, self._say = folder, on_trial or (lambda trial: None), say
        self.trials = folder.journal.read()
        for trial in self.trials.values():
            self._on_trial(trial)

    def __call__(self, event: Any) -> None:
        trial = self.folder.journal.take(self.trials.get(event.trial), event)
        if event.error is not None:
            self._say(f"trial {trial.name} failed with {dict(trial.point)}: {event.error}")
        self.trials[trial.name] = trial
        self._on_trial(trial)


def _is_over(trial: Trial) -> bool:
    return trial.state != "running"


def refit(
    config: SweepConfig,
    trial: Mapping[str, Any],
    place: str,
    *,
    cache_dir: str | Path | None = None,
    until: Sequence[int] | None = None,
    log_fn: Callable[[str], None] | None = None,
) -> None:
    """Train a trial on the last fold, and save it as a run, with what it says about itself as `sweep`.

    trial: its name as "trial", its loss and setting. until: for each symbol the opening of its last bar in ms, where
    later ones are to be left out. Raises BitcornError as `train_from_config` does.
    """
    setting = TrialConfig.from_json(trial["setting"])

    def inputs() -> TrainingInputs:
        data = sweep_data(config, cache_dir=cache_dir, systems=[setting.system], until=until)
        variant = data.variants[setting.system]
        dataset, scaler, counts = fold_dataset(data.bars, variant, setting, data.folds[-1].rows, all_rows=True)
        about = {**data.loaded.facts(setting.system), "data": counts, "sweep": dict(trial)}
        names = variant.features if setting.features is None else setting.features
        return TrainingInputs(data=dataset, scaler=scaler, feature_cols=list(names), about=about)

    device = "cuda" if config.run.gpus else "cpu"
    job = TrainingJob(setting.model, setting.training, device, place, log_fn, config.run.mlflow)
    job.config = config.to_json()
    if config.run.workers:
        job.on_ray = (config.run.workers, config.run.gpus, 3)
    job.run(inputs, resume=False)


def _failures(trials: tuple[Trial, ...], config: SweepConfig) -> str:
    failed = [each for each in trials if each.state == "failed"]
    if not failed:
        return "none was begun"
    first = failed[0]
    return (
        f"{len(failed)} of {len(trials)} trials failed, of {config.sweep.trials} at most "
        f"{config.sweep.max_failures:.0%} may; the first, {first.name} with {dict(first.point)}: {first.error}"
    )
