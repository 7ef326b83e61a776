import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from raw_files import cryptodatadownload

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.market.diagnosis import diagnose
from bitcorn_ray.report.quality import QualityPanel, lightened, quality_page, write_quality


def panel_of(rows, name="AAAUSDT 1h", timeframe="1h", **known):
    found = diagnose(rows, timeframe, **known)
    bars, days = found.bars, found.days
    return QualityPanel(
        name=name,
        source=f"{name}.csv",
        report=found.report,
        times=bars.timestamp,
        low=bars.low,
        high=bars.high,
        close=bars.close,
        marks=found.marks,
        first_day=days.first_day,
        expected=days.expected,
        there=days.there,
    )


def data_of(page):
    """What the script draws."""
    text = re.search(r"const PAGE = (\{.*?\});", page, re.DOTALL)[1]
    return json.loads(text)


class Tags(HTMLParser):
    """The tags of a page outside its scripts, and what it would load from elsewhere."""

    def __init__(self, page):
        super().__init__()
        self.open, self.loaded, self.ids = [], [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        if tag not in ("meta", "i", "br"):
            self.open.append(tag)
        self.loaded += [value for name, value in attrs.items() if name in ("src", "href") and "#" not in value]
        self.ids += [attrs["id"]] if "id" in attrs else []

    def handle_endtag(self, tag):
        if tag != "i":
            assert self.open.pop() == tag


@pytest.fixture(scope="module")
def raw_page(data_dir):
    rows, units, formats = cryptodatadownload(data_dir)
    panel = panel_of(rows, "BTC/USDT 1h", units=units, formats=formats)
    return panel, quality_page([panel])


def test_the_page_is_whole_small_and_loads_nothing(raw_page):
    _, page = raw_page
    tags = Tags(page)
    assert tags.open == tags.loaded == []
    assert len(page.encode()) < 6_500_000
    assert {"p0", "p0-days", "p0-price"} <= set(tags.ids)
    assert 'name="viewport"' in page
    assert "prefers-color-scheme: dark" in page


def test_the_page_says_what_was_found_and_what_was_left_out_of_the_picture(raw_page):
    _, page = raw_page
    assert "2,649 rows of a time that stands before, with other values" in page
    assert "33,413 bars, drawn as 4,000 stretches" in page
    assert "Of duplicates only 300 are marked" in page
    assert "33,413 of 33,429 (99.95 %)" in page
    assert "2018-01-05 10:00" in page


def test_stretches_cover_all_prices(raw_page):
    panel, page = raw_page
    price = data_of(page)["figures"]["p0"]["price"]
    assert len(price["time"]) == len(price["low"]) == 4_000
    assert price["time"] == sorted(price["time"])
    assert price["time"][-1] == panel.times[-1]
    assert max(price["high"]) == pytest.approx(panel.high.max(), rel=1e-6)
    assert min(price["low"]) == pytest.approx(panel.low.min(), rel=1e-6)
    assert price["close"][-1] == pytest.approx(panel.close[-1], rel=1e-6)


def test_marks_stand_where_the_defects_are(raw_page):
    panel, page = raw_page
    marks = data_of(page)["figures"]["p0"]["marks"]
    assert marks["bad_prints"]["price"] == [16_199.91, 14_400.0]
    assert marks["bad_prints"]["time"] == panel.marks["bad_prints"].tolist()
    assert marks["duplicates"]["count"] == 2_649
    assert len(marks["duplicates"]["time"]) == 300
    assert set(marks["duplicates"]["time"]) <= set(panel.marks["duplicates"].tolist())
    assert len(marks["outages"]["time"]) == 29


def test_the_calendar_has_every_day_where_it_belongs(raw_page):
    panel, page = raw_page
    days = data_of(page)["figures"]["p0"]["days"]
    assert days["years"] == [2017, 2018, 2019, 2020, 2021]
    seen = {}
    for row, (levels, texts) in enumerate(zip(days["level"], days["text"], strict=True)):
        for week, (level, text) in enumerate(zip(levels, texts, strict=True)):
            if level is not None:
                day = np.datetime64(text[:10])
                assert (day.astype(int) + 3) % 7 == row % 8
                assert str(day)[:4] == str(days["years"][row // 8])
                first_monday = (np.datetime64(str(day)[:4], "D").astype(int) + 3) % 7
                assert (((day - np.datetime64(str(day)[:4], "D")).astype(int)) + first_monday) // 7 == week
                seen[str(day)] = (level, text[12:])
    assert len(seen) == len(panel.expected)
    assert seen["2018-02-08"] == (1, "1 of 24")
    assert seen["2018-02-07"] == (4, "24 of 24")
    assert seen["2017-08-17"] == (4, "20 of 20")


def test_few_bars_are_drawn_one_by_one(random_bars):
    bars = random_bars(500)
    page = quality_page([panel_of(bars)])
    price = data_of(page)["figures"]["p0"]["price"]
    assert price["time"] == bars.timestamp.tolist()
    assert price["high"] == pytest.approx(bars.high.tolist(), rel=1e-6)
    assert "stretches" not in page.partition("<script>")[0]
    assert "Nothing is wrong with these bars." in page


def test_of_many_partitions_the_worst_are_drawn_and_all_are_listed(random_bars):
    panels = []
    for n in range(20):
        bars = random_bars(600, seed=n)
        bars.close[:n] = np.nan
        panels.append(panel_of(bars, f"S{n:02d} 1h"))
    page = quality_page(panels)
    assert sum(identity.endswith("-price") for identity in Tags(page).ids) == 12
    assert all(f"S{n:02d} 1h" in page for n in range(20))
    assert "The 12 worst are drawn below." in page
    kept = lightened(panels)
    assert [panel.name for panel in kept[:12]] == [f"S{n:02d} 1h" for n in range(19, 7, -1)]
    assert all(len(panel.times) == 0 for panel in kept[12:])
    assert quality_page(kept) == page


def test_a_page_of_many_bars_stays_small(data_dir):
    import pandas as pd

    from bitcorn_ray.sources.frames import read_frame

    bars = read_frame(pd.read_parquet(data_dir / "bars" / "BTCUSD_1m.parquet"))
    assert len(quality_page([panel_of(bars, timeframe="1m")] * 12).encode()) < 6_500_000


def test_names_cannot_break_the_page(random_bars):
    bars = random_bars(100)
    page = quality_page([panel_of(bars, "</script><b>A&B 1h"), panel_of(bars, "<img src=x> 1h")])
    assert "<b>A" not in page
    assert "<img" not in page.partition("<script>")[0]
    assert Tags(page).open == []


def test_values_that_are_missing_or_impossible_do_not_reach_the_page(random_bars):
    bars = random_bars(100)
    bars.close[5:7] = np.nan
    bars.low[9] = np.inf
    bars.high[10] = -1.0
    figure = data_of(quality_page([panel_of(bars)]))["figures"]["p0"]
    assert figure["price"]["close"][5] is None
    assert figure["price"]["low"][9] is None


@pytest.mark.parametrize("rows", [1, 2])
def test_hardly_any_bars_have_a_page(random_bars, rows):
    assert Tags(quality_page([panel_of(random_bars(10).take(slice(0, rows)))])).open == []


def test_the_page_is_written_whole_or_not_at_all(random_bars, tmp_path):
    panel = panel_of(random_bars(50))
    write_quality([panel], tmp_path / "new" / "q.html")
    assert (tmp_path / "new" / "q.html").read_text() == quality_page([panel])
    (tmp_path / "file").write_text("x")
    with pytest.raises(BitcornError, match="quality page cannot be written"):
        write_quality([panel], tmp_path / "file" / "q.html")
