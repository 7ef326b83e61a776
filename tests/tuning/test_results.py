import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from small_sweeps import make_sweep, sweep_values

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.metrics.calibration import conformal_quantile
from bitcorn_ray.tuning.folder import SweepFolder
from bitcorn_ray.tuning.results import best_of, fold_records, read_sweep, stitched, write_results
from bitcorn_ray.tuning.search import Trial


def trial(name, losses, state="finished", **changes):
    return Trial(name=name, point={"model.hidden_size": 4}, state=state, losses=losses, **changes)


def test_the_best_trial_has_the_lowest_loss_of_those_with_the_most_folds():
    trials = [
        trial("a", (1.0, 3.0)),
        trial("b", (1.5, 2.0)),
        trial("c", (0.1,), "stopped"),
        trial("d", (0.0, 0.0), "failed"),
    ]
    assert best_of(trials).name == "b"
    assert best_of(trials[2:]).name == "c"
    assert best_of(trials[3:]) is None


def test_overlapping_test_ranges_are_stitched_without_repeating_a_window(market_db, tmp_path):
    values = sweep_values(market_db, tmp_path / "sweep", search={}, folds={"step": "2d", "last": 3})
    folder, plan, data = make_sweep(values)
    (only,) = folder.journal.read().values()
    table = stitched(plan, data.bars, only, (1, 4)).to_pandas()
    assert not table.duplicated(["cutoff", "horizon"]).any()
    assert table["cutoff"].is_monotonic_increasing
    assert table["fold"].unique().tolist() == [0, 1, 2]
    records = fold_records(plan, only)
    last = table[table["fold"] == 2]
    np.testing.assert_array_equal(last["return"].to_numpy(), records[2][0].returns.ravel().astype(float))
    close = dict(zip(data.bars[0].timestamp, data.bars[0].close, strict=True))
    row = table.iloc[101]
    cutoff, ahead = int(row["cutoff"].timestamp() * 1000), int(row["horizon"])
    assert row["realised_return"] == pytest.approx(np.log(close[cutoff + ahead * 3_600_000] / close[cutoff]))
    assert row["price"] == pytest.approx(close[cutoff] * np.exp(row["return"]))


def test_bands_use_scores_known_at_the_forecast(market_db, tmp_path):
    """Beside the slow way: for each window, all scores of its fold's earlier windows whose horizon has passed."""
    folds = {"last": None, "train": "10d", "validation": "5d", "test": "12d"}
    values = sweep_values(
        market_db, tmp_path / "sweep", symbol=None, symbols=["AAAUSDT", "BBBUSDT"], search={}, folds=folds
    )
    folder, plan, data = make_sweep(values)
    (only,) = folder.journal.read().values()
    table = stitched(plan, data.bars, only, (1, 4)).to_pandas()
    assert set(table["symbol"]) == {"AAAUSDT", "BBBUSDT"}
    hour = 3_600_000
    for fold, (record,) in zip(plan.folds, fold_records(plan, only), strict=True):
        for place, one in enumerate(data.bars):
            own, past = record.partitions == place, record.validation_partitions == place
            if not own.any():
                continue  # the shorter series has ended
            assert past.sum() > 80  # of five days of validation, less what a gap takes
            rows = np.searchsorted(one.timestamp, record.times[own])
            shown = table[(table["fold"] == fold.number) & (table["symbol"] == one.symbol)]
            for column, horizon in enumerate((1, 4)):
                came = np.log(one.close[rows + horizon] / one.close[rows])
                off = np.abs(came - record.returns[own, column]) / record.volatilities[own, column]
                bars = np.concatenate([record.validation_times[past], record.times[own]]) // hour
                scores = np.concatenate([record.validation_scores[past, column], off.astype(np.float32)])
                at = shown[shown["horizon"] == horizon]
                for number in (0, 1, 5, 40, own.sum() - 1):
                    known = scores[bars + horizon <= record.times[own][number] // hour]
                    half = conformal_quantile(known[:, None], 0.8)[0] * record.volatilities[own][number, column]
                    row = at.iloc[number]
                    assert np.log(row["hi80"] / row["price"]) == pytest.approx(half, rel=1e-5)
                    assert np.log(row["price"] / row["lo80"]) == pytest.approx(half, rel=1e-5)
    assert np.isfinite(table[["lo50", "hi50", "lo95", "hi95"]]).all(axis=None)


def test_results_are_one_json_and_one_parquet(tmp_path):
    folder = SweepFolder(tmp_path)
    folder.storage.publish("plan.json", json.dumps({"format": 1, "code": "c", "config": {"out": "x"}}).encode())
    trials = [trial("a", (1.0, 3.0)), Trial(name="b", point={"model.hidden_size": [1]}, state="failed", error="no")]
    write_results(folder, "done", trials, {"folds": [{}, {}], "partitions": []}, None)
    told = json.loads((tmp_path / "sweep.json").read_text())
    assert (told["ended"], told["tried"], told["failed"], told["best"]["name"]) == ("done", 2, 1, "a")
    table = pq.read_table(tmp_path / "trials.parquet").to_pydict()
    assert table["loss"] == [2.0, None]
    assert table["loss_fold_1"] == [3.0, None]
    assert table["search.model.hidden_size"] == ["4", "[1]"]  # of several kinds
    assert table["error"] == [None, "no"]


def test_a_sweep_is_read_back(market_db, tmp_path):
    folder, plan, data = make_sweep(sweep_values(market_db, tmp_path / "sweep"), stop_last_after=1)
    read = read_sweep(folder)
    assert (read.plan.folds, read.plan.seeds, read.plan.identities) == (plan.folds, plan.seeds, plan.identities)
    assert read.plan.records.storage.address == plan.records.storage.address
    assert [one.name for one in read.bars] == [one.name for one in data.bars]
    assert np.array_equal(read.bars[0].close, data.bars[0].close)
    assert [trial.state for trial in read.trials.values()] == ["finished", "stopped"]
    assert len(read.folds.to_json()["folds"]) == 2
    assert read.config.space.names == ("training.learning_rate",)


def test_missing_and_damaged_sweeps_are_refused(tmp_path):
    with pytest.raises(BitcornError, match="holds no sweep"):
        read_sweep(SweepFolder(tmp_path))
