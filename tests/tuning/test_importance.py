import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bitcorn_ray.tuning.importance import search_importance
from bitcorn_ray.tuning.space import Space

SPACE = Space.parse(
    {
        "rate": {"loguniform": [1e-4, 1e-1]},
        "units": {"int": [4, 64, 4]},
        "cell": {"choice": ["lstm", "gru", [1, 2]]},
        "fixed": {"choice": [7]},
    }
)


def tried(loss, count=120, seed=0):
    rng = np.random.default_rng(seed)
    points = [
        {
            "rate": float(10 ** rng.uniform(-4, -1)),
            "units": int(4 * rng.integers(1, 17)),
            "cell": ["lstm", "gru", [1, 2]][rng.integers(3)],
            "fixed": 7,
        }
        for _ in range(count)
    ]
    return [(point, loss(point)) for point in points]


def test_what_decides_the_loss_has_its_variance():
    by_rate = search_importance(SPACE, tried(lambda p: np.log10(p["rate"]) ** 2 + 0.001 * p["units"]))
    assert by_rate["rate"] > 0.9
    by_cell = search_importance(SPACE, tried(lambda p: float(p["cell"] == [1, 2])))
    assert by_cell["cell"] == max(by_cell.values()) > 0.9
    assert "fixed" not in by_cell


def test_nothing_is_said_of_it(capfd):
    code = "from test_importance import *; search_importance(SPACE, tried(lambda p: p['units'], count=20))"
    subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parent, check=True)
    assert capfd.readouterr() == ("", "")


def test_the_same_trials_have_the_same_importance():
    trials = tried(lambda p: p["units"] + np.log(p["rate"]))
    assert search_importance(SPACE, trials) == search_importance(SPACE, trials)


@pytest.mark.parametrize("loss", [lambda p: None, lambda p: np.nan, lambda p: 1.0])
def test_what_tells_nothing_has_none(loss):
    assert search_importance(SPACE, tried(loss)) == {}
    assert search_importance(SPACE, tried(lambda p: p["rate"], count=7)) == {}
    assert search_importance(Space(), [({}, 1.0)] * 10) == {}
