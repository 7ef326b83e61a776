"""A few bars that tests of them share."""

from dataclasses import replace

import numpy as np

from bitcorn_ray.market.bars import Bars

HOUR = 3_600_000
START = 1_502_942_400_000


def some_bars(n=5):
    close = np.arange(1.0, n + 1)
    return Bars(
        timestamp=START + HOUR * np.arange(n), open=close, high=close + 1, low=close / 2, close=close, volume=close * 10
    )


def with_extra():
    """The same with two further columns."""
    return replace(some_bars(), extra={"trades": np.arange(5.0), "oi": np.ones(5)})
