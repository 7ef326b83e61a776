import numpy as np
import pyarrow as pa
import pytest

from bitcorn_ray.sources.conflicts import find_key_column, has_repeated_times

HOURS = np.arange(100) * 3_600_000
# Pages of a download, each of which begins with the last hour of the one before.
PAGES = [hour for first in range(0, 99, 11) for hour in HOURS[first : first + 12]]


def told(times, **columns):
    return find_key_column(np.asarray(times), {name: pa.array(values) for name, values in columns.items()}, "here")


def test_a_column_that_tells_two_markets_apart_is_named_with_its_values():
    message = told([*HOURS, *HOURS], note=["x"] * 200, isin=["A1"] * 100 + ["B2"] * 100)
    assert message is not None
    assert message.startswith("100 of 200 rows of here have the time of another row, and column isin ('A1', 'B2'")
    assert "--map symbol=isin or timeframe=isin" in message


def test_a_market_with_few_rows_and_repeated_rows_of_its_own_is_told_too():
    times = [*HOURS, *HOURS[:20], HOURS[50]]
    assert told(times, isin=["A"] * 100 + ["B"] * 20 + ["A"]) is not None
    assert told(times, isin=[None] * 100 + ["B"] * 20 + ["C"]) is not None
    days = HOURS[0] + np.arange(100) * 86_400_000  # as many of each, of which five stand side by side
    assert told([*HOURS, *days], step=["1Hutc"] * 100 + ["1Dutc"] * 100) is not None


@pytest.mark.parametrize("values", [[1] * 100 + [2] * 100, ["256265"] * 100 + ["408065"] * 100])
def test_markets_may_be_numbered(values):
    assert "column token" in told([*HOURS, *HOURS], trades=[i % 7 for i in range(200)], token=values)


@pytest.mark.parametrize(
    ("times", "values"),
    [
        (HOURS, ["A", "B"] * 50),  # nothing stands twice
        ([*HOURS, *HOURS], ["A"] * 200),  # one value
        ([*HOURS, *HOURS], [str(i % 100) + " o'clock" for i in range(200)]),  # says no more than the time
        ([*HOURS, *HOURS], [f"row {i}" for i in range(200)]),  # one value a row
        ([*HOURS, *HOURS], [0.5] * 100 + [1.5] * 100),
        ([*HOURS, *HOURS], [(i * i + i // 100) % 11 for i in range(200)]),  # counts
        ([*HOURS, *HOURS[::-1]], ["day"] * 50 + ["night"] * 100 + ["day"] * 50),  # says no more than the time
        (PAGES, [1_700_000_000 + page for page in range(9) for _ in range(12)]),
        # numbers of which half the rows have none
        ([*HOURS, *HOURS], [None] * 100 + [i % 7 for i in range(100)]),
        (np.append(HOURS, HOURS[0]), ["first import"] * 100 + ["second import"]),  # too few to be another market
    ],
)
def test_repeated_rows_are_nothing_else(times, values):
    assert told(times, column=values) is None


@pytest.mark.parametrize(
    ("times", "again"), [([], False), (HOURS, False), ([*HOURS, 0], False), ([*HOURS, 0, 0], True)]
)
def test_one_row_in_a_hundred_may_stand_twice(times, again):
    assert has_repeated_times(np.asarray(times)) is again
