import json
import re

from bitcorn_ray.report.cache_page import CacheReport, cache_page

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


def entry(system, size, age, used_by=(), hits=0):
    times = {"first_timestamp": "2025-01-01T00:00:00Z", "last_timestamp": "2026-01-01T00:00:00Z"}
    use = {"last_used": "2026-01-01T00:00:00+00:00", "used_by": used_by, "age": age, "hits": hits}
    return {"key": "0123456789abcdef", "system": system, "rows": 5, "bytes": size, **times, **use}


def test_the_page_tells_size_age_and_what_would_go():
    user = {"symbol": "<A>", "timeframe": "1h", "db_path": "market.db"}
    entries = [entry("v2", 1_000_000, 0.5, [user], 1_234), entry("v4", 2_000_000, 45)]
    gone = {"entries": ["0123"], "bytes": 2_000_000, "bytes_left": 1_000_000}
    page = cache_page(CacheReport(stats=STATS, entries=entries, prunable=[(30, gone)]))
    assert re.findall("<h2>(.*?)</h2>", page) == ["Size", "Last used", "What would be pruned", "2 entries"]
    size, age = json.loads(re.search(r"const PAGE = (\{.*?\});", page)[1])["charts"].values()
    assert (size["data"][0]["y"], size["data"][0]["x"]) == (["v2", "v4"], [1.0, 2.0])
    assert dict(zip(age["data"][0]["y"], age["data"][0]["x"], strict=True))["90 days"] == 1
    assert "bitcorn cache prune --older-than 30d</td><td class=n>1</td>" in page
    assert "&lt;A&gt; 1h of market.db" in page
    assert "without a hit</dt><dd>1 entry, 2.0 MB</dd>" in page
    assert "hits</dt><dd>1,234</dd>" in page
    assert "<td class=n>1,234</td>" in page


def test_an_empty_cache_has_a_page():
    page = cache_page(CacheReport(stats={**STATS, "entries": 0, "last_used": None}, entries=[], prunable=[]))
    assert "Nothing is cached yet." in page
