import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.market.reference_volatility import reference_volatility


def slowly(log_close, span):
    """The definition, bar by bar."""
    out = [np.nan]
    for t in range(1, len(log_close)):
        ago = np.arange(min(t, 8 * span))
        squares = (log_close[t - ago] - log_close[t - ago - 1]) ** 2
        weights = np.exp(-ago / span)
        out.append(max(np.sqrt((weights * squares).sum() / weights.sum()), 1e-6))
    return np.array(out)


def walk(n, seed=0):
    rng = np.random.default_rng(seed)
    return np.cumsum(rng.normal(0, 0.01, n) * np.exp(np.cumsum(rng.normal(0, 0.05, n))))


@settings(max_examples=40, deadline=None)
@given(n=st.integers(1, 300), span=st.integers(1, 40), seed=st.integers(0, 5))
def test_it_is_what_its_definition_says(n, span, seed):
    log_close = walk(n, seed)
    np.testing.assert_allclose(reference_volatility(log_close, span), slowly(log_close, span), rtol=1e-10)


@pytest.mark.parametrize("span", [1, 3, 10])
def test_it_depends_on_the_last_8_spans_only_bit_for_bit(span):
    log_close = walk(400)
    whole = reference_volatility(log_close, span)
    for end in (250, 399):
        first = end - 8 * span
        alone = reference_volatility(log_close[first : end + 1], span)
        assert alone[-1] == whole[end]
    changed = log_close.copy()
    changed[300:] += 5
    np.testing.assert_array_equal(reference_volatility(changed, span)[:300], whole[:300])


def test_a_market_that_stood_still_has_a_scale():
    still = reference_volatility(np.zeros(50), 8)
    assert np.isnan(still[0])
    assert (still[1:] == 1e-6).all()


def test_closes_that_are_not_numbers_do_not_count():
    log_close = walk(200)
    log_close[100] = np.nan
    out = reference_volatility(log_close, 5)
    assert np.isfinite(out[1:]).all()
    squares = np.diff(log_close) ** 2
    ago = np.arange(40)
    weights = np.exp(-ago / 5) * np.isfinite(squares[110 - 1 - ago])
    expected = np.sqrt(np.nansum(weights * squares[110 - 1 - ago]) / weights.sum())
    assert out[110] == pytest.approx(expected, rel=1e-10)


def test_a_span_of_no_bars_is_refused():
    with pytest.raises(BitcornError, match="span of the reference volatility is 0"):
        reference_volatility(np.zeros(5), 0)
