import numpy as np
import pytest

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.tuning.plan_folds import plan_folds

HOUR = 3_600_000


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


def test_bars_are_repaired_as_trials_will_have_them(config):
    stored, repaired = plan_folds(config), plan_folds({**config, "clean": {"fill": "forward"}})
    assert len(stored.timelines[0].instants) < len(repaired.timelines[0].instants)
    assert (np.diff(repaired.timelines[0].instants) == HOUR).all()


def test_a_file_is_read_and_a_range_may_be_left_out(config, tmp_path):
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
def test_what_cannot_be_cut_is_refused(config, changes, match):
    with pytest.raises(BitcornError, match=match):
        plan_folds({**config, **changes})
