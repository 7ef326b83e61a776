"""What `tune` and `leaderboard` say of markets in which nothing, or volatility alone, can be forecast: real trials."""

import numpy as np
import pytest
from small_sweeps import make_sweep

from bitcorn_ray import leaderboard
from bitcorn_ray.market.bars import Bars
from bitcorn_ray.market.partition import Partition
from bitcorn_ray.market.simulate import simulate_bars
from bitcorn_ray.sources.ingest import write_bars

BARS, TRIALS = 5_000, 8


def garch(seed):
    """Volatility clusters, direction is pure chance."""
    return simulate_bars(BARS, seed=seed, gaps=0)


def random_walk(seed):
    """Normal returns of constant volatility, and volumes that know nothing of them."""
    rng = np.random.default_rng(seed)
    path = 0.004 * np.cumsum(rng.standard_normal((BARS, 4)).ravel()).reshape(BARS, 4)
    opened = np.concatenate([[0.0], path[:-1, -1]])
    whole = np.exp(np.column_stack([opened, path]))
    return Bars(
        timestamp=garch(0).timestamp,
        open=whole[:, 0],
        high=whole.max(1),
        low=whole.min(1),
        close=whole[:, -1],
        volume=np.exp(rng.normal(4, 0.4, BARS)),
    )


def found_by_a_sweep(market, seed, folder):
    """What the leaderboard finds after a sweep of LSTMs with random settings over walk-forward folds."""
    folder.mkdir()
    write_bars([("simulated", Partition("SIMUSDT", "1h"), market(seed))], folder / "market.db")
    rng = np.random.default_rng([seed, 2])
    values = {
        "db": str(folder / "market.db"),
        "symbol": "SIMUSDT",
        "timeframe": "1h",
        "out": str(folder / "sweep"),
        "workers": 0,
        "model": {"horizons": [1, 4, 12], "seq_len": 8, "num_layers": 1, "hidden_size": int(rng.choice([4, 8, 16]))},
        "training": {"epochs": 8, "patience": 2, "threads": 1, "deterministic": True, "seed": seed},
        "folds": {"train": 2_000, "validation": 500, "test": 800, "last": 3},
        "search": {
            "training.learning_rate": {"grid": (10 ** rng.uniform(-3, -2, TRIALS // 2)).tolist()},
            "model.reference_span": {"grid": [24, 96]},
        },
        "sweep": {"trials": TRIALS, "search": "grid"},
    }
    swept, _, _ = make_sweep(values)
    board = leaderboard(swept.storage.address).board
    assert (board.tried, board.compared, board.folds) == (TRIALS, TRIALS, 3)
    return board.found


def test_real_trials_find_clustering_volatility_and_nothing_in_noise(tmp_path):
    assert found_by_a_sweep(random_walk, 1, tmp_path / "noise") == ()
    assert found_by_a_sweep(garch, 1, tmp_path / "garch") == ("volatility",)


@pytest.mark.slow
@pytest.mark.parametrize("market", [random_walk, garch])
def test_real_trials_over_forty_markets(market, tmp_path):
    found = [found_by_a_sweep(market, seed, tmp_path / str(seed)) for seed in range(40)]
    if market is random_walk:
        assert sum(each == () for each in found) >= 38
    else:
        assert sum("volatility" in each for each in found) >= 36
        assert not any("direction" in each for each in found)
