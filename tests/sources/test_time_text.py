import pyarrow as pa
import pytest

from bitcorn_ray.sources.time_text import parse_text


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("2024-01-31", "YYYY-MM-DD"),
        ("2024.01.31 05:06", "YYYY.MM.DD HH:MM"),
        ("2024-01-31 05-PM", "YYYY-MM-DD HH-AM"),
        ("2024-01-31 5:06:07 am", "YYYY-MM-DD H:MM:SS AM"),
        ("20240131T05:06:07.25-0300", "YYYYMMDDTHH:MM:SS.ff+HH:MM"),
    ],
)
def test_a_shape_is_named_as_people_write_it(text, form):
    ms, bad, _, units = parse_text(pa.array([text, "nothing of the kind"]))
    assert units == {form: 1}
    assert bad.tolist() == [False, True]
    assert (ms[0] > 0, ms[1]) == (True, 0)


def test_slices_and_large_strings_are_read_from_where_they_begin():
    texts = pa.array(["x", "2024-01-31", "2024-02-29", "1970-01-02"])
    for array in (texts[1:], texts.cast(pa.large_string())[1:]):
        ms, bad, _, _ = parse_text(array)
        assert not bad.any()
        assert ms.tolist()[-1] == 86_400_000


def test_so_many_shapes_are_no_column_of_times():
    texts = ["".join("x9"[i >> bit & 1] for bit in range(12)) for i in range(4_000)]
    _, bad, _, units = parse_text(pa.array(texts))
    assert bad.all()
    assert units == {}


def test_no_text_is_no_time():
    ms, bad, _, units = parse_text(pa.array([], pa.string()))
    assert (len(ms), len(bad), units) == (0, 0, {})
