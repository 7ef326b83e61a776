import re

import numpy as np
import pytest
from raw_files import cryptodatadownload
from rendered import Tags, charts, printed

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.market.diagnosis import diagnose
from bitcorn_ray.market.partition import Partition
from bitcorn_ray.report.quality import (
    MARKS,
    PartitionQuality,
    diagnose_source,
    lightened,
    quality_page,
    quality_tables,
    write_quality,
)


def quality_of(rows, symbol="AAAUSDT", timeframe="1h", **known):
    diagnosis = diagnose(rows, timeframe, **known)
    return PartitionQuality(partition=Partition(symbol, timeframe), source=f"{symbol}.csv", diagnosis=diagnosis)


def trace(chart, name):
    (found,) = (trace for trace in chart["data"] if trace["name"].startswith(name))
    return found


def test_clean_bars_are_one_row(random_bars):
    tables = quality_tables([quality_of(random_bars(400), now_ms=2**45)])
    assert len(tables) == 1
    assert "100.0" in printed(*tables)
    assert "finished" in printed(*tables)


def test_each_reason_has_its_first_occurrences(random_bars):
    bars = random_bars(400)
    bars.close[10] = float("nan")
    bars.volume[50:52] = 0.0
    broken = bars.take([n for n in range(400) if n not in (100, 101)] + [200])
    broken.close[-1] += 1
    text = printed(*quality_tables([quality_of(broken, "[b]X", now_ms=2**45)]))
    assert "[b]X 1h" in text
    for what, at in {
        "1 row with missing values": "2023-01-01 10:00",
        "2 bars missing in outages": "2023-01-05 04:00",
        "2 invented bars": "2023-01-03 02:00",
        "1 row of a time": "2023-01-09 08:00",
    }.items():
        assert any(what in line and at in line for line in text.splitlines()), what


def test_every_kind_of_mark_has_its_own_symbol(random_bars):
    assert set(MARKS) == set(diagnose(random_bars(50)).marks)
    assert len(set(MARKS.values())) == len(MARKS)
    assert all(re.fullmatch("#[0-9a-f]{6}", colour) for _, colour, _ in MARKS.values())


@pytest.fixture(scope="module")
def raw_page(data_dir):
    rows, units, formats = cryptodatadownload(data_dir)
    one = quality_of(rows, "BTC/USDT", units=units, formats=formats)
    return one, quality_page([one])


def test_the_page_opens_offline_and_is_small(raw_page):
    _, page = raw_page
    tags = Tags(page)
    assert tags.open == tags.loaded == []
    assert len(page.encode()) < 6_500_000
    assert {"p0", "c0", "c1"} <= set(tags.ids)
    assert 'name="viewport"' in page
    assert "prefers-color-scheme: dark" in page


def test_the_page_has_the_reasons_and_says_what_is_not_drawn(raw_page):
    _, page = raw_page
    for part in (
        "2,649 rows of a time that stands before, with other values",
        "33,413 bars, drawn as 4,000 stretches",
        "Of duplicates only 300 are marked",
        "33,413 of 33,429 (99.95 %)",
        "2018-01-05 10:00",
        "<button data-of=c1>linear scale</button>",
    ):
        assert part in page


def test_stretches_cover_all_prices(raw_page):
    one, page = raw_page
    bars = one.diagnosis.bars
    high, low, close = charts(page)[1]["data"][:3]
    assert len(low["x"]) == len(low["y"]) == 4_000
    assert low["x"] == sorted(low["x"])
    assert low["x"][-1] == bars.timestamp[-1]
    assert max(high["y"]) == pytest.approx(bars.high.max(), rel=1e-6)
    assert min(low["y"]) == pytest.approx(bars.low.min(), rel=1e-6)
    assert close["y"][-1] == pytest.approx(bars.close[-1], rel=1e-6)


def test_defects_are_marked_at_their_times(raw_page):
    one, page = raw_page
    chart, times = charts(page)[1], one.diagnosis.marks
    chart["data"] = chart["data"][2:]
    assert trace(chart, "bad prints")["y"] == [16_199.91, 14_400.0]
    assert trace(chart, "bad prints")["x"] == times["bad_prints"].tolist()
    duplicates = trace(chart, "duplicates")
    assert duplicates["name"] == "duplicates (2,649)"
    assert len(duplicates["x"]) == 300
    assert set(duplicates["x"]) <= set(times["duplicates"].tolist())
    assert len(trace(chart, "outages")["x"]) == 29


