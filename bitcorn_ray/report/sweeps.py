"""A sweep on a terminal: its trials while they run, what came of them, and the leaderboard."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence, Sized
from contextlib import contextmanager
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from bitcorn_ray.report.console import counted, table

_ROWS = 20
_SPELLED = 4
_STYLES = {"failed": "red", "stopped": "yellow", "finished": "green"}


@contextmanager
def live_trials(
    total: int, quiet: bool = False, console: Console | None = None
) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Show the trials on standard error for the length of a block, in a table that changes in place.

    total: trials at most. Yields a function that is told how a trial stands, with its name, state, losses and point;
    where nobody looks it prints a line for each trial that ends.
    """
    console = console or Console(stderr=True)
    trials: dict[str, Mapping[str, Any]] = {}
    live = Live(console=console, auto_refresh=False, transient=True) if console.is_terminal and not quiet else None

    def told(trial: Mapping[str, Any]) -> None:
        trials[trial["name"]] = trial
        if live is not None:
            over = sum(each["state"] != "running" for each in trials.values())
            live.update(Group(Text(f"{over} of {total} trials"), trials_table(list(trials.values()))), refresh=True)
        elif trial["state"] != "running" and not quiet:
            console.print(_line(trial), highlight=False, markup=False, soft_wrap=True)

    if live is None:
        yield told
        return
    with live:
        yield told


def trials_table(trials: Sequence[Mapping[str, Any]], most: int = _ROWS) -> Table:
    """A row a trial: those that run, then the best; the mean validation loss over the folds that were done."""
    ordered = sorted(
        trials,
        key=lambda each: (
            each["state"] != "running",
            each["state"] == "failed",
            -len(each["losses"]),
            _mean(each["losses"]) or 0.0,
        ),
    )
    rows = [
        (
            each["name"],
            Text(each["state"], style=_STYLES.get(each["state"], "")),
            f"{len(each['losses'])}",
            "" if (mean := _mean(each["losses"])) is None else f"{mean:.5f}",
            each["error"] or shown_point(each["point"]),
        )
        for each in ordered[:most]
    ]
    if len(ordered) > most:
        rows.append(("...", Text(f"{len(ordered) - most} more"), "", "", ""))
    return table(("trial", "state", "folds", "validation loss", "configuration"), rows, left=(0, 1, 4))


def leaderboard_tables(result: Mapping[str, Any], most: int = _ROWS) -> tuple[Table | str, ...]:
    """The verdict, for each question a row a trial and a baseline, by mean loss on the test windows, and the trials.

    result: as `SweepLeaderboard.to_json` gives it.
    """
    parts = [part for answer in result["answers"] for part in _answer_table(answer, result["folds"], most)]
    return (result["verdict"], *parts, _configurations(result, most), *result["remarks"])


def _configurations(result: Mapping[str, Any], most: int) -> Table:
    """What the trials are that any of the tables shows."""
    names = dict.fromkeys(each["trial"] for answer in result["answers"] for each in answer["standings"][:most])
    trials = {name: result["trials"][name] for name in sorted(names)}
    rows = [(name, trial["state"], shown_point(trial["search"])) for name, trial in trials.items()]
    return table(("trial", "state", "configuration"), rows, left=(0, 1, 2))


def standings(answer: Mapping[str, Any], most: int) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Names of columns, and rows by mean loss: trials from the best on, at most so many, and all baselines among them.

    answer: to a question, as `SweepLeaderboard.to_json` gives it. Gains over a baseline that are significant for that
    trial alone have a star.
    """
    names = list(answer["baselines"])
    rows = [
        (mean, ("", name, "", f"{mean:.5f}", "", "", *[""] * len(names))) for name, mean in answer["baselines"].items()
    ]
    for standing in answer["standings"][:most]:
        error = standing["standard_error"]
        row = (
            f"{standing['rank']}",
            standing["trial"],
            _folds(standing["folds"]),
            f"{standing['mean']:.5f}",
            "" if error is None else f"{error:.5f}",
            f"{standing['score']:.3f}",
            *(_against(standing["against"][name]) for name in names),
        )
        rows.append((standing["mean"], row))
    columns = ("rank", "trial", "folds", answer["loss"], "+-", answer["score"], *(f"over {name}" for name in names))
    return columns, [row for _, row in sorted(rows, key=lambda each: each[0])]


def _folds(means: Sequence[float | None]) -> str:
    done = sum(mean is not None for mean in means)
    return f"{done}" if done == len(means) else f"{done} of {len(means)}"


def standing_remarks(answer: Mapping[str, Any], folds: int) -> list[str]:
    """What to know about the standings of an answer. folds: of the sweep."""
    remarks = []
    if any(None in standing["folds"] for standing in answer["standings"]):
        remarks.append(f"trials of fewer than {folds} folds: those that are missing are filled in from the others'")
    if answer["ranks"] is not None:
        ranks = answer["ranks"]
        remarks.append(
            f"do folds agree on which trials are good? Kendall's W {ranks['concordance']:.2f}, mean rank correlation "
            f"{ranks['correlation']:.2f}, p = {ranks['p_value']:.2g}"
        )
    return remarks


def _answer_table(answer: Mapping[str, Any], folds: int, most: int) -> tuple[Table | str, ...]:
    columns, rows = standings(answer, most)
    title = f"{answer['name']}: gains over a baseline with a star are significant for that trial alone (DM test, 5 %)"
    return (title, table(columns, rows, left=(1,)), *standing_remarks(answer, folds))


def _against(test: Mapping[str, Any]) -> str:
    return f"{test['mean']:+.4f}{' *' if test['p_value'] < 0.05 else ''}"


def _line(trial: Mapping[str, Any]) -> str:
    mean = _mean(trial["losses"])
    loss = "" if mean is None else f", validation loss {mean:.5f} over {counted(len(trial['losses']), 'fold', 'folds')}"
    return f"{trial['name']} {trial['state']}{loss}: {shown_point(trial['point'])}"


def shown_point(point: Mapping[str, Any]) -> str:
    """A point in short: the last part of each name, numbers with four digits, of a long list how long it is."""
    parts = []
    for name, value in point.items():
        text, last = f"{value:.4g}" if isinstance(value, float) else str(value), name.rpartition(".")[2]
        long = isinstance(value, Sized) and not isinstance(value, str) and len(value) > _SPELLED
        parts.append(f"{len(value)} {last}" if long else f"{last}={text}")
    return " ".join(parts)


def _mean(losses: Sequence[float]) -> float | None:
    return sum(losses) / len(losses) if losses else None
