"""The folder or URI of a sweep or evolution, and its journal of trials.

    plan.json           the configuration, and hashes of the data
    bars.npz            the bars, for the leaderboard's baselines
    trials.jsonl        the journal: a line when a trial begins, and one when it ends
    records/            the trained folds, see `records`
    best/               the run of the best configuration, see `training.run`

The results are in `results`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from bitcorn_ray.datasets.dataset import PartitionBars
from bitcorn_ray.errors import BitcornError
from bitcorn_ray.storage.arrays import pack_arrays, unpack_arrays
from bitcorn_ray.storage.location import Location
from bitcorn_ray.storage.publish import TEMPORARY
from bitcorn_ray.storage.storage import Storage
from bitcorn_ray.training.artifacts import strict_json
from bitcorn_ray.training.config import recorded_config
from bitcorn_ray.tuning.config import SweepConfig
from bitcorn_ray.tuning.records import Records
from bitcorn_ray.tuning.search import Trial
from bitcorn_ray.tuning.space import point_key

OnTrial = Callable[[Trial], None]
Log = Callable[[str], None]

_LOG = "trials.jsonl"
# The arrays of a partition and their names in bars.npz.
_ARRAYS = {"timestamp": "timestamp", "high": "high", "low": "low", "close": "close", "excluded_ends": "barred"}
_ARRAYS |= {"filled": "filled"}
# Options that may change on resume, by section, and fields of the run.
_MAY_CHANGE_ON_RESUME = {
    "sweep": ("trials", "max_hours", "max_failures", "resources"),
    "evolve": ("generations", "max_hours", "max_failures", "resources", "shuffles", "block"),
}
_RUN_FIELDS_THAT_MAY_CHANGE = ("out", "workers", "gpus", "mlflow", "db")


class SweepFolder:
    """The files of a sweep. location: a folder, or a URI such as `s3://bucket/sweep`."""

    def __init__(self, location: str | Path) -> None:
        self.storage = Storage(location, "sweep", "make room, or give another --out")

    @property
    def shown(self) -> str:
        """Return the location without secrets, for messages."""
        return self.storage.shown

    @property
    def journal(self) -> Journal:
        """Return the journal of trials."""
        return Journal(self.storage)

    @property
    def records(self) -> Records:
        """Return the records of the trained folds."""
        return Records(self.storage.child("records").address)

    @property
    def run(self) -> str:
        """Return the folder or URI of the run of the best configuration."""
        return self.storage.child("best").address

    @property
    def is_sweep(self) -> bool:
        """Return True if a sweep or an evolution began here."""
        return self.storage.has("plan.json")

    def require_free(self, resume: bool) -> None:
        """Raise BitcornError if nothing can be written here, or if other files or an unresumed sweep are here."""
        self.storage.require_writable()
        if self.is_sweep:
            if not resume:
                raise BitcornError(
                    f"{self.shown} holds a sweep or evolution: continue it with --resume, or give another --out"
                )
        # A sweep that was killed before its plan was written has not begun.
        elif not all(name.startswith(("bars.npz", TEMPORARY)) for name in self.storage.names()):
            raise BitcornError(f"{self.shown} holds other files than a sweep or evolution: give another --out")

    def begin(
        self,
        config: SweepConfig,
        identities: Mapping[str, str],
        bars: Sequence[PartitionBars],
        code: str,
        evolution: Mapping[str, Any] | None = None,
    ) -> None:
        """Write the bars and then the plan, which makes the folder a sweep; leave an existing plan unchanged.

        code: fingerprint of the code that trains. evolution: the configuration of an evolution, if the trials belong to
        one.
        Raises BitcornError if an existing plan differs in configuration, bars, features or code.
        """
        plan = {
            "config": _recorded(config.to_json()),
            "evolution": None if evolution is None else _recorded(evolution),
            "identities": dict(identities),
            "code": code,
        }
        if self.is_sweep:
            return self._require_same(plan)
        arrays = {
            f"{stored}_{index}": getattr(own, name)
            for index, own in enumerate(bars)
            for name, stored in _ARRAYS.items()
            if getattr(own, name) is not None
        }
        self.storage.publish("bars.npz", pack_arrays(arrays, compress=True))
        partitions = [{"symbol": own.symbol, "timeframe": own.timeframe, "step": own.step} for own in bars]
        self.storage.publish("plan.json", strict_json({"format": 1, **plan, "partitions": partitions}).encode())

    def plan(self) -> dict[str, Any]:
        """Return the plan. Raises BitcornError if the folder holds no sweep, or a damaged one."""
        if not self.is_sweep:
            raise BitcornError(f"{self.shown} holds no sweep (no plan.json): give the place that `bitcorn tune` wrote")
        try:
            plan: dict[str, Any] = json.loads(bytes(self.storage.read("plan.json")))
            version = plan["format"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise self._damaged("plan.json", error) from error
        if version != 1:
            raise BitcornError(f"the sweep in {self.shown} has format {version}: update bitcorn_ray")
        if "code" not in plan:
            raise BitcornError(
                f"an older bitcorn_ray wrote the sweep in {self.shown}: run it again, with another --out"
            )
        return plan

    def bars(self) -> tuple[PartitionBars, ...]:
        """Return the bars. Raises BitcornError if they are damaged."""
        partitions = self.plan()["partitions"]
        try:
            arrays = unpack_arrays(self.storage.read("bars.npz"))
            bars = []
            for index, values in enumerate(partitions):
                own = {name: arrays.get(f"{stored}_{index}") for name, stored in _ARRAYS.items()}
                bars.append(PartitionBars(**{**values, **own}))
            return tuple(bars)
        except (OSError, ValueError, TypeError) as error:
            raise self._damaged("bars.npz", error) from error

    def _damaged(self, name: str, error: Exception) -> BitcornError:
        return BitcornError(f"the sweep in {self.shown} is damaged: {name} cannot be read: {error}")

    def _require_same(self, plan: Mapping[str, Any]) -> None:
        before, section = self.plan(), "sweep" if plan["evolution"] is None else "evolve"
        if (before["evolution"] is None) != (plan["evolution"] is None):
            kinds = ("a sweep and no evolution", "an evolution and no sweep")
            raise BitcornError(f"{self.shown} holds {kinds[before['evolution'] is not None]}: give another --out")
        if _fixed_values(before) != _fixed_values(json.loads(strict_json(plan))):
            raise BitcornError(
                f"{self.shown} holds a sweep of another configuration: resume with that one (see plan.json there), "
                f"changing only {', '.join(f'{section}.{name}' for name in _MAY_CHANGE_ON_RESUME[section])}; or give "
                "another --out"
            )
        if before["identities"] != plan["identities"]:
            raise BitcornError(
                f"the bars or features have changed since the sweep in {self.shown} began, so its folds cannot be "
                "reused: give another --out, or the unchanged bars"
            )
        if before["code"] != plan["code"]:
            raise BitcornError(
                f"the code or libraries that train have changed since the sweep in {self.shown} began, so its trials "
                "could not be compared with new ones: give another --out, or resume with the versions that began it"
            )


class Journal:
    """The trials of a sweep, in the order in which they began. storage: of the sweep."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def read(self) -> dict[str, Trial]:
        """Return the latest state of all trials by name. A line that a crash cut off is skipped."""
        trials: dict[str, Trial] = {}
        for line in self._storage.lines(_LOG):
            try:
                values = json.loads(line)
                trial = Trial(**{**values, "losses": tuple(values["losses"])})
            except (ValueError, KeyError, TypeError):
                continue
            trials[trial.name] = trial
        return trials

    def write(self, trial: Trial) -> None:
        """Add the state of a trial. Raises BitcornError if it cannot be written."""
        self._storage.add_line(_LOG, json.dumps(asdict(replace(trial, setting=dict(trial.setting)))))


