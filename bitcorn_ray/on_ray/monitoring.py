"""Metrics for operators, which each node of a cluster exports for Prometheus.

All metrics are declared here. They are recorded in the driver, where all events arrive, so that no pure function knows
of them. Counts of workers travel with their results. Ray adds the prefix `ray_`, the suffix `_total` of a counter, and
labels such as SessionName and WorkerId, here of the driver. A private Ray exports nothing, so nothing is recorded.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from bitcorn_ray.on_ray.versions import is_private
from bitcorn_ray.storage.traffic import traffic

_REPEAT_SECONDS = 5.0  # half of Ray's interval between two reports


@dataclass(frozen=True, kw_only=True)
class _Metric:
    """A metric. name: for Ray. description: with the unit. tags: names of the labels that distinguish its series."""

    name: str
    description: str
    tags: tuple[str, ...] = ()

    @property
    def exported(self) -> str:
        """Name in Prometheus."""
        return f"ray_{self.name}"

    @cached_property
    def ray_metric(self) -> Any:
        """Metric of Ray, created when it is first recorded."""
        from ray.util import metrics

        kind: Any = getattr(metrics, type(self).__name__)
        return kind(self.name, description=self.description, tag_keys=self.tags)


class Counter(_Metric):
    """A sum that only grows."""

    @property
    def exported(self) -> str:
        """Name in Prometheus."""
        return f"{super().exported}_total"

    def add(self, value: float = 1, **tags: str) -> None:
        """Add a value of at least 0."""
        if value > 0 and _is_exported():  # Ray refuses to add 0
            self.ray_metric.inc(value, tags=tags)


class Gauge(_Metric):
    """A value that changes; see `repeated_gauges`."""

    def set(self, value: float, **tags: str) -> None:
        """Set the value."""
        if _is_exported():
            self.ray_metric.set(value, tags=tags)
            _gauges[self, tuple(tags.items())] = value

    def forget(self, **tags: str) -> None:
        """Stop exporting the value."""
        _gauges.pop((self, tuple(tags.items())), None)


_gauges: dict[tuple[Gauge, tuple[tuple[str, str], ...]], float] = {}


@contextmanager
def repeated_gauges() -> Iterator[None]:
    """Set all gauges again and again during a block, because nodes drop a value 20 seconds after it was set."""
    stopped = threading.Event()

    def repeat() -> None:
        while not stopped.wait(_REPEAT_SECONDS):
            for (gauge, tags), value in list(_gauges.items()):
                gauge.ray_metric.set(value, tags=dict(tags))

    thread = threading.Thread(target=repeat, daemon=True)
    if _is_exported():
        thread.start()
    try:
        yield
    finally:
        stopped.set()
        if thread.is_alive():
            thread.join()
        _gauges.clear()


PARTITIONS = Counter(
    name="bitcorn_partitions_done",
    description="partitions whose features were computed, were in the cache already (hit), or failed",
    tags=("system", "outcome"),
)
TRAFFIC = {
    "hits": Counter(name="bitcorn_cache_hits", description="chunks of features that were needed and in the cache"),
    "misses": Counter(name="bitcorn_cache_misses", description="chunks of features that were needed and computed"),
    "bytes_read": Counter(name="bitcorn_cache_read_bytes", description="bytes of chunks read from the cache"),
    "bytes_written": Counter(name="bitcorn_cache_written_bytes", description="bytes of chunks written to the cache"),
}
EPOCHS = Counter(name="bitcorn_epochs_done", description="finished epochs of a training", tags=("run",))
SAMPLES = Gauge(
    name="bitcorn_samples_per_second",
    description="windows per second of all workers of a training together",
    tags=("run",),
)
LOSS = Gauge(
    name="bitcorn_loss",
    description="mean loss over windows and horizons: in the current epoch so far (train), after the last (validation)",
    tags=("run", "part"),
)
TRIALS_RUNNING = Gauge(
    name="bitcorn_trials_running", description="trials that have started and not ended", tags=("sweep",)
)
TRIALS = Counter(
    name="bitcorn_trials_done",
    description="trials that have ended: finished, stopped early, or failed",
    tags=("sweep", "state"),
)
FOLDS = Counter(
    name="bitcorn_folds_done",
    description="finished folds of trials: trained, or reused from an earlier run of the sweep",
    tags=("sweep", "source"),
)

METRICS = (PARTITIONS, *TRAFFIC.values(), EPOCHS, SAMPLES, LOSS, TRIALS_RUNNING, TRIALS, FOLDS)
"""Every metric of this package."""


def record_partition(system: str, status: Any) -> None:
    """Count a partition of features."""
    outcome = "failed" if status.error is not None else "hit" if status.hit else "computed"
    PARTITIONS.add(system=system, outcome=outcome)


def record_traffic(counts: Mapping[str, int]) -> None:
    """Count the cache traffic of a process, see `storage.traffic`."""
    for name, count in counts.items():
        TRAFFIC[name].add(count)


_recorded = traffic()


def record_own_traffic() -> None:
    """Count the cache traffic of this process since the last call."""
    global _recorded
    if _is_exported():
        total = traffic()
        record_traffic(total - _recorded)
        _recorded = total


def record_progress(run: str, progress: Any) -> None:
    """Record the speed of a training and its loss so far. run: its folder or URI without secrets."""
    SAMPLES.set(progress.samples_per_second, run=run)
    LOSS.set(progress.loss, run=run, part="train")


def record_epoch(run: str, result: Any) -> None:
    """Record a finished epoch. run: its folder or URI without secrets."""
    EPOCHS.add(run=run)
    SAMPLES.set(result.samples_per_second, run=run)
    LOSS.set(result.train_loss, run=run, part="train")
    LOSS.set(result.val_loss, run=run, part="validation")


def forget_training(run: str) -> None:
    """Stop exporting the gauges of a training that has ended."""
    SAMPLES.forget(run=run)
    for part in ("train", "validation"):
        LOSS.forget(run=run, part=part)


def record_trial(sweep: str, running: int, reused: bool | None, outcome: Any) -> None:
    """Record a finished fold or trial of a sweep.

    running: number of running trials. reused: if a fold has finished, whether it was reused, else None. outcome: of the
    trial, if it has ended.
    """
    if reused is not None:
        FOLDS.add(sweep=sweep, source="reused" if reused else "trained")
    if outcome is not None:
        TRIALS.add(sweep=sweep, state=outcome.state)
    record_running(sweep, running)


def record_running(sweep: str, trials: int) -> None:
    """Record the number of running trials of a sweep."""
    TRIALS_RUNNING.set(trials, sweep=sweep)


def _is_exported() -> bool:
    ray = sys.modules.get("ray")
    return ray is not None and bool(ray.is_initialized()) and not is_private()
