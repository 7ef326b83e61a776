"""Sweeps: trials on Ray beside plain processes, ASHA beside the full search, and what many trials hold.

Real BTCUSDT 1h bars. Ray is up before any clock starts; what its workers import, and the reading of features through
a cache that has them, belongs to every side.
"""

from __future__ import annotations

import json
import multiprocessing
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.bars import REAL
from benchmarks.memory import proc_mib
from benchmarks.timing import Figure
from bitcorn_ray.storage.storage import Storage
from bitcorn_ray.tuning.config import Resources, SweepConfig, SweepOptions
from bitcorn_ray.tuning.data import sweep_data
from bitcorn_ray.tuning.folder import SweepFolder
from bitcorn_ray.tuning.search import Trial, suggester_of
from bitcorn_ray.tuning.space import Space
from bitcorn_ray.tuning.trial import TrialPlan, run_trial, train_fold

_CPUS = 2
_MODEL = {"horizons": [1, 4, 12], "hidden_size": 32}
_FOLDS = {"train": "730d", "validation": "60d", "test": "60d"}

Told = Callable[[Mapping[str, Any]], None]
Fetch = Callable[[str], Any]


def sweep(trials: int = 16, folds: int = 4, epochs: int = 2, train: str = "730d", rounds: int = 2) -> list[Figure]:
    """The same fits as trials on Ray, and dealt to two plain one-thread processes, turn by turn."""
    from bitcorn_ray.on_ray.session import ray_session

    on_ray, plain = list[float](), list[float]()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        values = _values(trials, folds, epochs, train) | {
            "search": {"training.learning_rate": {"choice": np.geomspace(1e-4, 1e-2, trials).tolist()}}
        }
        sweep_data(SweepConfig.load(values), cache_dir=folder / "cache")  # computed before any clock starts
        for number in range(rounds):
            with ray_session("local", cpus=_CPUS):
                found = _searched({**values, "out": str(folder / f"ray{number}")}, folder / "cache")
            assert [outcome.state for outcome in found[1].values()] == ["finished"] * trials
            on_ray.append(found[0])
            plain.append(_plainly(values, folder / "cache"))
    what = f"{trials} trials x {folds} folds, {epochs} epochs each, BTCUSDT 1h, v2, hidden 32"
    reference = Figure(f"the same fits in {_CPUS} plain one-thread processes", tuple(plain))
    return [Figure(f"{what}, trials on Ray, {_CPUS} CPUs", tuple(on_ray)).beside(reference, 1.15), reference]


def asha(seeds: int = 10, trials: int = 16, folds: int = 8, epochs: int = 2, train: str = "365d") -> list[Figure]:
    """Random search with ASHA beside the full one on the same points, by seed; how often its winner is as good.

    As good: its mean validation loss is within one standard error, over folds, of the full search's winner's.
    """
    from bitcorn_ray.on_ray.session import ray_session

    seconds: dict[str, list[float]] = {"none": [], "asha": []}
    as_good = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        values = _values(trials, folds, epochs, train)
        values["search"] = {
            "training.learning_rate": {"loguniform": [1e-4, 1e-2]},
            "model.hidden_size": {"choice": [8, 16, 32]},
            "model.dropout": {"uniform": [0, 0.5]},
        }
        sweep_data(SweepConfig.load(values), cache_dir=folder / "cache")
        with ray_session("local", cpus=_CPUS):
            for seed in range(seeds):
                winners = {}
                for scheduler in seconds:
                    options = {"search": "random", "trials": trials, "scheduler": scheduler, "seed": seed}
                    out = str(folder / f"{scheduler}{seed}")
                    took, tried = _searched({**values, "out": out, "sweep": options}, folder / "cache")
                    seconds[scheduler].append(took)
                    whole = [trial.losses for trial in tried.values() if trial.state == "finished"]
                    winners[scheduler] = np.array(min(whole, key=np.mean))
                best = winners["none"]
                error = best.std(ddof=1) / np.sqrt(len(best))
                as_good += bool(winners["asha"].mean() <= best.mean() + error)
    what = f"{trials} trials x {folds} folds, random search"
    full = Figure(f"{what}, all folds", tuple(seconds["none"]))
    stopped = Figure(f"{what}, ASHA: the winner is as good in {as_good} of {seeds} seeds", tuple(seconds["asha"]))
    return [stopped.beside(full, 0.5), full]


def sharing(trials: int = 32, megabytes: int = 256) -> list[Figure]:
    """So many trials at once that read one matrix: what each has for itself afterwards, all together."""
    from bitcorn_ray.on_ray.session import ray_session
    from bitcorn_ray.tuning.distribute import put_shared, run_trials

    grown = list[float]()

    def on_trial(trial: Trial) -> None:
        if trial.state == "running":
            grown.extend(trial.losses)

    with tempfile.TemporaryDirectory() as name, ray_session("local", cpus=_CPUS):
        shared = put_shared({"big": np.random.default_rng(0).random(megabytes << 17)})
        started = time.perf_counter()
        run_trials(
            partial(_reading, Path(name), trials),
            shared,
            dict,
            suggester_of("grid", Space.parse({"x": {"choice": list(range(trials))}}), 0),
            SweepOptions(trials=trials, resources=Resources(cpu=_CPUS / trials)),
            folds=1,
            storage=Storage(name),
            on_trial=on_trial,
        )
        seconds = time.perf_counter() - started
    assert len(grown) == trials
    copies = 1 + sum(grown) / megabytes
    what = f"{trials} trials at once that read one matrix of {megabytes} MiB"
    return [Figure(f"{what}: copies of it that they hold", (copies,), 1.2, ""), Figure(what, (seconds,))]


