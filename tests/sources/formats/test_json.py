import io
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.sources.formats import json as formats_json
from bitcorn_ray.sources.formats.json import json_rows


def rows_of(text):
    return [row for batch in json_rows(io.BytesIO(text.encode()), "x") for row in batch.to_pylist()]


ROWS = [{"ts": at, "close": at / 2, "note": "é"} for at in range(1, 30)]


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("piece", [10, 64, 8_000_000])
def test_a_list_of_objects_is_read_piece_by_piece(monkeypatch, indent, piece):
    monkeypatch.setattr(formats_json, "_PIECE_BYTES", piece)
    assert rows_of(json.dumps(ROWS, indent=indent)) == ROWS


@pytest.mark.parametrize("piece", [12, 8_000_000])
def test_an_object_a_line_is_read_piece_by_piece(monkeypatch, piece):
    monkeypatch.setattr(formats_json, "_PIECE_BYTES", max(piece, 80))
    assert rows_of("\n".join(map(json.dumps, ROWS))) == ROWS
    assert rows_of("\r\n".join(map(json.dumps, ROWS)) + "\r\n") == ROWS


numbers = st.one_of(st.integers(-(10**15), 10**15), st.floats(allow_nan=False, allow_infinity=False))


@settings(deadline=None)
@given(
    st.lists(st.lists(numbers, min_size=3, max_size=3), min_size=1, max_size=30),
    st.integers(2, 200),
    st.sampled_from(["", "\n\n"]),
)
def test_lists_are_what_json_says_wherever_a_piece_ends(rows, piece, end):
    before, formats_json._PIECE_BYTES = formats_json._PIECE_BYTES, piece
    try:
        read = rows_of(json.dumps(rows) + end)
    finally:
        formats_json._PIECE_BYTES = before
    assert [[float(value) for value in row.values()] for row in read] == [list(map(float, row)) for row in rows]


def test_a_wrapped_list_is_found():
    assert rows_of(json.dumps({"code": 0, "data": {"rows": ROWS}})) == ROWS


def test_prices_as_text_and_numbers_side_by_side_are_text():
    assert [row["1"] for row in rows_of('[[1, "2.5", 3], [1, 2, 3]]')] == ["2.5", "2"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "it is empty"),
        ("[]", "no table of bars"),
        ("[1, 2]", "no table of bars"),
        ("nonsense", "it is not valid JSON"),
        ('{"a": 1}', "no table of bars"),
        ('{"a": [[1]], "b": [[2]]}', "several tables of bars"),
        ("[[1, 2], [3]]", "rows have 1 to 2 values"),
        ('[[1, 2], {"a": 1}]', "neither lists nor objects"),
        ("[[1, 2], [3, 4]", "it is not valid JSON"),
        ("[[1, 2], [3, ", "does not end, it was cut off"),
        ("[[1, 2] [3, 4]]", "it is not valid JSON"),
    ],
)
def test_what_is_no_rows_is_refused(text, message):
    with pytest.raises(BitcornError, match=message):
        rows_of(text)
