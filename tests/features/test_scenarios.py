from dataclasses import replace

import numpy as np
import pytest

from bitcorn_ray.features.scenarios import FUTURES, INJECTED, Scenario, suspicious_rows
from bitcorn_ray.market.simulate import simulate_bars


@pytest.fixture
def scenario():
    bars = simulate_bars(300, seed=0, gaps=0)
    return Scenario(replace(bars, extra={"trades": bars.volume + 1.0}), np.arange(len(bars)))


@pytest.mark.parametrize("perturbation", sorted({*FUTURES, *INJECTED} - {"", "a gap"}))
def test_a_perturbation_changes_its_rows_and_no_other(scenario, perturbation):
    other = scenario.perturbed(perturbation, slice(100, 110), slice(200, 202))
    touched = np.zeros(300, bool)
    for name, column in {**scenario.bars.columns(), **scenario.bars.extra}.items():
        now = {**other.bars.columns(), **other.bars.extra}[name]
        touched |= ~((column == now) | (np.isnan(column) & np.isnan(now)))
    assert np.flatnonzero(touched).tolist() == [*range(100, 110), 200, 201]
    assert (other.rows == scenario.rows).all()


def test_a_gap_leaves_bars_out(scenario):
    other = scenario.perturbed("a gap", slice(100, 110))
    assert other.rows.tolist() == [*range(100), *range(110, 300)]
    assert (other.bars.close == scenario.bars.close[other.rows]).all()


def test_suspicious_rows_are_rows_and_the_first_is_the_highest_bar():
    bars = simulate_bars(2_000, seed=1)
    kinds = suspicious_rows(bars, 30, np.random.default_rng(0))
    assert kinds[0][0] == np.argmax(bars.high)
    assert all(((rows >= 0) & (rows < len(bars))).all() for rows in kinds)
