import numpy as np
import pytest
from scipy.stats import linregress

from benchmarks.exponents import fit_exponent

SIZES = np.array([1e4, 1e5, 1e6, 1e7])


@pytest.mark.parametrize("power", [-0.5, 0.0, 1.0, 1.7])
def test_a_power_law_gives_its_power(power):
    found = fit_exponent(SIZES, 3e-8 * SIZES**power)
    assert found.value == pytest.approx(power, abs=1e-12)
    assert found.error == pytest.approx(0, abs=1e-9)


def test_value_and_error_are_those_of_a_regression_of_logarithms():
    values = 2.0 * SIZES**0.9 * np.exp(np.random.default_rng(0).normal(0, 0.3, len(SIZES)))
    found, oracle = fit_exponent(SIZES, values), linregress(np.log(SIZES), np.log(values))
    assert (found.value, found.error) == pytest.approx((oracle.slope, oracle.stderr))


def test_fixed_costs_lower_the_power_and_show_in_the_error():
    found = fit_exponent(SIZES, 1.0 + 1e-6 * SIZES)
    assert 0 < found.value < 1
    assert found.error > 0.05


def test_two_points_have_no_error():
    assert fit_exponent([1, 10], [5, 50]).error is None


@pytest.mark.parametrize(
    ("sizes", "values"), [([1], [1]), ([2, 2], [1, 3]), ([1, 2], [1]), ([0, 1], [1, 2]), ([1, 2], [0, 2])]
)
def test_what_has_no_power_is_refused(sizes, values):
    with pytest.raises(ValueError, match="sizes"):
        fit_exponent(sizes, values)
