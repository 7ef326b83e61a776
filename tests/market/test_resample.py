from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.market.bars import Bars
from bitcorn_ray.market.partition import Partition
from bitcorn_ray.market.resample import base_timeframe, derived_partitions, resample_bars
from bitcorn_ray.sources.frames import read_frame

MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000
PRICES = ("open", "high", "low", "close")
SYMBOLS = ("BNBUSDT", "BTCUSDT", "DOGEUSDT", "ETHUSDT", "SOLUSDT", "XRPUSDT")


def real(data_dir, name):
    return read_frame(pd.read_parquet(data_dir / "bars" / f"{name}.parquet"))


@pytest.mark.parametrize(
    ("name", "stored", "to", "least"),
    [("BTCUSDT", "1h", "4h", 18_900), ("BTCUSDT", "15m", "1h", 29_000)]
    + [(symbol, stored, "1d", 2_000) for symbol in SYMBOLS for stored in ("1h",)]
    + [("BTCUSDT", "4h", "1d", 3_100)],
)
def test_every_complete_bar_is_the_one_that_the_exchange_made(data_dir, name, stored, to, least):
    made = resample_bars(real(data_dir, f"{name}_{stored}"), stored, to).bars
    served = real(data_dir, f"{name}_{to}")
    common, mine, theirs = np.intersect1d(made.timestamp, served.timestamp, return_indices=True)
    assert len(common) >= least
    for column in PRICES:
        assert np.array_equal(getattr(made, column)[mine], getattr(served, column)[theirs]), column
    assert made.volume[mine] == pytest.approx(served.volume[theirs], rel=1e-9)


@settings(deadline=None)
@given(
    st.sampled_from([("1h", "4h"), ("1h", "1d"), ("15m", "1h"), ("1d", "1w"), ("1h", "3h"), ("1h", "1h")]),
    st.lists(st.tuples(st.integers(1, 4), *[st.floats(1, 9)] * 5), min_size=1, max_size=60),
    st.integers(0, 3_000),
)
def test_bars_and_completeness_are_those_of_pandas(frames, rows, start):
    stored, to = frames
    steps = {"15m": 15 * MINUTE, "1h": HOUR, "1d": DAY}
    step, length = steps[stored], {"4h": 4 * HOUR, "1d": DAY, "1h": HOUR, "1w": 7 * DAY, "3h": 3 * HOUR}[to]
    times = step * (start + np.cumsum([row[0] for row in rows]))
    columns = {name: np.array([row[n + 1] for row in rows]) for n, name in enumerate((*PRICES, "volume"))}
    bars = Bars(timestamp=times, **columns)
    frame = pd.DataFrame(columns, index=pd.to_datetime(times, unit="ms", utc=True))
    rule = {"4h": "4h", "1d": "1D", "1h": "1h", "1w": "W-MON", "3h": "3h"}[to]
    origin = {"label": "left", "closed": "left"} if to in ("1w", "1d") else {"origin": "epoch"}
    grouped = frame.resample(rule, **origin)
    how = {"open": "first", "high": "max", "low": "min", "close": "last", "volume": "sum"}
    slow = grouped.agg(how)[grouped.size() > 0]
    complete = (grouped.size()[grouped.size() > 0] == length // step).to_numpy()
    marked = resample_bars(bars, stored, to, incomplete="mark")
    pd.testing.assert_frame_equal(
        marked.bars.to_frame().set_index("timestamp"), slow, check_freq=False, check_index_type=False, check_names=False
    )
    assert marked.complete.tolist() == complete.tolist()
    dropped = resample_bars(bars, stored, to)
    assert dropped.dropped == (~complete).sum()
    assert dropped.bars.timestamp.tolist() == marked.bars.timestamp[complete].tolist()
    assert dropped.complete.all()


def test_weeks_begin_on_monday(random_bars):
    weeks = resample_bars(random_bars(1_000), "1h", "1w").bars
    assert {
        str(np.datetime64(int(t), "ms").astype("M8[D]").astype(object).strftime("%a")) for t in weeks.timestamp
    } == {"Mon"}


def test_a_missing_price_makes_the_higher_bar_missing(random_bars):
    bars = random_bars(48)
    bars.high[5] = np.nan
    assert np.isnan(resample_bars(bars, "1h", "1d").bars.high).tolist() == [True, False]


@pytest.mark.parametrize(
    ("stored", "to", "message"),
    [("4h", "1h", "cannot be made"), ("1h", "90m", "cannot be made"), ("1h", "1M", "month"), ("1h", "x", "unknown")],
)
def test_what_cannot_be_made_is_refused(random_bars, stored, to, message):
    with pytest.raises(BitcornError, match=message):
        resample_bars(random_bars(10), stored, to)


def test_bars_that_are_not_clean_are_refused(random_bars):
    bars = random_bars(10)
    times = bars.timestamp + np.where(np.arange(10) == 2, 1_000, 0)
    with pytest.raises(BitcornError, match="off the 1h grid, first at 2023-01-01T02:00:01Z"):
        resample_bars(Bars(**{**bars.columns(), "timestamp": times}), "1h", "4h")
    with pytest.raises(BitcornError, match="must rise"):
        resample_bars(bars.take(np.array([0, 1, 1])), "1h", "4h")
    with pytest.raises(BitcornError, match="without times"):
        resample_bars(replace(bars, timed=False), "1h", "4h")
    with pytest.raises(BitcornError, match="'drop' or 'mark'"):
        resample_bars(bars, "1h", "4h", incomplete="keep")


def test_no_bars_give_no_bars(random_bars):
    assert len(resample_bars(random_bars(10).take(slice(0, 0)), "1h", "4h").bars) == 0


def test_the_longest_fitting_timeframe_is_the_base():
    assert base_timeframe(["1m", "15m", "1h"], "4h") == "1h"
    assert base_timeframe(["1m", "15m", "1h"], "45m") == "15m"
    assert base_timeframe(["4h", "1M", "nonsense"], "1h") is None
    assert base_timeframe([], "1h") is None
    with pytest.raises(BitcornError, match="month"):
        base_timeframe(["1d"], "1M")


def test_further_columns_are_summed_where_they_count_and_else_end_as_they_were(random_bars):
    bars = replace(random_bars(8), extra={"trades": np.arange(8.0), "open_interest": np.arange(8.0)})
    made = resample_bars(bars, "1h", "4h").bars
    assert made.extra["trades"].tolist() == [0 + 1 + 2 + 3, 4 + 5 + 6 + 7]
    assert made.extra["open_interest"].tolist() == [3, 7]


def test_partitions_are_derived_where_they_are_not_stored():
    stored = [
        Partition("BTC/USDT", "15m"),
        Partition("BTC/USDT", "60m"),
        Partition("ETHUSDT", "4h"),
        Partition("X", "1d"),
    ]
    found = derived_partitions(stored, ["1h", "4h", "1D"])
    assert [(p.symbol, p.timeframe, p.base) for p in found] == [
        ("BTC/USDT", "1d", "60m"),
        ("BTC/USDT", "4h", "60m"),
        ("ETHUSDT", "1d", "4h"),
    ]
    assert derived_partitions(stored, None) == []
    assert derived_partitions(found, ["1w"]) == []  # what is derived is no base
