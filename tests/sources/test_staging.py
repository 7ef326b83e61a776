import sqlite3
from collections import Counter
from contextlib import closing

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from bitcorn_ray.market.bars import Bars
from bitcorn_ray.market.partition import Partition
from bitcorn_ray.sources.staging import _Order, staged


def test_rows_of_several_sources_are_numbered_on(random_bars):
    bars = random_bars(10)
    bars.close[3] = np.nan
    with staged() as staging:
        staging.add(np.array([0, 1] * 5), bars)
        staging.finish("one", [Partition("A", "1h"), Partition("B", "1h")], Counter({(1, "odd"): 2, (-1, "even"): 3}))
        staging.add(np.zeros(10, np.int64), bars)
        staging.add(np.zeros(10, np.int64), bars)
        staging.finish("two", [Partition("A", "1h")], Counter())
        one, two = staging.sources
        path = staging.path
        with closing(sqlite3.connect(path)) as connection:
            rows = connection.execute("SELECT part, ts, close FROM incoming ORDER BY rowid").fetchall()
    assert not path.exists()
    assert (one.first, one.end, one.ordered) == (1, 11, True)
    assert (two.first, two.end, two.ordered) == (11, 31, False)
    assert one.rejected == {(1, "odd"): 2, (-1, "even"): 3}
    assert [row[0] for row in rows] == [0, 1] * 5 + [2] * 20
    assert [row[1] for row in rows] == bars.timestamp.tolist() * 3
    assert [row[2] for row in rows][:5] == [*bars.close[:3].tolist(), None, bars.close[4]]


batches = st.lists(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 9)), max_size=6), max_size=5)


@settings(deadline=None)
@given(batches)
def test_order_is_strict_exactly_where_all_times_rise_or_all_fall(batches):
    order, held = _Order(), {}
    for batch in batches:
        order.add(np.array([code for code, _ in batch], np.int64), np.array([time for _, time in batch], np.int64))
        for code, time in batch:
            held.setdefault(code, []).append(time)
    rises = all(sorted(set(times)) == times for times in held.values())
    falls = all(sorted(set(times), reverse=True) == times for times in held.values())
    assert order.is_strict == (rises or falls)


def test_no_rows_are_no_source(random_bars):
    with staged() as staging:
        staging.add(np.zeros(0, np.int64), Bars(**{k: v[:0] for k, v in random_bars(5).columns().items()}))
        staging.finish("none", [Partition("A", "1h")], Counter())
        assert (staging.sources[0].first, staging.sources[0].end) == (1, 1)
