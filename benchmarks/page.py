"""The page of all results: `python -m benchmarks.page [--check]` makes docs/benchmarks.md anew from benchmarks/results.

Each benchmark has its place on the page, between ``<!-- benchmark:NAME -->`` and ``<!-- /benchmark:NAME -->``. What
stands between the two is made from the benchmark's result and never edited; all other text is people's and stays.
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterable, Mapping
from pathlib import Path

import click

from benchmarks.exponents import Exponent
from benchmarks.names import BENCHMARKS
from benchmarks.results import RESULTS, Result, Row, load_results

__all__ = ["PAGE", "format_value", "put_sections", "render_page", "render_section"]

PAGE = Path(__file__).parent.parent / "docs" / "benchmarks.md"
_NOT_MEASURED = "*Not measured yet.*"
_WIDTH = 120


@click.command()
@click.option("--check", is_flag=True, help="Write nothing; exit with 1 where the page is not up to date.")
def main(check: bool) -> None:
    """Make the page anew from the results."""
    held = PAGE.read_text(encoding="utf-8")
    page = render_page(held, load_results())
    if check and page != held:
        sys.exit(f"{PAGE} is not what {RESULTS} gives: run python -m benchmarks.page")
    if not check:
        PAGE.write_text(page, encoding="utf-8")


def render_page(page: str, results: Mapping[str, Result]) -> str:
    """The page with the section of every benchmark made from its result, where there is one."""
    sections = {name: render_section(results[name]) if name in results else _NOT_MEASURED for name in BENCHMARKS}
    return put_sections(page, sections)


def put_sections(page: str, sections: Mapping[str, str]) -> str:
    """The page with the text of each named section in its place, and all other text as it was.

    Raises ValueError where a section has no place on the page, or more than one.
    """
    for name, text in sections.items():
        begin, end = f"<!-- benchmark:{name} -->", f"<!-- /benchmark:{name} -->"
        if page.count(begin) != 1 or page.count(end) != 1 or page.index(end) < page.index(begin):
            raise ValueError(f"the page has no place for the benchmark {name}: give it one line {begin} and one {end}")
        before, rest = page.split(begin)
        page = f"{before}{begin}\n\n{text}\n\n{end}{rest.split(end)[1]}"
    return page


def render_section(result: Result) -> str:
    """When and on what the result was measured, its tables, where a peer is better, and remarks, as Markdown."""
    single = [row for row in result.rows if row.size is None]
    parts = [_wrap(f"`python -m benchmarks {result.name}`, {_circumstances(result)}")]
    parts += ["\n".join(_table(single))] if single else []
    parts += ["\n".join(lines) for lines in _curve_tables(result)]
    paragraphs = [_wrap(paragraph) for paragraph in (*_better_peers(result.rows), *result.remarks)]
    return "\n\n".join([*parts, *paragraphs])


def format_value(value: float, unit: str) -> str:
    """A value with its unit, in as many digits as are worth reading."""
    if unit == "s":
        return _format_seconds(value)
    number = f"{value:,.0f}" if abs(value) >= 1000 or unit == "MiB" else f"{value:.4g}"
    return f"{number} {unit}".strip()


def _format_seconds(seconds: float) -> str:
    if seconds < 1e-3:
        return f"{seconds * 1e6:,.0f} µs"
    if seconds < 2:
        return f"{seconds * 1e3:,.1f} ms"
    return f"{seconds:,.0f} s" if seconds >= 1000 else f"{seconds:.4g} s"


def _circumstances(result: Result) -> str:
    machine = dict(result.machine)
    what = ", ".join(str(machine[key]) for key in ("gpu", "cpu", "architecture") if machine.get(key))
    versions = ", ".join(f"{name} {version}" for name, version in result.versions.items())
    counts = sorted({row.runs for row in result.rows if row.runs})
    runs = " to ".join(dict.fromkeys(str(count) for count in counts[:1] + counts[-1:]))
    place = f"{machine['cores']} cores ({what})"
    return f"measured on {result.measured} on {place}, runs of each figure: {runs}; {versions}."


def _table(rows: list[Row]) -> Iterable[str]:
    """A table of rows; references are in italics, below what is set beside them."""
    references = {row.reference for row in rows}
    yield "| what | target | median | fastest | slowest | times its reference | reached |"
    yield "| --- | ---: | ---: | ---: | ---: | ---: | --- |"
    for row in rows:
        what = f"*{row.what}*" if row.what in references or row.peer else row.what
        values = ("" if value is None else format_value(value, row.unit) for value in (row.median, row.best, row.worst))
        yield _line([what, _target(row), *values, _ratio(row), _reached(row)])


def _target(row: Row) -> str:
    asked = [] if row.target is None else [format_value(row.target, row.unit).replace(".0 ms", " ms")]
    return ", ".join(asked + ([] if row.limit is None else [f"{row.limit:.3g} x"]))


def _ratio(row: Row) -> str:
    """The ratio, with those of the best and the worst run to the reference's median."""
    if row.ratio is None:
        return ""
    digits = 3 if row.unit in ("s", "windows/s") else 4  # errors of forecasts differ little
    spread = [row.ratio * value / row.median for value in (row.best, row.worst) if value is not None and row.median]
    told = f" ({spread[0]:.{digits}g} – {spread[1]:.{digits}g})" if len(spread) == 2 and spread[0] != spread[1] else ""
    return f"{row.ratio:.{digits}g} x{told}"


def _reached(row: Row) -> str:
    return "" if row.reached is None else "yes" if row.reached else "**no**"


def _curve_tables(result: Result) -> Iterable[list[str]]:
    """A table for the curves that have the same sizes: medians, ratios, and the exponent of growth."""
    curves, exponents = result.curves(), result.exponents()
    for sizes in dict.fromkeys(tuple(row.size or 0 for row in rows) for rows in curves.values()):
        heads = ["what", *(f"{size:,}" for size in sizes), "grows with the power"]
        lines = [_line(heads), _line(["---"] + ["---:"] * (len(sizes) + 1))]
        for curve, rows in curves.items():
            if tuple(row.size for row in rows) == sizes:
                lines += _curve_lines(rows, exponents.get(curve))
        yield lines


def _curve_lines(rows: list[Row], exponent: Exponent | None) -> Iterable[str]:
    yield _line([rows[0].what, *(format_value(row.median, row.unit) for row in rows), _power(exponent)])
    if rows[0].reference:
        yield _line([f"*times {rows[0].reference}*", *(f"{row.ratio or 0:.3g} x" for row in rows), ""])


def _power(exponent: Exponent | None) -> str:
    if exponent is None:
        return ""
    return f"{exponent.value:.2f}" + ("" if exponent.error is None else f" ± {exponent.error:.2f}")


def _better_peers(rows: tuple[Row, ...]) -> Iterable[str]:
    """A sentence for each row that a peer's figure is better than."""
    peers = {(row.what, row.size) for row in rows if row.peer}
    for row in rows:
        if (row.reference, row.size) in peers and row.ratio is not None and row.reference is not None:
            worse = row.ratio < 1 if row.unit.endswith("/s") else row.ratio > 1
            if worse:
                yield f"**{row.reference} is better here**: {row.what} is {row.ratio:.4g} times it."


def _wrap(paragraph: str) -> str:
    return textwrap.fill(paragraph, _WIDTH, break_long_words=False, break_on_hyphens=False)


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"


if __name__ == "__main__":
    main()
