"""Results of benchmarks as they are kept: one small JSON file each, from which the page is made."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.exponents import Exponent, fit_exponent
from benchmarks.machine import describe_machine, library_versions
from benchmarks.timing import Figure

__all__ = ["RESULTS", "Result", "Row", "load_results"]

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True, kw_only=True)
class Row:
    """A figure without its single runs; see `Figure`. best and worst are None where they were not noted."""

    what: str
    unit: str = "s"
    median: float
    best: float | None = None
    worst: float | None = None
    runs: int | None = None
    target: float | None = None
    reference: str | None = None
    ratio: float | None = None
    limit: float | None = None
    reached: bool | None = None
    peer: bool = False
    size: int | None = None

    @classmethod
    def of(cls, figure: Figure) -> Row:
        """Summarise a figure."""
        return cls(
            what=figure.what,
            unit=figure.unit,
            median=figure.median,
            best=figure.best,
            worst=figure.worst,
            runs=len(figure.values),
            target=figure.target,
            reference=figure.reference.what if figure.reference else None,
            ratio=figure.ratio,
            limit=figure.limit,
            reached=figure.reached,
            peer=figure.peer,
            size=figure.size,
        )

    def to_json(self) -> dict[str, Any]:
        """What differs from the defaults."""
        defaults = {each.name: each.default for each in fields(self)}
        return {name: value for name, value in asdict(self).items() if value != defaults[name]}


@dataclass(frozen=True, kw_only=True)
class Result:
    """One benchmark's rows, and what they were measured on.

    measured: the day, as in 2026-11-24. machine, versions: see `benchmarks.machine`. remarks: paragraphs that people
    wrote about these numbers; they go when the benchmark is measured anew.
    """

    name: str
    measured: str
    machine: dict[str, str | int]
    versions: dict[str, str]
    rows: tuple[Row, ...]
    remarks: tuple[str, ...] = ()

    @classmethod
    def of(cls, name: str, figures: Iterable[Figure]) -> Result:
        """What was measured here and now."""
        return cls(
            name=name,
            measured=datetime.now(UTC).strftime("%Y-%m-%d"),
            machine=describe_machine(),
            versions=library_versions(),
            rows=tuple(Row.of(figure) for figure in figures),
        )

    @classmethod
    def load(cls, path: Path) -> Result:
        """Read one that was saved. Raises ValueError where the file is no result."""
        try:
            told = json.loads(path.read_text(encoding="utf-8"))
            told.pop("exponents", None)  # they follow from the rows
            rows = tuple(Row(**row) for row in told.pop("rows"))
            return cls(**told | {"rows": rows, "remarks": tuple(told.get("remarks", ()))})
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path} is no result of a benchmark ({error}): measure it anew with --write") from error

    def save(self, folder: Path) -> None:
        """Write it as the folder's NAME.json."""
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(self.to_json(), indent=1, ensure_ascii=False)
        (folder / f"{self.name}.json").write_text(text + "\n", encoding="utf-8")

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON holds it, with the exponents of its growth curves."""
        exponents = {curve: asdict(exponent) for curve, exponent in self.exponents().items()}
        told = {**asdict(self), "rows": [row.to_json() for row in self.rows], "exponents": exponents}
        return {name: value for name, value in told.items() if value}

    def curves(self) -> dict[str, list[Row]]:
        """Rows of each growth curve, by its name and by ascending size."""
        found: dict[str, list[Row]] = {}
        for row in sorted((row for row in self.rows if row.size is not None), key=lambda row: row.size or 0):
            found.setdefault(row.what, []).append(row)
        return found

    def exponents(self) -> dict[str, Exponent]:
        """Exponent of each growth curve with two points or more, all of them above zero."""
        return {
            curve: fit_exponent([row.size or 0 for row in rows], [row.median for row in rows])
            for curve, rows in self.curves().items()
            if len(rows) > 1 and min(row.median for row in rows) > 0
        }


def load_results(folder: Path = RESULTS) -> dict[str, Result]:
    """Every result of a folder, by name. Raises ValueError where a file is none."""
    return {path.stem: Result.load(path) for path in sorted(folder.glob("*.json"))}
