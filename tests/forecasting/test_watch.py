import json
import shutil
import sqlite3
import subprocess
import sys
import time
from dataclasses import asdict

import numpy as np
import pandas as pd
import pytest
from small_runs import make_run

from bitcorn_ray.data_loader import load_market_data
from bitcorn_ray.datasets.load import feature_identity
from bitcorn_ray.errors import BitcornError
from bitcorn_ray.features.registry import find_system
from bitcorn_ray.forecasting.batch import plan_forecasts, run_forecasts
from bitcorn_ray.forecasting.forecaster import Forecaster
from bitcorn_ray.forecasting.watch import Watcher
from bitcorn_ray.market.bars import show_time
from bitcorn_ray.market.partition import Partition
from bitcorn_ray.market.policy import CleaningPolicy
from bitcorn_ray.market.resample import resample_bars
from bitcorn_ray.market.simulate import simulate_bars
from bitcorn_ray.metrics.losses import qlike
from bitcorn_ray.sources.ingest import write_bars

BARS = simulate_bars(700, seed=6, gaps=0)
NAMED = Partition("AAA", "1h")

# Another process that commits bar after bar to a database in WAL mode, as a collector does.
WRITER = """
import sqlite3, sys, time, json
rows, path = json.load(open(sys.argv[1])), sys.argv[2]
db = sqlite3.connect(path)
db.execute("PRAGMA journal_mode=WAL")
for row in rows:
    with db:
        columns = "symbol, timeframe, ts, open, high, low, close, volume"
        db.execute(f"INSERT INTO ohlcv ({columns}) VALUES ('AAA', '1h', ?, ?, ?, ?, ?, ?)", row)
    time.sleep(0.05)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("runs") / "run", {"AAA": BARS.take(slice(600))})


@pytest.fixture
def db(tmp_path):
    write_bars([("x", NAMED, BARS.take(slice(650)))], tmp_path / "live.db")
    return tmp_path / "live.db"


def more(db, bars, first, stop, symbol="AAA"):
    write_bars([("x", Partition(symbol, "1h"), bars.take(slice(first, stop)))], db, on_conflict="replace")


def forecasts(entries):
    return [each for each in entries if each["kind"] == "forecast"]


def test_a_forecast_at_each_new_bar_as_the_forecaster_makes_it(folder, db, tmp_path):
    with Watcher(Forecaster.load(folder), db, tmp_path / "w.jsonl") as watcher:
        first = watcher.poll()
        assert [each["cutoff"] for each in first] == ["2023-01-28T01:00:00Z"]
        assert watcher.poll() == []
        more(db, BARS, 650, 653)
        second = watcher.poll()
        assert [each["cutoff"][8:13] for each in forecasts(second)] == ["28T02", "28T03", "28T04"]
    frame = BARS.take(slice(653)).to_frame()
    frame.attrs["symbol"] = "AAA"
    expected = Forecaster.load(folder).predict(frame, last=3)
    np.testing.assert_allclose(np.ravel([each["return"] for each in forecasts(second)]), expected["return"], rtol=1e-4)
    half = np.log(expected.hi80 / expected.price) / expected.volatility
    np.testing.assert_allclose(np.ravel([each["widths"]["0.8"] for each in forecasts(second)]), half, rtol=1e-4)
    assert [each["close"] for each in forecasts(second)] == BARS.close[650:653].tolist()


def test_who_starts_again_catches_up_and_forecasts_from_no_bar_twice(folder, db, tmp_path):
    with Watcher(Forecaster.load(folder), db, tmp_path / "w.jsonl") as watcher:
        watcher.poll()
    more(db, BARS, 650, 660)
    with Watcher(Forecaster.load(folder), db, tmp_path / "w.jsonl") as watcher:
        missed = watcher.poll()
        skill = watcher.skill()
    with Watcher(Forecaster.load(folder), db, tmp_path / "w.jsonl") as watcher:
        assert watcher.poll() == []
        assert watcher.skill() == skill
    assert len(forecasts(missed)) == 10
    lines = [json.loads(line) for line in (tmp_path / "w.jsonl").read_text().splitlines()]
    assert len(forecasts(lines)) == 11 == len({each["cutoff"] for each in forecasts(lines)})
    outcomes = [(each["cutoff"], each["horizon"]) for each in lines if each["kind"] == "outcome"]
    assert len(outcomes) == len(set(outcomes)) == 10 + 7


def test_skill_is_what_the_outcomes_say(folder, db, tmp_path):
    with Watcher(Forecaster.load(folder), db, tmp_path / "w.jsonl") as watcher:
        watcher.poll()
        more(db, BARS, 650, 700)
        made = forecasts(watcher.poll())
        four_ahead = watcher.skill()[1]
    rows = np.arange(649, 696)
    frame = BARS.to_frame()
    frame.attrs["symbol"] = "AAA"
    told = Forecaster.load(folder).predict(frame, last=51)
    told = told[told.horizon == 4].iloc[:47]
    close = np.log(BARS.close)
    outcome, steps = close[rows + 4] - close[rows], np.diff(close)
    realised = np.array([np.square(steps[row : row + 4]).sum() for row in rows])
    future = BARS.close[rows + 4]
    assert four_ahead["scored"] == 47
    for level in ("50", "80", "95"):
        inside = (future >= told[f"lo{level}"]) & (future <= told[f"hi{level}"])
        assert four_ahead["coverage"][f"{int(level) / 100:g}"] == pytest.approx(inside.mean())
    assert four_ahead["direction"] == pytest.approx(((told["return"] > 0) == (outcome > 0)).mean())
    assert four_ahead["qlike"] == pytest.approx(qlike(told.volatility**2, realised).mean(), rel=1e-4)
    ewma = pd.Series(np.square(np.diff(close, prepend=close[0]))).ewm(alpha=0.06).mean().to_numpy()[rows] * 4
    assert four_ahead["ewma_qlike"] == pytest.approx(qlike(ewma, realised).mean(), rel=1e-4)
    assert len(made) == 50


def test_an_outcome_behind_a_gap_is_unknown_and_a_bar_without_a_window_is_skipped(folder, db, tmp_path):
    with Watcher(Forecaster.load(folder), db, tmp_path / "w.jsonl") as watcher:
        watcher.poll()
        more(db, BARS, 652, 656)  # two bars never come
        entries = watcher.poll()
        one_ahead, four_ahead = watcher.skill()
    assert forecasts(entries) == []
    skipped = [each for each in entries if each["kind"] == "skipped"]
    assert len(skipped) == 4
    assert "bars are missing between 2023-01-28T01:00:00Z and 2023-01-28T04:00:00Z" in skipped[0]["why"]
    assert (one_ahead["scored"], one_ahead["unknown"]) == (0, 1)
    assert (four_ahead["scored"], four_ahead["unknown"]) == (0, 1)


def test_a_bar_that_is_not_over_is_not_forecast_from(folder, tmp_path):
    """The last of these bars opened half an hour ago."""
    columns = BARS.columns()
    half_an_hour_ago = int(time.time() * 1000) - 1_800_000
    columns["timestamp"] = columns["timestamp"] - columns["timestamp"][-1] + half_an_hour_ago
    write_bars([("x", NAMED, type(BARS)(**columns))], tmp_path / "now.db")
    with Watcher(Forecaster.load(folder), tmp_path / "now.db", tmp_path / "w.jsonl") as watcher:
        (entry,) = watcher.poll()
    assert entry["close"] == BARS.close[-2]


def test_bars_that_were_revised_are_read_again(folder, db, tmp_path):
    with Watcher(Forecaster.load(folder), db, tmp_path / "w.jsonl") as watcher:
        watcher.poll()
        columns = BARS.columns()
        columns["close"] = columns["close"].copy()
        columns["close"][640:] *= 1.01
        columns["high"] = np.maximum(columns["high"], columns["close"])
        revised = type(BARS)(**columns)
        more(db, revised, 640, 651)
        (entry,) = forecasts(watcher.poll())
    frame = revised.take(np.r_[0:651]).to_frame()
    frame.loc[:639, "high"] = BARS.high[:640]
    frame.attrs["symbol"] = "AAA"
    expected = Forecaster.load(folder).predict(frame)
    np.testing.assert_allclose(entry["return"], expected["return"], rtol=1e-4)


def test_a_partition_that_fails_does_not_stop_the_others(folder, db, tmp_path):
    with Watcher(Forecaster.load(folder), db, tmp_path / "w.jsonl", symbols=["AAA"]) as watcher:
        assert watcher.partitions == [NAMED]
    more(db, BARS, 0, 650, symbol="BBB")
    with Watcher(Forecaster.load(folder), db, tmp_path / "w2.jsonl", symbols=["AAA", "BBB"]) as watcher:
        assert len(watcher.poll()) == 2
        with sqlite3.connect(db) as connection:
            connection.execute("UPDATE ohlcv SET close = -1 WHERE symbol = 'BBB' AND ts > 1674000000000")
        connection.close()
        for symbol in ("AAA", "BBB"):
            more(db, BARS, 650, 651, symbol)
        assert [each["symbol"] for each in forecasts(watcher.poll())] == ["AAA"]
        assert list(watcher.errors) == [Partition("BBB", "1h")]


def test_another_watch_of_the_same_journal_is_refused(folder, db, tmp_path):
    with (
        Watcher(Forecaster.load(folder), db, tmp_path / "w.jsonl"),
        pytest.raises(BitcornError, match="being written by another watch"),
    ):
        Watcher(Forecaster.load(folder), db, tmp_path / "w.jsonl")


def test_beside_a_process_that_writes_every_bar_is_forecast_from_once(folder, db, tmp_path):
    rows = [
        [int(BARS.timestamp[n]), *(float(getattr(BARS, c)[n]) for c in ("open", "high", "low", "close", "volume"))]
        for n in range(650, 690)
    ]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    (tmp_path / "writer.py").write_text(WRITER)
    writer = subprocess.Popen([sys.executable, tmp_path / "writer.py", tmp_path / "rows.json", db])
    looks, seen = 0, []
    try:
        with Watcher(Forecaster.load(folder), db, tmp_path / "w.jsonl") as watcher:
            deadline = time.time() + 60
            while (not seen or seen[-1]["cutoff"] != "2023-01-29T17:00:00Z") and time.time() < deadline:
                seen += forecasts(watcher.poll())
                looks += 1
                time.sleep(0.02)
            skill = watcher.skill()[0]
    finally:
        writer.wait(30)
    assert looks > 3  # and not all of it after the writer was done
    cutoffs = pd.to_datetime([each["cutoff"] for each in seen]).as_unit("ms").astype("int64")
    assert cutoffs.tolist() == BARS.timestamp[690 - len(seen) : 690].tolist()
    assert skill["scored"] == len(seen) - 1


FOUR_HOURS = 4 * 3_600_000


@pytest.fixture(scope="module")
def slow_folder(tmp_path_factory, folder):
    """A run that says it is of 4h bars."""
    slow = tmp_path_factory.mktemp("runs") / "slow"
    shutil.copytree(folder, slow)
    metadata = json.loads((slow / "metadata.json").read_text())
    metadata["timeframe"] = metadata["partitions"][0]["timeframe"] = "4h"
    metadata["features"] = feature_identity(find_system("v2").on_grid(FOUR_HOURS))
    (slow / "metadata.json").write_text(json.dumps(metadata))
    return slow


def closes_of(entries):
    return {each["cutoff"]: each["close"] for each in forecasts(entries)}


@pytest.mark.parametrize("kind", ["db", "folder"])
def test_a_timeframe_that_is_put_together_is_forecast_from_when_all_its_bars_are_there(slow_folder, tmp_path, kind):
    bars = simulate_bars(2_000, seed=6, gaps=0)
    slow = resample_bars(bars, "1h", "4h").bars
    place = tmp_path / "bars"
    place.mkdir()

    def store(stop):
        if kind == "folder":
            bars.take(slice(stop)).to_frame().to_parquet(place / "AAA_1h.parquet")
        else:
            write_bars([("x", NAMED, bars.take(slice(max(stop - 400, 0) if stop > 1_600 else 0, stop)))], source)

    source = place if kind == "folder" else place / "live.db"
    store(1_600)
    with Watcher(Forecaster.load(slow_folder), source, tmp_path / "w.jsonl") as watcher:
        assert [str(each) for each in watcher.partitions] == ["AAA 4h"]
        first = watcher.poll()
        store(1_603)
        assert watcher.poll() == []  # three hours of four
        store(1_610)
        second = watcher.poll()
        assert watcher.errors == {}
    assert closes_of(first) == {"2023-03-08T12:00:00Z": slow.close[399]}
    assert closes_of(second) == {
        "2023-03-08T16:00:00Z": slow.close[400],
        "2023-03-08T20:00:00Z": slow.close[401],
    }
    frame = slow.take(slice(402)).to_frame()
    frame.attrs["symbol"] = "AAA"
    expected = Forecaster.load(slow_folder).predict(frame, last=2)
    np.testing.assert_allclose(np.ravel([each["return"] for each in forecasts(second)]), expected["return"], rtol=1e-4)


def test_bars_are_repaired_as_in_the_training_and_nothing_is_forecast_from_filled_ones(folder, db, tmp_path):
    clean = tmp_path / "clean"
    shutil.copytree(folder, clean)
    metadata = json.loads((clean / "metadata.json").read_text())
    metadata["cleaning"] = {"policy": asdict(CleaningPolicy(fill="forward", max_gap_size=2)), "partitions": {}}
    (clean / "metadata.json").write_text(json.dumps(metadata))
    with Watcher(Forecaster.load(clean), db, tmp_path / "w.jsonl") as watcher:
        watcher.poll()
        more(db, BARS, 652, 654)  # two bars never come
        second = watcher.poll()
        more(db, BARS, 657, 658)  # and then three, which is more than is filled
        third = watcher.poll()
    assert [each["cutoff"] for each in forecasts(second)] == ["2023-01-28T04:00:00Z", "2023-01-28T05:00:00Z"]
    assert [each["kind"] for each in second if each["kind"] != "outcome"] == ["forecast", "forecast"]
    assert [(e["kind"], e["cutoff"]) for e in third if e["kind"] != "outcome"] == [("skipped", "2023-01-28T09:00:00Z")]
    plan = plan_forecasts(Forecaster.load(clean), db, since="2023-01-28T02:00")
    (done,) = run_forecasts(plan)
    assert done.forecasts.left_out == {"filled": 2, "bars missing": 1}
    assert [show_time(each) for each in done.forecasts.cutoffs] == [each["cutoff"] for each in forecasts(second)]
    returns = np.array([each["return"] for each in forecasts(second)])
    np.testing.assert_allclose(done.forecasts.returns, returns, rtol=1e-4)
    market = load_market_data(str(db), "AAA", "1h", policy=CleaningPolicy(fill="forward", max_gap_size=2))
    frame = Forecaster.load(clean).history(market.dataframe, since="2023-01-28T02:00")
    assert frame.attrs["left_out"] == done.forecasts.left_out
    np.testing.assert_allclose(frame["return"], returns.ravel(), rtol=1e-4)
