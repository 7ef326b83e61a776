import io

from rich.console import Console

from bitcorn_ray.report.training import training_progress


def test_the_bar_tells_epoch_loss_speed_and_what_is_left():
    console = Console(file=io.StringIO(), force_terminal=True, width=120)
    with training_progress(4, console=console) as (advance, finish):
        advance(2, 0.5, 0.4321, 1234.5)
        advance(2, 0.7, 0.4, 1200.0)
        finish(2, 0.5678)
    shown = console.file.getvalue()
    assert "epoch 2/4" in shown
    assert "50 %" in shown
    assert "left" in shown
    assert "validation loss 0.5678" in shown


def test_where_nobody_looks_nothing_is_shown():
    console = Console(file=io.StringIO(), force_terminal=False)
    with training_progress(4, console=console) as (advance, finish):
        advance(1, 0.5, 0.4, 100.0)
        finish(1, 0.5)
    assert console.file.getvalue().strip() == ""
    loud = Console(file=io.StringIO(), force_terminal=True)
    with training_progress(4, True, console=loud) as (advance, _):
        advance(1, 0.5, 0.4, 100.0)
    assert loud.file.getvalue() == ""
