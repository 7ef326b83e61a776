"""What an operator watches, as metrics of Ray, which each node exports for Prometheus.

All metrics are declared here. They are recorded in the driver, where what happens arrives anyhow, so that no pure
function knows of them; what only workers know travels with their results. Ray adds `ray_` before a name, `_total`
behind that of a counter, and labels such as SessionName and WorkerId, which here is the driver's.
A private Ray exports nothing, and there nothing is recorded.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from bitcorn_ray.cache.store import Traffic, traffic
from bitcorn_ray.on_ray.versions import is_private

_REPEAT_SECONDS = 5.0  # half of what lies between two reports of Ray's


@dataclass(frozen=True, kw_only=True)
class _Metric:
    """A metric. name: as Ray is told. description: with the unit. tags: names of what tells its series apart."""

    name: str
    description: str
    tags: tuple[str, ...] = ()

    @property
    def exported(self) -> str:
        """Name by which Prometheus finds it."""
        return f"ray_{self.name}"

    @cached_property
    def rays(self) -> Any:
        """Ray's own metric, made when it is first recorded."""
        from ray.util import metrics

        kind: Any = getattr(metrics, type(self).__name__)
        return kind(self.name, description=self.description, tag_keys=self.tags)


class Counter(_Metric):
    """A sum that only grows."""

    @property
    def exported(self) -> str:
        """Name by which Prometheus finds it."""
        return f"{super().exported}_total"

    def add(self, value: float = 1, **tags: str) -> None:
        """Add a value of at least 0."""
        if value > 0 and _is_exported():  # Ray refuses to add nothing
            self.rays.inc(value, tags=tags)


class Gauge(_Metric):
    """A value that comes and goes, and is told for as long as it is held, see `held_gauges`."""

    def set(self, value: float, **tags: str) -> None:
        """Set the value."""
        if _is_exported():
            self.rays.set(value, tags=tags)
            _held[self, tuple(tags.items())] = value

    def forget(self, **tags: str) -> None:
        """Tell the value no more."""
        _held.pop((self, tuple(tags.items())), None)


_held: dict[tuple[Gauge, tuple[tuple[str, str], ...]], float] = {}


@contextmanager
def held_gauges() -> Iterator[None]:
    """Tell the values of gauges again and again while a block runs.

    Ray tells each value once, and its nodes drop it 20 seconds later; but a loss holds until there is another.
    """
    over = threading.Event()

    def repeat() -> None:
        while not over.wait(_REPEAT_SECONDS):
            for (gauge, tags), value in list(_held.items()):
                gauge.rays.set(value, tags=dict(tags))

    thread = threading.Thread(target=repeat, daemon=True)
    if _is_exported():
        thread.start()
    try:
        yield
    finally:
        over.set()
        if thread.is_alive():
            thread.join()
        _held.clear()


PARTITIONS = Counter(
    name="bitcorn_partitions_done",
    description="partitions whose features were computed, were in the cache already (hit), or failed",
    tags=("system", "outcome"),
)
HITS = Counter(name="bitcorn_cache_hits", description="chunks of features that were needed and in the cache")
MISSES = Counter(name="bitcorn_cache_misses", description="chunks of features that were needed and computed")
BYTES_READ = Counter(name="bitcorn_cache_read_bytes", description="bytes of chunks read from the cache")
BYTES_WRITTEN = Counter(name="bitcorn_cache_written_bytes", description="bytes of chunks written to the cache")
EPOCHS = Counter(name="bitcorn_epochs_done", description="epochs of a training that are finished", tags=("run",))
SAMPLES = Gauge(
    name="bitcorn_samples_per_second",
    description="windows that a training's workers train on in a second, together",
    tags=("run",),
)
LOSS = Gauge(
    name="bitcorn_loss",
    description="mean loss over windows and horizons: in the current epoch so far (train), after the last (validation)",
    tags=("run", "part"),
)
TRIALS_RUNNING = Gauge(
    name="bitcorn_trials_running", description="trials that were begun and are not over", tags=("sweep",)
)
TRIALS = Counter(
    name="bitcorn_trials_done",
    description="trials that are over: finished, stopped early, or failed",
    tags=("sweep", "state"),
)
FOLDS = Counter(
    name="bitcorn_folds_done",
    description="folds of trials that are done: trained, or reused from an earlier run of the sweep",
    tags=("sweep", "source"),
)

METRICS = (
    *(PARTITIONS, HITS, MISSES, BYTES_READ, BYTES_WRITTEN),
    *(EPOCHS, SAMPLES, LOSS),
    *(TRIALS_RUNNING, TRIALS, FOLDS),
)
"""Every metric of this package."""


def record_partition(system: str, status: Any) -> None:
    """Count a partition of features."""
    outcome = "failed" if status.error is not None else "hit" if status.hit else "computed"
    PARTITIONS.add(system=system, outcome=outcome)


def count_traffic(moved: Traffic) -> None:
    """Count what a process has had from the cache and put into it."""
    HITS.add(moved.hits)
    MISSES.add(moved.misses)
    BYTES_READ.add(moved.bytes_read)
    BYTES_WRITTEN.add(moved.bytes_written)


_counted = Traffic()


def count_own_traffic() -> None:
    """Count what this process has had from the cache since this was called last."""
    global _counted
    if _is_exported():
        now = traffic()
        count_traffic(now - _counted)
        _counted = now


def record_progress(run: str, progress: Any) -> None:
    """Tell how fast a training is, and its loss so far. run: its place, as it may be shown."""
    SAMPLES.set(progress.samples_per_second, run=run)
    LOSS.set(progress.loss, run=run, part="train")


def record_epoch(run: str, result: Any) -> None:
    """Tell of an epoch. run: its place, as it may be shown."""
    EPOCHS.add(run=run)
    SAMPLES.set(result.samples_per_second, run=run)
    LOSS.set(result.train_loss, run=run, part="train")
    LOSS.set(result.val_loss, run=run, part="validation")


def forget_training(run: str) -> None:
    """Tell no more of a training that is over."""
    SAMPLES.forget(run=run)
    for part in ("train", "validation"):
        LOSS.forget(run=run, part=part)


def record_trial(sweep: str, running: int, reused: bool | None, outcome: Any) -> None:
    """Count a fold or the end of a trial.

    sweep: its place, as it may be shown. running: trials that are not over. reused: whether the fold that is done was
    done before, None where it is not about a fold. outcome: of the trial that is over, if one is.
    """
    if reused is not None:
        FOLDS.add(sweep=sweep, source="reused" if reused else "trained")
    if outcome is not None:
        TRIALS.add(sweep=sweep, state=outcome.state)
    record_running(sweep, running)


def record_running(sweep: str, trials: int) -> None:
    """Tell how many trials were begun and are not over. sweep: its place, as it may be shown."""
    TRIALS_RUNNING.set(trials, sweep=sweep)


def _is_exported() -> bool:
    ray = sys.modules.get("ray")
    return ray is not None and bool(ray.is_initialized()) and not is_private()
