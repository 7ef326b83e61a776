import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.tuning.options import Resources, SweepOptions
from bitcorn_ray.tuning.search import Outcome, suggester_of
from bitcorn_ray.tuning.space import Space

SPACE = Space.parse({"x": {"choice": [1, 2, 3, 4, 5, 6]}})


@pytest.fixture
def sweep(ray_cluster, tmp_path):
    """A function that runs trials over four folds; returns why they ended, and the events by kind."""
    from bitcorn_ray.storage.storage import Storage
    from bitcorn_ray.tuning.distribute import hold, run_trials

    def run(work, search="grid", shared=None, past=None, configure=dict, on_event=None, **options):
        events = []

        def told(event):
            events.append(event)
            if on_event:
                on_event(event)

        ended = run_trials(
            work,
            hold(dict(shared or {})),
            configure,
            suggester_of(search, SPACE, 0) if isinstance(search, str) else search,
            SweepOptions(**{"trials": 6, **options}),
            folds=4,
            storage=Storage(tmp_path),
            on_event=told,
            past=past,
        )
        assert list(tmp_path.glob("ray-*")) == []
        return ended, {kind: [e for e in events if e.kind == kind] for kind in ("chosen", "fold", "ended")}

    return run


def scored():
    """A trial whose folds all have the loss x; sent by value, as workers do not know this module."""

    def work(fetch, configuration, report):
        for fold in range(1, 5):
            x = configuration["x"]
            report({"fold": fold, "fold_loss": x, "loss": x, "seconds": 0.0, "reused": False})

    return work


def test_trials_report_their_folds_and_read_what_is_shared_in_one_copy(sweep):
    def work(fetch, configuration, report):
        array = fetch("big")
        assert not array.flags.writeable
        assert not array.flags.owndata  # it lies in the object store
        scored_fold = configuration["x"] + float(array[0])
        for fold in range(1, 5):
            report({"fold": fold, "fold_loss": scored_fold, "loss": scored_fold, "seconds": 0.0, "reused": False})

    ended, events = sweep(work, shared={"big": np.zeros(1 << 18)})
    assert ended == "done"
    assert [event.trial for event in events["chosen"]] == [f"t{number:04d}" for number in range(1, 7)]
    assert len(events["fold"]) == 24
    outcomes = {event.point["x"]: event.outcome for event in events["ended"]}
    assert outcomes == {x: Outcome("finished", (x,) * 4) for x in range(1, 7)}


