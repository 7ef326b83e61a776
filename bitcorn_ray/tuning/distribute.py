"""Trials on Ray Tune: one function for each point that a suggester chooses, on reused actors, over shared data.

1. What trials share goes into the object store once, see `hold`; they get references, and read it without a copy.
2. A suggester is asked for points through Tune's interface for searches, as many as the nodes have room for while they
   come and go, and told what came of them.
3. After each fold a trial reports its mean so far, and Tune's scheduler may stop it.
4. A trial that raises says so and is done; one whose process dies is begun again a few times, and finds its finished
   folds in their records. Storage that fails is no trial's fault, and ends the sweep. Nothing of Tune's is kept.
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
from dataclasses import dataclass, field
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
from bitcorn_ray.tuning.options import Resources, SweepOptions
from bitcorn_ray.tuning.search import Outcome, Suggester
from bitcorn_ray.tuning.space import Point

FOLD, LOSS = "fold", "loss"  # as trials report them

_log = logger_of(__name__)
_RESTARTS = 2  # of a trial whose process died
_ERROR, _NOT_STORED = "error", "not_stored"
_TOLD = (FOLD, LOSS, "fold_loss", "seconds", "reused")

Work = Callable[[Callable[[str], Any], Mapping[str, Any], Callable[[Mapping[str, Any]], None]], None]


@dataclass(frozen=True, kw_only=True)
class TrialEvent:
    """Something happened to a trial.

    kind: "chosen", "fold" or "ended". told: of the fold, as reported. outcome: where it ended. error: why it failed.
    """

    trial: str
    kind: str
    point: Point
    configuration: Mapping[str, Any]
    told: Mapping[str, Any] = field(default_factory=dict)
    outcome: Outcome | None = None
    error: str | None = None


@dataclass(frozen=True, kw_only=True)
class Past:
    """Trials of an earlier, interrupted sweep. ended: what came of points. begun: names and points to go on with."""

    ended: Sequence[tuple[Point, Outcome]] = ()
    begun: Sequence[tuple[str, Point]] = ()


def hold(shared: dict[str, Any]) -> Mapping[str, ray.ObjectRef]:
    """Put values into the object store, and empty the mapping, so that there is one copy. Returns references by name.

    The values stay there for as long as the references are kept.
    """
    return {name: ray.put(shared.pop(name)) for name in list(shared)}


def run_trials(
    work: Work,
    held: Mapping[str, ray.ObjectRef],
    configure: Callable[[Point], Mapping[str, Any]],
    suggester: Suggester,
    options: SweepOptions,
    *,
    folds: int,
    storage: Storage,
    on_event: Callable[[TrialEvent], None],
    past: Past | None = None,
) -> str:
    """Run trials until there are as many as `options.trials`, those of the past among them.

    work: called in a worker with a function that fetches what is held by its name, the configuration of the trial's
    point, and a function to report each fold with, its number from 1 as "fold" and the mean so far as "loss", lower is
    better. held: references, see `hold`. configure: called here, a BitcornError fails the trial. folds: of a whole
    trial. storage: for Ray's own files while it runs, seen by all nodes. on_event: called in this process.
    Returns why it ended: "done", "interrupted" (by Ctrl-C), "time" or "failures".
    Raises BitcornError for more resources than Ray has, where storage fails, and as the suggester does.
    """
    past = past or Past()
    _require_room(needed := options.resources)
    watch = _Watch(options, folds, past, on_event, storage.shown)
    for point, outcome in past.ended:
        suggester.tell(point, outcome)
    for _, point in past.begun:
        suggester.expect(point)
    wanted = options.trials - len(past.ended)
    if wanted <= 0:
        return "done"
    known = len(past.ended) + len(past.begun)
    room = partial(at_once, needed.cpu, needed.gpu, waiting=0 if is_private() else 1)
    search = _Search(suggester, configure, watch, past.begun, known, wanted, room)
    resources = {"cpu": needed.cpu, **({"gpu": needed.gpu} if needed.gpu else {})}
    for left in storage.names():
        if left.startswith("ray-"):  # by a driver that was killed
            storage.remove_folder(left)
    own = f"ray-{uuid.uuid4().hex[:8]}"
    path, filesystem = storage.child(own).handle
    with _settings(), _interrupts(watch):
        tuner = tune.Tuner(
            tune.with_resources(partial(_trial, work=guarded(work), held=held), resources),
            tune_config=tune.TuneConfig(
                search_alg=search,
                scheduler=scheduler_of(options.scheduler, folds, [outcome for _, outcome in past.ended]),
                num_samples=wanted,
                time_budget_s=None if options.max_hours is None else options.max_hours * 3600,
                reuse_actors=True,
                trial_dirname_creator=lambda trial: trial.trial_id,
            ),
            run_config=tune.RunConfig(
                name="trials",
                storage_path=path,
                storage_filesystem=filesystem,
                stop=watch,
                callbacks=[_Forget()],
                failure_config=tune.FailureConfig(max_failures=_RESTARTS),
                verbose=0,
            ),
        )
        try:
            tuner.fit()
        finally:
            record_running(storage.shown, 0)  # nor do those that were interrupted
            storage.remove_folder(own)
            del tuner
            give_back_freed_memory()  # some 10 KB a trial in the end
    if search.refused is not None:
        raise search.refused
    return watch.reason or ("done" if watch.ended >= wanted or (search.exhausted and not watch.open) else "time")


def _trial(config: dict[str, Any], work: Work, held: Mapping[str, ray.ObjectRef]) -> None:
    """One trial, in its worker. What it raises is reported: Tune would begin it again, and it would end the same."""
    given = json.loads(config["trial"])
    if _ERROR in given:
        tune.report({_ERROR: given[_ERROR]})
        return
    try:
        with logged(_log, "trial", trial=given["name"]):
            work(lambda name: ray.get(held[name]), given["configuration"], lambda told: tune.report(dict(told)))
    except Exception as error:
        told = str(error) if isinstance(error, BitcornError) else f"{type(error).__name__}: {error}"
        tune.report({_ERROR: told, _NOT_STORED: isinstance(error, StorageError)})


class _Watch(tune.Stopper):
    """Follows the trials, by Tune's names for them, and says when all must stop; Tune calls it with each result."""

    def __init__(
        self, options: SweepOptions, folds: int, past: Past, on_event: Callable[[TrialEvent], None], sweep: str
    ) -> None:
        self.allowed, self.folds = options.max_failures * options.trials, folds
        self.failed = sum(outcome.state == "failed" for _, outcome in past.ended)
        self.ended, self.reason, self.interrupted, self.on_event, self.sweep = 0, "", False, on_event, sweep
        self.open: dict[str, tuple[str, Point, Mapping[str, Any]]] = {}
        self.losses: dict[str, list[float]] = {}

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        losses = self.losses.get(trial_id)
        # A trial that was begun again reports its first folds once more.
        if losses is not None and result.get(FOLD) == len(losses) + 1:
            losses.append(float(result["fold_loss"]))
            self._tell(trial_id, "fold", told={name: result.get(name) for name in _TOLD})
        return False

    def stop_all(self) -> bool:
        """Tell whether no trial may go on."""
        if self.interrupted:
            self.reason = "interrupted"
        elif self.failed > self.allowed:
            self.reason = "failures"
        return bool(self.reason)

    def begin(self, trial_id: str, name: str, point: Point, configuration: Mapping[str, Any]) -> None:
        """Take in a trial that was chosen."""
        self.open[trial_id], self.losses[trial_id] = (name, point, configuration), []
        self._tell(trial_id, "chosen")

    def end(self, trial_id: str, error: str | None) -> tuple[Point, Outcome]:
        """Take in that a trial is over, and tell what came of it."""
        losses = tuple(self.losses.pop(trial_id))
        state = "failed" if error is not None else "finished" if len(losses) == self.folds else "stopped"
        point, outcome = self.open[trial_id][1], Outcome(state, losses)
        self.ended, self.failed = self.ended + 1, self.failed + (state == "failed")
        self._tell(trial_id, "ended", outcome=outcome, error=error)
        del self.open[trial_id]
        return point, outcome

    def _tell(self, trial_id: str, kind: str, **what: Any) -> None:
        name, point, configuration = self.open[trial_id]
        event = TrialEvent(trial=name, kind=kind, point=point, configuration=configuration, **what)
        record_trial(self.sweep, len(self.open) - (kind == "ended"), event.told.get("reused"), event.outcome)
        self.on_event(event)

    def __getstate__(self) -> dict[str, Any]:
        return {}  # what Tune saves is not used


