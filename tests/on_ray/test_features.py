import sqlite3

import pytest

from bitcorn_ray.data_loader import compute_features
from bitcorn_ray.errors import BitcornError
from bitcorn_ray.market.ingest import write_bars
from bitcorn_ray.market.partition import Partition
from bitcorn_ray.on_ray.features import FeatureJob, PartitionStatus, compute_partition


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
    assert len(list(cache_dir.rglob("*.parquet"))) == 10
    assert [status.hit for status in compute_features(mixed_db) if not status.error] == [True] * 10


def test_a_plain_process_and_a_worker_give_the_same_status_and_entry(mixed_db, ray_cluster, tmp_path):
    on_ray = compute_features(mixed_db, cache_dir=tmp_path / "a", symbols=["S01", "S02"])
    here = [compute_partition(FeatureJob(str(mixed_db), s, "1h", "v2", str(tmp_path / "b"))) for s in ("S01", "S02")]

    def timeless(status):
        return {**vars(status), "seconds": None}

    assert [timeless(status) for status in on_ray] == [timeless(status) for status in here]
    for status in here:
        name = f"features/{status.key}.parquet"
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_an_unexpected_failure_is_named_by_its_kind(tmp_path):
    status = compute_partition(FeatureJob(str(tmp_path / "none.db"), "A", "1h", "v2", str(tmp_path)))
    assert isinstance(status, PartitionStatus)
    assert status.error.startswith("no database at")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"symbols": ["S01", "NOPE"]}, "unknown symbol NOPE: there is S00, S01"),
        ({"timeframes": ["4h"]}, "no bars of timeframe 4h: there is 1h"),
        ({"timeframes": ["1M"]}, "is a month"),
        ({"system": "v9"}, "unknown feature system 'v9'"),
    ],
)
def test_what_would_make_all_fail_is_refused_before_anything_starts(mixed_db, options, message):
    with pytest.raises(BitcornError, match=message):
        compute_features(mixed_db, **options)


def test_a_cache_folder_that_cannot_be_written_is_refused(mixed_db, ray_cluster, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BitcornError, match="cannot be written"):
        compute_features(mixed_db, cache_dir=tmp_path / "file" / "cache")


def test_a_relative_cache_folder_is_the_drivers(mixed_db, ray_cluster, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    compute_features("mixed.db", cache_dir="here", symbols=["S01"])
    assert len(list((tmp_path / "here" / "features").glob("*.parquet"))) == 1
