import numpy as np
import pandas as pd

from bitcorn_ray.forecasting.forecasts import Forecasts
from bitcorn_ray.market.partition import Partition


def make(**changes):
    fields = dict(
        partition=Partition("A/B", "4h"),
        horizons=(1, 6),
        coverages=(0.5, 0.95),
        cutoffs=np.array([0, 14_400_000]),
        close=np.array([100.0, 200.0]),
        returns=np.array([[0.0, 0.1], [-0.1, 0.2]], np.float32),
        volatilities=np.array([[0.01, 0.02], [0.03, 0.04]], np.float32),
        widths=np.array([[[1.0, 1.0], [2.0, np.inf]], [[1.0, 1.5], [2.0, 2.5]]], np.float32),
        sample=np.array(["train", "test"]),
        left_out={"bars missing": 3},
    )
    return Forecasts(**{**fields, **changes})


def test_a_row_a_cutoff_and_horizon_with_prices_from_the_close():
    frame = make().to_frame()
    assert frame[["symbol", "timeframe", "sample"]].to_numpy().tolist() == [
        ["A/B", "4h", "train"], ["A/B", "4h", "train"], ["A/B", "4h", "test"], ["A/B", "4h", "test"],
    ]  # fmt: skip
    assert frame.horizon.tolist() == [1, 6, 1, 6]
    assert frame.time.tolist() == [pd.Timestamp(h * 4, unit="h", tz="UTC") for h in (1, 6, 2, 7)]
    np.testing.assert_allclose(frame.price, [100, 100 * np.exp(0.1), 200 * np.exp(-0.1), 200 * np.exp(0.2)], rtol=1e-6)
    np.testing.assert_allclose(frame.hi50[3], 200 * np.exp(0.2 + 1.5 * 0.04), rtol=1e-6)
    np.testing.assert_allclose(frame.lo95[2], 200 * np.exp(-0.1 - 2 * 0.03), rtol=1e-6)
    assert frame.lo95[1] == 0
    assert frame.hi95[1] == np.inf
    assert frame.attrs["left_out"] == {"bars missing": 3}


def test_no_cutoff_gives_the_same_columns():
    none = make(
        cutoffs=np.empty(0, np.int64), close=np.empty(0), returns=np.empty((0, 2)), volatilities=np.empty((0, 2)),
        widths=np.empty((0, 2, 2)), sample=np.empty(0, "<U5"),
    )  # fmt: skip
    assert none.to_table().schema == make().to_table().schema
    assert len(none) == 0
