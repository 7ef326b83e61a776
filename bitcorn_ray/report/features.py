"""Features and their cache: tables of computed, explained and audited partitions, and the page of a cache."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from bitcorn_ray.report.html import Section, bar_chart, note, page_of
from bitcorn_ray.report.table import Facts, Styled, Table, counted, name_of, short_time, size

if TYPE_CHECKING:
    from bitcorn_ray.cache.pruning import Pruned
    from bitcorn_ray.cache.store import FeatureCache
    from bitcorn_ray.features.distribute import PartitionAudit
    from bitcorn_ray.features.explain import Explanation
    from bitcorn_ray.features.receipts import PartitionStatus

_LISTED, _TICKS = 500, 10
_UNUSED_DAYS = (7, 30, 90)
_AGES = ((1, "today"), (7, "this week"), (30, "this month"), (90, "90 days"), (float("inf"), "longer ago"))
_HITS = (
    "A hit is a request for which all features of an entry existed. On an object store, at most one hit in ten minutes "
    "is counted."
)


def features_table(statuses: Sequence[PartitionStatus]) -> Table:
    """Return a row per partition: rows, whether they were computed, seconds, defects of the bars."""

    def outcome(status: PartitionStatus) -> str | Styled:
        if status.error:
            return Styled("failed", "poor")
        if status.unread:
            return "unchanged"
        return "hit" if status.hit else f"computed {status.computed} of {status.chunks}"

    rows = [
        (name_of(one), one.rows, outcome(one), f"{one.seconds:.2f}", one.flags or ("" if one.error else "clean"))
        for one in statuses
    ]
    return Table(("partition", ">rows", "cache", ">seconds", "bars"), rows)


def explain_table(explanations: Sequence[Explanation]) -> Table:
    """Return a row per partition: hit or miss, chunks to compute, causes."""
    grades = {"hit": "good", "miss": "fair", "failure": "poor"}
    rows = [
        (
            name_of(one),
            Styled(one.outcome, grades[one.outcome]),
            f"{one.to_compute} of {one.chunks}" if one.chunks else "",
            "; ".join(one.causes),
        )
        for one in explanations
    ]
    return Table(("partition", "outcome", ">to compute", "why"), rows)


def audit_tables(audits: Sequence[PartitionAudit]) -> tuple[Table, ...]:
    """Return a row per partition, with the largest value of any feature, and a row per finding."""
    rows, findings = list[Any](), list[Any]()
    for one in audits:
        name, report, seconds = name_of(one), one.report, f"{one.seconds:.1f}"
        if report is None:
            rows.append((name, None, None, None, None, seconds, Styled("not audited", "poor")))
            continue
        sizes = {each["largest"]: feature for feature, each in report.profile.items() if each["largest"] is not None}
        largest = f"{max(sizes):.4g} ({sizes[max(sizes)]})" if sizes else ""
        count = len(report.findings)
        outcome = Styled(counted(count, "finding"), "poor") if count else Styled("passed", "good")
        rows.append((name, report.rows, len(report.features), report.cuts, largest, seconds, outcome))
        findings += [(name, f.feature, f.kind, f.at, f"{f.size:.3g}", f.cuts, f.detail) for f in report.findings]
    columns = ("partition", ">rows", ">features", ">cuts", "largest value", ">seconds", "outcome")
    summary = Table(columns, rows)
    if not findings:
        return (summary,)
    return summary, Table(("partition", "feature", "what", "bar", ">size", ">cuts", "detail"), findings, keys=2)


def cache_table(entries: Sequence[Mapping[str, Any]], sources: bool = False) -> Table:
    """Return a row per cache entry. entries: from `FeatureCache.entries`. sources: name those of the partitions."""

    def partitions(entry: Mapping[str, Any]) -> str:
        names = {
            f"{use['symbol'] or '?'} {use['timeframe'] or '?'}{' of ' + use['db_path'] if sources else ''}"
            for use in entry["used_by"]
        }
        return ", ".join(sorted(names)) or "-"

    rows = [
        (
            entry["key"][:12],
            entry["system"],
            entry["rows"],
            short_time(entry["first_timestamp"]),
            short_time(entry["last_timestamp"]),
            size(entry["bytes"]),
            entry["hits"],
            short_time(entry["last_used"]),
            partitions(entry),
        )
        for entry in entries
    ]
    columns = ("key", "system", ">rows", "first", "last", ">size", ">hits", "last used", "partitions")
    return Table(columns, rows, wide=True)


@dataclass(frozen=True, kw_only=True)
class CacheReport:
    """The state of a cache.

    stats: from `pruning.stats`. entries: from `FeatureCache.entries`. prunable: what `prune` would remove, by days
    without use. now: seconds since 1970.
    """

    stats: Mapping[str, Any]
    entries: Sequence[Mapping[str, Any]]
    prunable: Mapping[int, Pruned]
    now: float

    @classmethod
    def of(cls, cache: FeatureCache) -> CacheReport:
        """Return the state of a cache."""
        from bitcorn_ray.cache.pruning import prune, stats

        prunable = {days: prune(cache, older_than=days * 86_400, dry_run=True) for days in _UNUSED_DAYS}
        return cls(stats=stats(cache), entries=cache.entries(), prunable=prunable, now=time.time())


def cache_page(report: CacheReport) -> str:
    """Return the page of a cache: its size, uses and age, and what pruning would remove."""
    title, entries = f"Feature cache {report.stats['folder']}", report.entries
    if not entries:
        return page_of(title, [Section(title="Size", parts=[_facts(report), "Nothing is cached yet."])])
    systems, ages = Counter[str](), Counter[str]()
    for entry in entries:
        systems[entry["system"]] += entry["bytes"]
        days = (report.now - datetime.fromisoformat(entry["last_used"]).timestamp()) / 86_400
        ages[next(name for least, name in _AGES if days < least)] += 1
    by_size = systems.most_common()[::-1]
    sizes = bar_chart(
        "bytes of each feature system", [name for name, _ in by_size], [n / 1e6 for _, n in by_size], "MB"
    )
    names = [name for _, name in _AGES][::-1]
    ticks = {"dtick": 1} if max(ages.values()) < _TICKS else {}
    uses = bar_chart("entries by their last use", names, [ages[name] for name in names], "entries", **ticks)
    rows = [
        (f"bitcorn cache prune --older-than {days}d", len(gone.entries), size(gone.bytes), size(gone.bytes_left))
        for days, gone in report.prunable.items()
    ]
    prunable = Table(("command", ">entries", ">frees", ">leaves"), rows)
    largest = sorted(entries, key=lambda entry: -entry["bytes"])[:_LISTED]
    count = counted(len(entries), "entry", "entries") + (f", the {_LISTED} largest" if len(entries) > _LISTED else "")
    kept = note("Entries that were used within the last hour are kept, because a running job may read them.")
    sections = [
        Section(title="Size", parts=[_facts(report), sizes]),
        Section(title="Last used", parts=[uses]),
        Section(title="What pruning would remove", parts=[prunable, kept]),
        Section(title=count, parts=[cache_table(largest, sources=True), note(_HITS)]),
    ]
    return page_of(title, sections)


def _facts(report: CacheReport) -> Facts:
    stats = report.stats
    used = sum(bool(entry["used_by"]) for entry in report.entries)
    idle = [entry["bytes"] for entry in report.entries if not entry["hits"]]
    return Facts(
        {
            "size": size(stats["bytes"]),
            "entries": f"{stats['entries']:,}, {used:,} of them with a known source",
            "chunks": stats["chunks"],
            "rows": stats["rows"],
            "in chunks without an entry": size(stats["unreferenced_bytes"]),
            "hits": stats["hits"],
            "without a hit": f"{counted(len(idle), 'entry', 'entries')}, {size(sum(idle))}",
            "last used": short_time(stats["last_used"]) if stats["last_used"] else "never",
        }
    )
