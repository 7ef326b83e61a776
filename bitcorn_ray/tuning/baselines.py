"""What the trials of a sweep are compared with on test windows, fitted once and kept beside its results.

    baselines/<key>.npz     forecasts for one fold and partition, at all rows of its test range

1. The baselines of the evaluation, fitted on all bars from the fold's first training bar to its test range: they have
seen what the trial has, validation included. 2. Ridge regressions on what the best trial sees, by validation loss: its
features are read through the cache again, for the very bars that the sweep had. Where these are no longer at the
source, the ridge is left out and a remark says so.

Shapes: T bars of a partition, N rows of a test range, H horizons, F features.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bitcorn_ray.datasets.dataset import PartitionBars
from bitcorn_ray.datasets.folds import FoldRows
from bitcorn_ray.errors import BitcornError
from bitcorn_ray.evaluation.baselines import BASELINES, FEATURE_BASELINES, Baselines, baseline_forecasts
from bitcorn_ray.storage.location import shown_uri
from bitcorn_ray.storage.storage import Storage
from bitcorn_ray.tuning.config import SweepConfig, TrialConfig
from bitcorn_ray.tuning.data import sweep_data
from bitcorn_ray.tuning.folder import SweepFolder
from bitcorn_ray.tuning.records import record_key, training_code

Float = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class SweepBaselines:
    """The baselines of a sweep. setting: of the best trial, for the ridge regression. cache_dir: of features."""

    folder: SweepFolder
    config: SweepConfig
    bars: Sequence[PartitionBars]
    identities: Mapping[str, str]
    setting: TrialConfig
    cache_dir: str | Path | None = None

    @cached_property
    def code(self) -> str:
        """Return a fingerprint of the code of the baselines: a corrected one is fitted again."""
        return training_code()

    def of(self, place: int, fold: FoldRows) -> Baselines:
        """Forecasts at all rows of a fold's test range, of one partition. Raises BitcornError as `baseline_forecasts`.

        A ridge regression that could not be made is told in `remarks`.
        """
        made = self._kept(["all but ridge"], place, fold, lambda: self._fitted(place, fold))
        about = ["ridge", self.identities[self.setting.system], self.setting.features]
        try:
            ridge = self._kept(about, place, fold, lambda: self._ridge(place, fold))
        except BitcornError as error:
            ridge = Baselines(returns={}, variances={}, remarks={"ridge": f"left out: {error}"})
        return Baselines(
            returns=made.returns | ridge.returns,
            variances=made.variances | ridge.variances,
            remarks={**made.remarks, **ridge.remarks},
        )

    def _kept(self, about: Sequence[object], place: int, fold: FoldRows, make: Callable[[], Baselines]) -> Baselines:
        """What is on disk, or else is made now and written there."""
        key = record_key(self.code, about, self.config.run.model.horizons, place, asdict(fold))
        name = f"baselines/{key}.npz"
        if (found := _read(self.folder.storage, name)) is not None:
            return found
        made = make()
        self.folder.storage.publish(name, _bytes(made))
        return made

    def _fitted(self, place: int, fold: FoldRows) -> Baselines:
        kinds = [kind for kind in BASELINES if kind not in FEATURE_BASELINES]
        return self._forecasts(place, fold, None, kinds)

    def _ridge(self, place: int, fold: FoldRows) -> Baselines:
        if isinstance(self._features, BitcornError):
            raise self._features
        return self._forecasts(place, fold, self._features[place], FEATURE_BASELINES)

    def _forecasts(
        self, place: int, fold: FoldRows, features: NDArray[np.float32] | None, kinds: Sequence[str]
    ) -> Baselines:
        bars, horizons = self.bars[place], self.config.run.model.horizons
        return baseline_forecasts(bars, *bars.outcomes(horizons), horizons, *_rows(fold), features, kinds)

    @cached_property
    def _features(self) -> list[NDArray[np.float32]] | BitcornError:
        """What the best trial sees of each partition, (T, F); or why it cannot be had, found out once for all folds."""
        try:
            return self._read_features()
        except BitcornError as error:
            return error

    def _read_features(self) -> list[NDArray[np.float32]]:
        """Raises BitcornError where the bars are not what they were."""
        data = sweep_data(self.config, cache_dir=self.cache_dir, systems=[self.setting.system])
        variant, start, found = data.variants[self.setting.system], 0, []
        for had, now in zip(self.bars, data.bars, strict=True):
            rows = np.minimum(np.searchsorted(now.timestamp, had.timestamp), len(now.timestamp) - 1)
            if not all(np.array_equal(getattr(now, name)[rows], getattr(had, name)) for name in ("timestamp", "close")):
                place = shown_uri(self.config.run.db)
                raise BitcornError(f"the bars of {had.name} in {place} are no longer those of the sweep")
            found.append(variant.matrix[start + rows][:, variant.columns(self.setting.features)])
            start += len(now.timestamp)
        return found


def _rows(fold: FoldRows) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows to fit on, and those to forecast at."""
    return np.arange(fold.train.start, fold.test.start), np.arange(*fold.test)


def _bytes(made: Baselines) -> bytes:
    content = io.BytesIO()
    arrays = {f"{kind}/{name}": each for kind in ("returns", "variances") for name, each in getattr(made, kind).items()}
    np.savez(content, remarks=np.frombuffer(json.dumps(made.remarks).encode(), np.uint8), **arrays)
    return content.getvalue()


def _read(storage: Storage, name: str) -> Baselines | None:
    """None where there is nothing that can be read."""
    found: dict[str, dict[str, Float]] = {"returns": {}, "variances": {}}
    try:
        with np.load(io.BytesIO(storage.read(name)), allow_pickle=False) as arrays:
            for each in arrays.files:
                kind, _, called = each.partition("/")
                if kind in found:
                    found[kind][called] = arrays[each]
            return Baselines(**found, remarks=json.loads(bytes(arrays["remarks"]).decode()))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
