import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitcorn_ray.market.coverage import cover_days, cover_months

HOUR = 3_600_000
START = 1_502_942_400_000  # 2017-08-17T04:00:00Z


@given(
    st.sampled_from([900_000, HOUR, 4 * HOUR, 24 * HOUR, 7 * 24 * HOUR]),
    st.lists(st.tuples(st.integers(1, 5), st.booleans()), min_size=1, max_size=60),
)
def test_days_are_those_of_pandas(step, rows):
    times = START + step * np.cumsum([n for n, _ in rows])
    real = np.array([flag for _, flag in rows])
    days = cover_days(times, real, step)
    grid = pd.Series(1, index=pd.to_datetime(np.arange(times[0], times[-1] + 1, step), unit="ms"))
    there = pd.Series(real.astype(int), index=pd.to_datetime(times, unit="ms"))
    assert days.expected.tolist() == grid.resample("D").sum().tolist()
    assert days.there.tolist() == there.resample("D").sum().tolist()
    assert days.first_day == times[0] // (24 * HOUR)
    by_month = {str(month): int(n) for month, n in grid.resample("MS").sum().items() if n}
    found = cover_months(days)
    assert {f"{each['month']}-01 00:00:00": each["expected"] for each in found} == by_month
    assert sum(each["there"] for each in found) == real.sum()
    for each in found:
        assert each["share"] == pytest.approx(each["there"] / each["expected"], abs=1e-4)


def test_no_bars_cover_no_days():
    days = cover_days(np.zeros(0, np.int64), np.zeros(0, bool), HOUR)
    assert (len(days.expected), cover_months(days)) == (0, [])
