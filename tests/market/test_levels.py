import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from raw_files import real_bars

from bitcorn_ray.market.bars import Bars
from bitcorn_ray.market.diagnosis import diagnose
from bitcorn_ray.market.levels import level_changes
from bitcorn_ray.market.simulate import simulate_bars

HOUR = 3_600_000


def scaled(bars, factors):
    """Bars whose prices are multiplied by a factor of each row."""
    columns = {name: getattr(bars, name) * factors for name in ("open", "high", "low", "close")}
    return Bars(timestamp=bars.timestamp, volume=bars.volume, **columns)


def test_real_markets_have_no_changes_of_level(data_dir):
    for name, _, bars in real_bars(data_dir):
        assert level_changes(bars) == [], name


@settings(deadline=None, max_examples=60)
@given(
    factor=st.sampled_from([1 / 4, 1 / 3, 1 / 2, 2 / 3, 2, 5, 10, 1 / 1000, 1000, 1 / 100]),
    row=st.integers(10, 180),
    seed=st.integers(0, 99),
)
def test_a_step_that_stays_is_found_where_it_is(factor, row, seed):
    bars = scaled(simulate_bars(200, seed=seed), np.where(np.arange(200) < row, 1.0, factor))
    (found,) = level_changes(bars)
    assert found.row == row
    assert found.factor == pytest.approx(factor, rel=0.05)
    power = np.log10(factor)
    assert ("unit" if power == round(power) else "split") in found.what


def test_a_jump_that_returns_is_no_level(random_bars):
    bars = random_bars(200)
    assert level_changes(scaled(bars, np.where(np.arange(200) == 90, 0.2, 1.0))) == []
    assert level_changes(bars) == []


def test_a_crash_within_bars_is_no_split(random_bars):
    bars = random_bars(200)
    after = np.where(np.arange(200) > 90, 0.5, 1.0)
    crashed = scaled(bars, after)
    crashed.close[90] *= 0.5
    crashed.low[90] *= 0.5
    assert level_changes(crashed) == []


@pytest.mark.parametrize("block", [1, 7, 30])
def test_markets_that_are_mixed_are_told(random_bars, block):
    bars = scaled(random_bars(200), np.where(np.arange(200) // block % 2, 1.0, 17.0))
    report = diagnose(bars, "1h").report
    assert report["level_changes"]["count"] >= 3
    assert "two markets may be mixed" in report["level_changes"]["list"][0]["what"]
    assert report["score"] <= 80


def test_a_split_costs_points_and_is_shown(random_bars):
    bars = scaled(random_bars(200), np.where(np.arange(200) < 100, 1.0, 0.25))
    report = diagnose(bars, "1h").report
    assert [reason["kind"] for reason in report["reasons"]] == ["level_changes"]
    assert "split of 4:1" in report["level_changes"]["list"][0]["what"]
