"""Sweeps on a terminal: the trials while they run, their results, and the leaderboard."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence, Sized
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from bitcorn_ray.report.table import Styled, Table, counted, number

if TYPE_CHECKING:
    from bitcorn_ray.metrics.comparison import TrialComparisonResult
    from bitcorn_ray.tuning.leaderboard import SweepLeaderboard
    from bitcorn_ray.tuning.search import Trial

_ROWS = 20
_SPELLED = 4
_GRADES = {"failed": "poor", "stopped": "fair", "finished": "good"}


@contextmanager
def live_trials(total: int, quiet: bool = False, console: Console | None = None) -> Iterator[Callable[[Trial], None]]:
    """Show the trials on standard error for the duration of a block: a live table, or lines if it is no terminal.

    total: maximum number of trials. Yields a function that shows the new state of a trial.
    """
    console = console or Console(stderr=True)
    trials: dict[str, Trial] = {}
    live = Live(console=console, auto_refresh=False, transient=True) if console.is_terminal and not quiet else None

    def update(trial: Trial) -> None:
        trials[trial.name] = trial
        if live is not None:
            done = sum(one.state != "running" for one in trials.values())
            live.update(Group(Text(f"{done} of {total} trials"), trials_table(list(trials.values()))), refresh=True)
        elif trial.state != "running" and not quiet:
            folds = counted(len(trial.losses), "fold")
            loss = "" if trial.loss is None else f", validation loss {trial.loss:.5f} over {folds}"
            line = f"{trial.name} {trial.state}{loss}: {point_text(trial.point)}"
            console.print(line, highlight=False, markup=False, soft_wrap=True)

    if live is None:
        yield update
        return
    with live:
        yield update


def trials_table(trials: Sequence[Trial], most: int = _ROWS) -> Table:
    """Return a row per trial with its mean validation loss: first those that run, then the best."""
    ordered = sorted(trials, key=lambda t: (t.state != "running", t.state == "failed", -len(t.losses), t.loss or 0.0))
    rows: list[Any] = [
        (
            one.name,
            Styled(one.state, _GRADES[one.state]) if one.state in _GRADES else one.state,
            len(one.losses),
            number(one.loss, 5),
            one.error or point_text(one.point),
        )
        for one in ordered[:most]
    ]
    if len(ordered) > most:
        rows.append(("...", f"{len(ordered) - most} more", "", "", ""))
    return Table(("trial", "state", ">folds", ">validation loss", "configuration"), rows)


def leaderboard_tables(judgement: SweepLeaderboard, most: int = _ROWS) -> tuple[Table | str, ...]:
    """Return the verdict, a table of trials and baselines for each question, and the trials in these tables."""
    board, trials = judgement.board, judgement.trials
    parts = list[Table | str]()
    for answer in board.answers:
        star = "gains over a baseline with a star are significant for that trial alone (DM test, 5 %)"
        parts += [f"{answer.name}: {star}", standings(answer, most), *standing_remarks(answer, board.folds)]
    names = sorted({one.trial for answer in board.answers for one in answer.standings[:most]})
    rows = [(name, trials[name].state, point_text(trials[name].point)) for name in names]
    return board.verdict, *parts, Table(("trial", "state", "configuration"), rows), *judgement.remarks


def standings(answer: TrialComparisonResult, most: int, trials: Mapping[str, Trial] | None = None) -> Table:
    """Return a row per trial and baseline, by mean loss. A star marks a significant gain of that trial over a baseline.

    most: number of trials, the best first. trials: by name, to add a column with their configurations.
    """

    def configuration(name: str) -> list[str]:
        if trials is None:
            return []
        return [point_text(trials[name].point) if name in trials else ""]

    names, rows = list(answer.baselines), list[tuple[float, list[str]]]()
    for name, mean in answer.baselines.items():
        rows.append((mean, ["", name, *configuration(name), "", f"{mean:.5f}", "", "", *[""] * len(names)]))
    for one in answer.standings[:most]:
        done, count = sum(mean is not None for mean in one.folds), len(one.folds)
        folds = f"{done}" if done == count else f"{done} of {count}"
        values = [f"{one.mean:.5f}", number(one.standard_error, 5), f"{one.score:.3f}"]
        tests = [one.against[name] for name in names]
        gains = [f"{test.mean:+.4f}{' *' if test.p_value < 0.05 else ''}" for test in tests]
        rows.append((one.mean, [f"{one.rank}", one.trial, *configuration(one.trial), folds, *values, *gains]))
    middle = [] if trials is None else ["configuration"]
    gains_over = [f">over {name}" for name in names]
    columns = [">rank", "trial", *middle, ">folds", f">{answer.loss}", ">+-", f">{answer.score}", *gains_over]
    return Table(columns, [cells for _, cells in sorted(rows, key=lambda row: row[0])], wide=True)


def standing_remarks(answer: TrialComparisonResult, folds: int) -> list[str]:
    """Return remarks on the standings. folds: of the sweep."""
    remarks = []
    if any(None in standing.folds for standing in answer.standings):
        remarks.append(f"trials with fewer than {folds} folds: the missing ones are filled in from the other trials")
    if ranks := answer.ranks:
        remarks.append(
            f"do folds agree on which trials are good? Kendall's W {ranks.concordance:.2f}, mean rank correlation "
            f"{ranks.correlation:.2f}, p = {ranks.p_value:.2g}"
        )
    return remarks


def point_text(point: Mapping[str, Any]) -> str:
    """Return a point in short: names without their section, numbers with four digits, long lists as their length."""
    parts = []
    for name, value in point.items():
        text, last = f"{value:.4g}" if isinstance(value, float) else str(value), name.rpartition(".")[2]
        long = isinstance(value, Sized) and not isinstance(value, str) and len(value) > _SPELLED
        parts.append(f"{len(value)} {last}" if long else f"{last}={text}")
    return " ".join(parts)
