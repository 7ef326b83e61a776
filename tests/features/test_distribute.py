import sqlite3
import sys

import pytest
from own_systems import anything, momentum
from reading import read_bars

from bitcorn_ray.cache.store import FeatureCache
from bitcorn_ray.data_loader import compute_features
from bitcorn_ray.errors import BitcornError
from bitcorn_ray.features.audit import audit
from bitcorn_ray.features.compute import compute_jobs
from bitcorn_ray.features.distribute import run_audit
from bitcorn_ray.features.plan import plan_features
from bitcorn_ray.features.registry import SYSTEMS, find_system
from bitcorn_ray.market.partition import Partition
from bitcorn_ray.sources.ingest import write_bars


@pytest.fixture
def mixed_db(tmp_path, random_bars):
    """Twelve partitions, of which one has too few bars and one a missing price."""
    path = tmp_path / "mixed.db"
    parts = [("x", Partition(f"S{n:02d}", "1h"), random_bars(300 + n, seed=n)) for n in range(12)]
    parts[3] = ("x", Partition("S03", "1h"), random_bars(20))
    write_bars(parts, path)
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE ohlcv SET close = NULL WHERE symbol = 'S07' AND rowid % 50 = 0")
    connection.close()
    return path


def test_failures_are_named_and_the_others_kept(mixed_db, ray_cluster, cache_dir):
    seen = []
    statuses = compute_features(mixed_db, on_done=seen.append)
    assert [status.symbol for status in statuses] == [f"S{n:02d}" for n in range(12)]
    assert sorted(status.symbol for status in seen) == [status.symbol for status in statuses]
    failed = {status.symbol: status.error for status in statuses if status.error}
    assert set(failed) == {"S03", "S07"}
    assert "20 bars are too few" in failed["S03"]
    assert "close must be a finite number above 0, but is nan" in failed["S07"]
    assert [status.rows for status in statuses if not status.error] == [
        300 + n - 49 for n in range(12) if n not in (3, 7)
    ]
    assert len(list((cache_dir / "features").glob("*.meta.json"))) == 10
    assert [status.hit for status in compute_features(mixed_db) if not status.error] == [True] * 10


@pytest.mark.parametrize("system", ["v2", "v4:short=5", "own_systems:momentum:window=20:context=4h"])
def test_a_plain_process_and_a_worker_give_the_same_status_and_files(mixed_db, ray_cluster, tmp_path, system):
    asked = {"symbols": ["S08", "S09", "S10"]}
    on_ray = compute_features(mixed_db, cache_dir=tmp_path / "a", system=system, **asked)
    plan = plan_features(mixed_db, find_system(system), FeatureCache(tmp_path / "b"), **asked)
    here = compute_jobs(plan.jobs, plan.work)

    def timeless(status):
        return {**vars(status), "seconds": None}

    expected = {"v2": None, "v4:short=5": "335 bars|308 bars are too few"}.get(system)
    assert [timeless(status) for status in on_ray] == [timeless(status) for status in here]
    assert all(bool(status.error) == bool(expected) for status in here)
    for path in (tmp_path / "b" / "features").glob("*.parquet"):
        assert (tmp_path / "a" / "features" / path.name).read_bytes() == path.read_bytes()


def test_a_folder_of_files_is_a_source(tmp_path, random_bars, ray_cluster):
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder = tmp_path / "bars"
    folder.mkdir()
    for number in range(3):
        columns = random_bars(300, seed=number).columns()
        pq.write_table(pa.table({"ts": columns.pop("timestamp"), **columns}), folder / f"S{number}_1h.parquet")
    statuses = compute_features(folder)
    done = [(s.symbol, s.timeframe, s.rows, s.error) for s in statuses]
    assert done == [(f"S{n}", "1h", 251, None) for n in range(3)]
    assert [s.symbol for s in compute_features(folder, symbols=["s1"])] == ["S1"]
    with pytest.raises(BitcornError, match="unknown symbol NOPE: there is S0, S1, S2"):
        compute_features(folder, symbols=["NOPE"])


def test_the_cache_may_be_on_an_object_store(mixed_db, ray_cluster, s3_uri):
    first = compute_features(mixed_db, cache_dir=s3_uri, symbols=["S01", "S02"])
    assert [(s.hit, s.error) for s in first] == [(False, None)] * 2
    again = compute_features(mixed_db, cache_dir=s3_uri, symbols=["S01", "S02"])
    assert [s.hit for s in again] == [True] * 2


def test_a_module_that_workers_cannot_import_is_sent_with_its_helpers(
    mixed_db, ray_cluster, tmp_path, monkeypatch, cache_dir
):
    (tmp_path / "lonely_helper.py").write_text("def half(x):\n    return x / 2\n")
    (tmp_path / "lonely_features.py").write_text(
        "import lonely_helper\n"
        "from bitcorn_ray.features.system import feature_system\n"
        "@feature_system(name='lonely', warmup=0)\n"
        "def lonely(bars):\n    return {'half': lonely_helper.half(bars.close)}\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    statuses = compute_features(mixed_db, system="lonely_features:lonely", symbols=["S01", "S02"])
    assert [s.error for s in statuses] == [None, None]
    for name in ("lonely_features", "lonely_helper"):
        del sys.modules[name]


def test_a_system_that_was_declared_here_is_passed_as_it_is(mixed_db, ray_cluster):
    statuses = compute_features(mixed_db, system=momentum.with_parameters(window=30), symbols=["S01"])
    assert [(s.rows, s.error) for s in statuses] == [(301 - 30, None)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"symbols": ["S01", "NOPE"]}, "unknown symbol NOPE: there is S00, S01"),
        ({"timeframes": ["30m"]}, "no bars of timeframe 30m: there is 1h"),
        ({"timeframes": ["1M"]}, "is a month"),
        ({"system": "v9"}, "unknown feature system 'v9'"),
    ],
)
def test_bad_input_is_refused_before_ray_starts(mixed_db, options, message):
    with pytest.raises(BitcornError, match=message):
        compute_features(mixed_db, **options)


