import sqlite3

import numpy as np
import pandas as pd
import pytest
from reading import read_bars
from small_runs import MODEL, make_run

from bitcorn_ray.cache.store import FeatureCache
from bitcorn_ray.data_loader import load_market_data
from bitcorn_ray.errors import BitcornError
from bitcorn_ray.forecasting.batch import plan_forecasts, run_forecasts, write_parquet
from bitcorn_ray.forecasting.forecaster import Forecaster
from bitcorn_ray.market.partition import Partition
from bitcorn_ray.report.forecasts import bars_to_draw, fan_panels
from bitcorn_ray.sources.ingest import write_bars


@pytest.fixture
def folder(market_db, tmp_path):
    """A run on the first 800 bars of both partitions of the database."""
    partitions = {name: read_bars(market_db, name, "1h")[0].take(slice(800)) for name in ("AAAUSDT", "BBBUSDT")}
    return make_run(tmp_path / "run", partitions)


@pytest.fixture
def forecaster(folder):
    return Forecaster.load(folder)


def frames(results):
    return {each.partition.symbol: each.forecasts.to_frame() for each in results if each.forecasts is not None}


def test_each_partition_is_forecast_as_the_forecaster_alone_does(forecaster, folder, market_db):
    """The cache's features, computed in chunks, and those of the last bars only: the same to 1e-6."""
    seen = []
    done = run_forecasts(plan_forecasts(forecaster, market_db, last=40), seen.append)
    assert [str(each.partition) for each in done] == ["AAAUSDT 1h", "BBBUSDT 1h"]
    assert seen == done
    for name, frame in frames(done).items():
        alone = Forecaster.load(folder).predict(load_market_data(market_db, name, "1h").dataframe, last=40)
        pd.testing.assert_frame_equal(frame, alone, rtol=1e-5, atol=1e-7)


def test_ray_gives_what_this_process_gives(forecaster, market_db, ray_cluster):
    plan = plan_forecasts(forecaster, market_db, since="2023-01-05", horizons=[1, 2, 4], keep_bars=10)
    here, there = run_forecasts(plan, on_ray=False), run_forecasts(plan, on_ray=True)
    assert [each.partition for each in here] == [each.partition for each in there]
    for one, other in zip(here, there, strict=True):
        pd.testing.assert_frame_equal(one.forecasts.to_frame(), other.forecasts.to_frame(), rtol=1e-6, atol=1e-9)
        assert len(one.bars) == len(other.bars) == 10
        assert one.forecasts.left_out == other.forecasts.left_out


def test_little_work_never_starts_ray(forecaster, market_db, monkeypatch):
    from bitcorn_ray.on_ray import session

    monkeypatch.setattr(session, "ray_session", lambda *_: pytest.fail("Ray was started"))
    plan = plan_forecasts(forecaster, market_db)
    assert not plan.worth_ray
    assert all(len(each.forecasts) == 1 for each in run_forecasts(plan))


def test_much_work_of_several_partitions_is_worth_ray(forecaster, market_db):
    from dataclasses import replace

    plan = plan_forecasts(forecaster, market_db, since="2020-01-01")
    assert not plan.worth_ray
    assert replace(plan, sizes=[40_000, 40_000]).worth_ray
    assert not replace(plan, sizes=[80_000], jobs=plan.jobs[:1]).worth_ray


def test_a_forecast_at_a_new_bar_costs_one_chunk(forecaster, tmp_path, random_bars, cache_dir, monkeypatch):
    from bitcorn_ray.features import identity

    monkeypatch.setattr(identity, "CHUNK_BARS", 256)
    bars, db = random_bars(1_200, seed=1), tmp_path / "one.db"
    write_bars([("x", Partition("AAAUSDT", "1h"), bars.take(slice(1_150)))], db)
    run_forecasts(plan_forecasts(forecaster, db))
    written = []
    write_chunk = FeatureCache.write_chunk

    def counted(self, key, columns):
        written.append(len(columns["bar"]))
        write_chunk(self, key, columns)

    monkeypatch.setattr(FeatureCache, "write_chunk", counted)
    write_bars([("x", Partition("AAAUSDT", "1h"), bars)], db)
    run_forecasts(plan_forecasts(forecaster, db))
    assert len(written) == 1
    assert written[0] <= 256
    assert len(run_forecasts(plan_forecasts(forecaster, db))) == 1
    assert len(written) == 1  # all hits now