class _Search(Searcher):
    """Tune's interface to a suggester; trials that were begun before come first."""

    def __init__(
        self,
        suggester: Suggester,
        configure: Callable[[Point], Mapping[str, Any]],
        watch: _Watch,
        begun: Sequence[tuple[str, Point]],
        known: int,
        wanted: int,
        at_once: Callable[[], int],
    ) -> None:
        super().__init__()
        self._suggester, self._configure, self._watch = suggester, configure, watch
        self._begun, self._number, self._left, self.exhausted = list(begun), known, wanted, False
        self._at_once = at_once
        self.refused: BitcornError | None = None

    def suggest(self, trial_id: str) -> Any:
        if self._left <= 0 or self.refused or self._watch.stop_all():
            return self.FINISHED
        if len(self._watch.open) >= self._at_once():
            return None  # Tune asks again
        if self._begun:
            name, point = self._begun.pop(0)
        else:
            try:
                asked = self._suggester.ask()
            except BitcornError as error:
                self.refused, asked = error, None
            if asked is None:
                self.exhausted = True
                return self.FINISHED
            self._number += 1
            name, point = f"t{self._number:04d}", asked
        self._left -= 1
        given: dict[str, Any] = {"name": name, "configuration": {}}
        try:
            given["configuration"] = dict(self._configure(point))
        except BitcornError as error:
            given[_ERROR] = str(error)
        self._watch.begin(trial_id, name, point, given["configuration"])
        return {"trial": json.dumps(given)}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        if trial_id not in self._watch.open:
            return
        failed = (result or {}).get(_ERROR)
        if (result or {}).get(_NOT_STORED):  # it stays begun
            self.refused = StorageError(failed)
            return
        if error:
            failed = f"its process died {_RESTARTS + 1} times"
        self._suggester.tell(*self._watch.end(trial_id, failed))

    def save(self, checkpoint_path: str) -> None:
        Path(checkpoint_path).touch()

    def restore(self, checkpoint_path: str) -> None:
        pass

    def __getstate__(self) -> dict[str, Any]:
        return {}


