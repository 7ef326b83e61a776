import numpy as np
from small_evolutions import evolve_values

from bitcorn_ray.datasets import load
from bitcorn_ray.features.compute import prepare
from bitcorn_ray.features.registry import find_system
from bitcorn_ray.sources.loading import load_bars
from bitcorn_ray.tuning.evolution.config import EvolveConfig
from bitcorn_ray.tuning.evolution.data import evolve_data


def test_features_of_all_systems_stand_side_by_side_and_are_cached(market_db, tmp_path, cache_dir):
    lines = []
    config = EvolveConfig.load(evolve_values(market_db, tmp_path, symbol=None, symbols=["AAAUSDT", "BBBUSDT"]))
    data = evolve_data(config, log_fn=lines.append)
    (variant,) = data.variants.values()
    assert (variant.spec, variant.features) == (config.sweep.run.features, config.features)
    assert variant.matrix.shape == (sum(len(one.close) for one in data.bars), 16)
    assert len(variant.keys) == 4  # two systems of two symbols
    first = len(data.bars[0].close)
    for start, symbol in ((0, "AAAUSDT"), (first, "BBBUSDT")):
        bars = load_bars(str(market_db), symbol, "1h").bars
        for spec in config.systems:
            prepared = prepare(bars, find_system(spec), None, None)
            for name, column in prepared.columns.items():
                stop = start + len(bars)
                mine = variant.matrix[start:stop, variant.features.index(name)]
                whole = np.isfinite(mine)
                expected = np.concatenate((np.full(len(bars) - len(column), np.nan, np.float32), column))
                np.testing.assert_array_equal(mine[whole].view(np.int32), expected[whole].view(np.int32))
                assert not whole[:49].any()  # of v2's warm-up, for all
                assert whole[49:].mean() > 0.99
    before = {path.name for path in (cache_dir / "features").iterdir()}
    again = evolve_data(config)
    assert again.identities == data.identities
    assert {path.name for path in (cache_dir / "features").iterdir()} == before
    assert any("16 features together, complete in" in line for line in lines)


def test_rows_are_missing_for_all_features_or_none(market_db, tmp_path):
    config = EvolveConfig.load(evolve_values(market_db, tmp_path))
    (variant,) = evolve_data(config).variants.values()
    finite = np.isfinite(variant.matrix)
    assert (finite.all(1) == finite.any(1)).all()


def test_bars_are_read_once_for_all_systems(market_db, tmp_path, monkeypatch):
    read = []

    def counted(db, symbol, *rest, **reading):
        read.append(symbol)
        return load_bars(db, symbol, *rest, **reading)

    monkeypatch.setattr(load, "load_bars", counted)
    evolve_data(EvolveConfig.load(evolve_values(market_db, tmp_path)))
    assert read == ["AAAUSDT"]
