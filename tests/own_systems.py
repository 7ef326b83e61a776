"""Feature systems as users declare them, in a module that pytest does not rewrite."""

from __future__ import annotations

import numpy as np
import pandas as pd

from bitcorn_ray.features.system import feature_system
from bitcorn_ray.market.bars import Bars


@feature_system(name="momentum", warmup=lambda window: window)
def momentum(bars: Bars, *, window: int = 10):
    """Return over a window, with a parameter."""
    past = np.concatenate((np.full(window, np.nan), bars.close[:-window]))
    return {"momentum": bars.close / past - 1.0, "range": bars.high / bars.low}


@feature_system(name="anything", warmup=0, features=["x"])
def anything(bars: Bars, *, of=None):
    """Take any parameter."""
    return {"x": bars.close}


@feature_system(name="picky", warmup=0, features=["x"])
def picky(bars: Bars):
    """Fail on bars with a volume of 13."""
    if (bars.volume == 13.0).any():
        raise ZeroDivisionError("a volume of 13")
    return {"x": bars.close}


@feature_system(name="activity", warmup=5, features=["activity"], inputs=["trades"])
def activity(bars: Bars):
    """Count of trades beside its mean: of a further column."""
    trades = pd.Series(bars.extra["trades"])
    return {"activity": (trades / trades.rolling(6).mean()).to_numpy()}
