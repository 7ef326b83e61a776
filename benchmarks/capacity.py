"""What a large run takes on so many nodes, computed from what was measured: `python -m benchmarks.capacity [--check]`.

It writes the tables of docs/scale.md; the formulas stand there in words. Benchmarks: `cluster`, `tasks` and
`long-partition`.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import click

from benchmarks.cluster import LONG_BARS, SHORT_BARS, long_label, node_label
from benchmarks.results import Result, load_results
from bitcorn_ray.on_ray.map import GROUPS_PER_CPU

__all__ = ["PAGE", "Costs", "Estimate", "Site", "Work", "estimate", "measured_costs", "page_of"]

PAGE = Path(__file__).parent.parent / "docs" / "scale.md"
_BEGIN, _END = "<!-- capacity -->", "<!-- /capacity -->"
_MINUTES_A_YEAR = 525_600
_NODES = (1, 8, 64)
_MEASURED = {
    "bar": ("a bar read, computed and written, on one core", 1e9, "ns"),
    "partition": ("a partition beside its bars, on one core", 1e3, "ms"),
    "planning": ("a partition listed before the map, by the driver", 1e6, "µs"),
    "task": ("a group of partitions handed out by the driver", 1e3, "ms"),
    "finishing": ("a partition in receipt and index after the map, by the driver", 1e6, "µs"),
    "start": ("the first map on a new cluster", 1.0, "s"),
    "features_bytes": ("features of a bar in the cache", 1.0, "bytes"),
    "bars_bytes": ("a bar as Parquet", 1.0, "bytes"),
    "peak": ("a worker at its peak, a bar of the longest partition", 1.0, "bytes"),
    "driver": ("what the driver grows by, a partition", 1.0, "bytes"),
}


@dataclass(frozen=True, kw_only=True)
class Costs:
    """What was measured; seconds, and bytes a bar.

    bar: of one core, reading, computing and writing. partition: of one core, whatever its length. planning, finishing:
    of the driver, a partition. task: of the driver, a group of partitions. start: until the workers of a new cluster
    have done something. features_bytes, bars_bytes: on disk. peak: bytes of a worker with a partition of `peak_bars`.
    driver: bytes that the driver grows by, a partition.
    """

    bar: float
    partition: float
    planning: float
    finishing: float
    task: float
    start: float
    features_bytes: float
    bars_bytes: float
    peak: float
    driver: float


@dataclass(frozen=True, kw_only=True)
class Work:
    """Symbols with bars of some timeframes, in minutes, over years without gaps."""

    symbols: int
    minutes: tuple[int, ...]
    years: float

    @property
    def partitions(self) -> int:
        """How many partitions."""
        return self.symbols * len(self.minutes)

    @property
    def longest(self) -> float:
        """Bars of the longest partition."""
        return self.years * _MINUTES_A_YEAR / min(self.minutes)

    @property
    def bars(self) -> float:
        """Bars of all partitions."""
        return self.symbols * sum(self.years * _MINUTES_A_YEAR / each for each in self.minutes)


WORK = Work(symbols=500, minutes=(1, 5, 15, 60, 240), years=8)


@dataclass(frozen=True, kw_only=True)
class Site:
    """Nodes with so many CPUs each, and bytes a second between each and the storage."""

    nodes: int
    cpus: int = 16
    bandwidth: float = 500e6

    @property
    def all_cpus(self) -> int:
        """CPUs of all nodes."""
        return self.nodes * self.cpus


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Seconds before and after the map, and of each bound of the map; bytes on disk, of a node and of the driver."""

    serial: float
    bounds: dict[str, float]
    storage: float
    node: float
    driver: float

    @property
    def seconds(self) -> float:
        """Seconds of the whole."""
        return self.serial + max(self.bounds.values())

    @property
    def bottleneck(self) -> str:
        """Name of the bound that the map is held by."""
        return max(self.bounds, key=self.bounds.__getitem__)


def estimate(costs: Costs, work: Work, site: Site) -> Estimate:
    """Compute what the work takes at a site.

    The map over the nodes takes as long as its tightest bound: the CPU work spread over all CPUs, the longest
    partition, which one CPU does, the driver, which hands out the groups one by one, and the way to the storage.
    """
    groups = min(work.partitions, GROUPS_PER_CPU * site.all_cpus)
    storage = work.bars * (costs.features_bytes + costs.bars_bytes)
    bounds = {
        "the CPUs": (work.bars * costs.bar + work.partitions * costs.partition) / site.all_cpus,
        "the longest partition": work.longest * costs.bar + costs.partition,
        "the driver's handing out": groups * costs.task,
        "the way to the storage": storage / (site.nodes * site.bandwidth),
    }
    return Estimate(
        serial=costs.start + work.partitions * (costs.planning + costs.finishing),
        bounds=bounds,
        storage=storage,
        node=site.cpus * costs.peak * work.longest,
        driver=work.partitions * costs.driver,
    )