def test_the_calendar_has_every_day_in_its_cell(raw_page):
    one, page = raw_page
    chart = charts(page)[0]
    assert chart["layout"]["yaxis"]["ticktext"] == ["2017", "2018", "2019", "2020", "2021"]
    (days,) = chart["data"]
    seen = {}
    for row, (levels, texts) in enumerate(zip(days["z"], days["text"], strict=True)):
        for week, (level, text) in enumerate(zip(levels, texts, strict=True)):
            if level is not None:
                day = np.datetime64(text[:10])
                new_year = np.datetime64(text[:4], "D")
                assert (day.astype(int) + 3) % 7 == row % 8
                assert int(text[:4]) == 2017 + row // 8
                assert ((day - new_year).astype(int) + (new_year.astype(int) + 3) % 7) // 7 == week
                seen[text[:10]] = (level, text[12:])
    assert len(seen) == len(one.diagnosis.days.expected)
    assert seen["2018-02-08"] == (1, "1 of 24")
    assert seen["2018-02-07"] == (4, "24 of 24")
    assert seen["2017-08-17"] == (4, "20 of 20")


def test_few_bars_are_drawn_one_by_one(random_bars):
    bars = random_bars(500)
    page = quality_page([quality_of(bars)])
    high = charts(page)[1]["data"][0]
    assert high["x"] == bars.timestamp.tolist()
    assert high["y"] == pytest.approx(bars.high.tolist(), rel=1e-6)
    assert "stretches" not in page.partition("<script>")[0]
    assert "Nothing is wrong with these bars." in page


def test_of_many_partitions_the_worst_are_drawn_and_all_are_listed(random_bars):
    results = []
    for n in range(20):
        bars = random_bars(600, seed=n)
        bars.close[:n] = np.nan
        results.append(quality_of(bars, f"S{n:02d}"))
    page = quality_page(results)
    assert len(charts(page)) == 2 * 12
    assert all(f"S{n:02d} 1h" in page for n in range(20))
    assert "The 12 worst are drawn below." in page
    kept = lightened(results)
    assert [one.partition.symbol for one in kept] == [f"S{n:02d}" for n in range(20)]
    assert [len(one.diagnosis.bars) > 0 for one in kept] == [False] * 8 + [True] * 12
    assert quality_page(kept) == page


def test_a_page_of_many_bars_stays_small(data_dir):
    import pandas as pd

    from bitcorn_ray.sources.frames import read_frame

    bars = read_frame(pd.read_parquet(data_dir / "bars" / "BTCUSD_1m.parquet"))
    assert len(quality_page([quality_of(bars, timeframe="1m")] * 12).encode()) < 6_500_000


def test_names_cannot_break_the_page(random_bars):
    bars = random_bars(100)
    page = quality_page([quality_of(bars, "</script><b>A&B"), quality_of(bars, "<img src=x>")])
    assert "<b>A" not in page
    assert "<img" not in page.partition("<script>")[0]
    assert Tags(page).open == []


def test_missing_and_impossible_prices_are_gaps(random_bars):
    bars = random_bars(100)
    bars.close[5:7] = np.nan
    bars.low[9] = np.inf
    bars.high[10] = -1.0
    high, low, close = charts(quality_page([quality_of(bars)]))[1]["data"][:3]
    assert high["y"][10] is low["y"][9] is close["y"][5] is None


@pytest.mark.parametrize("rows", [1, 2])
def test_one_or_two_bars_have_a_page(random_bars, rows):
    assert Tags(quality_page([quality_of(random_bars(10).take(slice(0, rows)))])).open == []


def test_the_page_is_written_completely_or_not_at_all(random_bars, tmp_path):
    one = quality_of(random_bars(50))
    write_quality([one], tmp_path / "new" / "q.html")
    assert (tmp_path / "new" / "q.html").read_text() == quality_page([one])
    (tmp_path / "file").write_text("x")
    with pytest.raises(BitcornError, match="quality page cannot be written"):
        write_quality([one], tmp_path / "file" / "q.html")


def test_a_source_is_diagnosed_partition_by_partition(market_db):
    found = list(diagnose_source(market_db))
    assert [str(one.partition) for one in found] == ["AAAUSDT 1h", "BBBUSDT 1h"]
    assert found[0].to_json()["symbol"] == "AAAUSDT"
    assert len(found[0].diagnosis.bars) == found[0].report["bars"]
