import io
import json
import math
from datetime import UTC, datetime

import pytest
from rich.console import Console

from bitcorn_ray.report.console import (
    audit_tables,
    cache_table,
    explain_table,
    features_table,
    forecast_table,
    plain_rows,
    progress,
    show,
)


def printed(table):
    console = Console(file=io.StringIO(), width=160)
    console.print(table)
    return console.file.getvalue()


def test_features_say_hit_computed_or_failed_and_what_is_wrong():
    status = {
        "symbol": "A/B",
        "timeframe": "1h",
        "rows": 12_345,
        "seconds": 0.5,
        "flags": "",
        "hit": True,
        "unread": False,
        "computed": 2,
        "chunks": 5,
        "error": None,
    }
    text = printed(
        features_table(
            [
                status,
                {**status, "unread": True},
                {**status, "hit": False, "flags": "3 duplicates"},
                {**status, "error": "x"},
            ]
        )
    )
    for part in ("A/B 1h", "12,345", "hit", "unchanged", "computed 2 of 5", "failed", "3 duplicates", "clean"):
        assert part in text


def test_a_forecast_shows_prices_and_bands():
    row = {"horizon": 4, "time": "2026-01-01T00:00:00Z", "return": 0.00123, "volatility": 0.02, "price": 100.5}
    bands = {"lo80": 98.0, "hi80": 103.0, "lo95": 0.0, "hi95": None}
    text = printed(forecast_table([{**row, **bands}]))
    for part in ("+0.123%", "2.000%", "100.5", "98 – 103", "0 – ∞"):
        assert part in text


def test_symbols_are_shown_as_they_are_and_not_as_markup():
    row = {"symbol": "[red]X", "timeframe": "1h", "outcome": "hit", "to_compute": 0, "chunks": 1, "causes": ["[b]"]}
    text = printed(explain_table([row]))
    assert "[red]X 1h" in text
    assert "[b]" in text


def test_a_cache_entry_names_its_partitions():
    entry = {
        "key": "f" * 32, "system": "v2", "rows": 5, "first_timestamp": None, "last_timestamp": None, "bytes": 1_500,
        "hits": 1_234, "last_used": "now",
        "used_by": [{"symbol": "A", "timeframe": "1h"}, {"symbol": None, "timeframe": None}],
    }  # fmt: skip
    text = printed(cache_table([entry]))
    assert "1.5 kB" in text
    assert "? ?, A 1h" in text
    assert "1,234" in text


def test_json_is_strict_and_times_are_text(capsys):
    rows = plain_rows([{"time": datetime(2026, 1, 2, tzinfo=UTC), "hi": math.inf, "n": 1}])
    show({"rows": rows}, lambda: pytest.fail("no table with --json"), as_json=True)
    assert json.loads(capsys.readouterr().out) == {"rows": [{"time": "2026-01-02T00:00:00Z", "hi": None, "n": 1}]}


def test_tables_and_titles_go_to_standard_output(capsys):
    show({}, lambda: "3 [entries]", as_json=False, title="a title")
    assert capsys.readouterr().out == "a title\n3 [entries]\n"


def test_progress_is_silent_where_nobody_looks(capsys):
    with progress("working", 2) as advance:
        advance("one")
        advance("two")
    assert capsys.readouterr().out == ""


def test_an_explanation_says_outcome_cost_and_why():
    row = {"symbol": "A/B", "timeframe": "1h", "outcome": "miss", "to_compute": 2, "chunks": 5, "causes": ("x", "[y]")}
    text = printed(explain_table([row, {**row, "outcome": "hit", "to_compute": 0, "chunks": 0}]))
    for part in ("A/B 1h", "miss", "2 of 5", "x; [y]", "hit"):
        assert part in text


def test_an_audit_shows_each_partition_and_each_finding():
    profile = {"x": {"largest": 12.34567}, "y": {"largest": None}}
    report = {"rows": 1_234, "features": ("x", "y"), "cuts": 99, "findings": (), "profile": profile}
    finding = {"feature": "x", "kind": "look-ahead", "at": "2020", "size": 0.123456, "cuts": 7, "detail": "[bad]"}
    row = {"symbol": "A/B", "timeframe": "1h", "report": report, "error": None, "seconds": 1.0}
    (table,) = audit_tables([row, {**row, "report": None, "error": "too few"}])
    for part in ("A/B 1h", "1,234", "99", "12.35 (x)", "passed", "not audited"):
        assert part in printed(table)
    summary, findings = audit_tables([{**row, "report": {**report, "findings": (finding,)}}])
    assert "1 findings" in printed(summary)
    for part in ("look-ahead", "0.123", "[bad]", "2020"):
        assert part in printed(findings)