def driver(trials: int = 2_000) -> list[Figure]:
    """So many trials that do nothing: how much the process grows that runs them, and a trial's overhead."""
    from bitcorn_ray.on_ray.session import ray_session
    from bitcorn_ray.tuning.distribute import run_trials

    with tempfile.TemporaryDirectory() as name, ray_session("local", cpus=_CPUS):

        def run(count: int) -> float:
            started = time.perf_counter()
            run_trials(
                _nothing,
                {},
                dict,
                suggester_of("random", Space.parse({"x": {"uniform": [0, 1]}}), count),
                SweepOptions(search="random", trials=count),
                folds=1,
                storage=Storage(name),
                on_trial=lambda trial: None,
            )
            return time.perf_counter() - started

        run(20)  # loads what loads lazily
        before = proc_mib("RssAnon")
        seconds = run(trials)
        grown = proc_mib("RssAnon") - before
    return [
        Figure(f"what the driver grows by in {trials:,} trials that do nothing", (grown,), 50.0, "MiB"),
        Figure("one of these trials", (seconds / trials,), 0.5),
    ]


def _values(trials: int, folds: int, epochs: int, train: str) -> dict[str, Any]:
    return {
        "db": str(REAL / "bars" / "BTCUSDT_1h.parquet"),
        "symbol": "BTCUSDT",
        "timeframe": "1h",
        "out": "unused",
        "model": _MODEL,
        "training": {"epochs": epochs, "threads": 1},
        "folds": {**_FOLDS, "train": train, "last": folds},
        "sweep": {"search": "grid", "trials": trials},
    }


def _searched(values: Mapping[str, Any], cache: Path) -> tuple[float, dict[str, Trial]]:
    """Seconds of a search on Ray, from reading the features to the last trial's end, and what came of its points."""
    from bitcorn_ray.tuning.distribute import put_shared, run_trials

    trials = dict[str, Trial]()

    def on_trial(trial: Trial) -> None:
        trials[trial.name] = trial

    config, started = SweepConfig.load(values), time.perf_counter()
    data, folder = sweep_data(config, cache_dir=cache), SweepFolder(config.run.out)
    plan = TrialPlan.of(config, data.folds, data.identities, folder.records)
    run_trials(
        partial(run_trial, plan),
        put_shared({"bars": data.bars, **data.variants}),
        lambda point: config.at(point).to_json(),
        suggester_of(config.sweep.search, config.space, config.sweep.seed),
        config.sweep,
        folds=len(plan.folds),
        storage=folder.storage,
        on_trial=on_trial,
    )
    return time.perf_counter() - started, trials


def _plainly(values: Mapping[str, Any], cache: Path) -> float:
    """Seconds of the same fits in plain processes, each with a share of them."""
    context = multiprocessing.get_context("spawn")
    started = time.perf_counter()
    processes = [context.Process(target=_fits, args=(json.dumps(values), str(cache), n)) for n in range(_CPUS)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert not any(process.exitcode for process in processes)
    return time.perf_counter() - started


def _fits(values: str, cache: str, number: int) -> None:
    config = SweepConfig.load(json.loads(values))
    data = sweep_data(config, cache_dir=cache)
    fits = [(point, fold) for point in config.space.points() for fold in data.folds]
    for point, fold in fits[number::_CPUS]:
        setting = config.at(point)  # whose training has one thread
        train_fold(data.bars, data.variants[setting.system], setting, fold.rows, config.sweep.objective)


def _reading(folder: Path, trials: int, fetch: Fetch, configuration: Mapping[str, Any], report: Told) -> None:
    """Read all of the matrix while the others do; report MiB that are this process's own, beyond those before."""

    def together(step: str) -> None:
        (folder / f"{step}-{configuration['x']}").touch()
        while len(list(folder.glob(f"{step}-*"))) < trials:
            time.sleep(0.1)

    together("begun")
    before = proc_mib("Private", file="smaps_rollup")
    matrix = fetch("big")
    matrix.max()
    together("read")
    grown = proc_mib("Private", file="smaps_rollup") - before
    report({"fold": 1, "fold_loss": grown, "loss": 0.0, "seconds": 0.0, "reused": False})
    together("measured")


def _nothing(fetch: Fetch, configuration: Mapping[str, Any], report: Told) -> None:
    report({"fold": 1, "fold_loss": 0.0, "loss": 0.0, "seconds": 0.0, "reused": False})
