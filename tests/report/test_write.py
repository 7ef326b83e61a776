import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from small_runs import make_run
from small_sweeps import make_sweep, sweep_values

from bitcorn_ray import write_report
from bitcorn_ray.data_loader import compute_features
from bitcorn_ray.errors import BitcornError
from bitcorn_ray.market.simulate import simulate_bars


@pytest.fixture(scope="module")
def market(tmp_path_factory):
    """A run on the first 900 of 1,300 bars, and the file of all of them."""
    folder = tmp_path_factory.mktemp("market")
    bars = simulate_bars(1_300, seed=2, gaps=0)
    columns = bars.columns()
    source = folder / "BBBUSDT_1h.parquet"
    pq.write_table(pa.table({"ts": columns.pop("timestamp"), **columns}), source)
    return make_run(folder / "run", {"BBBUSDT": bars.take(slice(900))}), source


def test_a_run_is_evaluated_on_its_source(market, tmp_path):
    run, source = market
    done = write_report(run, source, out=tmp_path / "new" / "run.html")
    page = (tmp_path / "new" / "run.html").read_text()
    assert done.kind == "run"
    assert done.bytes == len(page.encode()) < 6_500_000
    for part in ("1 bar ahead", "Latest forecast: BBBUSDT 1h", "strong HAR", "Volatility of BBBUSDT 1h", "Lineage"):
        assert part in page
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["run.html"]


def test_a_run_without_a_source_has_a_page_about_its_training(market, tmp_path):
    write_report(market[0], out=tmp_path / "run.html")
    page = (tmp_path / "run.html").read_text()
    assert "name the source of its bars" in page
    assert "Learning curves" in page


def test_a_run_that_cannot_be_evaluated_has_a_page(market, tmp_path):
    run, _ = market
    trained = simulate_bars(1_300, seed=2, gaps=0).take(slice(900)).columns()
    pq.write_table(pa.table({"ts": trained.pop("timestamp"), **trained}), tmp_path / "BBBUSDT_1h.parquet")
    write_report(run, tmp_path / "BBBUSDT_1h.parquet", out=tmp_path / "run.html")
    page = (tmp_path / "run.html").read_text()
    assert "Not evaluated out of sample: BBBUSDT 1h: no window is out of sample" in page
    assert "Latest forecast" in page


def test_missing_bars_are_an_error_and_no_page_is_written(market, tmp_path):
    run, source = market
    daily = simulate_bars(900, seed=2, gaps=0).columns()
    daily["timestamp"] = daily["timestamp"][0] + 86_400_000 * np.arange(900)
    pq.write_table(pa.table({"ts": daily.pop("timestamp"), **daily}), tmp_path / "BBBUSDT_1d.parquet")
    for asked, message in (
        ({"source": tmp_path / "BBBUSDT_1d.parquet"}, "1d"),
        ({"source": tmp_path / "misspelt.db"}, r"misspelt\.db"),
        ({"source": source, "symbols": ["NOPE"]}, "unknown symbol NOPE"),
    ):
        with pytest.raises(BitcornError, match=message):
            write_report(run, **asked, out=tmp_path / "run.html")
    assert not (tmp_path / "run.html").exists()


@pytest.mark.parametrize("level", [0.0, 1.0, 5.0, float("nan")])
def test_an_impossible_level_is_refused(market, tmp_path, level):
    with pytest.raises(BitcornError, match=r"level is .*: give a level of significance between 0 and 1"):
        write_report(market[0], level=level, out=tmp_path / "run.html")
    assert not (tmp_path / "run.html").exists()


def test_a_page_does_not_overwrite_its_source(market_db, tmp_path):
    before = market_db.read_bytes()
    with pytest.raises(BitcornError, match="a file of another type exists there"):
        write_report(market_db, out=market_db)
    assert market_db.read_bytes() == before


def test_an_unknown_folder_is_refused(tmp_path):
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "model.pt").write_bytes(b"")
    with pytest.raises(BitcornError, match=r"half is no run, sweep, evolution or cache, and .* holds no file of bars"):
        write_report(tmp_path / "half", out=tmp_path / "page.html")


def test_sweeps_caches_and_sources_are_distinguished(market_db, tmp_path, cache_dir):
    folder, _, _ = make_sweep(sweep_values(market_db, tmp_path / "sweep"))
    compute_features(market_db, system="v2")
    kinds = {}
    for place in (folder.storage.address, cache_dir, market_db):
        out = tmp_path / "page.html"
        kinds[str(place)] = write_report(place, out=out).kind
        assert "<h2>" in out.read_text()
    assert list(kinds.values()) == ["sweep", "cache", "source"]


def test_an_unknown_place_is_an_error_and_no_page_is_written(tmp_path):
    (tmp_path / "empty").mkdir()
    for place in ("nothing.db", "empty"):
        with pytest.raises(BitcornError, match=place.partition(".")[0]):
            write_report(tmp_path / place, out=tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


def test_a_page_goes_to_an_object_store(market_db, s3_uri, tmp_path):
    from bitcorn_ray.storage.storage import Storage

    place, _, options = s3_uri.partition("?")
    done = write_report(market_db, out=f"{place}/report.html?{options}")
    assert done.page.endswith("/report.html")
    assert "secret" not in done.page
    assert bytes(Storage(s3_uri).read("report.html")).startswith(b"<!doctype html>")
