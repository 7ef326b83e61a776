import json
import math
import re

import pytest

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.report.fan import Fan, FanPanel, fan_figure, write_fan


def hour(number):
    return f"2026-01-01T{number:02d}:00:00"


def fan(cutoff=5, **changes):
    fields = {
        "cutoff": hour(cutoff),
        "close": 100.0 + cutoff,
        "times": [hour(cutoff + 1), hour(cutoff + 4)],
        "price": [101.0, 102.0],
        "bands": {0.5: ([100.0, 99.0], [102.0, 105.0]), 0.95: ([95.0, 90.0], [107.0, math.inf])},
        "sample": "out of sample",
    }
    return Fan(**{**fields, **changes})


def panel(name="BTCUSDT 1h", fans=None):
    return FanPanel(
        name=name, times=[hour(n) for n in range(10)], closes=[100.0 + n for n in range(10)], fans=fans or [fan()]
    )


def by_name(figure):
    found = {}
    for trace in figure.data:
        found.setdefault(trace.name, []).append(trace)
    return found


def test_the_title_says_symbol_cutoff_and_coverage_levels():
    title = fan_figure([panel()]).layout.title.text
    for part in ("BTCUSDT 1h", "forecast from 2026-01-01 05:00 UTC", "bands of 50 and 95 % coverage", "out of sample"):
        assert part in title
    several = fan_figure([panel(fans=[fan(1), fan(5)])]).layout.title.text
    assert "forecasts from 2 cutoffs, the last at 2026-01-01 05:00 UTC" in several


def test_history_ends_at_the_cutoff_where_what_happened_begins():
    traces = by_name(fan_figure([panel()]))
    (close,), (happened,) = traces["close"], traces["what happened"]
    assert list(close.x) == [hour(n) for n in range(6)]
    assert list(happened.x) == [hour(n) for n in range(5, 10)]
    assert list(happened.y) == [105.0, 106.0, 107.0, 108.0, 109.0]
    assert "what happened" not in by_name(fan_figure([panel(fans=[fan(9)])]))


def test_a_band_opens_at_the_close_and_leaves_out_what_is_infinite():
    traces = by_name(fan_figure([panel()]))
    (half,), (wide,) = traces["50% band"], traces["95% band"]
    assert list(half.y) == [105.0, 102.0, 105.0, 99.0, 100.0, 105.0]
    assert list(wide.x) == [hour(5), hour(6), hour(6), hour(5)]
    none = fan(bands={0.95: ([0.0, 0.0], [math.inf, math.inf])})
    assert "95% band" not in by_name(fan_figure([panel(fans=[none])]))


def test_a_menu_shows_one_partition_at_a_time():
    figure = fan_figure([panel(), panel("ETHUSDT 1h", [fan(1), fan(5)])])
    visible = [trace.visible for trace in figure.data]
    assert True in visible
    first, second = figure.layout.updatemenus[0].buttons
    assert first.label == "BTCUSDT 1h"
    assert list(first.args[0]["visible"]) == visible
    assert list(second.args[0]["visible"]) == [not each for each in visible]
    assert "ETHUSDT 1h" in second.args[1]["title.text"]


def test_the_page_holds_all_that_it_needs(tmp_path):
    write_fan([panel()], tmp_path / "deep" / "fan.html")
    page = (tmp_path / "deep" / "fan.html").read_text()
    assert len(page) > 1_000_000  # the library is inside
    assert not re.findall(r'<(?:script|link|img)[^>]+(?:src|href)="http', page)
    assert json.dumps("what happened") in page
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["fan.html"]


def test_nothing_to_draw_and_nowhere_to_write_are_told(tmp_path):
    with pytest.raises(BitcornError, match="no forecast to draw"):
        fan_figure([FanPanel(name="X", times=[], closes=[], fans=[])])
    (tmp_path / "file").write_text("")
    with pytest.raises(BitcornError, match="cannot be written"):
        write_fan([panel()], tmp_path / "file" / "fan.html")
