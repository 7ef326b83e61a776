import numpy as np
import pytest
from small_sweeps import sweep_values

from bitcorn_ray import load_market_data, prepare_features
from bitcorn_ray.errors import BitcornError
from bitcorn_ray.tuning.config import SweepConfig
from bitcorn_ray.tuning.data import sweep_data
from bitcorn_ray.tuning.plan_folds import plan_folds


def data_of(market_db, **changes):
    return sweep_data(SweepConfig.load(sweep_values(market_db, "out", **changes)))


def test_every_variant_has_the_features_that_the_cache_gives(market_db):
    search = {"system": {"choice": ["v2", "v4:short=6"]}}
    data = data_of(market_db, symbol=None, symbols=["AAAUSDT", "BBBUSDT"], search=search, folds={"last": 1})
    assert list(data.variants) == ["v2", "v4:short=6"]
    assert [one.name for one in data.bars] == ["AAAUSDT 1h", "BBBUSDT 1h"]
    matrix, start = data.variants["v2"].matrix, len(data.bars[0].close)
    prepared = prepare_features(load_market_data(str(market_db), "BBBUSDT", "1h").dataframe)
    expected = prepared.dataframe[list(data.variants["v2"].features)].to_numpy()
    np.testing.assert_array_equal(matrix[len(matrix) - len(expected) :], expected)
    assert np.isnan(matrix[start : start + len(matrix) - start - len(expected)]).any(1).all()


def test_the_identity_is_of_bars_and_features(market_db, tmp_path):
    one, same = data_of(market_db), data_of(market_db)
    assert one.identities == same.identities
    other = data_of(market_db, symbol="BBBUSDT", folds={"train": "15d", "validation": "4d", "test": "4d"})
    assert one.identities != other.identities


def test_inputs_of_the_longest_window_are_disjoint_too(market_db):
    values = sweep_values(
        market_db, "out", search={"seq_len": {"choice": [8, 48]}}, folds={"disjoint_inputs": True, "last": 1}
    )
    data, shown = sweep_data(SweepConfig.load(values)), plan_folds(values)
    (own,) = data.folds[0].rows
    times = data.bars[0].timestamp // 3_600_000
    for before, after in ((own.train, own.validation), (own.validation, own.test)):
        assert times[after.start] - 47 > times[before.stop - 1]
    assert shown.folds == data.folds


def test_what_was_repaired_is_known(market_db):
    assert data_of(market_db).loaded.cleaning is None
    told = data_of(market_db, clean={"fill": "forward", "max_gap_size": 30}).loaded.cleaning
    assert told["policy"]["fill"] == "forward"
    assert told["partitions"]["AAAUSDT 1h"]["gaps_filled"] == 2


def test_one_variant_can_be_asked_for(market_db):
    config = SweepConfig.load(sweep_values(market_db, "out", search={"system": {"choice": ["v2", "v4"]}}))
    assert list(sweep_data(config, systems=["v4"]).variants) == ["v4"]


def test_bad_bars_are_refused(market_db):
    with pytest.raises(BitcornError, match="named twice"):
        data_of(market_db, symbol=None, symbols=["AAAUSDT", "AAA/USDT"])
    with pytest.raises(BitcornError, match="one fold needs"):
        data_of(market_db, folds={"train": "900d"})
