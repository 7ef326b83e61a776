"""An evolution that takes seconds, and the result of one, for the tests that need one."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace

from small_sweeps import FOLDS, MODEL, TRAINING

from bitcorn_ray.errors import BitcornError

SYSTEMS = ["v2", "own_systems:momentum:window=5"]

_GENERATIONS = [
    {"generation": n, "trained": 4, "best": best, "front": ["t1"], "survival": {"rsi_14": 0.25 * n, "adx": 0.5}}
    for n, best in ((1, -7.5), (2, -8.0), (3, None))
]


def _member(name, count, loss, held_out):
    told = {"name": name, "count": count, "features": ["rsi_14", "adx"][:count], "search": {"seq_len": 16}}
    return {**told, "loss": loss, "held_out_loss": held_out}


# What evolution.json holds, as far as it is drawn.
RESULT = {
    "ended": "time",
    "tried": 12,
    "winner": "t2",
    "front": [_member("t1", 1, -7.5, None), _member("t2", 2, -8.0, -7.25)],
    "compared": [_member("v2", 2, None, -6.5)],
    "importance": [
        {"feature": "adx", "increase": 0.5, "standard_error": 0.25},
        {"feature": "rsi_14", "increase": -0.01, "standard_error": None},
    ],
    "generations": _GENERATIONS,
}


def evolve_values(db, out, /, **changes):
    """Values of an evolution of two generations of four over one fold of AAAUSDT 1h, with one held out."""
    values = {
        "db": str(db),
        "symbol": "AAAUSDT",
        "timeframe": "1h",
        "out": str(out),
        "model": MODEL,
        "training": TRAINING,
        "systems": SYSTEMS,
        "folds": FOLDS,
        "search": {"training.learning_rate": {"choice": [0.001, 0.01]}},
        "evolve": {"population": 4, "generations": 2, "shuffles": 2},
    }
    for name, change in changes.items():
        merged = isinstance(change, dict) and name != "search"
        values[name] = {**values[name], **change} if merged else change
    return {name: value for name, value in values.items() if value is not None}


def evolve_here(monkeypatch, stop_after=None):
    """Let trials run in this process, one after another, without Ray; returns the names of those that ran.

    stop_after: trials after which Ctrl-C is pressed.
    """
    from bitcorn_ray.on_ray import session
    from bitcorn_ray.tuning import distribute

    ran = []

    def run_trials(work, shared, configure, suggester, options, *, folds, storage, on_trial, earlier):
        for begun in earlier:
            if stop_after is not None and len(ran) >= stop_after:
                return "interrupted"
            trial = replace(begun, setting=configure(begun.point))
            on_trial(trial)
            losses, error = [], None

            def report(fold, losses=losses, trial=trial):
                losses.append(fold["fold_loss"])
                on_trial(replace(trial, losses=tuple(losses)))

            try:
                work(shared.get, trial.setting, report)
            except BitcornError as failed:
                error = str(failed)
            ran.append(trial.name)
            on_trial(replace(trial, state="failed" if error else "finished", losses=tuple(losses), error=error))
            if error and options.max_failures == 0:
                return "failures"
        return "done"

    monkeypatch.setattr(distribute, "run_trials", run_trials)
    monkeypatch.setattr(session, "ray_session", lambda address: nullcontext())
    monkeypatch.setattr(distribute, "put_shared", dict)
    return ran
