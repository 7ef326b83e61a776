import pytest
from own_systems import anything
from reading import read_bars

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.features.audit import audit
from bitcorn_ray.features.distribute import run_audit
from bitcorn_ray.features.registry import SYSTEMS, find_system
from bitcorn_ray.market.partition import Partition
from bitcorn_ray.sources.ingest import write_bars


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
