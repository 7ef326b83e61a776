import io
import json
import math
from dataclasses import replace

import pytest
from rendered import Tags, printed, titles
from rich.console import Console

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.report.forecasts import (
    Fan,
    FanPanel,
    WatchScreen,
    fan_section,
    forecast_table,
    newest_table,
    skill_table,
    write_fan,
)


def test_a_forecast_has_prices_and_bands():
    row = {"horizon": 4, "time": "2026-01-01T00:00:00Z", "return": 0.00123, "volatility": 0.02, "price": 100.5}
    bands = {"lo80": 98.0, "hi80": 103.0, "lo95": 0.0, "hi95": None}
    text = printed(forecast_table([{**row, **bands}]))
    for part in ("+0.123%", "2.000%", "100.5", "98 – 103", "0 – ∞"):
        assert part in text


FORECAST = {
    "kind": "forecast", "symbol": "A/B", "timeframe": "1h", "cutoff": "2026-01-01T00:00:00Z", "close": 123.4,
    "horizons": [1, 4], "return": [0.001, -0.002], "volatility": [0.01, 0.02],
    "widths": {"0.8": [1.0, 1.5], "0.95": [2.0, None]},
}  # fmt: skip
SKIPPED = {
    "kind": "skipped",
    "symbol": "C",
    "timeframe": "1h",
    "cutoff": "2026-01-01T01:00:00Z",
    "why": "bars are missing",
}
SKILL = {
    "symbol": "A/B", "timeframe": "1h", "horizon": 4, "scored": 1_234, "unknown": 2,
    "coverage": {"0.5": 0.51, "0.8": 0.79}, "direction": 0.5, "qlike": -8.1, "ewma_qlike": -8.0,
}  # fmt: skip


def test_the_newest_forecasts_and_their_bands():
    text = printed(newest_table([FORECAST]))
    for part in ("A/B 1h", "2026-01-01 00:00", "123.4", "+0.100%", "-3.20% to +2.80%", "∞"):
        assert part in text


def test_skill_is_compared_with_the_baseline():
    text = printed(skill_table([SKILL, {**SKILL, "qlike": None, "ewma_qlike": None, "direction": None}]))
    for part in ("1,234 (2 unknown)", "51.0 %", "79.0 %", "50.0 %", "-8.1000", "+0.1000"):
        assert part in text


def test_without_a_terminal_there_is_a_line_per_forecast():
    console = Console(file=io.StringIO(), width=60)
    with WatchScreen("run watches source", console) as screen:
        screen.update([FORECAST, SKIPPED, {"kind": "outcome"}], [SKILL])
    assert console.file.getvalue().splitlines() == [
        "run watches source",
        "A/B 1h 2026-01-01 00:00: 1 bars +0.100% +- 1.000%, 4 bars -0.200% +- 2.000%",
        "C 1h 2026-01-01 01:00: no forecast, bars are missing",
    ]


def test_on_a_terminal_tables_change_in_place():
    console = Console(file=io.StringIO(), width=160, force_terminal=True)
    with WatchScreen("run watches source", console) as screen:
        screen.update([FORECAST], [SKILL])
        screen.update([{**FORECAST, "close": 200.5}], [SKILL])
    text = console.file.getvalue()
    assert "run watches source" in text
    assert "200.5" in text


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


def test_a_fan_chart_describes_cutoff_coverage_and_sample():
    section = fan_section(panel())
    assert section.title == "BTCUSDT 1h"
    for part in ("forecast from 2026-01-01 05:00 UTC", "bands of 50 and 95 % coverage", "out of sample"):
        assert part in section.parts[0]
    several = fan_section(panel(fans=[fan(1), fan(5)])).parts[0]
    assert "forecasts from 2 cutoffs, the last at 2026-01-01 05:00 UTC" in several


def test_history_ends_at_the_cutoff_where_the_outcome_begins():
    traces = by_name(fan_section(panel()))
    (close,), (happened,) = traces["close"], traces["what happened"]
    assert close["x"] == tuple(hour(n) for n in range(6))
    assert happened["x"] == tuple(hour(n) for n in range(5, 10))
    assert happened["y"] == (105.0, 106.0, 107.0, 108.0, 109.0)
    assert "what happened" not in by_name(fan_section(panel(fans=[fan(9)])))


def test_a_band_opens_at_the_close_and_leaves_out_infinite_bounds():
    traces = by_name(fan_section(panel()))
    (half, sign), (wide, _) = traces["50% band"], traces["95% band"]
    # The legend has the visible colour of overlapping bands.
    assert sign["marker"]["color"] == f"rgba(70,140,200,{round(1 - (1 - 0.42) * (1 - 0.30), 2)})"
    assert half["y"] == (105.0, 102.0, 105.0, 99.0, 100.0, 105.0)
    assert wide["x"] == (hour(5), hour(6), hour(6), hour(5))
    none = fan(bands={0.95: ([0.0, 0.0], [math.inf, math.inf])})
    assert "95% band" not in by_name(fan_section(panel(fans=[none])))


@pytest.mark.parametrize(
    ("samples", "text"),
    [
        (["test"], "; test"),
        (["validation", "validation", "out of sample"], "; the last is out of sample, those before validation"),
        (
            ["test", "out of sample", "out of sample"],
            "; the last is out of sample, those before out of sample and test",
        ),
        (["unknown"], "; unknown whether the training has seen these bars"),
    ],
)
def test_the_description_says_which_cutoffs_the_training_has_seen(samples, text):
    fans = [replace(fan(n), sample=sample) for n, sample in enumerate(samples)]
    assert fan_section(panel(fans=fans)).parts[0].endswith(f"{text}</p>")


def test_each_partition_has_a_section_of_the_page(tmp_path):
    empty = FanPanel(name="X", times=[], closes=[], fans=[])
    write_fan([panel(), empty, panel("ETHUSDT 1h", [fan(1), fan(5)])], tmp_path / "fan.html")
    page = (tmp_path / "fan.html").read_text()
    assert page.count("<section>") == 2
    assert "<h1>Forecasts of 2 partitions</h1>" in page
    assert titles(page) == ["BTCUSDT 1h", "ETHUSDT 1h"]


def test_the_page_opens_offline(tmp_path):
    write_fan([panel()], tmp_path / "deep" / "fan.html")
    page = (tmp_path / "deep" / "fan.html").read_text()
    assert len(page) > 1_000_000  # the library is inside
    assert Tags(page).loaded == []
    assert json.dumps("what happened") in page
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["fan.html"]


def test_no_forecast_and_an_unwritable_file_are_errors(tmp_path):
    with pytest.raises(BitcornError, match="no forecast to draw"):
        write_fan([FanPanel(name="X", times=[], closes=[], fans=[])], tmp_path / "none.html")
    (tmp_path / "file").write_text("")
    with pytest.raises(BitcornError, match="cannot be written"):
        write_fan([panel()], tmp_path / "file" / "fan.html")
