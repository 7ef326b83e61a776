import numpy as np
import pytest
from small_evolutions import evolve_values
from small_sweeps import make_sweep, sweep_values

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.tuning.config import SweepConfig
from bitcorn_ray.tuning.evolution.config import EvolveConfig
from bitcorn_ray.tuning.folder import SweepFolder


def test_bars_and_plan_come_back_as_they_were(market_db, tmp_path):
    folder, _, data = make_sweep(sweep_values(market_db, tmp_path / "sweep", search={}))
    assert folder.plan()["identities"] == data.identities
    for one, other in zip(folder.bars(), data.bars, strict=True):
        assert (one.name, one.step, one.excluded_ends) == (other.name, other.step, None)
        for column in ("timestamp", "high", "low", "close"):
            np.testing.assert_array_equal(getattr(one, column), getattr(other, column))


def test_what_is_no_sweep_is_told(tmp_path):
    with pytest.raises(BitcornError, match="holds no sweep"):
        SweepFolder(tmp_path).plan()
    (tmp_path / "plan.json").write_text("{")
    with pytest.raises(BitcornError, match=r"is damaged: plan\.json"):
        SweepFolder(tmp_path).plan()
    (tmp_path / "plan.json").write_text('{"format": 2}')
    with pytest.raises(BitcornError, match="format 2: update"):
        SweepFolder(tmp_path).plan()
    (tmp_path / "plan.json").write_text('{"format": 1, "code": "c", "partitions": []}')
    (tmp_path / "bars.npz").write_text("torn")
    with pytest.raises(BitcornError, match=r"is damaged: bars\.npz"):
        SweepFolder(tmp_path).bars()


def test_a_folder_that_holds_something_is_left_alone(tmp_path):
    folder = SweepFolder(tmp_path / "sweep")
    folder.require_free(resume=False)
    folder.storage.publish(".writing-1a2b", b"torn")  # a sweep that was cut short as it began
    folder.require_free(resume=False)
    folder.storage.publish("plan.json", b"{}")
    with pytest.raises(BitcornError, match="sweep holds a sweep or evolution: continue it with --resume"):
        folder.require_free(resume=False)
    folder.require_free(resume=True)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(BitcornError, match="mine holds other files than a sweep or evolution"):
        SweepFolder(tmp_path / "mine").require_free(resume=True)
    with pytest.raises(BitcornError, match="no folder that may be written"):
        SweepFolder(tmp_path / "mine" / "notes.txt").require_free(resume=False)


def test_only_the_same_sweep_goes_on(tmp_path):
    folder = SweepFolder(tmp_path / "sweep")
    config = SweepConfig.load(sweep_values("m.db", tmp_path / "sweep"))
    folder.begin(config, {"v2": "1"}, [], "c")
    folder.begin(config, {"v2": "1"}, [], "c")
    folder.begin(SweepConfig.load(config, {"trials": 9, "max_hours": 2, "out": "moved"}), {"v2": "1"}, [], "c")
    with pytest.raises(BitcornError, match=r"another configuration: .* changing only sweep\.trials, sweep\.max_hours"):
        folder.begin(SweepConfig.load(config, {"seed": 9}), {"v2": "1"}, [], "c")
    with pytest.raises(BitcornError, match="the bars or features have changed"):
        folder.begin(config, {"v2": "2"}, [], "c")
    with pytest.raises(BitcornError, match=r"code or libraries that train have changed .*give another --out"):
        folder.begin(config, {"v2": "1"}, [], "d")
    with pytest.raises(BitcornError, match="holds a sweep and no evolution"):
        folder.begin(config, {"v2": "1"}, [], "c", {"db": "m.db", "evolve": {}})


def test_only_the_same_evolution_goes_on(tmp_path):
    folder = SweepFolder(tmp_path / "evolved")
    config = EvolveConfig.load(evolve_values("m.db", tmp_path / "evolved"))
    for generations in (2, 9):
        more = EvolveConfig.load(config, {"generations": generations})
        folder.begin(more.sweep, {"x": "1"}, [], "c", more.to_json())
    other = EvolveConfig.load(config, {"seed": 9})
    with pytest.raises(BitcornError, match=r"another configuration: .* changing only evolve\.generations"):
        folder.begin(other.sweep, {"x": "1"}, [], "c", other.to_json())
    with pytest.raises(BitcornError, match="holds an evolution and no sweep"):
        folder.begin(config.sweep, {"x": "1"}, [], "c")
