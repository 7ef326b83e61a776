import math

import pytest

from bitcorn_ray.metrics.live import LiveSkill

WIDTHS = {"0.5": 1.0, "0.95": 2.0}


def test_shares_are_what_they_say():
    skill = LiveSkill()
    assert skill.shares() == {
        "scored": 0, "unknown": 0, "coverage": {}, "direction": None, "qlike": None, "ewma_qlike": None,
    }  # fmt: skip
    skill.add(0.01, 0.02, 0.01, WIDTHS, 0.025, 0.0004)  # inside both, up as forecast
    skill.add(0.01, 0.02, 0.01, WIDTHS, -0.02, 0.0004)  # outside the narrow one, down
    skill.add(0.01, 0.02, 0.01, WIDTHS, 0.10, 0.0004)  # outside both, up
    skill.add(0.01, 0.02, 0.01, {"0.5": 1.0, "0.95": None}, 0.0, 0.0004)  # no move, and no wide band
    skill.add(0.01, 0.02, 0.01, WIDTHS, None, None)
    shares = skill.shares()
    assert (shares["scored"], shares["unknown"]) == (4, 1)
    assert shares["coverage"] == {"0.5": 2 / 4, "0.95": 2 / 3}
    assert shares["direction"] == 2 / 3
    assert shares["qlike"] == pytest.approx(math.log(0.0004) + 1)
    assert shares["ewma_qlike"] == pytest.approx(math.log(0.0001) + 4)


def test_without_a_baseline_there_is_no_comparison():
    skill = LiveSkill()
    skill.add(0.01, 0.02, None, WIDTHS, 0.025, 0.0004)
    assert skill.shares()["scored"] == 1
    assert skill.shares()["qlike"] is None
