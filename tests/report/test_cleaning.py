import pytest

from bitcorn_ray.report.cleaning import cleaning_line

NONE = dict.fromkeys(
    (
        "sorted_rows",
        "duplicates_dropped",
        "off_grid_dropped",
        "off_grid_snapped",
        "bad_prints_masked",
        "gaps_filled",
        "bars_filled",
        "gaps_left",
    ),
    0,
)


@pytest.mark.parametrize(
    ("counts", "told"),
    [
        ({}, "nothing to clean"),
        ({"duplicates_dropped": 2_649}, "2,649 dropped as of a time that is there"),
        ({"bars_filled": 3, "gaps_filled": 2, "gaps_left": 1}, "3 filled in 2 gaps, 1 longer gap left"),
        ({"off_grid_snapped": 1, "bad_prints_masked": 4}, "1 snapped to the grid, 4 masked as bad prints"),
    ],
)
def test_a_line_says_only_what_was_done(counts, told):
    line = cleaning_line("BTCUSDT 1h", {**NONE, "rows": 36_062, "bars": 33_413, **counts})
    assert line == f"BTCUSDT 1h: 36,062 rows became 33,413 bars ({told})"
