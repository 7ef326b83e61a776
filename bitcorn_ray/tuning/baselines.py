"""The baselines of a sweep on its test windows, fitted once and stored in its folder.

    baselines/<key>.npz     forecasts for one fold and partition, at all rows of its test range

1. The baselines of the evaluation are fitted on all bars from the fold's first training bar to its test range: the bars
that a trial reads, validation included. 2. Ridge regressions read the features of the best trial by validation loss,
through the cache, for the bars of the sweep. If these are no longer at the source, the ridge is left out with a remark.

Shapes: T bars of a partition, N rows of a test range, H horizons, F features.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bitcorn_ray.datasets.dataset import PartitionBars
from bitcorn_ray.datasets.folds import FoldRows
from bitcorn_ray.errors import BitcornError
from bitcorn_ray.evaluation.baselines import BASELINES, FEATURE_BASELINES, Baselines, baseline_forecasts
from bitcorn_ray.fingerprint.syntax import package_fingerprint
from bitcorn_ray.storage.arrays import pack_arrays, unpack_arrays
from bitcorn_ray.storage.location import shown_uri
from bitcorn_ray.tuning.config import SweepConfig, TrialConfig
from bitcorn_ray.tuning.data import sweep_data
from bitcorn_ray.tuning.folder import SweepFolder
from bitcorn_ray.tuning.records import record_key, training_code

Floats = NDArray[np.float32]


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
        """Return a fingerprint of the code of the baselines, so that a corrected baseline is fitted again."""
        return record_key(training_code(), package_fingerprint("evaluation"))

    def forecasts(self, index: int, fold: FoldRows) -> Baselines:
        """Return forecasts at all rows of a fold's test range, of one partition.

        Raises BitcornError as `baseline_forecasts` does. A ridge regression that fails is a remark instead.
        """
        kinds = [kind for kind in BASELINES if kind not in FEATURE_BASELINES]
        fitted = self._stored(kinds, index, fold, lambda: self._fit(index, fold, kinds))
        data = [*FEATURE_BASELINES, self.identities[self.setting.system], self.setting.features]
        try:
            ridge = self._stored(data, index, fold, lambda: self._fit_ridge(index, fold))
        except BitcornError as error:
            remarks = dict.fromkeys(FEATURE_BASELINES, f"left out: {error}")
            ridge = Baselines(returns={}, variances={}, remarks=remarks)
        return Baselines(
            returns=fitted.returns | ridge.returns,
            variances=fitted.variances | ridge.variances,
            remarks={**fitted.remarks, **ridge.remarks},
        )

    def _stored(self, data: Sequence[object], index: int, fold: FoldRows, fit: Callable[[], Baselines]) -> Baselines:
        """Return the stored forecasts, or fit and store them. data: what they are fitted on, for the key."""
        key = record_key(self.code, data, self.config.run.model.horizons, index, asdict(fold))
        name = f"baselines/{key}.npz"
        with suppress(OSError, ValueError, KeyError):  # missing or damaged
            return _unpack(bytes(self.folder.storage.read(name)))
        made = fit()
        self.folder.storage.publish(name, _pack(made))
        return made

    def _fit(self, index: int, fold: FoldRows, kinds: Sequence[str], features: Floats | None = None) -> Baselines:
        bars, horizons = self.bars[index], self.config.run.model.horizons
        fit, test = np.arange(fold.train.start, fold.test.start), np.arange(*fold.test)
        return baseline_forecasts(bars, *bars.outcomes(horizons), horizons, fit, test, features, kinds)

    def _fit_ridge(self, index: int, fold: FoldRows) -> Baselines:
        if isinstance(self._features, BitcornError):
            raise self._features
        return self._fit(index, fold, FEATURE_BASELINES, self._features[index])

    @cached_property
    def _features(self) -> list[Floats] | BitcornError:
        """Return the features (T, F) of the best trial for each partition, or the error: both are read once."""
        try:
            return self._read_features()
        except BitcornError as error:
            return error

    def _read_features(self) -> list[Floats]:
        data = sweep_data(self.config, cache_dir=self.cache_dir, systems=[self.setting.system])
        variant, start, found = data.variants[self.setting.system], 0, []
        for then, now in zip(self.bars, data.bars, strict=True):
            rows = np.minimum(np.searchsorted(now.timestamp, then.timestamp), len(now) - 1)
            if not all(
                np.array_equal(getattr(now, name)[rows], getattr(then, name)) for name in ("timestamp", "close")
            ):
                source = shown_uri(self.config.run.db)
                raise BitcornError(f"the bars of {then.name} in {source} are no longer those of the sweep")
            found.append(variant.matrix[start + rows][:, variant.columns(self.setting.features)])
            start += len(now)
        return found


def _pack(made: Baselines) -> bytes:
    forecasts = {"returns": made.returns, "variances": made.variances}
    arrays = {f"{kind}/{name}": values for kind, own in forecasts.items() for name, values in own.items()}
    return pack_arrays({"remarks": np.frombuffer(json.dumps(made.remarks).encode(), np.uint8), **arrays})


def _unpack(content: bytes) -> Baselines:
    arrays = unpack_arrays(content)
    remarks = json.loads(arrays.pop("remarks").tobytes())
    found: dict[str, dict[str, NDArray[np.float64]]] = {"returns": {}, "variances": {}}
    for key, values in arrays.items():
        kind, _, name = key.partition("/")
        found[kind][name] = values
    return Baselines(**found, remarks=remarks)
