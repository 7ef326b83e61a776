import numpy as np
import pandas as pd
import pytest

from benchmarks.accuracy import Contender, _summed, common_cutoffs, compared
from bitcorn_ray.market.simulate import simulate_bars

BARS = simulate_bars(200, seed=0, gaps=0)
HORIZONS = np.array([1, 4, 12])


def outcome(rows):
    return np.log(BARS.close[rows[:, None] + HORIZONS] / BARS.close[rows[:, None]])


def contender(name, rows, scale, peer=True):
    """One that forecasts a share of what comes."""
    return Contender(name, peer, [(rows, scale * outcome(rows))], [1.0])


def test_errors_are_of_the_cutoffs_that_all_have():
    ours = contender("ours", np.arange(100, 180), 1.0, peer=False)
    peer = contender("peer", np.arange(90, 170), 0.5)
    assert common_cutoffs(BARS, [ours, peer]).tolist() == list(range(100, 170))
    figures = {figure.what: figure for figure in compared(BARS, [ours, peer])}
    for horizon in HORIZONS:
        for kind in ("RMSE", "MAE"):
            what = f"{kind} of the return over {horizon} {'bar' if horizon == 1 else 'bars'}"
            assert figures[f"{what}, ours"].median == pytest.approx(0, abs=1e-9)
            assert figures[f"{what}, peer"].ratio == pytest.approx(0.5)


def test_ours_stands_beside_the_best_peer():
    rows = np.arange(100, 150)
    named = [contender("ours", rows, 0.3, peer=False), contender("worse", rows, 0.2), contender("better", rows, 0.9)]
    ours = next(figure for figure in compared(BARS, named) if figure.what.endswith("12 bars, ours"))
    assert ours.reference.what.endswith("better")
    assert ours.ratio == pytest.approx(7)


def test_no_cutoff_is_judged_by_bars_that_are_missing():
    without = BARS.take(np.delete(np.arange(200), 130))
    rows = np.arange(100, 187)
    found = common_cutoffs(without, [Contender("ours", False, [(rows, np.zeros((len(rows), 3)))])])
    assert found.tolist() == [*range(100, 118), *range(130, 187)]


def test_single_bars_forecasts_are_summed_over_each_horizon():
    ahead = np.tile(np.arange(1, 13), 2)
    cutoff = np.repeat([7, 5], 12)
    rows, returns = _summed(pd.DataFrame({"cutoff": cutoff, "ahead": ahead, "forecast": ahead * cutoff}), first_row=49)
    assert rows.tolist() == [54, 56]
    assert returns.tolist() == [[5, 50, 390], [7, 70, 546]]
