"""Tables and lists of facts that are shown both on a terminal and on a page, and the formats of their cells.

`Table` and `Facts` render themselves: rich prints them, pages write their ``html()``. A table that is too wide for the
terminal is printed in parts, one below the other, each with the columns that name its rows. Control characters are
escaped on a terminal and markup is escaped everywhere, because names come from files.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from rich import box, table
from rich.console import Console, ConsoleOptions
from rich.measure import Measurement
from rich.text import Text


class Html(str):
    """Text that is markup already; all other text is escaped."""


@dataclass(frozen=True)
class Styled:
    """A cell in the colour of a grade: "good", "fair" or "poor"."""

    text: str
    grade: str

    def html(self) -> Html:
        """Return the text behind a coloured dot."""
        return Html(f"<span class='dot {self.grade}'></span>{escape(self.text)}")


Cell = str | int | None | Styled
_COLOURS = {"good": "green", "fair": "yellow", "poor": "red"}


@dataclass(frozen=True)
class Table:
    """A table.

    columns: names; a leading ">" aligns a column to the right and is not shown. rows: cells; None is empty, integers
    get thousands separators. wide: do not wrap the cells on a page. keys: number of leading columns that name a row.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    wide: bool = False
    keys: int = 1

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[table.Table]:
        """Print the table, in parts if no column can be left whole otherwise."""
        for columns in self._parts(console, options):
            yield self._printed(columns)

    def _parts(self, console: Console, options: ConsoleOptions) -> list[list[int]]:
        """Return the columns of each part."""
        keys, rest = list(range(self.keys)), range(self.keys, len(self.columns))
        parts = [keys]
        for column in rest:
            wider = [*parts[-1], column]
            # Words are not broken: a part is full once its words take more than the terminal's width.
            least = Measurement.get(console, options.update(width=10_000), self._printed(wider)).minimum
            if least > options.max_width and len(parts[-1]) > len(keys):
                parts.append([*keys, column])
            else:
                parts[-1] = wider
        return parts

    def _printed(self, columns: Sequence[int]) -> table.Table:
        """Return the table of rich with some of the columns."""
        made = table.Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for name in (self.columns[column] for column in columns):
            made.add_column(name.removeprefix(">"), justify="right" if name[:1] == ">" else "left", overflow="fold")
        for row in self.rows:
            made.add_row(*(_terminal_cell(row[column]) for column in columns))
        return made

    def html(self) -> Html:
        """Return a table that scrolls on its own."""

        def row(tag: str, cells: Sequence[Any]) -> str:
            pairs = zip(self.columns, cells, strict=True)
            made = (f"<{tag}{' class=n' if name[:1] == '>' else ''}>{markup(cell)}</{tag}>" for name, cell in pairs)
            return f"<tr>{''.join(made)}</tr>"

        head = row("th", [name.removeprefix(">") for name in self.columns])
        body = "".join(row("td", cells) for cells in self.rows)
        return Html(
            f"<div class=scroll tabindex=0 role=group aria-label='table'><table{' class=wide' if self.wide else ''}>"
            f"<thead>{head}</thead><tbody>{body}</tbody></table></div>"
        )


@dataclass(frozen=True)
class Facts:
    """Values by name; those that are empty are left out."""

    values: Mapping[str, Cell]

    def __rich__(self) -> Table:
        """Return a table with a line per fact."""
        return Table(("", ""), list(self._known().items()))

    def html(self) -> Html:
        """Return a definition list, in columns if there is room."""
        items = (f"<div><dt>{escape(name)}</dt><dd>{markup(value)}</dd></div>" for name, value in self._known().items())
        return Html(f"<dl>{''.join(items)}</dl>")

    def _known(self) -> dict[str, Cell]:
        return {name: value for name, value in self.values.items() if value not in (None, "")}


def markup(value: Any) -> str:
    """Return a value as markup: escaped, unless it is markup already or renders itself."""
    if isinstance(value, Html):
        return value
    return value.html() if hasattr(value, "html") else escape(cell_text(value))


def cell_text(value: Any) -> str:
    """Return the text of a cell.

    >>> cell_text(1234), cell_text(None), cell_text("a")
    ('1,234', '', 'a')
    """
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int) else str(value)


def _terminal_cell(cell: Cell) -> Text:
    if isinstance(cell, Styled):
        return Text(printable(cell.text), style=_COLOURS[cell.grade])
    return Text(printable(cell_text(cell)))


def printable(text: str) -> str:
    r"""Return a text with its control characters escaped: names from files could control the terminal by them.

    >>> printable("\x1b[31mred\nnext")
    '\\x1b[31mred\nnext'
    """
    return "".join(char if char.isprintable() or char == "\n" else ascii(char)[1:-1] for char in text)


def name_of(result: Any) -> str:
    """Return the partition of a result with fields `symbol` and `timeframe`, such as "BTCUSDT 1h"."""
    return f"{result.symbol} {result.timeframe}"


def number(value: float | None, digits: int = 4, missing: str = "") -> str:
    """Return a number with fixed decimals.

    >>> number(0.1234), number(None, missing="-"), number(2.0, 5)
    ('0.1234', '-', '2.00000')
    """
    return missing if value is None else f"{value:.{digits}f}"


def percent(share: float | None, missing: str = "") -> str:
    """Return a share in percent.

    >>> percent(0.9512), percent(None)
    ('95.1 %', '')
    """
    return missing if share is None else f"{100 * share:.1f} %"


def price(value: float | None) -> str:
    """Return a price with six significant digits; None is an infinite bound.

    >>> price(63747.612929), price(0.0000123456789), price(None)
    ('63747.6', '0.0000123457', '∞')
    """
    if value is None:
        return "∞"
    text = f"{value:.6g}"
    return f"{value:.{int(text.split('e-')[1]) + 5}f}" if "e-" in text else text


def short_time(time: Any) -> str:
    """Return a time to the minute; "-" for None.

    >>> short_time("2026-06-20T10:00:00Z")
    '2026-06-20 10:00'
    """
    return "-" if time is None else str(time)[:16].replace("T", " ")


def ahead(horizon: int) -> str:
    """Return a horizon in words.

    >>> ahead(1), ahead(4)
    ('1 bar ahead', '4 bars ahead')
    """
    return f"{counted(horizon, 'bar')} ahead"


def counted(count: int, one: str, many: str | None = None) -> str:
    """Return a number with its noun. many: the plural, with an "s" by default.

    >>> counted(1, "entry", "entries"), counted(1_000, "bar")
    ('1 entry', '1,000 bars')
    """
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def size(count: int) -> str:
    """Return a number of bytes with its unit.

    >>> size(4_483_948)
    '4.5 MB'
    """
    amount = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} TB"


def first_of(values: Sequence[Any], most: int) -> str:
    """Return the first values, and how many more there are.

    >>> first_of(["a", "b", "c"], 2)
    'a, b and 1 more'
    """
    more = f" and {len(values) - most} more" if len(values) > most else ""
    return ", ".join(map(str, values[:most])) + more
