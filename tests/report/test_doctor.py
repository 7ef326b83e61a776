from rich.console import Console

from bitcorn_ray.report.doctor import checks_table


def test_each_check_has_a_line_and_what_is_wrong_its_remedy_below():
    rows = [
        {"name": "python", "state": "ok", "found": "3.11.7", "remedy": None},
        {"name": "storage", "state": "fail", "found": "cannot [be] written", "remedy": "give another"},
    ]
    console = Console(width=100)
    with console.capture() as printed:
        console.print(checks_table(rows))
    assert [line.rstrip().split(maxsplit=2) for line in printed.get().splitlines()] == [
        ["ok", "python", "3.11.7"],
        ["fail", "storage", "cannot [be] written"],
        ["→", "give", "another"],
    ]
