import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitcorn_ray.report.page import (
    Chart,
    Html,
    Section,
    facts,
    folded,
    html_table,
    listed,
    note,
    page_of,
    plain,
    stretches,
)

CHART = Chart(label='prices of "A"', data=[{"x": [1, 2], "y": [3, 4], "line": {"color": "var(--s1)"}}])
HOSTILE = "</script><img src=x onerror=alert(1)><b>A&B"


class Outside(HTMLParser):
    """Tags of a page, and what it would load from elsewhere."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.loaded = [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.loaded += [value for name, value in attrs if name in ("src", "href") and not value.startswith("#")]


def test_a_page_has_its_sections_and_loads_nothing():
    page = page_of("A run", [Section(title="Verdict", parts=["good", note("small"), CHART])])
    outside = Outside(page)
    assert outside.loaded == []
    assert {"h1", "h2", "p", "footer"} <= set(outside.tags)
    assert 'id=c0 role=img aria-label="prices of &quot;A&quot;"' in page
    data = json.loads(re.search(r"const PAGE = (\{.*?\});", page)[1])
    assert data["charts"]["c0"]["data"][0]["y"] == [3, 4]
    assert len(page.encode()) < 5_500_000


def test_what_is_written_into_a_page_cannot_break_out_of_it():
    parts = [
        HOSTILE,
        note(HOSTILE),
        listed([HOSTILE]),
        facts({HOSTILE: HOSTILE}),
        folded(HOSTILE, HOSTILE),
        html_table([HOSTILE], [[HOSTILE]]),
        Chart(label=HOSTILE, data=[{"name": HOSTILE}]),
    ]
    page = page_of(HOSTILE, [Section(title=HOSTILE, parts=parts)], HOSTILE)
    outside = Outside(page)
    assert not {"img", "b"} & set(outside.tags)
    assert outside.tags.count("script") == 2
    assert "<b>A" not in page


def test_texts_of_charts_are_text_but_for_line_breaks():
    traces = [{"name": "<b>x</b>", "text": ["a<br>b", "<i>"], "y": [1, 2], "hovertemplate": "%{y}<extra></extra>"}]
    page = page_of("x", [Section(title="", parts=[Chart(label="", data=traces)])])
    (trace,) = json.loads(re.search(r"const PAGE = (\{.*?\});", page)[1])["charts"]["c0"]["data"]
    assert trace["name"] == "&lt;b&gt;x&lt;/b&gt;"
    assert trace["text"] == ["a<br>b", "&lt;i&gt;"]
    assert trace["hovertemplate"] == "%{y}<extra></extra>"
    assert trace["y"] == [1, 2]


def test_markup_is_left_as_it_is():
    assert html_table(["x"], [[Html("<b>1</b>")]]).count("<b>1</b>") == 1
    assert "<b>1</b>" in listed([Html("<b>1</b>")])


def test_numbers_that_json_cannot_hold_are_gaps():
    assert plain([1.23456789, np.nan, np.inf, None, 2]) == [1.23457, None, None, None, 2.0]
    with pytest.raises(ValueError, match="not JSON compliant"):
        page_of("x", [Section(title="", parts=[Chart(label="", data=[{"y": [np.nan]}])])])


@given(st.integers(1, 500), st.integers(1, 100))
def test_stretches_cover_all_rows_once(rows, most):
    starts = stretches(rows, most)
    assert starts[0] == 0
    assert len(starts) == min(rows, most)
    lengths = np.diff(np.append(starts, rows))
    assert lengths.min() >= 1
    assert lengths.max() - lengths.min() <= 1
