import io

from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from bitcorn_ray.report.table import Table


def _lines(table, width):
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(table)
    return console.file.getvalue().splitlines()


def test_a_table_that_is_too_wide_is_printed_in_parts_that_repeat_their_keys():
    names = [f">measure{number:02}" for number in range(12)]
    rows = [(f"SYM{row}USDT 1h", row, *(f"{row}.{number:04}" for number in range(12))) for row in (1, 2)]
    table = Table(("partition", ">horizon", *names), rows, keys=2)
    wide, narrow = _lines(table, 300), _lines(table, 80)
    assert sum("partition" in line for line in wide) == 1
    assert sum("partition" in line for line in narrow) > 1
    assert max(map(len, narrow)) <= 80
    for name in names:
        assert sum(name[1:] in line for line in narrow) == 1
    for line in narrow:
        assert "." not in line or line.split()[0] in ("SYM1USDT", "SYM2USDT")


@given(
    rows=st.lists(st.tuples(*[st.text("ab ", max_size=8)] * 4), max_size=4),
    keys=st.integers(1, 4),
    width=st.integers(30, 120),
)
def test_every_width_shows_every_column_once_and_the_keys_in_each_part(rows, keys, width):
    table = Table(("k1", "k2", "c3", "c4"), rows, keys=keys)
    text = " ".join(_lines(table, width)).split()
    for place, name in enumerate(("k1", "k2", "c3", "c4")):
        assert text.count(name) == (1 if place >= keys else text.count("k1"))
