"""CSV in the forms in which exchanges and people write it, as batches of Arrow rows.

The head of the file decides: lines before the header (a web address, comments) are skipped, the delimiter is the one
that gives most columns, and a first line of numbers means that there is no header (see `rows`). Of the three header
lines of yfinance the second says the ticker and the third the name of the time. A first column without a name is called
`index`, as in a frame of pandas. Only the requested columns are read, times as text; prices too, if they are written
with signs of currencies, thousands separators or decimal commas.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.sources.formats.rows import RawRows, default_names, is_data, named_rows

HEAD_BYTES = 65_536
_BLOCK_BYTES = 4_000_000
# Words that stand for a missing number; in a column of text they are words like any other, such as the ticker NA.
_MISSING = ["", "NULL", "null", "NaN", "nan", "None", "none", "NA", "N/A", "n/a", "#N/A", "\\N", "-"]
_DELIMITERS = (",", ";", "\t", "|")
_MOST_LINES_BEFORE, _SAMPLE_LINES = 10, 1_000
_SIGN = "[$€£¥₩₹₿]"
_OF_PEOPLE = re.compile(
    rf"{_SIGN} ?[0-9.,' ]+[KMB]?|[+-]?[0-9][0-9. ']*,[0-9][0-9.,]*[KMB]?|[+-]?[0-9.]+[KMB]", re.IGNORECASE
)
_FAILURE = re.compile(r"In CSV column #(?P<index>\d+):.* error to (?P<kind>\w+).*invalid value '(?P<value>.*)'", re.S)


@dataclass(frozen=True)
class CsvHead:
    """Layout of a file.

    skipped: lines before the first row. symbol: that the header says, None if it does not. plain: numbers are written
    as a computer writes them.
    """

    names: list[str]
    delimiter: str
    skipped: int
    symbol: str | None = None
    plain: bool = True


def opened_csv(file: Any, head: bytes, where: str) -> RawRows:
    """Open a file whose first bytes are `head`. Raises BitcornError if it is not text, now or while it is read."""
    layout = csv_head(head, where)
    layout = replace(layout, plain=_is_plain(head, layout))

    def read(numbers: Sequence[str], texts: Sequence[str]) -> Iterator[pa.RecordBatch]:
        number = pa.float64() if layout.plain else pa.string()
        kinds = dict.fromkeys(texts, pa.string()) | dict.fromkeys(numbers, number)
        return csv_rows(file, layout, kinds, where)

    return replace(named_rows(layout.names, read, where), symbol=layout.symbol)


def csv_head(head: bytes, where: str) -> CsvHead:
    """Return the layout that the head of a file shows. Raises BitcornError if it is empty or not text."""
    if b"\0" in head:
        raise BitcornError(f"{where} cannot be read: it is not text")
    lines = head.decode("utf-8-sig", "replace").splitlines()
    before = 0
    while before < min(len(lines), _MOST_LINES_BEFORE) and _is_before(lines[before]):
        before += 1
    if before == len(lines):
        raise BitcornError(f"{where} cannot be read: it is empty")
    delimiter = max(_DELIMITERS, key=lambda candidate: len(_fields(lines[before], candidate)))
    fields, *rows = [_fields(line, delimiter) for line in lines[before:]]
    if is_data(fields):
        whole = [row for row in [fields, *rows[:-1]] if len(row) == len(fields)]  # the last line may be cut off
        return CsvHead(default_names(whole), delimiter, before)
    if len(rows) >= 2 and rows[0][:1] == ["Ticker"] and rows[1][:1] != [""] and not any(rows[1][1:]):
        if len(tickers := set(rows[0][1:])) != 1:
            raise BitcornError(f"{where} holds {', '.join(sorted(tickers))} side by side: save one ticker per file")
        return CsvHead([rows[1][0], *fields[1:]], delimiter, before + 3, tickers.pop())
    names = ["index" if name == "" and index == 0 else name for index, name in enumerate(fields)]
    return CsvHead(names, delimiter, before + 1)


def _is_plain(head: bytes, layout: CsvHead) -> bool:
    """Return True if no field of the head is a number in the way of people, such as 1.234,50 or 53K."""
    lines = head.decode("utf-8-sig", "replace").splitlines()[layout.skipped : layout.skipped + _SAMPLE_LINES]
    return not any(_OF_PEOPLE.fullmatch(field) for line in lines for field in _fields(line, layout.delimiter))


def csv_rows(file: Any, head: CsvHead, kinds: Mapping[str, pa.DataType], where: str) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a file, in batches of some megabytes, with the columns of `kinds` as these types.

    Raises BitcornError for a value that does not have its column's type.
    """
    from pyarrow import csv as arrow_csv

    # A name that is not requested may occur twice.
    names = [name if name in kinds else f"{index}:{name}" for index, name in enumerate(head.names)]
    try:
        reader = arrow_csv.open_csv(
            file,
            arrow_csv.ReadOptions(block_size=_BLOCK_BYTES, column_names=names, skip_rows=head.skipped),
            arrow_csv.ParseOptions(delimiter=head.delimiter),
            arrow_csv.ConvertOptions(
                column_types=dict(kinds),
                include_columns=list(kinds),
                null_values=_MISSING,
                strings_can_be_null=False,
            ),
        )
        yield from reader
    except pa.ArrowInvalid as error:
        raise BitcornError(_explained(str(error), head.names, where)) from error


def _is_before(line: str) -> bool:
    text = line.strip().strip('"').lower()
    return not text or text.startswith(("#", "http://", "https://", "//")) or text.startswith("sep=")


def _fields(line: str, delimiter: str) -> list[str]:
    fields: Sequence[str] = next(csv.reader([line], delimiter=delimiter), [])
    return [field.strip() for field in fields]


def _explained(error: str, names: list[str], where: str) -> str:
    if "invalid UTF8" in error:
        return f"{where} cannot be read: it is not UTF-8: save it as UTF-8"
    match = _FAILURE.search(error)
    if match is None:
        return f"{where} cannot be read: {error.splitlines()[0]}"
    return f"column {names[int(match['index'])]!r} of {where} holds {match['value']!r}, which is not a number"
