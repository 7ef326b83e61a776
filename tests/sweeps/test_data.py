import numpy as np
import pytest
from small_sweeps import sweep_values

from bitcorn_ray import load_market_data, prepare_features
from bitcorn_ray.errors import BitcornError
from bitcorn_ray.sweeps.config import SweepConfig
from bitcorn_ray.sweeps.data import sweep_data


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


def test_one_variant_can_be_asked_for(market_db):
    config = SweepConfig.load(sweep_values(market_db, "out", search={"system": {"choice": ["v2", "v4"]}}))
    assert list(sweep_data(config, systems=["v4"]).variants) == ["v4"]


def test_bad_bars_are_refused(market_db):
    with pytest.raises(BitcornError, match="named twice"):
        data_of(market_db, symbol=None, symbols=["AAAUSDT", "AAA/USDT"])
    with pytest.raises(BitcornError, match="one fold needs"):
        data_of(market_db, folds={"train": "900d"})
