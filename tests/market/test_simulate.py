import numpy as np
import pytest

from bitcorn_ray.market.diagnosis import quality_report
from bitcorn_ray.market.simulate import simulate_bars

HOUR = 3_600_000


def bytes_of(bars):
    return [column.tobytes() for column in bars.columns().values()]


def test_the_same_arguments_give_the_same_bars():
    assert bytes_of(simulate_bars(500, seed=7)) == bytes_of(simulate_bars(500, seed=7))


def test_another_seed_gives_other_bars():
    assert not np.array_equal(simulate_bars(500, seed=7, gaps=0).close, simulate_bars(500, seed=8, gaps=0).close)


@pytest.mark.parametrize("seed", range(5))
def test_simulated_bars_are_usable_and_their_prices_agree(seed):
    bars = simulate_bars(3_000, seed=seed)
    bars.require_usable()
    assert (bars.high >= np.maximum(bars.open, bars.close)).all()
    assert (bars.low <= np.minimum(bars.open, bars.close)).all()
    assert (bars.volume > 0).all()


@pytest.mark.parametrize("gaps", [0, 1, 6])
@pytest.mark.parametrize("step_ms", [60_000, HOUR])
def test_bars_stand_on_the_grid_but_for_the_gaps_asked_for(gaps, step_ms):
    bars = simulate_bars(2_000, seed=1, step_ms=step_ms, gaps=gaps)
    report = quality_report(bars)["gaps"]
    assert set(np.diff(bars.timestamp) % step_ms) == {0}
    assert (bars.timestamp[-1] - bars.timestamp[0]) // step_ms == 1_999
    assert bars.timestamp[0] % 86_400_000 == 0
    assert len(bars) == 2_000 - report["missing_bars"]
    assert min(gaps, 1) <= report["count"] <= gaps
    assert report["count"] <= report["missing_bars"] <= 24 * gaps


def test_each_bar_opens_where_the_one_before_closed():
    bars = simulate_bars(1_000, seed=2, price=25_000.0, gaps=0)
    assert bars.open[0] == pytest.approx(25_000.0, rel=1e-12)
    np.testing.assert_allclose(bars.open[1:], bars.close[:-1], rtol=1e-9)


def test_returns_have_the_size_the_clusters_and_the_tails_of_a_market():
    returns = np.diff(np.log(simulate_bars(40_000, seed=0, gaps=0).close))
    size = np.abs(returns)
    assert returns.std() == pytest.approx(0.008, rel=0.2)
    assert np.corrcoef(size[1:], size[:-1])[0, 1] > 0.1
    # Nothing to learn about the direction: that would be no market.
    assert abs(np.corrcoef(returns[1:], returns[:-1])[0, 1]) < 0.03
    assert ((returns - returns.mean()) ** 4).mean() / returns.var() ** 2 > 4


def test_volume_rises_with_the_range_of_a_bar():
    bars = simulate_bars(20_000, seed=0, gaps=0)
    assert np.corrcoef(np.log(bars.volume), np.log(bars.high / bars.low))[0, 1] > 0.3