def test_what_cannot_be_forecast_is_said_and_does_not_stop_the_others(forecaster, market_db, random_bars):
    late = random_bars(300, seed=7)
    gap_at_the_end = late.take(np.delete(np.arange(300), 290))
    parts = [("CCC", random_bars(30)), ("DDD", gap_at_the_end), ("EEE", late)]
    write_bars([("x", Partition(name, "1h"), bars) for name, bars in parts], market_db)
    with sqlite3.connect(market_db) as connection:
        connection.execute("UPDATE ohlcv SET close = NULL WHERE symbol = 'EEE' AND rowid % 50 = 0")
    connection.close()
    names = ["AAAUSDT", "CCC", "DDD", "EEE"]
    latest = {r.partition.symbol: r for r in run_forecasts(plan_forecasts(forecaster, market_db, symbols=names))}
    assert latest["AAAUSDT"].error is None
    assert "30 bars are too few" in latest["CCC"].error
    assert "bars are missing between" in latest["DDD"].error
    assert "close must be a finite number above 0" in latest["EEE"].error
    last = run_forecasts(plan_forecasts(forecaster, market_db, symbols=["DDD"], last=50))[0]
    assert last.forecasts.left_out == {"bars missing": 9}
    assert len(last.forecasts) == 41
    assert last.note.startswith("no forecast from its last bar: bars are missing between")


def test_those_that_were_trained_on_are_forecast_unless_others_are_named(forecaster, market_db, random_bars, tmp_path):
    write_bars(
        [("x", Partition("CCC", "1h"), random_bars(300)), ("x", Partition("AAAUSDT", "4h"), random_bars(300))],
        market_db,
    )
    assert [str(job.partition) for job in plan_forecasts(forecaster, market_db).jobs] == ["AAAUSDT 1h", "BBBUSDT 1h"]
    done = run_forecasts(plan_forecasts(forecaster, market_db, symbols=["ccc", "aaa/usdt"]))
    assert {each.partition.symbol: each.forecasts.sample.tolist() for each in done} == {
        "AAAUSDT": ["out of sample"],
        "CCC": ["other symbol"],
    }
    with pytest.raises(BitcornError, match="unknown symbol NOPE: there is AAAUSDT, BBBUSDT, CCC"):
        plan_forecasts(forecaster, market_db, symbols=["NOPE"])
    other = tmp_path / "other.db"
    write_bars([("x", Partition("ZZZ", "1h"), random_bars(300))], other)
    with pytest.raises(
        BitcornError, match=r"none of the symbols that the run was trained on \(AAAUSDT, BBBUSDT\): it has ZZZ"
    ):
        plan_forecasts(forecaster, other)


def test_files_are_a_source_too(forecaster, tmp_path, random_bars):
    folder = tmp_path / "bars"
    folder.mkdir()
    for name in ("AAAUSDT_1h", "CCC_1h", "BBBUSDT_4h"):
        frame = random_bars(400, seed=len(name)).to_frame()
        frame.to_parquet(folder / f"{name}.parquet")
    done = run_forecasts(plan_forecasts(forecaster, folder))
    assert [str(each.partition) for each in done] == ["AAAUSDT 1h"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"last": 0}, "last is 0"),
        ({"last": 3, "since": "2023"}, "give one of them"),
        ({"horizons": [9]}, "horizons 9 cannot be interpolated"),
    ],
)
def test_impossible_values_are_refused_before_anything_is_read(forecaster, market_db, options, message):
    with pytest.raises(BitcornError, match=message):
        plan_forecasts(forecaster, market_db, **options)


def test_all_forecasts_go_to_one_file(forecaster, market_db, tmp_path):
    done = run_forecasts(plan_forecasts(forecaster, market_db, last=5))
    assert write_parquet(done, tmp_path / "out" / "f.parquet") == 2 * 5 * len(MODEL.horizons)
    table = pd.read_parquet(tmp_path / "out" / "f.parquet")
    assert table.symbol.unique().tolist() == ["AAAUSDT", "BBBUSDT"]
    pd.testing.assert_series_equal(table.price[:10], frames(done)["AAAUSDT"].price, rtol=1e-9)
    assert str(table.cutoff.dt.tz) == "UTC"
    (tmp_path / "file").write_text("")
    with pytest.raises(BitcornError, match="cannot be written"):
        write_parquet(done, tmp_path / "file" / "f.parquet")


def test_fans_follow_one_another_up_to_the_last_cutoff(forecaster, market_db):
    keep = bars_to_draw(MODEL.horizons)
    done = run_forecasts(plan_forecasts(forecaster, market_db, last=20, keep_bars=keep, symbols=["BBBUSDT"]))
    (panel,) = fan_panels(done)
    assert panel.name == "BBBUSDT 1h"
    assert len(panel.times) == len(panel.closes) == keep
    assert [fan.cutoff[8:13] for fan in panel.fans] == ["06T19", "06T23", "07T03", "07T07", "07T11"]
    frame = done[0].forecasts.to_frame()
    last = panel.fans[-1]
    np.testing.assert_allclose(last.price, frame.price[-2:], rtol=1e-9)
    np.testing.assert_allclose(last.bands[0.95][1], frame.hi95[-2:], rtol=1e-9)
    assert last.times[1] == "2023-02-07T15:00:00Z"
    assert fan_panels(run_forecasts(plan_forecasts(forecaster, market_db))) == []
