import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitcorn_ray.market.score import COSTS, score_defects

counts = st.dictionaries(st.sampled_from(sorted(COSTS)), st.integers(0, 10_000))


def test_clean_bars_have_a_hundred_points_and_no_reasons():
    assert score_defects(dict.fromkeys(COSTS, 0), 1_000) == (100.0, [])


@given(counts, st.integers(1, 100_000))
def test_a_score_is_what_its_reasons_leave(found, bars):
    score, reasons = score_defects(found, bars)
    assert 0 <= score <= 100
    assert score == pytest.approx(max(0, 100 - sum(reason["cost"] for reason in reasons)), abs=0.2)
    assert {reason["kind"]: reason["count"] for reason in reasons} == {k: n for k, n in found.items() if n}
    assert [r["cost"] for r in reasons] == sorted((r["cost"] for r in reasons), reverse=True)
    assert all(reason["cost"] <= COSTS[reason["kind"]][2] for reason in reasons)


@given(counts, st.sampled_from(sorted(COSTS)), st.integers(1, 100))
def test_more_defects_never_score_better(found, kind, more):
    worse = {**found, kind: found.get(kind, 0) + more}
    assert score_defects(worse, 5_000)[0] <= score_defects(found, 5_000)[0]