def test_many_trials_hold_one_copy(sweep, tmp_path):
    """Eight at once: what each has for itself, and their shares of what they share, before and after reading it all."""
    size, trials = 60 << 20, 8

    def work(fetch, configuration, report):
        def held(kind):
            lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
            return sum(int(line.split()[1]) for line in lines if line.startswith(kind)) / 1024

        def together(name):
            (tmp_path / f"{name}-{configuration['x']}").touch()
            until = time.monotonic() + 60
            while len(list(tmp_path.glob(f"{name}-*"))) < trials and time.monotonic() < until:
                time.sleep(0.05)

        together("begun")
        private, shares = held("Private"), held("Pss:")
        array = fetch("big")
        array.max()
        together("read")
        report({"fold": 1, "fold_loss": held("Private") - private, "loss": 0.0, "seconds": 0.0, "reused": False})
        report({"fold": 2, "fold_loss": held("Pss:") - shares, "loss": 0.0, "seconds": 0.0, "reused": False})
        together("measured")

    space = Space.parse({"x": {"choice": list(range(trials))}})
    _, events = sweep(
        work,
        search=suggester_of("grid", space, 0),
        shared={"big": np.random.default_rng(0).random(size // 8)},
        trials=trials,
        resources=Resources(cpu=0.25),
    )
    assert len(list(tmp_path.glob("measured-*"))) == trials
    copy = size / 2**20
    private, shares = ([e.told["fold_loss"] for e in events["fold"] if e.told["fold"] == fold] for fold in (1, 2))
    assert len(private) == len(shares) == trials
    assert sum(private) <= 0.2 * copy
    assert sum(shares) <= 1.2 * copy


def anonymous():
    """MiB of this process that no file is behind."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1024


@pytest.mark.parametrize(("trials", "most"), [(200, 10), pytest.param(2_000, 50, marks=pytest.mark.slow)])
def test_trials_leave_next_to_nothing_in_the_driver(sweep, trials, most):
    space = Space.parse({"x": {"uniform": [0, 1]}})
    sweep(scored(), search=suggester_of("random", space, 1), trials=20)  # loads what loads lazily
    before = anonymous()
    _, events = sweep(scored(), search=suggester_of("random", space, 0), trials=trials)
    del events
    assert anonymous() - before <= most


def test_a_scheduler_stops_bad_trials_after_their_first_folds(sweep):
    for scheduler in ("asha", "median"):
        _, events = sweep(scored(), scheduler=scheduler, resources=Resources(cpu=2))
        outcomes = {event.point["x"]: event.outcome for event in events["ended"]}
        assert outcomes[1].state == "finished"
        assert outcomes[6] == Outcome("stopped", (6.0,))


def test_a_scheduler_knows_the_trials_of_an_earlier_sweep(sweep):
    from bitcorn_ray.tuning.distribute import Past

    past = Past(ended=[({"x": x}, Outcome("finished", (x,) * 4)) for x in (1, 2, 3, 4)], begun=[("t0005", {"x": 6})])
    for scheduler in ("asha", "median"):
        _, events = sweep(scored(), scheduler=scheduler, past=past)
        assert [event.trial for event in events["chosen"]] == ["t0005", "t0006"]
        assert {event.point["x"]: len(event.outcome.losses) for event in events["ended"]} == {5: 1, 6: 1}


def test_a_failing_trial_is_told_and_the_others_go_on(sweep):
    def work(fetch, configuration, report):
        if configuration["x"] == 2:
            raise ZeroDivisionError("two")
        report({"fold": 1, "fold_loss": 1.0, "loss": 1.0, "seconds": 0.0, "reused": False})

    def configure(point):
        if point["x"] == 3:
            raise BitcornError("no three")
        return point

    ended, events = sweep(work, configure=configure, max_failures=0.5)
    assert ended == "done"
    errors = {event.point["x"]: event.error for event in events["ended"] if event.error}
    assert errors == {2: "ZeroDivisionError: two", 3: "no three"}
    assert sum(event.outcome.state == "failed" for event in events["ended"]) == 2


def test_too_many_failures_end_the_sweep(sweep):
    def work(fetch, configuration, report):
        raise BitcornError("never")

    ended, events = sweep(work, max_failures=0.25, resources=Resources(cpu=2))
    assert ended == "failures"
    assert len(events["ended"]) == 2  # more than a quarter of six


def test_storage_that_fails_is_no_trial_s_fault_and_ends_the_sweep(sweep):
    def work(fetch, configuration, report):
        from bitcorn_ray.storage.storage import StorageError

        if configuration["x"] == 2:
            raise StorageError("no space left")
        report({"fold": 1, "fold_loss": 1.0, "loss": 1.0, "seconds": 0.0, "reused": False})

    seen = []
    with pytest.raises(BitcornError, match="no space left"):
        sweep(work, on_event=seen.append, resources=Resources(cpu=2))
    assert [(event.kind, event.point["x"]) for event in seen if event.kind != "fold"] == [
        ("chosen", 1),
        ("ended", 1),
        ("chosen", 2),
    ]


def test_a_trial_whose_worker_is_killed_begins_again(sweep, tmp_path):
    died = tmp_path / "died"

    def work(fetch, configuration, report):
        for fold in range(1, 5):
            report({"fold": fold, "fold_loss": fold, "loss": fold, "seconds": 0.0, "reused": False})
            if fold == 2 and configuration["x"] == 1 and not died.exists():
                died.write_text("")
                os.kill(os.getpid(), signal.SIGKILL)
            if configuration["x"] == 2:
                os.kill(os.getpid(), signal.SIGKILL)

    ended, events = sweep(work, trials=3, max_failures=0.5)
    assert ended == "done"
    assert died.exists()
    outcomes = {event.point["x"]: event for event in events["ended"]}
    assert outcomes[1].outcome == Outcome("finished", (1.0, 2.0, 3.0, 4.0))
    assert outcomes[2].error == "its process died 3 times"
    assert outcomes[3].outcome.state == "finished"


def slow():
    def work(fetch, configuration, report):
        for fold in range(1, 5):
            time.sleep(0.0 if fold == 1 else 3)
            report({"fold": fold, "fold_loss": 1.0, "loss": 1.0, "seconds": 0.0, "reused": False})

    return work


def test_ctrl_c_ends_the_trials_in_good_order(sweep):
    before = signal.getsignal(signal.SIGINT)

    def interrupt(event):
        if event.kind == "fold":
            threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()

    ended, events = sweep(slow(), on_event=interrupt, resources=Resources(cpu=2))
    assert ended == "interrupted"
    assert len(events["fold"]) == 1
    assert events["ended"] == []
    assert signal.getsignal(signal.SIGINT) is before


def test_after_so_many_hours_it_ends(sweep):
    ended, events = sweep(slow(), max_hours=1 / 3600)
    assert ended == "time"
    assert events["ended"] == []


def test_more_than_ray_has_is_refused(sweep):
    with pytest.raises(BitcornError, match="a trial takes 64 CPUs"):
        sweep(scored(), resources=Resources(cpu=64))
    with pytest.raises(BitcornError, match="1 GPUs, but Ray has"):
        sweep(scored(), resources=Resources(gpu=1))


_HALF_A_GPU = """
import os, sys, time
from pathlib import Path
import ray
from bitcorn_ray.tuning.space import Space
from bitcorn_ray.tuning.search import suggester_of
from bitcorn_ray.tuning.options import Resources, SweepOptions
from bitcorn_ray.on_ray.session import ray_session
from bitcorn_ray.tuning.distribute import run_trials
from bitcorn_ray.storage.storage import Storage

folder = Path(sys.argv[1])

def main():
    def work(fetch, configuration, report):
        (folder / f"begun-{configuration['x']}").write_text(os.environ["CUDA_VISIBLE_DEVICES"])
        until = time.monotonic() + 60
        while len(list(folder.glob("begun-*"))) < 2 and time.monotonic() < until:
            time.sleep(0.05)
        together = len(list(folder.glob("begun-*")))
        report({"fold": 1, "fold_loss": together, "loss": together, "seconds": 0.0, "reused": False})

    ray.init(address="local", num_cpus=2, num_gpus=1, include_dashboard=False)
    suggester = suggester_of("grid", Space.parse({"x": {"choice": [1, 2]}}), 0)
    options = SweepOptions(trials=2, resources=Resources(cpu=0.5, gpu=0.5))
    losses = []
    ended = run_trials(work, {}, dict, suggester, options, folds=1, storage=Storage(folder / "sweep"),
        on_event=lambda event: event.kind == "fold" and losses.append(event.told["fold_loss"]))
    print(ended, losses)

main()
"""


@pytest.mark.slow
def test_two_trials_share_a_gpu(tmp_path):
    """Ray counts a GPU here that is not there: who gets which is decided all the same."""
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    done = subprocess.run(
        [sys.executable, "-c", _HALF_A_GPU, str(tmp_path)], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.stdout.splitlines()[-1:] == ["done [2, 2]"], done.stderr
    assert [file.read_text() for file in tmp_path.glob("begun-*")] == ["0", "0"]


def test_what_a_search_raises_ends_the_sweep(sweep):
    class Broken:
        def ask(self):
            raise BitcornError("no point")

        def tell(self, point, outcome):
            pass

    with pytest.raises(BitcornError, match="no point"):
        sweep(scored(), search=Broken())


def test_a_finished_sweep_has_nothing_to_do(sweep):
    from bitcorn_ray.tuning.distribute import Past

    past = Past(ended=[({"x": x}, Outcome("finished", (x,) * 4)) for x in range(1, 7)])
    assert sweep(scored(), past=past) == ("done", {"chosen": [], "fold": [], "ended": []})