class TrialRecorder:
    """Writes trials to the journal when they begin and end, and passes every change on.

    trials: their latest state by `point_key`.
    """

    def __init__(self, folder: SweepFolder, on_trial: OnTrial | None, log: Log) -> None:
        self.trials: dict[str, Trial] = {}
        self._journal, self._on_trial, self._log = folder.journal, on_trial or (lambda trial: None), log

    def __call__(self, trial: Trial) -> None:
        """Record a trial that began, finished a fold or ended."""
        if not trial.losses or trial.state != "running":
            self._journal.write(trial)
        if trial.error is not None:
            self._log(f"trial {trial.name} failed with {dict(trial.point)}: {trial.error}")
        self.restore(trial)

    def restore(self, trial: Trial) -> None:
        """Add a trial that is in the journal."""
        self.trials[point_key(trial.point)] = trial
        self._on_trial(trial)

    def failures(self, allowed: str) -> str:
        """Return a message about the failed trials. allowed: how many may fail."""
        failed = [trial for trial in self.trials.values() if trial.state == "failed"]
        if not failed:
            return "no trial began"
        first = failed[0]
        return (
            f"{len(failed)} of {len(self.trials)} trials failed, {allowed} may; the first, {first.name} with "
            f"{dict(first.point)}: {first.error}"
        )


def _recorded(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration without secrets, whose bars are found from any folder."""
    return recorded_config({**config, "db": Location.of(config["db"]).address})


def _fixed_values(plan: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a configuration that determines the trials and their results."""
    kept = {
        name: value
        for name, value in (plan["evolution"] or plan["config"]).items()
        if name not in _RUN_FIELDS_THAT_MAY_CHANGE
    }
    for section, may_change in _MAY_CHANGE_ON_RESUME.items():
        if section in kept:
            kept[section] = {name: value for name, value in kept[section].items() if name not in may_change}
    return kept
