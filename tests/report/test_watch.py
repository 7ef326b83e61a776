import io

from rich.console import Console

from bitcorn_ray.report.watch import WatchScreen, newest_table, skill_table

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


def printed(item):
    console = Console(file=io.StringIO(), width=160)
    console.print(item)
    return console.file.getvalue()


def test_the_newest_forecasts_and_their_bands():
    text = printed(newest_table([FORECAST]))
    for part in ("A/B 1h", "2026-01-01 00:00", "123.4", "+0.100%", "-3.20% to +2.80%", "∞"):
        assert part in text


def test_skill_stands_beside_the_baseline():
    text = printed(skill_table([SKILL, {**SKILL, "qlike": None, "ewma_qlike": None, "direction": None}]))
    for part in ("1,234 (2 unknown)", "51.0%", "79.0%", "50.0%", "-8.1000", "+0.1000"):
        assert part in text


def test_where_nobody_looks_there_is_a_line_a_forecast():
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
