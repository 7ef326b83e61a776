import json
import shutil

import numpy as np
import pytest
from small_evolutions import RESULT
from small_sweeps import make_sweep, sweep_values

from bitcorn_ray.report.sweep_data import sweep_report
from bitcorn_ray.report.sweep_page import sweep_page
from bitcorn_ray.tuning.results import fold_records


@pytest.fixture
def swept(market_db, tmp_path):
    return make_sweep(sweep_values(market_db, tmp_path / "sweep"))


def test_a_sweep_is_told_from_its_folder_alone(swept, market_db):
    folder, plan, _ = swept
    market_db.unlink()
    found = sweep_report(folder.storage.address)
    assert found.judgement["tried"] == 2
    assert found.result["ended"].startswith("not yet")
    assert [each["name"] for each in found.result["trials"]] == ["t0001", "t0002"]
    best = found.result["best"]["name"]
    windows = sum(len(of_fold[0].times) for of_fold in fold_records(plan, folder.journal.read()[best]))
    track = found.tracks[0]
    assert (track.name, track.horizon, len(track.times)) == ("AAAUSDT 1h", 1, windows)
    assert [row[:3] for row in found.coverage] == [("AAAUSDT 1h", h, f"{windows}") for h in ("1", "4")]
    assert "Leaderboard: volatility" in sweep_page(found)


def test_an_evolution_has_ended_as_it_says(swept):
    folder, _, _ = swept
    folder.storage.publish("evolution.json", json.dumps(RESULT).encode())
    found = sweep_report(folder.storage.address)
    assert found.result["ended"] == RESULT["ended"] == "time"
    assert found.evolution == RESULT


def test_tracks_are_what_was_forecast_and_what_came(swept):
    folder, plan, data = swept
    found = sweep_report(folder.storage.address)
    trial = folder.journal.read()[found.result["best"]["name"]]
    records = [of_fold[0] for of_fold in fold_records(plan, trial)]
    last = found.tracks[-1]
    assert last.horizon == 4
    assert np.allclose(last.forecast, np.concatenate([record.volatilities[:, 1] for record in records]))
    close = np.log(data.bars[0].close)
    rows = np.searchsorted(data.bars[0].timestamp, last.times)
    assert np.allclose(last.realised, np.sqrt(np.sum(np.diff(close)[rows[:, None] + np.arange(4)] ** 2, axis=1)))


def test_a_sweep_without_a_fold_is_told_as_far_as_it_came(swept):
    folder, _, _ = swept
    shutil.rmtree(folder.records.storage.address)
    found = sweep_report(folder.storage.address)
    assert found.judgement is None
    assert "has a fold" in found.why_not
    assert found.tracks == []
    assert "Not judged on test windows" in sweep_page(found)
