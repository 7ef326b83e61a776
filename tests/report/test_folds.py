import numpy as np
import pytest

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.report.folds import folds_section, folds_table, write_folds

DAY = 86_400_000


def part(start, stop, bars):
    def close(ms):
        return f"{np.datetime64(ms, 'ms')}"[:19] + "Z"

    return {"span": [start, stop], "first": close(start), "last": close(stop - 1), "bars": bars}


@pytest.fixture
def plan():
    folds = [
        {
            "fold": number,
            "purge_ms": DAY // 2,
            "train": part(number * 10 * DAY, (number * 10 + 29) * DAY, [29, 10]),
            "validation": part((number * 10 + 30) * DAY, (number * 10 + 39) * DAY, [9, 9]) if number else None,
            "test": part((number * 10 + 40) * DAY, (number * 10 + 50) * DAY, [10, 10]),
        }
        for number in range(2)
    ]
    bars = [
        {"name": "A 1d", "bars": 60, "first": "1970-01-01T00:00:00Z", "last": "1970-03-01T00:00:00Z"},
        {"name": "B 1d", "bars": 40, "first": "1970-01-20T00:00:00Z", "last": "1970-03-01T00:00:00Z"},
    ]
    return {"horizon": 12, "window": "rolling", "partitions": bars, "folds": folds}


def stretches(chart, name):
    """Return row, first day and last day of each bar of a trace."""
    (trace,) = (trace for trace in chart.data if trace["name"] == name)
    days = [start / DAY for start in trace["base"]]
    return [(row, day, day + length / DAY) for row, day, length in zip(trace["y"], days, trace["x"], strict=True)]


def test_every_range_is_drawn_at_its_times(plan):
    section = folds_section(plan)
    remark, figure = section.parts
    assert stretches(figure, "train") == [("fold 0", 0, 29), ("fold 1", 10, 39)]
    assert stretches(figure, "validation") == [("fold 1", 40, 49)]
    assert stretches(figure, "test") == [("fold 0", 40, 50), ("fold 1", 50, 60)]
    assert stretches(figure, "purge and embargo") == [("fold 0", 29, 40), ("fold 1", 39, 40), ("fold 1", 49, 50)]
    assert stretches(figure, "bars") == [("A 1d", 0, 59), ("B 1d", 19, 59)]
    assert figure.layout["yaxis"]["categoryarray"] == ("fold 0", "fold 1", "A 1d", "B 1d")
    assert section.title == "2 rolling folds"
    assert "longest horizon 12 bars; 12 hours left out" in remark


def test_the_page_opens_offline(plan, tmp_path):
    write_folds(plan, tmp_path / "new" / "folds.html")
    page = (tmp_path / "new" / "folds.html").read_text()
    assert 'src="http' not in page
    assert "<h2>2 rolling folds</h2>" in page
    with pytest.raises(BitcornError, match="no fold to draw"):
        write_folds({**plan, "folds": []}, tmp_path / "none.html")


def test_the_table_has_a_row_per_fold(plan):
    table = folds_table(plan)
    columns = list(zip(*table.rows, strict=True))
    assert columns[0] == (0, 1)
    assert columns[1][0] == "1970-01-01 00:00 to 1970-01-29 23:59"
    assert columns[2:4] == [(39, 39), ("none", "1970-02-10 00:00 to 1970-02-18 23:59")]
    assert columns[6] == (20, 20)
