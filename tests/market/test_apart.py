import numpy as np
import pyarrow as pa
import pytest

from bitcorn_ray.market.apart import mixture, repeats

HOURS = np.arange(100) * 3_600_000


def told(times, **columns):
    return mixture(np.asarray(times), {name: pa.array(values) for name, values in columns.items()}, "here")


def test_a_column_that_tells_two_markets_apart_is_named_with_its_values():
    message = told([*HOURS, *HOURS], note=["x"] * 200, isin=["A1"] * 100 + ["B2"] * 100)
    assert message is not None
    assert message.startswith("100 of 200 rows of here stand at the time of another row, and column isin ('A1', 'B2'")
    assert "--map symbol=isin or timeframe=isin" in message


def test_a_market_with_few_rows_and_repeated_rows_of_its_own_is_told_too():
    times = [*HOURS, *HOURS[:20], HOURS[50]]
    assert told(times, isin=["A"] * 100 + ["B"] * 20 + ["A"]) is not None
    assert told(times, isin=[None] * 100 + ["B"] * 20 + ["C"]) is not None


@pytest.mark.parametrize(
    ("times", "values"),
    [
        (HOURS, ["A", "B"] * 50),  # nothing stands twice
        ([*HOURS, *HOURS], ["A"] * 200),  # one value
        ([*HOURS, *HOURS], [str(i % 100) + " o'clock" for i in range(200)]),  # says no more than the time
        ([*HOURS, *HOURS], [f"row {i}" for i in range(200)]),  # one value a row
        ([*HOURS, *HOURS], ["1"] * 100 + ["2"] * 100),  # numbers
        ([*HOURS, *HOURS], [1] * 100 + [2] * 100),
        (np.append(HOURS, HOURS[0]), ["first import"] * 100 + ["second import"]),  # too few to be another market
    ],
)
def test_repeated_rows_are_nothing_else(times, values):
    assert told(times, column=values) is None


@pytest.mark.parametrize(
    ("times", "again"), [([], False), (HOURS, False), ([*HOURS, 0], False), ([*HOURS, 0, 0], True)]
)
def test_one_row_in_a_hundred_may_stand_twice(times, again):
    assert repeats(np.asarray(times)) is again
