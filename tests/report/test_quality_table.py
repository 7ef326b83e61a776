from io import StringIO

from rich.console import Console

from bitcorn_ray.market.diagnosis import diagnose
from bitcorn_ray.report.quality_table import quality_tables


def shown(rows):
    console = Console(width=200, file=StringIO())
    for item in quality_tables(rows):
        console.print(item)
    return console.file.getvalue()


def row_of(bars, symbol="AAA"):
    return {"symbol": symbol, "timeframe": "1h", **diagnose(bars, "1h", now_ms=2**45).report}


def test_clean_bars_are_one_line(random_bars):
    rows = [row_of(random_bars(400))]
    assert len(quality_tables(rows)) == 1
    assert "100.0" in shown(rows)
    assert "finished" in shown(rows)


def test_each_reason_comes_with_its_first_places(random_bars):
    bars = random_bars(400)
    bars.close[10] = float("nan")
    bars.volume[50:52] = 0.0
    broken = bars.take([n for n in range(400) if n not in (100, 101)] + [200])
    broken.close[-1] += 1
    text = shown([row_of(broken, "[b]X")])
    assert "[b]X 1h" in text
    for what, at in {
        "1 row with missing values": "2023-01-01 10:00",
        "2 bars missing in outages": "2023-01-05 04:00",
        "2 invented bars": "2023-01-03 02:00",
        "1 row of a time": "2023-01-09 08:00",
    }.items():
        assert any(what in line and at in line for line in text.splitlines()), what
