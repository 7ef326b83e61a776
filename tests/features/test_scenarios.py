from dataclasses import replace

import numpy as np
import pytest

from bitcorn_ray.features.scenarios import FUTURES, SCENES, Scene, places_of
from bitcorn_ray.market.simulate import simulate_bars


@pytest.fixture
def scene():
    bars = simulate_bars(300, seed=0, gaps=0)
    return Scene(replace(bars, extra={"trades": bars.volume + 1.0}), np.arange(len(bars)))


@pytest.mark.parametrize("edit", sorted({*FUTURES, *SCENES} - {"", "a gap"}))
def test_an_edit_changes_its_rows_and_no_other(scene, edit):
    other = scene.edited(edit, slice(100, 110), slice(200, 202))
    touched = np.zeros(300, bool)
    for name, column in {**scene.bars.columns(), **scene.bars.extra}.items():
        now = {**other.bars.columns(), **other.bars.extra}[name]
        touched |= ~((column == now) | (np.isnan(column) & np.isnan(now)))
    assert np.flatnonzero(touched).tolist() == [*range(100, 110), 200, 201]
    assert (other.rows == scene.rows).all()


def test_a_gap_leaves_bars_out(scene):
    other = scene.edited("a gap", slice(100, 110))
    assert other.rows.tolist() == [*range(100), *range(110, 300)]
    assert (other.bars.close == scene.bars.close[other.rows]).all()


def test_places_are_rows_and_the_first_is_the_highest_bar():
    bars = simulate_bars(2_000, seed=1)
    places = places_of(bars, 30, np.random.default_rng(0))
    assert places[0][0] == np.argmax(bars.high)
    assert all(((rows >= 0) & (rows < len(bars))).all() for rows in places)
