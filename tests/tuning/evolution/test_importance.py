from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from small_evolutions import evolve_values

from bitcorn_ray.datasets.dataset import Dataset
from bitcorn_ray.errors import BitcornError
from bitcorn_ray.models.base import Prediction
from bitcorn_ray.models.neural.config import LSTMConfig
from bitcorn_ray.tuning.evolution.config import EvolveConfig, evolve_data
from bitcorn_ray.tuning.evolution.importance import (
    Shuffles,
    fold_importance,
    importance_trial,
    is_known,
    read_importance,
    shuffled_rows,
)
from bitcorn_ray.tuning.folder import SweepFolder
from bitcorn_ray.tuning.trial import TrialPlan, train_fold

SHUFFLES = Shuffles(count=3, block=8, seed=0)


def windows(ends, starts):
    return SimpleNamespace(test_ends=np.array(ends), partition_starts=np.array(starts))


def test_blocks_are_permuted_inside_their_partition():
    data = windows([*range(20, 50), *range(130, 150)], [0, 100, 200])
    rows, source = shuffled_rows(data, 5, 4, np.random.default_rng(0))
    np.testing.assert_array_equal(rows, [*range(16, 50), *range(126, 150)])
    np.testing.assert_array_equal(np.sort(source[:34]), rows[:34])  # the same rows in another order
    np.testing.assert_array_equal(np.sort(source[34:]), rows[34:])
    assert (source != rows).any()
    # Rows of a block stay side by side: of four neighbours three are still together.
    assert (np.diff(source[:34]) == 1).mean() >= 0.7


def test_a_permutation_changes_the_order():
    data = windows(range(10, 16), [0, 20])
    for seed in range(20):
        rows, source = shuffled_rows(data, 1, 3, np.random.default_rng(seed))
        assert (rows != source).all()


def test_too_few_rows_are_refused():
    with pytest.raises(BitcornError, match="read 5 rows, too few for two blocks of 8"):
        shuffled_rows(windows([10], [0, 20]), 5, 8, np.random.default_rng(0))
    with pytest.raises(BitcornError, match="no test window"):
        shuffled_rows(windows([], [0, 20]), 5, 8, np.random.default_rng(0))


@pytest.fixture
def case(market_db, tmp_path):
    config = EvolveConfig.load(evolve_values(market_db, tmp_path))
    data, folder = evolve_data(config), SweepFolder(tmp_path / "out")
    return config, data, folder, TrialPlan.of(config.sweep, data.folds, data.identities, folder.records)


def test_the_loss_is_that_of_the_sweep_and_shuffles_repeat(case):
    config, data, _, plan = case
    (variant,) = data.variants.values()
    setting = config.sweep.at({"features": ["raw_vol_30", "range"]})
    found = fold_importance(data.bars, variant, setting, data.folds[1].rows, plan.objective, SHUFFLES)
    again = fold_importance(data.bars, variant, setting, data.folds[1].rows, plan.objective, SHUFFLES)
    record = train_fold(data.bars, variant, setting, data.folds[1].rows, plan.objective)
    assert found["loss"] == record.test_loss
    assert found == again
    assert list(found["shuffled"]) == ["raw_vol_30", "range"]
    assert len(set(found["shuffled"]["raw_vol_30"])) == 3


def test_an_informative_feature_is_more_important_than_noise(case):
    """Of a market whose volatility is one of two, known from one feature; the other one is noise."""
    from bitcorn_ray.tuning.evolution.importance import _test_loss

    class Threshold:
        config = LSTMConfig(horizons=(1,), reference_span=0, seq_len=4)

        def predict(self, windows):
            high = windows.matrix[windows.ends, :1] > 0
            return Prediction(np.zeros_like(high, np.float32), np.where(high, 0.02, 0.01).astype(np.float32))

    rng = np.random.default_rng(0)
    matrix = np.stack([np.repeat(rng.integers(0, 2, 100), 10), rng.normal(size=1_000)], 1).astype(np.float32)
    true = np.where(matrix[:, :1] > 0, 0.02, 0.01).astype(np.float32)
    data = Dataset(
        matrix=matrix,
        reference=np.ones(1_000, np.float32),
        partition_starts=np.array([0, 1_000]),
        names=("SIM 1h",),
        timestamp=None,
        returns=np.zeros_like(true),
        volatilities=true,
        output_scale=np.ones(1, np.float32),
        typical_reference=1.0,
        train_ends=np.arange(0),
        validation_ends=np.arange(0),
        test_ends=np.arange(100, 900),
    )
    setting = SimpleNamespace(model=Threshold.config)
    whole = _test_loss(Threshold(), data, matrix, setting, "qlike")
    rows, source = shuffled_rows(data, 4, 40, np.random.default_rng(1))
    increases = []
    for column in (0, 1):
        shuffled = matrix.copy()
        shuffled[rows, column] = matrix[source, column]
        increases.append(_test_loss(Threshold(), data, shuffled, setting, "qlike") - whole)
    assert increases[0] > 0.3
    assert increases[1] == 0.0


def test_the_importance_is_stored_and_read(case):
    config, data, folder, plan = case
    setting, told = config.sweep.at({"features": ["raw_vol_30", "range"]}), []
    fetch = {"bars": data.bars, **data.variants}.__getitem__
    assert read_importance(plan, SHUFFLES, folder, setting) == []
    importance_trial(plan, SHUFFLES, folder, fetch, setting.to_json(), told.append)
    assert [each["fold"] for each in told] == [1, 2]
    assert is_known(plan, SHUFFLES, folder, setting)
    found = read_importance(plan, SHUFFLES, folder, setting)
    assert {each.feature for each in found} == {"raw_vol_30", "range"}
    assert found[0].increase >= found[1].increase
    assert all(each.standard_error > 0 for each in found)
    # Nothing is trained a second time.
    before = {path.name: path.stat().st_mtime_ns for path in Path(folder.storage.address).iterdir()}
    importance_trial(plan, SHUFFLES, folder, fetch, setting.to_json(), told.append)
    assert {path.name: path.stat().st_mtime_ns for path in Path(folder.storage.address).iterdir()} == before