def measured_costs(results: Mapping[str, Result], system: str) -> Costs:
    """Read the costs of a feature system from results. Raises KeyError where one of the benchmarks was not measured.

    What a partition costs whatever its length was measured with v2.
    """
    nodes = {what: rows[-1] for what, rows in results["cluster"].curves().items()}  # of the most partitions
    first = next(row for row in results["cluster"].rows if row.what == node_label(1, "first"))
    long = {row.what: row.median for row in results["long-partition"].rows}
    count, bar = nodes[node_label(1, "whole")].size or 1, long[long_label(system, "seconds")] / LONG_BARS
    shared = {part: nodes[node_label(1, part)].median / count for part in ("planning", "finishing", "computing")}
    return Costs(
        bar=bar,
        partition=max(0.0, shared["computing"] - SHORT_BARS * long[long_label("v2", "seconds")] / LONG_BARS),
        planning=shared["planning"],
        finishing=shared["finishing"],
        task=results["tasks"].rows[-1].median,
        start=first.median,
        features_bytes=long[long_label(system, "features_bytes")] * 2**20 / LONG_BARS,
        bars_bytes=long[long_label(system, "bars_bytes")] * 2**20 / LONG_BARS,
        peak=long[long_label(system, "peak")] * 2**20 / LONG_BARS,
        driver=max(0.0, nodes[node_label(1, "driver")].median) * 2**20 / count,
    )


def render_tables(costs: Mapping[str, Costs], work: Work) -> str:
    """Measured costs, and what the work takes on nodes of three numbers, by feature system, as Markdown."""
    return "\n\n".join([_costs_table(costs), *(_sites_table(name, each, work) for name, each in costs.items())])


def put_tables(page: str, tables: str) -> str:
    """The page with the tables in their place."""
    before, _, rest = page.partition(_BEGIN)
    return f"{before}{_BEGIN}\n\n{tables}\n\n{_END}{rest.partition(_END)[2]}"


def _costs_table(costs: Mapping[str, Costs]) -> str:
    lines = [f"| what was measured | {' | '.join(costs)} |", "| --- |" + " ---: |" * len(costs)]
    for name, (what, scale, unit) in _MEASURED.items():
        values = (_in_digits(getattr(each, name) * scale, unit) for each in costs.values())
        lines.append(f"| {what} | {' | '.join(values)} |")
    return "\n".join(lines)


def _sites_table(system: str, costs: Costs, work: Work) -> str:
    sites = [Site(nodes=nodes) for nodes in _NODES]
    found = [estimate(costs, work, site) for site in sites]
    heads = [f"{site.nodes} node{'s' * (site.nodes > 1)}, {site.all_cpus:,} CPUs" for site in sites]
    rows = {
        **{f"bound by {bound}": [_time(each.bounds[bound]) for each in found] for bound in found[0].bounds},
        "before and after the map": [_time(each.serial) for each in found],
        "**time**": [f"**{_time(each.seconds)}**" for each in found],
        "held by": [each.bottleneck for each in found],
        "bars and features stored": [_size(each.storage) for each in found],
        "memory of a node's workers, at most": [_size(each.node) for each in found],
        "memory of the driver, above its libraries": [_size(each.driver) for each in found],
    }
    lines = [f"| {system} | {' | '.join(heads)} |", "| --- |" + " ---: |" * len(heads)]
    return "\n".join([*lines, *(f"| {what} | {' | '.join(values)} |" for what, values in rows.items())])


def _in_digits(value: float, unit: str) -> str:
    return f"{value:,.0f} {unit}" if value >= 100 else f"{value:.3g} {unit}"


def _time(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.3g} min" if seconds < 7_200 else f"{seconds / 3600:.3g} h"


def _size(count: float) -> str:
    return f"{count / 1e9:.3g} GB" if count >= 1e9 else f"{count / 1e6:.3g} MB"


def page_of(results: Mapping[str, Result], held: str) -> str:
    """The page as the results give it."""
    return put_tables(held, render_tables({name: measured_costs(results, name) for name in ("v2", "v4")}, WORK))


@click.command()
@click.option("--check", is_flag=True, help="Write nothing; exit with 1 where the page is not up to date.")
def main(check: bool) -> None:
    """Compute the tables of docs/scale.md anew from the results."""
    held = PAGE.read_text(encoding="utf-8")
    page = page_of(load_results(), held)
    if check and page != held:
        sys.exit(f"{PAGE} is not what the results give: run python -m benchmarks.capacity")
    if not check:
        PAGE.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
