from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from small_baselines import constant_variance
from small_sweeps import make_sweep, sweep_values

from bitcorn_ray import leaderboard
from bitcorn_ray.errors import BitcornError
from bitcorn_ray.market.bars import Bars
from bitcorn_ray.market.partition import Partition
from bitcorn_ray.market.simulate import simulate_bars
from bitcorn_ray.metrics.losses import qlike
from bitcorn_ray.sources.ingest import write_bars
from bitcorn_ray.tuning.results import fold_records
from bitcorn_ray.tuning.search import Trial


@pytest.fixture
def swept(market_db, tmp_path):
    values = sweep_values(
        market_db, tmp_path / "sweep", search={"training.learning_rate": {"grid": [0.001, 0.01, 0.1]}}
    )
    return make_sweep(values, stop_last_after=1)


def test_trials_are_compared_on_test_windows_with_the_baselines_of_the_evaluation(swept):
    folder, plan, data = swept
    folder.journal.write(Trial(name="t0004", point={"training.learning_rate": 1.0}, state="failed", error="no"))
    judged = leaderboard(Path(folder.storage.address))
    board = judged.board
    assert (board.tried, board.compared, board.folds) == (4, 3, 2)
    volatility, direction = board.answers
    assert {"constant variance", "EWMA", "log-HAR", "strong HAR", "ridge"} <= set(volatility.baselines)
    assert set(direction.baselines) == {"always up", "always down", "ridge"}
    by_name = {each.trial: each for each in volatility.standings}
    assert by_name["t0003"].folds[1] is None  # it was stopped
    assert board.verdict.startswith("4 trials on 2 test folds of ")
    # The losses are those of the recorded forecasts, and the baseline has seen all bars before each test range.
    one = data.bars[0]
    _, realised = one.outcomes((1, 4))
    losses, constant = [], []
    for fold, (record,) in zip(plan.folds, fold_records(plan, folder.journal.read()["t0001"]), strict=True):
        rows = np.searchsorted(one.timestamp, record.times)
        losses.append(qlike(record.volatilities.astype(float) ** 2, realised[rows]).mean(1))
        fit = np.arange(fold.rows[0].train.start, fold.rows[0].test.start)
        constant.append(qlike(constant_variance(realised, (1, 4), fit, rows), realised[rows]).mean(1))
    assert by_name["t0001"].mean == pytest.approx(np.concatenate(losses).mean())
    assert volatility.baselines["constant variance"] == pytest.approx(np.concatenate(constant).mean())
    assert judged.remarks == ()
    told = judged.to_json()
    assert told["trials"]["t0004"]["state"] == "failed"
    assert told["verdict"] == board.verdict


def test_partitions_are_averaged_at_each_instant_and_seeds_within_a_trial(market_db, tmp_path):
    values = sweep_values(
        market_db,
        tmp_path / "sweep",
        symbol=None,
        symbols=["AAAUSDT", "BBBUSDT"],
        search={"model.hidden_size": {"grid": [3, 4]}},
        folds={"last": None, "train": "10d", "validation": "3d", "test": "12d"},
        sweep={"seeds": 2},
    )
    folder, plan, _ = make_sweep(values)
    judged = leaderboard(Path(folder.storage.address))
    found = fold_records(plan, folder.journal.read()["t0001"])
    windows = len(set(np.concatenate([of_fold[0].times for of_fold in found])))
    assert judged.board.windows <= windows
    assert judged.board.windows > 0.9 * windows
    assert len(found[0]) == 2


def test_sweeps_without_a_fold_are_refused(tmp_path, swept):
    with pytest.raises(BitcornError, match="holds no sweep"):
        leaderboard(tmp_path / "nothing")
    folder, _, _ = swept
    for path in Path(folder.records.storage.address).iterdir():
        path.unlink()
    with pytest.raises(BitcornError, match="none of the 3 trials of the sweep"):
        leaderboard(Path(folder.storage.address))


def test_a_failed_baseline_is_a_remark_with_its_folds(swept, market_db):
    folder, _, _ = swept
    market_db.unlink()
    judged = leaderboard(Path(folder.storage.address))
    assert "ridge" not in judged.board.answers[0].baselines
    (remark,) = judged.remarks
    assert remark.startswith("ridge on AAAUSDT 1h, folds 0, 1: left out: ")


def test_a_running_sweep_can_be_evaluated(swept):
    folder, _, _ = swept
    running = [replace(each, state="running", losses=()) for each in folder.journal.read().values()]
    for trial in running:
        folder.journal.write(trial)
    assert leaderboard(Path(folder.storage.address)).board.compared == 3


BARS, TRIALS = 5_000, 8


def garch(seed):
    """Volatility clusters, direction is pure chance."""
    return simulate_bars(BARS, seed=seed, gaps=0)


def random_walk(seed):
    """Normal returns of constant volatility, and volumes that know nothing of them."""
    rng = np.random.default_rng(seed)
    path = 0.004 * np.cumsum(rng.standard_normal((BARS, 4)).ravel()).reshape(BARS, 4)
    opened = np.concatenate([[0.0], path[:-1, -1]])
    whole = np.exp(np.column_stack([opened, path]))
    return Bars(
        timestamp=garch(0).timestamp,
        open=whole[:, 0],
        high=whole.max(1),
        low=whole.min(1),
        close=whole[:, -1],
        volume=np.exp(rng.normal(4, 0.4, BARS)),
    )


def found_by_a_sweep(market, seed, folder):
    """What the leaderboard finds after a sweep of LSTMs with random settings over walk-forward folds."""
    folder.mkdir()
    write_bars([("simulated", Partition("SIMUSDT", "1h"), market(seed))], folder / "market.db")
    rng = np.random.default_rng([seed, 2])
    values = {
        "db": str(folder / "market.db"),
        "symbol": "SIMUSDT",
        "timeframe": "1h",
        "out": str(folder / "sweep"),
        "workers": 0,
        "model": {"horizons": [1, 4, 12], "seq_len": 8, "num_layers": 1, "hidden_size": int(rng.choice([4, 8, 16]))},
        "training": {"epochs": 8, "patience": 2, "threads": 1, "deterministic": True, "seed": seed},
        "folds": {"train": 2_000, "validation": 500, "test": 800, "last": 3},
        "search": {
            "training.learning_rate": {"grid": (10 ** rng.uniform(-3, -2, TRIALS // 2)).tolist()},
            "model.reference_span": {"grid": [24, 96]},
        },
        "sweep": {"trials": TRIALS, "search": "grid"},
    }
    swept, _, _ = make_sweep(values)
    board = leaderboard(swept.storage.address).board
    assert (board.tried, board.compared, board.folds) == (TRIALS, TRIALS, 3)
    return board.found


@pytest.mark.slow
def test_real_trials_find_clustering_volatility_and_nothing_in_noise(tmp_path):
    assert found_by_a_sweep(random_walk, 1, tmp_path / "noise") == ()
    assert found_by_a_sweep(garch, 1, tmp_path / "garch") == ("volatility",)


@pytest.mark.slow
@pytest.mark.parametrize("market", [random_walk, garch])
def test_real_trials_over_forty_markets(market, tmp_path):
    found = [found_by_a_sweep(market, seed, tmp_path / str(seed)) for seed in range(40)]
    if market is random_walk:
        assert sum(each == () for each in found) >= 38
    else:
        assert sum("volatility" in each for each in found) >= 36
        assert not any("direction" in each for each in found)
