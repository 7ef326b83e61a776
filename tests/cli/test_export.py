import json

import pytest
from click.testing import CliRunner

from bitcorn_ray.cli import main
from bitcorn_ray.data_loader import load_market_data


def run(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_what_is_exported_to_a_store_is_a_source_of_every_command(market_db, s3_uri, ray_cluster, cache_dir):
    exported = json.loads(run("export", market_db, "--to", s3_uri, "--json").stdout)
    assert [(p["symbol"], p["timeframe"]) for p in exported["partitions"]] == [("AAAUSDT", "1h"), ("BBBUSDT", "1h")]
    assert "secret" not in json.dumps(exported)
    expected = load_market_data(str(market_db), "AAAUSDT", "1h")
    loaded = load_market_data(s3_uri, "aaa/usdt", "1h")
    assert loaded.dataframe.equals(expected.dataframe)
    assert len(load_market_data(s3_uri, "AAAUSDT", "1h", limit=50).dataframe) == 50

    computed = json.loads(run("features", s3_uri, "--json").stdout)
    assert [(p["symbol"], p["error"], p["hit"]) for p in computed["partitions"]] == [
        ("AAAUSDT", None, False),
        ("BBBUSDT", None, False),
    ]
    # Bars are what decides: the database's features are the store's.
    local = json.loads(run("features", market_db, "--json").stdout)
    assert [p["hit"] for p in local["partitions"]] == [True, True]
    explained = json.loads(run("cache", "explain", s3_uri, "--json").stdout)
    assert [p["outcome"] for p in explained["partitions"]] == ["hit", "hit"]
    audited = run("audit", s3_uri, "--symbols", "BBBUSDT", "--cuts", "2", "--json")
    assert audited.exit_code == 0
    # No secret is stored or shown.
    assert not [p for p in cache_dir.rglob("*") if p.is_file() and b"secret" in p.read_bytes()]
    assert "key:secret" not in run("features", s3_uri).stdout


def test_a_model_is_trained_and_forecasts_from_a_store(market_db, s3_uri, tmp_path, cache_dir):
    run("export", market_db, "--to", s3_uri, "--symbols", "AAAUSDT")
    small = ["--timeframe", "1h", "--hidden-size", 8, "--seq-len", 16, "--epochs", 1, "--horizons", "1,4"]
    out = tmp_path / "run"
    trained = run("train", "--db", s3_uri, "--symbol", "AAAUSDT", *small, "--workers", 0, "--out", out)
    assert trained.exit_code == 0, trained.output
    forecast = run("forecast", out, s3_uri, "--json")
    assert forecast.exit_code == 0, forecast.output
    files = [path for folder in (cache_dir, out) for path in folder.rglob("*") if path.is_file()]
    assert files
    assert not [path for path in files if b"key:secret" in path.read_bytes()]


def test_an_object_that_has_not_changed_is_not_read_again(market_db, s3_server, s3_uri, ray_cluster, monkeypatch):
    from bitcorn_ray.sources import source

    run("export", market_db, "--to", s3_uri)
    monkeypatch.setattr(source, "_SETTLED_REMOTE_NS", 0)
    first = run("features", s3_uri, "--json")
    assert first.exit_code == 0
    before = len(s3_server[1])
    again = json.loads(run("features", s3_uri, "--json").stdout)
    assert [p["unread"] for p in again["partitions"]] == [True, True]
    assert not [request for request in s3_server[1][before:] if "GET" in request and ".parquet" in request]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.db", "--to", "x"], "no database, file or folder of bars at"),
        (["{db}", "--to", "nothing://host/x"], "nothing://host/x cannot be opened"),
        (["{db}", "--to", "{lake}", "--symbols", "NOPE"], "unknown symbol NOPE"),
        (["{db}", "--to", "{db}"], "cannot be written: it is a file"),
    ],
)
def test_bad_input_is_one_line_and_status_2(market_db, tmp_path, arguments, message):
    result = run("export", *(each.format(db=market_db, lake=tmp_path / "lake") for each in arguments))
    assert result.exit_code == 2, result.output
    assert message in result.stderr
    assert result.stdout == ""
    assert not (tmp_path / "lake").exists()


def test_an_export_to_a_folder_is_a_table(market_db, tmp_path):
    result = run("export", "--db", market_db, "--to", tmp_path / "lake", "--symbols", "bbb-usdt")
    assert result.exit_code == 0
    assert "BBBUSDT 1h" in result.stdout
    assert [str(path.relative_to(tmp_path / "lake")) for path in (tmp_path / "lake").rglob("*.parquet")] == [
        "symbol=BBBUSDT/timeframe=1h/bars.parquet"
    ]
