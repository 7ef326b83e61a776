import numpy as np
import pytest
from small_sweeps import sweep_values

from bitcorn_ray import load_market_data, prepare_features
from bitcorn_ray.errors import BitcornError
from bitcorn_ray.tuning.config import SweepConfig
from bitcorn_ray.tuning.data import plan_folds, sweep_data

HOUR = 3_600_000


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
    times = data.bars[0].timestamp // HOUR
    for before, after in ((own.train, own.validation), (own.validation, own.test)):
        assert times[after.start] - 47 > times[before.stop - 1]
    assert shown.folds == data.folds


def test_repairs_are_recorded(market_db):
    assert data_of(market_db).loaded.cleaning is None
    told = data_of(market_db, clean={"fill": "forward", "max_gap_size": 30}).loaded.cleaning
    assert told["policy"]["fill"] == "forward"
    assert told["partitions"]["AAAUSDT 1h"]["gaps_filled"] == 2


def test_one_variant_can_be_loaded(market_db):
    config = SweepConfig.load(sweep_values(market_db, "out", search={"system": {"choice": ["v2", "v4"]}}))
    assert list(sweep_data(config, systems=["v4"]).variants) == ["v4"]


def test_bad_bars_are_refused(market_db):
    with pytest.raises(BitcornError, match="named twice"):
        data_of(market_db, symbol=None, symbols=["AAAUSDT", "AAA/USDT"])
    with pytest.raises(BitcornError, match="one fold needs"):
        data_of(market_db, folds={"train": "900d"})


@pytest.fixture
def config(market_db):
    return {
        "db": market_db,
        "symbols": ["AAAUSDT", "bbb/usdt"],
        "timeframe": "1h",
        "model": {"horizons": [1, 6], "seq_len": 24},
        "folds": {"train": "15d", "validation": "3d", "test": "3d"},
        "search": {"not": "read"},
    }


def test_bars_are_cut_by_their_closing_instants(config):
    plan = plan_folds(config)
    assert plan.horizon == 6
    assert [line.name for line in plan.timelines] == ["AAAUSDT 1h", "BBBUSDT 1h"]
    told = plan.to_json()
    first, last = told["folds"][0], told["folds"][-1]
    assert last["test"]["last"] == told["partitions"][0]["last"]
    assert last["test"]["bars"][0] == 72
    for fold in told["folds"]:
        start, stop = fold["train"]["span"]
        assert stop - start == 15 * 24 * HOUR - 6 * HOUR + 1
        held = [np.count_nonzero((line.instants >= start) & (line.instants < stop)) for line in plan.timelines]
        assert fold["train"]["bars"] == held
    assert first["train"]["bars"][1] > 0  # BBB has bars in the first fold
    assert last["test"]["bars"][1] == 0  # and ended before the last


def test_folds_are_cut_on_repaired_bars(config):
    stored, repaired = plan_folds(config), plan_folds({**config, "clean": {"fill": "forward"}})
    assert len(stored.timelines[0].instants) < len(repaired.timelines[0].instants)
    assert (np.diff(repaired.timelines[0].instants) == HOUR).all()


def test_a_range_may_be_left_out(config, tmp_path):
    path = tmp_path / "sweep.yaml"
    path.write_text(
        f"db: {config['db']}\nsymbol: AAAUSDT\ntimeframe: 1h\nfolds: {{train: 500, validation: 0, test: 99, last: 2}}\n"
    )
    told = plan_folds(path).to_json()
    assert [fold["validation"] for fold in told["folds"]] == [None, None]
    assert told["horizon"] == 12  # a model's default


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"db": None}, "db is missing"),
        ({"symbols": None}, "neither symbol nor symbols"),
        ({"symbol": "AAAUSDT"}, "both symbol and symbols"),
        ({"timeframe": None}, "neither timeframe nor timeframes"),
        ({"folds": {"trian": 3}}, "folds: unknown field trian"),
        ({"folds": {"train": "1y"}}, "folds: train is '1y'"),
        ({"folds": {"train": "365d"}}, "one fold needs"),
        ({"model": {"horizons": []}}, "model: horizons"),
        ({"symbols": ["NONE"]}, "NONE"),
    ],
)
def test_impossible_folds_are_refused(config, changes, match):
    with pytest.raises(BitcornError, match=match):
        plan_folds({**config, **changes})
