"""The folder or URI of a sweep: what is written before the first trial, and what is left when it ends.

    plan.json           the configuration, and hashes of the data
    bars.npz            the bars, as the leaderboard's baselines need them
    trials.jsonl        the journal of trials, records/ their folds: see `records`
    best/               the run of the best configuration, see `learning.runs`

The results are in `results`.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bitcorn_ray.datasets.dataset import PartitionBars
from bitcorn_ray.errors import BitcornError
from bitcorn_ray.storage.location import Location
from bitcorn_ray.storage.publish import TEMPORARY
from bitcorn_ray.storage.storage import Storage
from bitcorn_ray.training.artifacts import strict_json
from bitcorn_ray.training.config import recorded_config
from bitcorn_ray.tuning.config import SweepConfig
from bitcorn_ray.tuning.records import Journal, Records

# The arrays of a partition by their names in bars.npz.
_ARRAYS = {"timestamp": "timestamp", "high": "high", "low": "low", "close": "close", "barred": "excluded_ends"}
# Options of a sweep that may change on resume, by section, and fields of the run.
_MAY_CHANGE_ON_RESUME = {
    "sweep": ("trials", "max_hours", "max_failures", "resources"),
    "evolve": ("generations", "max_hours", "max_failures", "resources", "shuffles", "block"),
}
_RUN_FIELDS_THAT_MAY_CHANGE = ("out", "workers", "gpus", "mlflow", "db")


class SweepFolder:
    """The files of a sweep by name. place: a folder, or a URI such as `s3://bucket/sweep`."""

    def __init__(self, place: str | Path) -> None:
        self.storage = Storage(place, "sweep", "make room, or give another --out")

    @property
    def shown(self) -> str:
        """Return the place without secrets, for messages."""
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
        """Folder or URI of the best configuration's run."""
        return self.storage.child("best").address

    @property
    def is_sweep(self) -> bool:
        """Return True if a sweep has begun here."""
        return self.storage.has("plan.json")

    def require_free(self, resume: bool) -> None:
        """Raise BitcornError where nothing can be written there, or something is there that is not gone on with."""
        self.storage.require_writable()
        held, begun = self.storage.names(), self.is_sweep
        if begun and not resume:
            raise BitcornError(
                f"{self.shown} holds a sweep or evolution: --resume goes on with it, or give another --out"
            )
        # One that was cut short before its plan was written has not begun.
        if not begun and not all(name.startswith(("bars.npz", TEMPORARY)) for name in held):
            raise BitcornError(f"{self.shown} holds something already, and no sweep or evolution: give another --out")

    def begin(
        self,
        config: SweepConfig,
        identities: Mapping[str, str],
        bars: Sequence[PartitionBars],
        code: str | None,
        evolution: Mapping[str, Any] | None = None,
    ) -> None:
        """Write what is known before the first trial. The plan, which makes the folder a sweep, comes last.

        code: fingerprint of the code that trains. evolution: the configuration of an evolution, if the trials belong to
        one. A folder that has a plan stays unchanged.
        Raises BitcornError if that plan belongs to another sweep: other fields, bars, features or code.
        """
        asked = {
            "config": _recorded(config.to_json()),
            "evolution": None if evolution is None else _recorded(evolution),
            "identities": dict(identities),
            "code": code,
        }
        if self.is_sweep:
            return self._require_same(asked)
        arrays = {
            f"{name}_{index}": getattr(own, attribute)
            for index, own in enumerate(bars)
            for name, attribute in _ARRAYS.items()
            if getattr(own, attribute) is not None
        }
        content = io.BytesIO()
        np.savez_compressed(content, **arrays)
        self.storage.publish("bars.npz", content.getvalue())
        partitions = [{"symbol": own.symbol, "timeframe": own.timeframe, "step": own.step} for own in bars]
        self.storage.publish("plan.json", strict_json({"format": 1, **asked, "partitions": partitions}).encode())

    def plan(self) -> dict[str, Any]:
        """Read the plan. Raises BitcornError where the folder holds no sweep, or a damaged one."""
        if not self.is_sweep:
            raise BitcornError(f"{self.shown} holds no sweep (no plan.json): give the place that `bitcorn tune` wrote")
        try:
            plan: dict[str, Any] = json.loads(bytes(self.storage.read("plan.json")))
            if plan["format"] != 1:
                raise BitcornError(f"the sweep in {self.shown} has format {plan['format']}: update bitcorn_ray")
        except (OSError, ValueError, KeyError, TypeError) as error:
            if isinstance(error, BitcornError):
                raise
            raise BitcornError(f"the sweep in {self.shown} is damaged: plan.json cannot be read: {error}") from error
        return plan

    def bars(self) -> tuple[PartitionBars, ...]:
        """Read the bars. Raises BitcornError where they are damaged."""
        try:
            with np.load(io.BytesIO(self.storage.read("bars.npz")), allow_pickle=False) as arrays:
                return tuple(
                    PartitionBars(
                        **partition,
                        **{
                            attribute: arrays[f"{name}_{index}"]
                            for name, attribute in _ARRAYS.items()
                            if f"{name}_{index}" in arrays.files
                        },
                    )
                    for index, partition in enumerate(self.plan()["partitions"])
                )
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
            if isinstance(error, BitcornError):
                raise
            raise BitcornError(f"the sweep in {self.shown} is damaged: bars.npz cannot be read: {error}") from error

    def _require_same(self, asked: Mapping[str, Any]) -> None:
        before, section = self.plan(), "sweep" if asked["evolution"] is None else "evolve"
        if (before["evolution"] is None) != (asked["evolution"] is None):
            kinds = ("a sweep and no evolution", "an evolution and no sweep")
            raise BitcornError(f"{self.shown} holds {kinds[before['evolution'] is not None]}: give another --out")
        if _what_counts(before) != _what_counts(json.loads(strict_json(asked))):
            raise BitcornError(
                f"{self.shown} holds a sweep of another configuration: resume with that one (see plan.json there), "
                f"changing only {', '.join(f'{section}.{name}' for name in _MAY_CHANGE_ON_RESUME[section])}; or give "
                "another --out"
            )
        if before["identities"] != asked["identities"]:
            raise BitcornError(
                f"the bars or features have changed since the sweep in {self.shown} began, and its folds with them: "
                "give another --out, or the unchanged bars"
            )
        if before.get("code") != asked["code"]:
            raise BitcornError(
                f"the code or libraries that train have changed since the sweep in {self.shown} began, so its trials "
                "could not be compared with new ones: give another --out, or resume with the versions that began it"
            )


def _recorded(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration without secrets, whose bars are found from any folder."""
    return recorded_config({**config, "db": Location.of(config["db"]).address})


def _what_counts(plan: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a configuration that determines the trials and their results."""
    kept = {
        name: value
        for name, value in (plan["evolution"] or plan["config"]).items()
        if name not in _RUN_FIELDS_THAT_MAY_CHANGE
    }
    for section, free in _MAY_CHANGE_ON_RESUME.items():
        if section in kept:
            kept[section] = {name: value for name, value in kept[section].items() if name not in free}
    return kept
