"""An evaluation on a terminal: a verdict for each horizon first, then where it comes from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.table import Table

from bitcorn_ray.report.console import ahead, counted, table

_STRONGEST = "strong HAR"


def evaluation_tables(result: dict[str, Any]) -> tuple[Table | str, ...]:
    """Verdicts, the QLIKE of each baseline less the run's, and a row a partition and horizon.

    result: as `Evaluation.to_json` gives it.
    """
    told = ["\n  ".join([f"{ahead(each['horizon'])}", *each["verdict"].split("; ")]) for each in result["skill"]]
    remarks = [
        f"{name} of {one['symbol']}: {remark}"
        for one in result["partitions"]
        for name, remark in one["remarks"].items()
    ]
    return (
        "\n".join(told),
        _baselines(result["skill"]),
        table(
            ("partition", "horizon", "windows", "from", *_MEASURES),
            (row for one in result["partitions"] for row in _rows(one)),
            left=(0, 3),
        ),
        *remarks,
    )


_MEASURES = ("QLIKE", f"less {_STRONGEST}'s", "direction", "by chance", "in 50 %", "in 80 %", "in 95 %", "CRPS", "RMSE")


def _baselines(skill: list[dict[str, Any]]) -> Table:
    """QLIKE of the run less each baseline's: below zero the run is better; a star where that is significant."""
    names = [each["baseline"] for each in skill[0]["volatility"]]
    rows = []
    for place, name in enumerate(names):
        cells = []
        for one in skill:
            compared = one["volatility"][place]
            star = "" if compared["outcome"] == "not distinguishable" else " *"
            cells.append(f"{compared['test']['mean']:+.4f}{star}")
        rows.append((name, *cells))
    return table(
        ("QLIKE less that of (below 0 is better)", *(counted(one["horizon"], "bar", "bars") for one in skill)),
        rows,
        left=(0,),
    )


def _rows(one: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    for metrics, skill in zip(one["metrics"], one["skill"], strict=True):
        strong = next((c["test"]["mean"] for c in skill["volatility"] if c["baseline"] == _STRONGEST), None)
        direction = metrics["direction"]
        covered = [
            "" if band["covered"] is None else f"{100 * band['covered']['share']:.1f} %" for band in metrics["bands"]
        ]
        yield (
            f"{one['symbol']} {one['timeframe']}",
            f"{metrics['horizon']}",
            f"{metrics['count']:,}",
            one["first"][:10],
            f"{metrics['qlike']:.4f}",
            "" if strong is None else f"{strong:+.4f}",
            "" if direction is None else f"{100 * direction['accuracy']['share']:.1f} %",
            "" if direction is None else f"{100 * direction['expected']:.1f} %",
            *covered,
            f"{metrics['crps']:.3g}",
            f"{metrics['rmse_return']:.3g}",
        )
