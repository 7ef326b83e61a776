from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from small_baselines import constant_variance
from small_sweeps import make_sweep, sweep_values

from bitcorn_ray import leaderboard
from bitcorn_ray.errors import BitcornError
from bitcorn_ray.metrics.losses import qlike
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


def test_what_cannot_be_judged_is_told(tmp_path, swept):
    with pytest.raises(BitcornError, match="holds no sweep"):
        leaderboard(tmp_path / "nothing")
    folder, _, _ = swept
    for path in Path(folder.records.storage.address).iterdir():
        path.unlink()
    with pytest.raises(BitcornError, match="none of the 3 trials of the sweep"):
        leaderboard(Path(folder.storage.address))


def test_a_baseline_that_failed_is_told_with_its_folds(swept, market_db):
    folder, _, _ = swept
    market_db.unlink()
    judged = leaderboard(Path(folder.storage.address))
    assert "ridge" not in judged.board.answers[0].baselines
    (remark,) = judged.remarks
    assert remark.startswith("ridge on AAAUSDT 1h, folds 0, 1: left out: ")


def test_a_sweep_that_still_runs_can_be_judged(swept):
    folder, _, _ = swept
    running = [replace(each, state="running", losses=()) for each in folder.journal.read().values()]
    for trial in running:
        folder.journal.write(trial)
    assert leaderboard(Path(folder.storage.address)).board.compared == 3
