import sqlite3
from contextlib import closing

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from bitcorn_ray.sources.sqlite.columns import merged_numbers, merged_times, split_column
from bitcorn_ray.sources.sqlite.connection import connected

NUMBERS = st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)


def split(path, values):
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE t (x)")
        connection.executemany("INSERT INTO t VALUES (?)", [(value,) for value in values])
        connection.commit()
    with connected(path) as connection:
        return connection.table(f"SELECT {split_column('x', 0)} FROM t", batch_rows=len(values) or 1)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(NUMBERS, st.booleans()), min_size=1))
def test_every_digit_is_kept_whether_numbers_or_text(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("mixed") / "a.db"
    numbers, wrong = merged_numbers(split(path, [repr(value) if text else value for value, text in rows]), 0)
    assert numbers.tolist() == [float(value) for value, _ in rows]
    assert not wrong.any()


def test_what_is_no_number_or_no_time_is_told(tmp_path):
    numbers, wrong = merged_numbers(split(tmp_path / "a.db", [1, "2.5", None, "x", b"7", ""]), 0)
    assert wrong.tolist() == [False, False, False, True, True, False]
    assert np.isnan(numbers[[2, 5]]).all()
    rows = [1_502_942_400, "2017-08-17 05:00", None, "noon", 1_502_949_600.0, "1502953200000"]
    times, bad = merged_times(split(tmp_path / "b.db", rows))
    assert bad.tolist() == [False, False, True, True, False, False]
    assert times.ms[~bad].tolist() == [1_502_942_400_000 + 3_600_000 * i for i in range(4)]
    assert times.units == {"s": 2, "ms": 1, "YYYY-MM-DD HH:MM": 1}
