"""Trials on Ray Tune: one function per point that a suggester chooses, on reused actors, over shared data.

1. The data that trials share goes into the object store once, see `put_shared`. Trials get references and read the data
   without a copy.
2. A suggester is asked for points through Tune's search interface, as many as the nodes have room for while nodes join
   and leave, and is told the trials that ended.
3. After each fold a trial reports its mean so far, and Tune's scheduler may stop it.
4. A trial that raises has failed. One whose process dies is restarted a few times, and finds the records of its
   finished folds. Storage that fails ends the sweep and fails no trial. No file of Tune is kept.
"""

from __future__ import annotations

import json
import logging
import math
import os
import signal
import threading
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, MedianStoppingRule, TrialScheduler
from ray.tune.search import Searcher

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.logging import logged, logger_of
from bitcorn_ray.memory import give_back_freed_memory
from bitcorn_ray.on_ray.monitoring import record_running, record_trial
from bitcorn_ray.on_ray.nodes import at_once, room_for
from bitcorn_ray.on_ray.versions import guarded, is_private
from bitcorn_ray.storage.storage import Storage, StorageError
from bitcorn_ray.tuning.config import Resources, SweepOptions
from bitcorn_ray.tuning.folder import OnTrial
from bitcorn_ray.tuning.search import Suggester, Trial
from bitcorn_ray.tuning.space import Point

FOLD, LOSS = "fold", "loss"  # metrics that trials report

_log = logger_of(__name__)
_RESTARTS = 2  # of a trial whose process died
_ERROR, _NOT_STORED = "error", "not_stored"

Work = Callable[[Callable[[str], Any], Mapping[str, Any], Callable[[Mapping[str, Any]], None]], None]


def put_shared(shared: dict[str, Any]) -> Mapping[str, ray.ObjectRef]:
    """Put values into the object store and empty the mapping, so that there is one copy. Return references by name.

    The values stay in the store as long as the references exist.
    """
    return {name: ray.put(shared.pop(name)) for name in list(shared)}


def run_trials(
    work: Work,
    shared: Mapping[str, ray.ObjectRef],
    configure: Callable[[Point], Mapping[str, Any]],
    suggester: Suggester,
    options: SweepOptions,
    *,
    folds: int,
    storage: Storage,
    on_trial: OnTrial,
    earlier: Sequence[Trial] = (),
) -> str:
    """Run trials until there are `options.trials`, earlier ones included, and return why they ended.

    work: called in a worker with a function that fetches shared data by name, the configuration of the trial's point,
    and a function to report each fold with: its number from 1 as "fold", its "fold_loss", the mean so far as "loss"
    (lower is better), "seconds" and "reused". shared: references, see `put_shared`. configure: returns the
    configuration of a point; called here, and a BitcornError fails the trial. folds: of a complete trial. storage: for
    Ray's own files while it runs, seen by all nodes. on_trial: called here when a trial begins, finishes a fold or
    ends. earlier: trials of an interrupted sweep; those that are "running" come first.
    Returns "done", "interrupted" (by Ctrl-C), "time" or "failures".
    Raises BitcornError for more resources than Ray has, if storage fails, and as the suggester does.
    """
    _require_room(needed := options.resources)
    trials = _Trials(suggester, configure, options, folds, storage.shown, on_trial, earlier)
    if trials.wanted <= 0:
        return "done"
    resources = {"cpu": needed.cpu, **({"gpu": needed.gpu} if needed.gpu else {})}
    for name in storage.names():
        if name.startswith("ray-"):  # left by a process that was killed
            storage.remove_folder(name)
    own = f"ray-{uuid.uuid4().hex[:8]}"
    path, filesystem = storage.child(own).handle
    with _settings(), _interrupts(trials):
        tuner = tune.Tuner(
            tune.with_resources(partial(_run_trial, work=guarded(work), shared=shared), resources),
            tune_config=tune.TuneConfig(
                search_alg=trials,
                scheduler=scheduler_of(options.scheduler, folds, trials.completed),
                num_samples=trials.wanted,
                time_budget_s=None if options.max_hours is None else options.max_hours * 3600,
                reuse_actors=True,
                trial_dirname_creator=lambda trial: trial.trial_id,
            ),
            run_config=tune.RunConfig(
                name="trials",
                storage_path=path,
                storage_filesystem=filesystem,
                stop=trials,
                callbacks=[_Forget()],
                failure_config=tune.FailureConfig(max_failures=_RESTARTS),
                verbose=0,
            ),
        )
        try:
            tuner.fit()
        finally:
            record_running(storage.shown, 0)  # interrupted trials included
            storage.remove_folder(own)
            del tuner
            give_back_freed_memory()  # about 10 KB per trial
    if trials.error is not None:
        raise trials.error
    return trials.ended_by


