import json
import math
import re
from dataclasses import replace

import pytest

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.report.fan import Fan, FanPanel, fan_section, write_fan


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


def by_name(section):
    found = {}
    for trace in section.parts[1].data:
        found.setdefault(trace["name"], []).append(trace)
    return found


def test_it_says_symbol_cutoff_and_coverage_levels():
    section = fan_section(panel())
    assert section.title == "BTCUSDT 1h"
    for part in ("forecast from 2026-01-01 05:00 UTC", "bands of 50 and 95 % coverage", "out of sample"):
        assert part in section.parts[0]
    several = fan_section(panel(fans=[fan(1), fan(5)])).parts[0]
    assert "forecasts from 2 cutoffs, the last at 2026-01-01 05:00 UTC" in several


def test_history_ends_at_the_cutoff_where_what_happened_begins():
    traces = by_name(fan_section(panel()))
    (close,), (happened,) = traces["close"], traces["what happened"]
    assert close["x"] == [hour(n) for n in range(6)]
    assert happened["x"] == [hour(n) for n in range(5, 10)]
    assert happened["y"] == [105.0, 106.0, 107.0, 108.0, 109.0]
    assert "what happened" not in by_name(fan_section(panel(fans=[fan(9)])))


def test_a_band_opens_at_the_close_and_leaves_out_what_is_infinite():
    traces = by_name(fan_section(panel()))
    (half, sign), (wide, _) = traces["50% band"], traces["95% band"]
    # The legend shows what the eye sees of bands that lie on each other.
    assert sign["marker"]["color"] == f"rgba(70,140,200,{round(1 - (1 - 0.42) * (1 - 0.30), 2)})"
    assert half["y"] == [105.0, 102.0, 105.0, 99.0, 100.0, 105.0]
    assert wide["x"] == [hour(5), hour(6), hour(6), hour(5)]
    none = fan(bands={0.95: ([0.0, 0.0], [math.inf, math.inf])})
    assert "95% band" not in by_name(fan_section(panel(fans=[none])))


@pytest.mark.parametrize(
    ("samples", "told"),
    [
        (["test"], "; test"),
        (["validation", "validation", "out of sample"], "; the last is out of sample, those before validation"),
        (
            ["test", "out of sample", "out of sample"],
            "; the last is out of sample, those before out of sample and test",
        ),
        (["unknown"], "; of bars of which is not known whether they were trained on"),
    ],
)
def test_what_the_training_knew_of_the_cutoffs_is_told(samples, told):
    fans = [replace(fan(place), sample=sample) for place, sample in enumerate(samples)]
    assert fan_section(panel(fans=fans)).parts[0].endswith(f"{told}</p>")


def test_each_partition_has_a_part_of_the_page(tmp_path):
    nothing = FanPanel(name="X", times=[], closes=[], fans=[])
    write_fan([panel(), nothing, panel("ETHUSDT 1h", [fan(1), fan(5)])], tmp_path / "fan.html")
    page = (tmp_path / "fan.html").read_text()
    assert page.count("<section>") == 2
    assert "<h1>Forecasts of 2 partitions</h1>" in page
    assert "<h2>ETHUSDT 1h</h2>" in page


def test_the_page_holds_all_that_it_needs(tmp_path):
    write_fan([panel()], tmp_path / "deep" / "fan.html")
    page = (tmp_path / "deep" / "fan.html").read_text()
    assert len(page) > 1_000_000  # the library is inside
    assert not re.findall(r'<(?:script|link|img)[^>]+(?:src|href)="http', page)
    assert json.dumps("what happened") in page
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["fan.html"]


def test_nothing_to_draw_and_nowhere_to_write_are_told(tmp_path):
    with pytest.raises(BitcornError, match="no forecast to draw"):
        write_fan([FanPanel(name="X", times=[], closes=[], fans=[])], tmp_path / "none.html")
    (tmp_path / "file").write_text("")
    with pytest.raises(BitcornError, match="cannot be written"):
        write_fan([panel()], tmp_path / "file" / "fan.html")