def test_a_cache_folder_that_cannot_be_written_is_refused(mixed_db, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BitcornError, match="cannot be written"):
        compute_features(mixed_db, cache_dir=tmp_path / "file" / "cache")


def test_a_relative_cache_folder_is_the_drivers(mixed_db, ray_cluster, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    compute_features("mixed.db", cache_dir="here", symbols=["S01"])
    assert len(list((tmp_path / "here" / "features").glob("*.parquet"))) == 1


def test_ray_is_not_started_if_everything_is_up_to_date(mixed_db, ray_cluster, cache_dir, monkeypatch):
    import os
    import time

    from bitcorn_ray.features import distribute as features

    for path in (mixed_db, *mixed_db.parent.glob("mixed.db-*")):
        os.utime(path, (time.time() - 60,) * 2)
    first = compute_features(mixed_db, symbols=["S01", "S02"])
    monkeypatch.setattr(features, "ray_session", lambda address: pytest.fail("Ray was started"))
    again = compute_features(mixed_db, symbols=["S01", "S02"])
    assert [(s.symbol, s.hit, s.unread, s.key, s.rows) for s in again] == [
        (s.symbol, True, True, s.key, s.rows) for s in first
    ]
    assert SYSTEMS["v2"].version == 1


# Audits


@pytest.fixture
def leaky(tmp_path, monkeypatch):
    """A system that reads the next bar, in a module that workers cannot import."""
    (tmp_path / "leaky_features.py").write_text(
        "import numpy as np\n"
        "from bitcorn_ray.features.system import feature_system\n"
        "@feature_system(name='leaky', warmup=1)\n"
        "def leaky(bars):\n"
        "    p = bars.close\n"
        "    return {'next': np.append(p[1:], p[-1]) / p, 'last': np.append(p[:1], p[:-1]) / p}\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    return "leaky_features:leaky"


def test_every_partition_is_audited_as_in_a_plain_process(market_db, ray_cluster, leaky):
    seen = []
    results = run_audit(market_db, find_system(leaky), cuts=8, seed=3, on_done=seen.append)
    assert [(r.symbol, r.timeframe) for r in results] == [("AAAUSDT", "1h"), ("BBBUSDT", "1h")]
    assert len(seen) == 2
    for result in results:
        bars, system = read_bars(market_db, result.symbol, "1h")[0], find_system(leaky)
        here = audit(bars, system, cuts=8, seed=3, fresh=system)
        assert result.report == here
        assert {(f.feature, f.kind) for f in here.findings} == {("next", "look-ahead")}


def test_a_module_that_remembers_the_first_bars_is_named(market_db, ray_cluster, tmp_path, monkeypatch):
    (tmp_path / "remembering_features.py").write_text(
        "from bitcorn_ray.features.system import feature_system\n"
        "_FITTED = {}\n"
        "@feature_system(name='scaled', warmup=1, features=['scaled', 'body'])\n"
        "def scaled(bars):\n"
        "    scale = _FITTED.setdefault('scale', bars.close.mean())\n"
        "    return {'scaled': bars.close / scale, 'body': bars.close / bars.open}\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    for result in run_audit(market_db, find_system("remembering_features:scaled"), cuts=8):
        assert [(f.feature, f.kind) for f in result.report.findings] == [("scaled", "unstable")]


def test_a_context_is_put_on_the_grid_of_each_partition(market_db, ray_cluster):
    results = run_audit(market_db, SYSTEMS["v2"].with_context("4h"), symbols=["AAAUSDT"], cuts=8)
    assert results[0].error is None
    assert results[0].report.passed
    assert len(results[0].report.features) == 28


def test_a_partition_that_cannot_be_audited_is_named_and_the_others_are(tmp_path, random_bars, ray_cluster):
    parts = [("x", Partition("A", "1h"), random_bars(20)), ("x", Partition("B", "1h"), random_bars(300))]
    write_bars(parts, tmp_path / "m.db")
    results = run_audit(tmp_path / "m.db", anything, cuts=4)
    assert "an audit of anything needs" in results[0].error
    assert results[1].report.passed


def test_an_unknown_symbol_is_refused_before_anything_starts(market_db):
    with pytest.raises(BitcornError, match="unknown symbol NOPE"):
        run_audit(market_db, anything, symbols=["NOPE"])


def test_a_failing_partition_does_not_stop_others_of_its_file(tmp_path, random_bars, ray_cluster):
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = random_bars(430).columns()
    names = {"symbol": ["A"] * 30 + ["B"] * 200 + ["C"] * 200, "timeframe": ["1h"] * 430}
    pq.write_table(pa.table({"ts": columns.pop("timestamp"), **columns, **names}), tmp_path / "all.parquet")
    results = run_audit(tmp_path / "all.parquet", anything, cuts=4)
    assert [(r.symbol, bool(r.error)) for r in results] == [("A", True), ("B", False), ("C", False)]
    assert [r.symbol for r in run_audit(tmp_path / "all.parquet", anything, symbols=["B", "C"], cuts=4)] == ["B", "C"]
    with pytest.raises(BitcornError, match="unknown symbol NOPE"):
        run_audit(tmp_path / "all.parquet", anything, symbols=["NOPE"], cuts=4)
