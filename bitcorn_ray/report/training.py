"""A training on a terminal: one bar over all epochs, with the loss, windows a second and the time that is left."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

Advance = Callable[[int, float, float, float], None]
Finish = Callable[[int, float], None]


@contextmanager
def training_progress(
    epochs: int, quiet: bool = False, console: Console | None = None
) -> Iterator[tuple[Advance, Finish]]:
    """Show the bar on standard error for the length of a block.

    Yields two functions. The first is told where training stands: the epoch (from 1), the share of it that is done, its
    mean loss and windows a second. The second is told that an epoch is finished, and its validation loss.
    """
    columns = (
        TextColumn("epoch {task.fields[epoch]}"),
        BarColumn(),
        TextColumn("{task.percentage:3.0f} %"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[last]}"),
    )
    console = console or Console(stderr=True)
    with Progress(*columns, console=console, disable=quiet or not console.is_terminal, transient=True) as bar:
        task = bar.add_task("training", total=epochs, epoch=f"1/{epochs}", last="")

        def advance(epoch: int, share: float, loss: float, samples_per_second: float) -> None:
            last = f"loss {loss:.4f}, {samples_per_second:,.0f} samples/s"
            bar.update(task, completed=epoch - 1 + min(share, 1.0), epoch=f"{epoch}/{epochs}", last=last)

        def finish(epoch: int, val_loss: float) -> None:
            bar.update(task, completed=epoch, last=f"validation loss {val_loss:.4f}")

        yield advance, finish
