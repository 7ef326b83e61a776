import numpy as np
import pytest
from small_sweeps import make_sweep, sweep_values

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.tuning.folder import SweepFolder
from bitcorn_ray.tuning.stored import read_sweep


def test_a_sweep_is_read_back_as_it_was_cut(market_db, tmp_path):
    folder, plan, data = make_sweep(sweep_values(market_db, tmp_path / "sweep"), stop_last_after=1)
    read = read_sweep(folder)
    assert (read.plan.folds, read.plan.seeds, read.plan.identities) == (plan.folds, plan.seeds, plan.identities)
    assert read.plan.records.storage.address == plan.records.storage.address
    assert [one.name for one in read.bars] == [one.name for one in data.bars]
    assert np.array_equal(read.bars[0].close, data.bars[0].close)
    assert [trial.state for trial in read.trials.values()] == ["finished", "stopped"]
    assert len(read.folds.to_json()["folds"]) == 2
    assert read.config.space.names == ("training.learning_rate",)


def test_what_is_no_sweep_is_told(tmp_path):
    with pytest.raises(BitcornError, match="holds no sweep"):
        read_sweep(SweepFolder(tmp_path))
