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

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.storage.location import Location
from bitcorn_ray.storage.publish import TEMPORARY
from bitcorn_ray.storage.storage import Storage
from bitcorn_ray.training.artifacts import strict_json
from bitcorn_ray.training.config import recorded_config
from bitcorn_ray.tuning.config import SweepConfig
from bitcorn_ray.tuning.records import Journal, Records
from bitcorn_ray.tuning.trial import SweepBars

__all__ = ["SweepFolder"]

_ROWS = ("timestamp", "high", "low", "close", "barred")
# How a sweep may be carried out otherwise when it goes on, by the section that says so, and fields of the run.
_FREE = {
    "sweep": ("trials", "max_hours", "max_failures", "resources"),
    "evolve": ("generations", "max_hours", "max_failures", "resources", "shuffles", "block"),
}
_FREE_OF_RUN = ("out", "workers", "gpus", "mlflow", "db")


class SweepFolder:
    """The files of a sweep by name. place: a folder, or a URI such as `s3://bucket/sweep`."""

    def __init__(self, place: str | Path) -> None:
        self.storage = Storage(place, "sweep", "make room, or give another --out")

    @property
    def shown(self) -> str:
        """The place, as it may be shown."""
        return self.storage.shown

    @property
    def journal(self) -> Journal:
        """The trials."""
        return Journal(self.storage)

    @property
    def records(self) -> Records:
        """The trained folds."""
        return Records(self.storage.child("records").address)

    @property
    def run(self) -> str:
        """Folder or URI of the best configuration's run."""
        return self.storage.child("best").address

    @property
    def is_sweep(self) -> bool:
        """Whether a sweep has begun here."""
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
        bars: Sequence[SweepBars],
        evolution: Mapping[str, Any] | None = None,
    ) -> None:
        """Write what is known before the first trial; the plan, which makes the folder a sweep's, last.

        evolution: its configuration, where the trials are those of one. A folder that has a plan is left as it is.
        Raises BitcornError where that plan is of another sweep: other fields, bars or features.
        """
        asked = {
            "config": _recorded(config.to_json()),
            "evolution": None if evolution is None else _recorded(evolution),
            "identities": dict(identities),
        }
        if self.is_sweep:
            return self._require_same(asked)
        arrays = {
            f"{column}_{place}": getattr(one, column)
            for place, one in enumerate(bars)
            for column in _ROWS
            if getattr(one, column) is not None
        }
        content = io.BytesIO()
        np.savez_compressed(content, **arrays)
        self.storage.publish("bars.npz", content.getvalue())
        partitions = [{"symbol": one.symbol, "timeframe": one.timeframe, "step": one.step} for one in bars]
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

    def bars(self) -> tuple[SweepBars, ...]:
        """Read the bars. Raises BitcornError where they are damaged."""
        try:
            with np.load(io.BytesIO(self.storage.read("bars.npz")), allow_pickle=False) as arrays:
                return tuple(
                    SweepBars(**named, **{c: arrays[f"{c}_{place}"] for c in _ROWS if f"{c}_{place}" in arrays.files})
                    for place, named in enumerate(self.plan()["partitions"])
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
                f"{self.shown} holds a sweep of another configuration: go on with that one (plan.json there tells it), "
                f"changing only {', '.join(f'{section}.{name}' for name in _FREE[section])}; or give another --out"
            )
        if before["identities"] != asked["identities"]:
            raise BitcornError(
                f"the bars or features have changed since the sweep in {self.shown} began, so that its folds are "
                "others: give another --out, or the bars as they were"
            )


def _recorded(config: Mapping[str, Any]) -> dict[str, Any]:
    """As it may be kept, with bars that are found from any folder."""
    return recorded_config({**config, "db": Location.of(config["db"]).address})


def _what_counts(plan: Mapping[str, Any]) -> dict[str, Any]:
    """What decides what trials are and how they come out."""
    kept = {name: value for name, value in (plan["evolution"] or plan["config"]).items() if name not in _FREE_OF_RUN}
    for section, free in _FREE.items():
        if section in kept:
            kept[section] = {name: value for name, value in kept[section].items() if name not in free}
    return kept
