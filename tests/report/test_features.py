from datetime import datetime

from rendered import charts, printed, titles

from bitcorn_ray.cache.pruning import Pruned
from bitcorn_ray.features.audit import AuditReport, Finding
from bitcorn_ray.features.distribute import PartitionAudit
from bitcorn_ray.features.explain import Explanation
from bitcorn_ray.features.receipts import PartitionStatus
from bitcorn_ray.report.features import (
    CacheReport,
    audit_tables,
    cache_page,
    cache_table,
    explain_table,
    features_table,
)


def test_features_are_computed_or_hits_or_failures():
    one = {"symbol": "A/B", "timeframe": "1h", "source": "m.db", "rows": 12_345, "computed": 2, "chunks": 5}
    statuses = [
        PartitionStatus(**one, hit=True),
        PartitionStatus(**one, hit=True, unread=True),
        PartitionStatus(**one, flags="3 duplicates"),
        PartitionStatus(**one, error="x"),
    ]
    text = printed(features_table(statuses))
    for part in ("A/B 1h", "12,345", "hit", "unchanged", "computed 2 of 5", "failed", "3 duplicates", "clean"):
        assert part in text


def test_an_explanation_has_outcome_cost_and_causes_without_reading_markup():
    one = {"symbol": "[red]X", "timeframe": "1h"}
    misses = Explanation(**one, outcome="miss", to_compute=2, chunks=5, causes=("x", "[y]"))
    text = printed(explain_table([misses, Explanation(**one, outcome="hit", causes=())]))
    for part in ("[red]X 1h", "miss", "2 of 5", "x; [y]", "hit"):
        assert part in text


def test_an_audit_has_each_partition_and_each_finding():
    profile = {"x": {"largest": 12.34567}, "y": {"largest": None}}
    finding = Finding(feature="x", kind="look-ahead", at="2020", row=3, size=0.123456, cuts=7, detail="[bad]")
    report = {"system": "v2", "rows": 1_234, "features": ("x", "y"), "cuts": 99, "profile": profile}
    one = {"symbol": "A/B", "timeframe": "1h", "seconds": 1.0}
    passed = PartitionAudit(**one, report=AuditReport(**report, findings=()))
    (table,) = audit_tables([passed, PartitionAudit(**one, error="too few")])
    for part in ("A/B 1h", "1,234", "99", "12.35 (x)", "passed", "not audited"):
        assert part in printed(table)
    summary, findings = audit_tables([PartitionAudit(**one, report=AuditReport(**report, findings=(finding,)))])
    assert "1 finding" in printed(summary)
    for part in ("look-ahead", "0.123", "[bad]", "2020"):
        assert part in printed(findings)


STATS = {
    "folder": "cache",
    "entries": 2,
    "chunks": 3,
    "rows": 10,
    "hits": 1_234,
    "bytes": 3_000_000,
    "unreferenced_bytes": 0,
    "longest_unused_since": None,
    "last_used": "2026-01-01T00:00:00+00:00",
}
NOW = datetime.fromisoformat("2026-01-01T12:00:00+00:00").timestamp()


def entry(system, size, last_used="2026-01-01", used_by=(), hits=0):
    times = {
        "first_timestamp": None,
        "last_timestamp": "2026-01-01T00:00:00Z",
        "last_used": f"{last_used}T00:00:00+00:00",
    }
    return {
        "key": "0123456789abcdef",
        "system": system,
        "rows": 5,
        "bytes": size,
        **times,
        "used_by": used_by,
        "hits": hits,
    }


def test_a_cache_entry_names_its_partitions():
    uses = [{"symbol": "A", "timeframe": "1h"}, {"symbol": None, "timeframe": None}]
    text = printed(cache_table([entry("v2", 1_500, used_by=uses, hits=1_234)]))
    assert "1.5 kB" in text
    assert "? ?, A 1h" in text
    assert "1,234" in text


def test_the_page_of_a_cache_has_size_age_and_what_pruning_would_remove():
    user = {"symbol": "<A>", "timeframe": "1h", "db_path": "market.db"}
    entries = [entry("v2", 1_000_000, "2026-01-01", [user], 1_234), entry("v4", 2_000_000, "2025-11-17")]
    gone = Pruned(entries=["0123"], chunks=1, bytes=2_000_000, in_use=[], bytes_left=1_000_000)
    page = cache_page(CacheReport(stats=STATS, entries=entries, prunable={30: gone}, now=NOW))
    assert titles(page) == ["Size", "Last used", "What pruning would remove", "2 entries"]
    size, age = charts(page)
    assert (size["data"][0]["y"], size["data"][0]["x"]) == (["v2", "v4"], [1.0, 2.0])
    ages = dict(zip(age["data"][0]["y"], age["data"][0]["x"], strict=True))
    assert (ages["today"], ages["90 days"], ages["longer ago"]) == (1, 1, 0)
    assert "bitcorn cache prune --older-than 30d</td><td class=n>1</td>" in page
    assert "&lt;A&gt; 1h of market.db" in page
    assert "without a hit</dt><dd>1 entry, 2.0 MB</dd>" in page
    assert "hits</dt><dd>1,234</dd>" in page
    assert "<td class=n>1,234</td>" in page


def test_an_empty_cache_has_a_page():
    stats = {**STATS, "entries": 0, "last_used": None}
    assert "Nothing is cached yet." in cache_page(CacheReport(stats=stats, entries=[], prunable={}, now=NOW))
