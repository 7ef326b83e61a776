import io

import pyarrow as pa
import pytest

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.sources.formats.csv import csv_head, csv_rows

HEADER = "ts{d}open{d}high{d}low{d}close{d}volume"


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("before", ["", "https://www.CryptoDataDownload.com\n", "# by hand\n\nsep=;\n", "\ufeff"])
def test_the_head_says_delimiter_and_header(delimiter, before):
    text = before + HEADER.format(d=delimiter) + "\n" + delimiter.join("123456") + "\n"
    head = csv_head(text.encode(), "x")
    assert head.names == ["ts", "open", "high", "low", "close", "volume"]
    assert head.delimiter == delimiter
    kinds = {"ts": pa.string(), "close": pa.float64()}
    [batch] = csv_rows(io.BytesIO(text.encode()), head, kinds, "x")
    assert batch.to_pylist() == [{"ts": "1", "close": 5.0}]


def test_a_first_line_of_numbers_is_no_header():
    text = b"1700000000000,1,2,0.5,1.5,7\n1700003600000,1,2,0.5,1.5,8\n"
    head = csv_head(text, "x")
    batches = list(csv_rows(io.BytesIO(text), head, {head.names[0]: pa.string()}, "x"))
    assert [row[head.names[0]] for batch in batches for row in batch.to_pylist()] == ["1700000000000", "1700003600000"]


def test_columns_that_are_not_asked_for_may_be_anything_and_stand_twice():
    text = b"ts,note,note,close\n1,a,b,NULL\n2,,,\\N\n3,x,7,1e3\n"
    [batch] = csv_rows(io.BytesIO(text), csv_head(text, "x"), {"close": pa.float64()}, "x")
    assert batch.column("close").to_pylist() == [None, None, 1000.0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "x cannot be read: it is empty"),
        (b"\n\n", "x cannot be read: it is empty"),
        (b"PAR\0\0", "x cannot be read: it is not text"),
    ],
)
def test_a_head_that_says_nothing_is_refused(text, message):
    with pytest.raises(BitcornError, match=message):
        csv_head(text, "x")


@pytest.mark.parametrize(
    ("row", "message"),
    [(b"1,a word", "column 'close' of x holds 'a word', which is not a number"), (b"1,2,3", "x cannot be read")],
)
def test_a_row_that_does_not_fit_is_named(row, message):
    text = b"ts,close\n" + row + b"\n"
    with pytest.raises(BitcornError, match=message):
        list(csv_rows(io.BytesIO(text), csv_head(text, "x"), {"close": pa.float64()}, "x"))
