import numpy as np
import pandas as pd
import pytest
from sklearn.dummy import DummyRegressor
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV, check_cv, cross_val_score

from bitcorn_ray.datasets.folds import FoldsConfig, Timeline, WalkForwardSplit, walk_forward_folds
from bitcorn_ray.errors import BitcornError

DAYS = WalkForwardSplit(config=FoldsConfig(train="20d", validation="4d", test="4d"), horizon=6)
BARS = WalkForwardSplit(config=FoldsConfig(train=480, validation=96, test=96), horizon=6)


@pytest.fixture
def sample():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1_000, 3))
    return x, x @ [1.0, 2.0, 3.0] + rng.standard_normal(1_000)


def positions(pairs):
    return [(train.tolist(), test.tolist()) for train, test in pairs]


def test_scikit_learn_accepts_the_splitter(sample):
    x, y = sample
    assert check_cv(BARS) is BARS
    scores = cross_val_score(Ridge(), x, y, cv=BARS)
    by_hand = [Ridge().fit(x[train], y[train]).score(x[test], y[test]) for train, test in BARS.split(x)]
    assert scores == pytest.approx(by_hand)
    assert len(scores) == BARS.get_n_splits(x) == 4
    search = GridSearchCV(Ridge(), {"alpha": [0.1, 1e4]}, cv=BARS).fit(x, y)
    assert search.n_splits_ == 4
    assert search.best_params_ == {"alpha": 0.1}


def test_rows_are_those_of_the_folds(sample):
    x, _ = sample
    folds = walk_forward_folds(BARS.config, [Timeline(name="x", instants=np.arange(1_000), step=1)], 6)
    expected = [(list(range(*fold.rows[0].train)), list(range(*fold.rows[0].test))) for fold in folds]
    assert positions(BARS.split(x)) == expected


@pytest.mark.parametrize("zone", [None, "UTC", "Asia/Tokyo"])
def test_times_come_from_the_index_or_from_groups(sample, zone):
    x, y = sample
    times = pd.date_range("2024-01-01", periods=1_000, freq="h", tz=zone)
    expected = positions(BARS.split(x))
    assert positions(DAYS.split(pd.DataFrame(x, index=times))) == expected
    assert positions(DAYS.split(x, y, times)) == positions(DAYS.split(x, y, pd.Series(times))) == expected
    assert positions(DAYS.split(x, y, times.tz_localize(None).to_numpy().astype("M8[ms]").astype(int))) == expected
    assert positions(BARS.split(pd.DataFrame(x))) == expected  # a plain index is no time
    assert positions(BARS.split(x.tolist())) == expected
    scores = cross_val_score(DummyRegressor(), x, y, groups=times, cv=DAYS, scoring="neg_mean_absolute_error")
    assert len(scores) == 4


def test_rows_of_one_instant_go_together(sample):
    x, _ = sample
    times = np.arange(1_000) * 3_600_000
    shuffled = np.random.default_rng(1).permutation(2_000)
    for (train, test), (train_once, test_once) in zip(
        DAYS.split(np.zeros(2_000), groups=np.tile(times, 2)[shuffled]), DAYS.split(x, groups=times), strict=True
    ):
        assert sorted(shuffled[train] % 1_000) == sorted(np.tile(train_once, 2))
        assert sorted(shuffled[test] % 1_000) == sorted(np.tile(test_once, 2))


def test_groups_that_are_not_times_are_refused(sample):
    x, _ = sample
    with pytest.raises(BitcornError, match="groups are float64"):
        next(DAYS.split(x, groups=np.linspace(0, 1, 1_000)))
    with pytest.raises(BitcornError, match="these rows have no times"):
        next(DAYS.split(x))
    with pytest.raises(BitcornError, match="give X"):
        DAYS.get_n_splits()
