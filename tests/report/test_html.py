import numpy as np
import plotly.graph_objects as go
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rendered import Tags, charts

from bitcorn_ray.report.html import (
    Chart,
    Section,
    folded,
    listed,
    note,
    page_of,
    plain,
    stretches,
)
from bitcorn_ray.report.table import Facts, Html, Styled, Table

CHART = Chart(label='prices of "A"', data=[go.Scatter(x=[1, 2], y=[3, 4], line_color="var(--s1)")])
HOSTILE = "</script><img src=x onerror=alert(1)><b>A&B"


def test_a_page_has_its_sections_and_loads_nothing():
    page = page_of("A run", [Section(title="Verdict", parts=["good", note("small"), CHART])])
    tags = Tags(page)
    assert tags.loaded == []
    assert {"h1", "h2", "p", "footer"} <= set(tags.tags)
    assert 'id=c0 role=img aria-label="prices of &quot;A&quot;"' in page
    assert charts(page)[0]["data"][0]["y"] == [3, 4]
    assert len(page.encode()) < 5_500_000


def test_texts_of_a_page_are_escaped():
    parts = [
        HOSTILE,
        note(HOSTILE),
        listed([HOSTILE]),
        Facts({HOSTILE: HOSTILE}),
        folded(HOSTILE, HOSTILE),
        Table([HOSTILE], [[HOSTILE], [Styled(HOSTILE, "good")]]),
        Chart(label=HOSTILE, data=[go.Scatter(name=HOSTILE)]),
    ]
    page = page_of(HOSTILE, [Section(title=HOSTILE, parts=parts)], HOSTILE)
    tags = Tags(page)
    assert not {"img", "b"} & set(tags.tags)
    assert tags.tags.count("script") == 2
    assert "<b>A" not in page


def test_texts_of_charts_are_escaped_except_for_line_breaks():
    made = go.Scatter(name="<b>x</b>", text=["a<br>b", "<i>"], y=[1, 2], hovertemplate="%{y}<extra></extra>")
    page = page_of("x", [Section(title="", parts=[Chart(label="", data=[made])])])
    (trace,) = charts(page)[0]["data"]
    assert trace["name"] == "&lt;b&gt;x&lt;/b&gt;"
    assert trace["text"] == ["a<br>b", "&lt;i&gt;"]
    assert trace["hovertemplate"] == "%{y}<extra></extra>"
    assert trace["y"] == [1, 2]


def test_markup_is_not_escaped():
    assert Table(["x"], [[Html("<b>1</b>")]]).html().count("<b>1</b>") == 1
    assert "<b>1</b>" in listed([Html("<b>1</b>")])


def test_missing_and_infinite_numbers_are_gaps():
    assert plain([1.23456789, np.nan, np.inf, None, 2]) == [1.23457, None, None, None, 2.0]
    with pytest.raises(ValueError, match="not JSON compliant"):
        page_of("x", [Section(title="", parts=[Chart(label="", data=[go.Scatter(y=[np.nan])])])])


@given(st.integers(1, 500), st.integers(1, 100))
def test_stretches_cover_all_rows_once(rows, most):
    starts = stretches(rows, most)
    assert starts[0] == 0
    assert len(starts) == min(rows, most)
    lengths = np.diff(np.append(starts, rows))
    assert lengths.min() >= 1
    assert lengths.max() - lengths.min() <= 1
