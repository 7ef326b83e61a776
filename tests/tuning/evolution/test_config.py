import numpy as np
import pytest
import yaml
from small_evolutions import evolve_values

from bitcorn_ray.datasets import load
from bitcorn_ray.errors import BitcornError
from bitcorn_ray.features.compute import prepare
from bitcorn_ray.features.registry import find_system
from bitcorn_ray.sources.loading import load_bars
from bitcorn_ray.tuning.evolution.config import EvolveConfig, evolve_data


def test_a_file_is_read_with_all_features_of_its_systems(tmp_path):
    path = tmp_path / "evolve.yaml"
    path.write_text(yaml.safe_dump(evolve_values("m.db", tmp_path / "out")))
    config = EvolveConfig.load(path, {"generations": 7, "out": "elsewhere", "max_hours": None})
    assert (config.options.generations, config.options.population, config.sweep.run.out) == (7, 4, "elsewhere")
    assert [len(group) for group in config.groups] == [14, 2]
    assert config.features[-2:] == ("momentum", "range")
    assert config.sweep.folds.last == 2
    again = EvolveConfig.load(config, {"generations": 8})
    assert (again.options.generations, again.sweep.run.out) == (8, "elsewhere")
    assert config.to_json()["systems"] == ["v2", "own_systems:momentum:window=5"]


def test_a_point_has_a_configuration_and_a_system(tmp_path):
    config = EvolveConfig.load(evolve_values("m.db", tmp_path))
    setting = config.sweep.at({"features": ["rsi_14", "range"], "training.learning_rate": 0.01})
    assert (setting.features, setting.training.learning_rate) == (("rsi_14", "range"), 0.01)
    assert setting.system == config.sweep.run.features
    assert config.system_of(["range", "rsi_14"]).spec == "v2[rsi_14]+own_systems:momentum:window=5[range]"
    assert config.system_of(("range",)).spec == "own_systems:momentum:window=5[range]"


def test_features_that_two_systems_share_have_different_names(tmp_path):
    config = EvolveConfig.load(evolve_values("m.db", tmp_path, systems=["v4", "vol"]))
    assert {"v4_ret_1", "vol_ret_1"} < set(config.features)
    # Alone, a feature has its own name again.
    assert config.system_of(["vol_ret_1"]).features == ("ret_1",)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"systems": None}, r"systems is None: list the feature systems"),
        ({"systems": ["v2", "v2"]}, "combined with itself"),
        ({"systems": ["v9"]}, "unknown feature system 'v9'"),
        ({"features": "v2"}, "features is not a field of an evolution"),
        ({"sweep": {}}, "sweep is not a field of an evolution"),
        ({"search": {"system": {"choice": ["v2"]}}}, "evolution chooses the features itself"),
        ({"search": {"features": {"choice": [["rsi_14"]]}}}, "evolution chooses the features itself"),
        ({"evolve": {"held_out": 2}}, r"folds.last is 2 and evolve.held_out 2"),
        ({"evolve": {"held_out": 0}}, "held_out is 0: it must be at least 1"),
        ({"evolve": {"population": 1}}, "population is 1"),
        ({"evolve": {"block": 0}}, "block is 0"),
        ({"evolve": {"objective": "mse"}}, "objective is 'mse'"),
        ({"evolve": {"size": 3}}, "unknown field size"),
        ({"evolve": {"generations": "many"}}, "evolve: generations"),
    ],
)
def test_invalid_combinations_are_refused(tmp_path, changes, told):
    values = evolve_values("m.db", tmp_path)
    for name, change in changes.items():
        merged = isinstance(change, dict) and name == "evolve"
        values[name] = {**values[name], **change} if merged else change
    with pytest.raises(BitcornError, match=told):
        EvolveConfig.load(values)


def test_a_section_without_fields_is_refused(tmp_path):
    with pytest.raises(BitcornError, match="evolve is 3: give fields"):
        EvolveConfig.load({**evolve_values("m.db", tmp_path), "evolve": 3})


def test_features_of_all_systems_are_side_by_side_and_cached(market_db, tmp_path, cache_dir):
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

    def counted(db, symbol, *rest, **source_options):
        read.append(symbol)
        return load_bars(db, symbol, *rest, **source_options)

    monkeypatch.setattr(load, "load_bars", counted)
    evolve_data(EvolveConfig.load(evolve_values(market_db, tmp_path)))
    assert read == ["AAAUSDT"]
