"""Sweeps: many trials over walk-forward folds, and the best of them as a run.

1. Read the configuration, cut the folds, and prepare the features of every variant that the search can reach. 2. Run
the trials on Ray Tune, and record each finished fold and each trial. 3. Write the results, with the out-of-sample
forecasts of the best trial on all test folds. 4. Train the best configuration on the last fold, on Ray Train, and save
it as a run.

A sweep that was interrupted, by Ctrl-C or a power cut, continues with `resume`; recorded folds are not trained again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from bitcorn_ray.datasets.load import TrainingInputs
from bitcorn_ray.errors import BitcornError
from bitcorn_ray.training.job import TrainingJob
from bitcorn_ray.training.run import is_run, read_metadata
from bitcorn_ray.tuning.config import SweepConfig, TrialConfig
from bitcorn_ray.tuning.data import SweepData, sweep_data
from bitcorn_ray.tuning.folder import OnTrial, SweepFolder, TrialRecorder
from bitcorn_ray.tuning.results import best_of, stitched, write_results
from bitcorn_ray.tuning.search import Trial, suggester_of
from bitcorn_ray.tuning.trial import TrialPlan, fold_dataset, run_trial


@dataclass(frozen=True, kw_only=True)
class SweepResult:
    """The result of a sweep.

    folder: of its files (see `results`), a URI with its secrets. ended: "done", "time" (max_hours have passed) or
    "interrupted" (by Ctrl-C). trials: all of them. best: the one with the lowest validation loss over all folds, None
    if no trial has a fold. run: folder of its run, None if it was not trained.
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

    config: a YAML file, or its values: see `SweepConfig`. out, trials, max_hours: override the file's. resume: continue
    a sweep in that folder. address: of a Ray cluster, see `ray_session`; all its nodes must see the folder. on_trial:
    called when a trial begins, finishes a fold or ends. log_fn: called with lines about the progress.
    Raises BitcornError for impossible configurations, a folder with other files, more failed trials than
    `sweep.max_failures` allows (finished folds are kept), and as `train_from_config` does.
    """
    from bitcorn_ray.on_ray.session import ray_session

    overrides = {"out": None if out is None else str(out), "trials": trials, "max_hours": max_hours}
    loaded = SweepConfig.load(config, overrides)
    folder = SweepFolder(loaded.run.out)
    folder.require_free(resume)
    log = log_fn or (lambda line: None)
    data = sweep_data(loaded, cache_dir=cache_dir, log_fn=log_fn)
    plan = TrialPlan.of(loaded, data.folds, data.identities, folder.records)
    folder.begin(loaded, plan.identities, data.bars, plan.code)
    recorder = TrialRecorder(folder, on_trial, log)
    for trial in folder.journal.read().values():
        recorder.restore(trial)
    log(f"{len(data.folds)} folds, up to {loaded.sweep.trials} trials")
    allowed = f"of {loaded.sweep.trials} at most {loaded.sweep.max_failures:.0%}"
    run = None
    with ray_session(address):
        ended = _run_trials(loaded, data, plan, folder, recorder)
        tried = tuple(recorder.trials.values())
        best = best_of(tried)
        forecasts = None if best is None else stitched(plan, data.bars, best, loaded.run.model.horizons)
        write_results(folder, ended, tried, data.plan.to_json(), forecasts)
        if ended == "failures":
            raise BitcornError(recorder.failures(allowed))
        if best is not None and ended != "interrupted":
            log(f"best trial {best.name}, validation loss {best.loss:.5f}: training it on the last fold")
            run, facts = folder.run, {"trial": best.name, "loss": best.loss, "setting": dict(best.setting)}
            if not is_run(run) or read_metadata(run).get("sweep", {}).get("setting") != facts["setting"]:
                last = [int(bars.timestamp[-1]) for bars in data.bars]  # the source may have grown meanwhile
                refit(loaded, facts, run, cache_dir=cache_dir, until=last, log_fn=log_fn)
    if best is None and ended != "interrupted":
        raise BitcornError(f"no trial finished a fold: {recorder.failures(allowed)}")
    return SweepResult(folder=folder.storage.address, ended=ended, trials=tried, best=best, run=run)


def _run_trials(
    config: SweepConfig, data: SweepData, plan: TrialPlan, folder: SweepFolder, recorder: TrialRecorder
) -> str:
    """Run the trials and return why they ended. The variants move to the object store."""
    from bitcorn_ray.tuning.distribute import put_shared, run_trials

    shared: dict[str, Any] = {"bars": data.bars, **data.variants}
    data.variants.clear()
    return run_trials(
        partial(run_trial, plan),
        put_shared(shared),
        lambda point: config.at(point).to_json(),
        suggester_of(config.sweep.search, config.space, config.sweep.seed),
        config.sweep,
        folds=len(plan.folds),
        storage=folder.storage,
        on_trial=recorder,
        earlier=tuple(recorder.trials.values()),
    )


def refit(
    config: SweepConfig,
    trial: Mapping[str, Any],
    out: str,
    *,
    cache_dir: str | Path | None = None,
    until: Sequence[int] | None = None,
    log_fn: Callable[[str], None] | None = None,
) -> None:
    """Train the configuration of a trial on the last fold, and save it as a run.

    trial: its name as "trial", its loss and setting, which the run's metadata records as `sweep`. until: for each
    symbol the open of its last bar in ms, to leave out later ones. Raises BitcornError as `train_from_config` does.
    """
    setting = TrialConfig.from_json(trial["setting"])

    def inputs() -> TrainingInputs:
        data = sweep_data(config, cache_dir=cache_dir, systems=[setting.system], until=until)
        variant = data.variants[setting.system]
        dataset, scaler, counts = fold_dataset(data.bars, variant, setting, data.folds[-1].rows, all_rows=True)
        about = {**data.loaded.facts(setting.system), "data": counts, "sweep": dict(trial)}
        names = variant.features if setting.features is None else setting.features
        return TrainingInputs(data=dataset, scaler=scaler, feature_cols=list(names), about=about)

    job = TrainingJob.of(config.run, log_fn=log_fn)
    replace(job, model=setting.model, training=setting.training, out=out, config=config.to_json()).run(inputs)
