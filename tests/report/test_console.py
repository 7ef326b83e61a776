import io
import math
from datetime import UTC, datetime

from rendered import printed
from rich.console import Console

from bitcorn_ray.on_ray.doctor import Check
from bitcorn_ray.report.console import checks_table, counter, plain_rows, progress, show, training_progress


def test_rows_for_json_have_texts_for_times_and_none_for_infinity():
    rows = plain_rows([{"time": datetime(2026, 1, 2, tzinfo=UTC), "hi": math.inf, "n": 1}])
    assert rows == [{"time": "2026-01-02T00:00:00Z", "hi": None, "n": 1}]


def test_tables_and_titles_go_to_standard_output(capsys):
    show(("3 [entries]", None), title="a title")
    assert capsys.readouterr().out == "a title\n3 [entries]\n"


def test_progress_and_counter_are_silent_without_a_terminal(capsys):
    with progress("working", 2) as advance:
        advance("one")
        advance("two")
    with counter("rows", quiet=True) as (count, label):
        count(5)
        label("reading")
    assert capsys.readouterr().out == ""


def test_training_progress_shows_epoch_loss_and_speed():
    console = Console(file=io.StringIO(), force_terminal=True, width=120)
    with training_progress(4, console=console) as (advance, finish):
        advance(2, 0.5, 0.4321, 1234.5)
        advance(2, 0.7, 0.4, 1200.0)
        finish(2, 0.5678)
    text = console.file.getvalue()
    for part in ("epoch 2/4", "50 %", "left", "validation loss 0.5678"):
        assert part in text


def test_training_progress_is_silent_without_a_terminal_or_if_quiet():
    for console, quiet in ((Console(file=io.StringIO(), force_terminal=False), False),
                           (Console(file=io.StringIO(), force_terminal=True), True)):  # fmt: skip
        with training_progress(4, quiet, console=console) as (advance, finish):
            advance(1, 0.5, 0.4, 100.0)
            finish(1, 0.5)
        assert console.file.getvalue().strip() == ""


def test_each_check_has_a_line_with_its_remedy_below():
    checks = [
        Check(name="python", state="ok", found="3.11.7"),
        Check(name="storage", state="fail", found="cannot [be] written", remedy="give another"),
    ]
    assert [line.rstrip().split(maxsplit=2) for line in printed(checks_table(checks)).splitlines()] == [
        ["ok", "python", "3.11.7"],
        ["fail", "storage", "cannot [be] written"],
        ["→", "give", "another"],
    ]