class _Forget(tune.Callback):
    """Drops the statistics that Tune keeps of each metric of each trial: two thirds of what it holds of one."""

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        trial.metric_analysis.clear()
        trial.metric_n_steps.clear()


def _require_room(wanted: Resources) -> None:
    """Raise BitcornError for what no node has: Ray would wait for it for ever."""
    if not room_for(wanted.cpu, wanted.gpu):
        have = ray.cluster_resources()
        raise BitcornError(
            f"a trial takes {wanted.cpu:g} CPUs and {wanted.gpu:g} GPUs, but Ray has {have.get('CPU', 0.0):g} CPUs and "
            f"{have.get('GPU', 0.0):g} GPUs, and no node as many: give less in sweep.resources"
        )


@contextmanager
def _interrupts(watch: _Watch) -> Iterator[None]:
    """Let the first Ctrl-C end the trials in good order, and the second one at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGINT)

    def interrupted(number: int, frame: Any) -> None:
        watch.interrupted = True
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, interrupted)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _settings() -> Iterator[None]:
    """Tune's settings for the length of a sweep, where the user has not set them."""
    for name in ("ray.tune", "ray.train"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # what fails is told by the trial itself
    settings = {
        "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # the caller keeps what it wants to know
        "RAY_AIR_NEW_OUTPUT": "0",  # with verbose=0, silence
        "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
        "TUNE_DISABLE_SIGINT_HANDLER": "1",  # see `_interrupts`
        "TUNE_GLOBAL_CHECKPOINT_S": "1000000",
        "TUNE_MAX_PENDING_TRIALS_PG": "1000000",  # `at_once` says how many
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


def scheduler_of(name: str, folds: int, ended: Sequence[Outcome]) -> TrialScheduler:
    """Return Tune's scheduler of a name, which compares the mean of each trial's folds so far at the same fold.

    name: one of `options.SCHEDULERS`. folds: of a complete trial. ended: trials from before a resume.
    """
    common: dict[str, Any] = {"time_attr": FOLD, "metric": LOSS, "mode": "min", "grace_period": 1}
    if name == "none" or folds == 1:
        return FIFOScheduler()
    if name == "median":
        # No trial waits for others: a paused trial would start anew.
        patience: Any = math.inf
        made: Any = MedianStoppingRule(**common, min_samples_required=3, min_time_slice=patience)
    else:
        brackets = 1 if name == "asha" else min(3, 1 + int(math.log(folds, 3)))
        made = AsyncHyperBandScheduler(**common, max_t=folds, reduction_factor=3, brackets=brackets)
    for number, outcome in enumerate(ended):
        if outcome.losses:
            trial: Any = _EarlierTrial(f"earlier-{number}")
            made.on_trial_add(None, trial)
            for stop in range(len(outcome.losses)):
                mean = sum(outcome.losses[: stop + 1]) / (stop + 1)
                if made.on_trial_result(None, trial, {FOLD: stop + 1, LOSS: mean}) != TrialScheduler.CONTINUE:
                    break
    return made
