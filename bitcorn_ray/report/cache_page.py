"""The feature cache as one page: how large it is, how often and by whom it is used, how old it is, what could go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bitcorn_ray.report.console import counted, short_time, size
from bitcorn_ray.report.page import Chart, Section, facts, html_table, note, page_of

_LISTED = 500
_TICKS = 10
_COUNTED = (
    "A hit is a time that all features of an entry were there and were not computed. On an object store no more than "
    "one in ten minutes is counted."
)
_AGES = ((1, "today"), (7, "this week"), (30, "this month"), (90, "90 days"), (float("inf"), "longer ago"))


@dataclass(frozen=True, kw_only=True)
class CacheReport:
    """What is known of a cache, in plain values.

    stats: as `upkeep.stats`. entries: as `FeatureCache.entries`, with `age`, days since the last use. prunable: days
    without use, and what `prune` would then remove, as `upkeep.Pruned`.
    """

    stats: Mapping[str, Any]
    entries: Sequence[Mapping[str, Any]]
    prunable: Sequence[tuple[int, Mapping[str, Any]]]


def cache_page(report: CacheReport) -> str:
    """Return the page."""
    sections = [_size(report), _age(report.entries), _prunable(report), _entries(report.entries)]
    return page_of(f"Feature cache {report.stats['folder']}", sections if report.entries else sections[:1])


def _size(report: CacheReport) -> Section:
    stats = report.stats
    used = sum(bool(entry["used_by"]) for entry in report.entries)
    idle = [entry for entry in report.entries if not entry["hits"]]
    told = {
        "size": size(stats["bytes"]),
        "entries": f"{stats['entries']:,}, {used:,} of them of a known database or file",
        "chunks": f"{stats['chunks']:,}",
        "rows": f"{stats['rows']:,}",
        "in chunks that no entry names": size(stats["unreferenced_bytes"]),
        "hits": f"{stats['hits']:,}",
        "without a hit": f"{counted(len(idle), 'entry', 'entries')}, {size(sum(entry['bytes'] for entry in idle))}",
        "last used": short_time(stats["last_used"]) if stats["last_used"] else "never",
    }
    if not report.entries:
        return Section(title="Size", parts=[facts(told), "Nothing is cached yet."])
    by_system: dict[str, int] = {}
    for entry in report.entries:
        by_system[entry["system"]] = by_system.get(entry["system"], 0) + entry["bytes"]
    ordered = sorted(by_system.items(), key=lambda each: each[1])
    chart = _bars("bytes of each feature system", [name for name, _ in ordered], [n / 1e6 for _, n in ordered], "MB")
    return Section(title="Size", parts=[facts(told), chart])


def _age(entries: Sequence[Mapping[str, Any]]) -> Section:
    """When entries were last used: a hit is a use."""
    names = [name for _, name in _AGES]
    held = dict.fromkeys(names, 0)
    for entry in entries:
        held[next(name for days, name in _AGES if entry["age"] < days)] += 1
    chart = _bars("entries by their last use", names[::-1], [held[name] for name in names[::-1]], "entries")
    return Section(title="Last used", parts=[chart])


def _prunable(report: CacheReport) -> Section:
    rows = [
        (
            f"bitcorn cache prune --older-than {days}d",
            f"{len(gone['entries']):,}",
            size(gone["bytes"]),
            size(gone["bytes_left"]),
        )
        for days, gone in report.prunable
    ]
    told = note("What was used within the last hour stays, as a running job may be reading it.")
    return Section(
        title="What would be pruned", parts=[html_table(("by", "entries", "frees", "leaves"), rows, (1, 2, 3)), told]
    )


def _entries(entries: Sequence[Mapping[str, Any]]) -> Section:
    largest = sorted(entries, key=lambda entry: -entry["bytes"])[:_LISTED]
    rows = [
        (
            entry["key"][:12],
            entry["system"],
            f"{entry['rows']:,}",
            short_time(entry["first_timestamp"]),
            short_time(entry["last_timestamp"]),
            size(entry["bytes"]),
            f"{entry['hits']:,}",
            short_time(entry["last_used"]),
            ", ".join(
                sorted({f"{u['symbol'] or '?'} {u['timeframe'] or '?'} of {u['db_path']}" for u in entry["used_by"]})
            ),
        )
        for entry in largest
    ]
    columns = ("key", "system", "rows", "first", "last", "size", "hits", "last used", "used by")
    many = f", the {_LISTED} largest" if len(entries) > len(largest) else ""
    title = f"{counted(len(entries), 'entry', 'entries')}{many}"
    return Section(title=title, parts=[html_table(columns, rows, (2, 5, 6), wide=True), note(_COUNTED)])


def _bars(label: str, names: Sequence[str], values: Sequence[float], unit: str) -> Chart:
    counted_by_one = max(values) < _TICKS and all(isinstance(value, int) for value in values)
    axis = {"title": {"text": unit}, "dtick": 1 if counted_by_one else None}
    bars = {"type": "bar", "orientation": "h", "y": list(names), "x": list(values), "marker": {"color": "var(--s1)"}}
    return Chart(
        label=label,
        data=[bars],
        layout={"xaxis": axis, "yaxis": {"type": "category"}, "showlegend": False},
        height=110 + 28 * len(names),
    )
