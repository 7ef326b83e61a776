"""A watched source on a terminal: the newest forecasts, and how the earlier ones turned out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from bitcorn_ray.report.console import price, printable, short_time, table


class WatchScreen:
    """What is shown while a source is watched: tables that change in place, or a line a forecast where nobody looks.

    line: what is watched. console: by default standard error.
    """

    def __init__(self, line: str, console: Console | None = None) -> None:
        self._line, self._console = line, console or Console(stderr=True)
        self._newest: dict[tuple[str, str], Mapping[str, Any]] = {}
        self._live: Live | None = None

    def __enter__(self) -> WatchScreen:
        if self._console.is_terminal:
            self._live = Live(console=self._console, auto_refresh=False, transient=True)
            self._live.start()
        else:
            self._console.print(self._line, highlight=False, markup=False, soft_wrap=True)
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def update(self, entries: Sequence[Mapping[str, Any]], skill: Sequence[Mapping[str, Any]]) -> None:
        """Show new entries of the journal and the skill so far."""
        for entry in entries:
            if entry["kind"] == "forecast":
                self._newest[entry["symbol"], entry["timeframe"]] = entry
        if self._live:
            newest = [entry for _, entry in sorted(self._newest.items())]
            self._live.update(Group(Text(self._line), newest_table(newest), skill_table(skill)), refresh=True)
            return
        for entry in entries:
            if entry["kind"] != "outcome":
                self._console.print(printable(_told(entry)), highlight=False, markup=False, soft_wrap=True)


def newest_table(entries: Sequence[Mapping[str, Any]]) -> Table:
    """A row for each horizon of each partition's newest forecast, as the journal tells it."""

    def rows() -> Any:
        for entry in entries:
            for place, horizon in enumerate(entry["horizons"]):
                forecast, volatility = entry["return"][place], entry["volatility"][place]
                yield (
                    f"{entry['symbol']} {entry['timeframe']}" if place == 0 else "",
                    short_time(entry["cutoff"]) if place == 0 else "",
                    price(entry["close"]) if place == 0 else "",
                    str(horizon),
                    f"{forecast:+.3%}",
                    f"{volatility:.3%}",
                    *(_band(forecast, volatility, entry["widths"].get(level, []), place) for level in ("0.8", "0.95")),
                )

    return table(
        ("partition", "last bar", "close", "horizon", "return", "volatility", "80 % band", "95 % band"),
        rows(),
        left=(0, 1),
    )


def skill_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """A row for each partition and horizon: coverage, direction, and QLIKE beside the baseline's."""
    return table(
        ("partition", "horizon", "scored", "in 50 %", "in 80 %", "in 95 %", "direction", "QLIKE", "EWMA", "better by"),
        (
            (
                f"{row['symbol']} {row['timeframe']}",
                str(row["horizon"]),
                f"{row['scored']:,}" + (f" ({row['unknown']:,} unknown)" if row["unknown"] else ""),
                *(_share(row["coverage"].get(level)) for level in ("0.5", "0.8", "0.95")),
                _share(row["direction"]),
                _nats(row["qlike"]),
                _nats(row["ewma_qlike"]),
                "-" if row["qlike"] is None else f"{row['ewma_qlike'] - row['qlike']:+.4f}",
            )
            for row in rows
        ),
        left=(0,),
    )


def _told(entry: Mapping[str, Any]) -> str:
    """One line about a forecast, or about a bar that has none."""
    start = f"{entry['symbol']} {entry['timeframe']} {short_time(entry['cutoff'])}"
    if entry["kind"] == "skipped":
        return f"{start}: no forecast, {entry['why']}"
    horizons = zip(entry["horizons"], entry["return"], entry["volatility"], strict=True)
    return f"{start}: " + ", ".join(f"{h} bars {r:+.3%} +- {v:.3%}" for h, r, v in horizons)


def _band(forecast: float, volatility: float, widths: Sequence[float | None], place: int) -> str:
    width = widths[place] if place < len(widths) else None
    if width is None:
        return "∞"
    return f"{forecast - width * volatility:+.2%} to {forecast + width * volatility:+.2%}"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def _nats(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
