import os
import sqlite3
import sys
import time

import pytest

from bitcorn_ray.cache.store import FeatureCache, chunk_name
from bitcorn_ray.errors import BitcornError
from bitcorn_ray.features.compute import compute_jobs, finish_features
from bitcorn_ray.features.explain import explain
from bitcorn_ray.features.plan import plan_features
from bitcorn_ray.features.registry import SYSTEMS, find_system

V2, V4 = SYSTEMS["v2"], SYSTEMS["v4"]


def run(source, cache, system):
    plan = plan_features(source, system, cache)
    finish_features(plan, compute_jobs(plan.jobs, plan.work), cache)


def sql(db, *statements):
    with sqlite3.connect(db) as connection:
        for statement in statements:
            connection.execute(statement)
    connection.close()


def of(symbol, db, cache, system):
    return next(each for each in explain(db, system, cache) if each.symbol == symbol)


def test_a_partition_without_an_entry_is_a_miss(market_db, cache):
    found = explain(market_db, V4, cache)
    assert [(e.symbol, e.outcome, e.causes) for e in found] == [
        ("AAAUSDT", "miss", ("no entry of v4 for it yet",)),
        ("BBBUSDT", "miss", ("no entry of v4 for it yet",)),
    ]
    assert not list(cache.storage.files("features"))


def test_hits_without_and_with_reading(market_db, cache):
    os.utime(market_db, (time.time() - 60,) * 2)
    for side in market_db.parent.glob("market.db-*"):
        os.utime(side, (time.time() - 60,) * 2)
    run(market_db, cache, V2)
    assert of("AAAUSDT", market_db, cache, V2).causes == ("its file has not changed, so it is not read",)
    sql(market_db, "CREATE TABLE other (x)")
    found = of("AAAUSDT", market_db, cache, V2)
    assert (found.outcome, found.causes) == ("hit", ("the bars have been computed before",))


def test_changed_bars_are_named_by_row_and_time(market_db, cache, small_chunks):
    run(market_db, cache, V2)
    times = "SELECT ts FROM ohlcv WHERE symbol = 'BBBUSDT' ORDER BY ts LIMIT 1 OFFSET"
    sql(market_db, f"UPDATE ohlcv SET close = open WHERE symbol = 'BBBUSDT' AND ts IN ({times} 200)")
    found = of("BBBUSDT", market_db, cache, V2)
    assert found.outcome == "miss"
    assert found.causes == ("1 bars were revised: rows 200..200, 2023-01-09T08:00:00Z to 2023-01-09T08:00:00Z",)
    assert 1 <= found.to_compute < found.chunks
    assert of("AAAUSDT", market_db, cache, V2).outcome == "hit"


def test_appended_inserted_and_removed_bars_are_distinguished(market_db, cache):
    sql(market_db, "CREATE TABLE kept AS SELECT * FROM ohlcv WHERE symbol = 'BBBUSDT'")
    sql(market_db, "DROP TABLE kept")
    place = "SELECT ts FROM ohlcv WHERE symbol = 'BBBUSDT' ORDER BY ts LIMIT 3 OFFSET 300"
    with sqlite3.connect(market_db) as connection:
        rows = connection.execute(f"SELECT * FROM ohlcv WHERE symbol = 'BBBUSDT' AND ts IN ({place})").fetchall()
        connection.execute(f"DELETE FROM ohlcv WHERE symbol = 'BBBUSDT' AND ts IN ({place})")
    connection.close()
    run(market_db, cache, V2)
    with sqlite3.connect(market_db) as connection:
        connection.executemany("INSERT INTO ohlcv VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)
        last = connection.execute("SELECT * FROM ohlcv WHERE symbol = 'BBBUSDT' ORDER BY ts DESC LIMIT 1").fetchone()
        later = (*last[:2], last[2] + 3_600_000, *last[3:])
        connection.execute("INSERT INTO ohlcv VALUES (?, ?, ?, ?, ?, ?, ?, ?)", later)
        connection.execute("DELETE FROM ohlcv WHERE symbol = 'BBBUSDT' AND ts = 1672704000000")
    connection.close()
    causes = of("BBBUSDT", market_db, cache, V2).causes
    assert [cause.split(":")[0] for cause in causes] == [
        "1 bars were appended",
        "3 bars were inserted",
        "1 bars were removed between 2023-01-03T00",
    ]


def test_parameters_and_context_are_named(market_db, cache):
    run(market_db, cache, V4)
    assert of("AAAUSDT", market_db, cache, V4.with_parameters(short=8)).causes == ("parameter short: 6 became 8",)
    causes = of("AAAUSDT", market_db, cache, V2.with_context("4h")).causes
    assert causes == ("no entry of v2 for it yet",)
    assert "context: [] became ['2h']" in of("AAAUSDT", market_db, cache, V4.with_context("2h")).causes


def test_the_nearest_of_several_variants_is_compared(market_db, cache):
    for short in (5, 8):
        run(market_db, cache, V4.with_parameters(short=short, oscillator=short))
    asked = V4.with_parameters(short=5, oscillator=9)
    assert of("AAAUSDT", market_db, cache, asked).causes == ("parameter oscillator: 5 became 9",)


def test_a_changed_module_and_library_are_named(market_db, cache, tmp_path, monkeypatch):
    from bitcorn_ray.fingerprint import code as fingerprint

    (tmp_path / "explained_helper.py").write_text("def f(x):\n    return x\n")
    (tmp_path / "explained.py").write_text(
        "from bitcorn_ray.features.system import feature_system\nfrom explained_helper import f\n"
        "@feature_system(name='mine', warmup=0)\ndef mine(bars):\n    return {'x': f(bars.close)}\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    run(market_db, cache, find_system("explained:mine"))
    (tmp_path / "explained_helper.py").write_text("def f(x):\n    return x * 2  # twice\n")
    for name in ("explained", "explained_helper"):
        del sys.modules[name]
    monkeypatch.setattr(fingerprint, "version_of", lambda library: "9.9" if library == "talib" else "1")
    causes = of("AAAUSDT", market_db, cache, find_system("explained:mine")).causes
    assert "code of explained_helper changed" in causes
    assert any(cause.startswith("library talib: ") and cause.endswith("became 9.9") for cause in causes)
    assert not any("explained changed" in cause for cause in causes)
    for name in ("explained", "explained_helper"):
        del sys.modules[name]


def test_lost_chunks_and_unusable_bars_are_explained(market_db, cache):
    run(market_db, cache, V2)
    entry = next(e for e in cache.entries() if e["used_by"][0]["symbol"] == "AAAUSDT")
    cache.storage.delete([chunk_name(entry["chunks"][0]["key"])])
    causes = of("AAAUSDT", market_db, cache, V2).causes
    assert causes == ("1 of 1 chunks of the earlier entry are missing or damaged",)
    sql(market_db, "DELETE FROM ohlcv WHERE symbol = 'BBBUSDT' AND ts > 1672600000000")
    found = of("BBBUSDT", market_db, cache, V2)
    assert found.outcome == "failure"
    assert "bars are too few" in found.causes[0]


def test_an_unknown_source_is_refused(tmp_path):
    with pytest.raises(BitcornError, match="no database, file or folder"):
        explain(tmp_path / "none.db", V2, FeatureCache(tmp_path / "cache"))