def _run_trial(config: dict[str, Any], work: Work, shared: Mapping[str, ray.ObjectRef]) -> None:
    """Run one trial in its worker, and report its error: Tune would restart a trial that raises."""
    trial = json.loads(config["trial"])
    if _ERROR in trial:
        tune.report({_ERROR: trial[_ERROR]})
        return
    try:
        with logged(_log, "trial", trial=trial["name"]):
            work(lambda name: ray.get(shared[name]), trial["configuration"], lambda fold: tune.report(dict(fold)))
    except Exception as error:
        message = str(error) if isinstance(error, BitcornError) else f"{type(error).__name__}: {error}"
        tune.report({_ERROR: message, _NOT_STORED: isinstance(error, StorageError)})


class _Trials(Searcher, tune.Stopper):
    """The trials of a sweep for Tune: chooses their points, follows their results, and stops them all.

    completed: trials of an interrupted sweep that ended. wanted: number of trials to run. running: by Tune's names.
    """

    def __init__(
        self,
        suggester: Suggester,
        configure: Callable[[Point], Mapping[str, Any]],
        options: SweepOptions,
        folds: int,
        sweep: str,
        on_trial: OnTrial,
        earlier: Sequence[Trial],
    ) -> None:
        super().__init__()
        self._suggester, self._configure, self._folds = suggester, configure, folds
        self._sweep, self._on_trial = sweep, on_trial
        self.completed = [trial for trial in earlier if trial.state != "running"]
        self._begun = [trial for trial in earlier if trial.state == "running"]
        for trial in self.completed:
            suggester.tell(trial)
        for trial in self._begun:
            suggester.exclude(trial.point)
        self.wanted = options.trials - len(self.completed)
        self._names, self._left, self._ended, self._exhausted = len(earlier), self.wanted, 0, False
        self._most_failures = options.max_failures * options.trials
        self._failures = sum(trial.state == "failed" for trial in self.completed)
        waiting = 0 if is_private() else 1
        self._at_once = partial(at_once, options.resources.cpu, options.resources.gpu, waiting=waiting)
        self.running: dict[str, Trial] = {}
        self.interrupted = False
        self.error: BitcornError | None = None

    @property
    def ended_by(self) -> str:
        """Return why the trials ended, see `run_trials`."""
        if self.interrupted:
            return "interrupted"
        if self._failures > self._most_failures:
            return "failures"
        return "done" if self._ended >= self.wanted or (self._exhausted and not self.running) else "time"

    def suggest(self, trial_id: str) -> Any:
        if self._left <= 0 or self.error or self.stop_all():
            return self.FINISHED
        if len(self.running) >= self._at_once():
            return None  # Tune asks again
        if self._begun:
            earlier = self._begun.pop(0)
            name, point = earlier.name, earlier.point
        else:
            try:
                suggested = self._suggester.ask()
            except BitcornError as error:
                self.error, suggested = error, None
            if suggested is None:
                self._exhausted = True
                return self.FINISHED
            self._names += 1
            name, point = f"t{self._names:04d}", suggested
        self._left -= 1
        given: dict[str, Any] = {"name": name, "configuration": {}}
        try:
            given["configuration"] = dict(self._configure(point))
        except BitcornError as error:
            given[_ERROR] = str(error)
        self.running[trial_id] = Trial(name=name, point=point, setting=given["configuration"])
        self._publish(self.running[trial_id])
        return {"trial": json.dumps(given)}

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Record a reported fold. Tune asks here whether a trial must stop, which the scheduler decides."""
        trial = self.running.get(trial_id)
        # A restarted trial reports its first folds again.
        if trial is not None and result.get(FOLD) == len(trial.losses) + 1:
            losses = (*trial.losses, float(result["fold_loss"]))
            trial = replace(trial, losses=losses, seconds=trial.seconds + (result.get("seconds") or 0.0))
            self.running[trial_id] = trial
            self._publish(trial, result.get("reused"))
        return False

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        if trial_id not in self.running:
            return
        message = (result or {}).get(_ERROR)
        if (result or {}).get(_NOT_STORED):  # the trial can be resumed
            self.error = StorageError(message)
            return
        if error:
            message = f"its process died {_RESTARTS + 1} times"
        trial = self.running.pop(trial_id)
        complete = len(trial.losses) == self._folds
        state = "failed" if message is not None else "finished" if complete else "stopped"
        trial = replace(trial, state=state, error=message)
        self._ended, self._failures = self._ended + 1, self._failures + (state == "failed")
        self._publish(trial)
        self._suggester.tell(trial)

    def stop_all(self) -> bool:
        """Return True if all trials must stop."""
        return self.interrupted or self._failures > self._most_failures

    def _publish(self, trial: Trial, reused: bool | None = None) -> None:
        record_trial(self._sweep, len(self.running), reused, None if trial.state == "running" else trial)
        self._on_trial(trial)

    def save(self, checkpoint_path: str) -> None:
        Path(checkpoint_path).touch()

    def restore(self, checkpoint_path: str) -> None:
        pass

    def __getstate__(self) -> dict[str, Any]:
        return {}  # what Tune saves is not used


class _Forget(tune.Callback):
    """Drops the statistics that Tune keeps of each metric: two thirds of its memory per trial."""

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        trial.metric_analysis.clear()
        trial.metric_n_steps.clear()


def _require_room(wanted: Resources) -> None:
    """Raise BitcornError for more than any node has: Ray would wait for ever."""
    if not room_for(wanted.cpu, wanted.gpu):
        have = ray.cluster_resources()
        raise BitcornError(
            f"a trial takes {wanted.cpu:g} CPUs and {wanted.gpu:g} GPUs, but Ray has {have.get('CPU', 0.0):g} CPUs and "
            f"{have.get('GPU', 0.0):g} GPUs, and no node as many: give less in sweep.resources"
        )


@contextmanager
def _interrupts(trials: _Trials) -> Iterator[None]:
    """Let the first Ctrl-C end the trials in order, and the second one at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGINT)

    def interrupted(number: int, frame: Any) -> None:
        trials.interrupted = True
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, interrupted)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _settings() -> Iterator[None]:
    """Set Tune's variables during a sweep, except those that the user has set."""
    for name in ("ray.tune", "ray.train"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # a trial reports its own errors
    settings = {
        "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # the sweep has its own journal
        "RAY_AIR_NEW_OUTPUT": "0",  # with verbose=0, silence
        "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
        "TUNE_DISABLE_SIGINT_HANDLER": "1",  # see `_interrupts`
        "TUNE_GLOBAL_CHECKPOINT_S": "1000000",
        "TUNE_MAX_PENDING_TRIALS_PG": "1000000",  # `at_once` is the limit
        "TUNE_WARN_INSUFFICENT_RESOURCE_THRESHOLD_S": "1000000",
    }
    settings = {name: value for name, value in settings.items() if name not in os.environ}
    os.environ.update(settings)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for name in settings:
            os.environ.pop(name, None)


class _EarlierTrial:
    """A trial from before a resume, for Tune's schedulers, which hash trials and read their names."""

    def __init__(self, name: str) -> None:
        self.trial_id = name


def scheduler_of(name: str, folds: int, completed: Sequence[Trial]) -> TrialScheduler:
    """Return Tune's scheduler of a name, which compares the means of the trials' first folds.

    name: one of `config.SCHEDULERS`. folds: of a complete trial. completed: trials from before a resume.
    """
    common: dict[str, Any] = {"time_attr": FOLD, "metric": LOSS, "mode": "min", "grace_period": 1}
    if name == "none" or folds == 1:
        return FIFOScheduler()
    if name == "median":
        # No trial waits for others: a paused trial would start anew.
        no_wait: Any = math.inf
        scheduler: Any = MedianStoppingRule(**common, min_samples_required=3, min_time_slice=no_wait)
    else:
        brackets = 1 if name == "asha" else min(3, 1 + int(math.log(folds, 3)))
        scheduler = AsyncHyperBandScheduler(**common, max_t=folds, reduction_factor=3, brackets=brackets)
    for earlier in completed:
        if earlier.losses:
            trial: Any = _EarlierTrial(earlier.name)
            scheduler.on_trial_add(None, trial)
            for stop in range(1, len(earlier.losses) + 1):
                mean = sum(earlier.losses[:stop]) / stop
                if scheduler.on_trial_result(None, trial, {FOLD: stop, LOSS: mean}) != TrialScheduler.CONTINUE:
                    break
    return scheduler
