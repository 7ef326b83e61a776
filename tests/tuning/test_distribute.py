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
from bitcorn_ray.tuning.config import Resources, SweepOptions
from bitcorn_ray.tuning.distribute import scheduler_of
from bitcorn_ray.tuning.search import Suggester, Trial, suggester_of
from bitcorn_ray.tuning.space import Space

SPACE = Space.parse({"x": {"choice": [1, 2, 3, 4, 5, 6]}})


@pytest.fixture
def sweep(ray_cluster, tmp_path):
    """A function that runs trials over four folds; returns why they ended, and the updates of trials by kind."""
    from bitcorn_ray.storage.storage import Storage
    from bitcorn_ray.tuning.distribute import put_shared, run_trials

    def run(work, search="grid", shared=None, earlier=(), configure=dict, on_trial=None, **options):
        updates = {"begun": [], "fold": [], "ended": []}

        def record(trial):
            updates["ended" if trial.state != "running" else "fold" if trial.losses else "begun"].append(trial)
            if on_trial:
                on_trial(trial)

        ended = run_trials(
            work,
            put_shared(dict(shared or {})),
            configure,
            suggester_of(search, SPACE, 0) if isinstance(search, str) else search,
            SweepOptions(**{"trials": 6, **options}),
            folds=4,
            storage=Storage(tmp_path),
            on_trial=record,
            earlier=earlier,
        )
        assert list(tmp_path.glob("ray-*")) == []
        return ended, updates

    return run


def finished(x):
    return Trial(name=f"t{x:04d}", point={"x": x}, state="finished", losses=(x,) * 4)


def scored():
    """A trial whose folds all have the loss x; sent by value, as workers do not know this module."""

    def work(fetch, configuration, report):
        for fold in range(1, 5):
            x = configuration["x"]
            report({"fold": fold, "fold_loss": x, "loss": x, "seconds": 0.0, "reused": False})

    return work


def test_trials_report_their_folds_and_read_shared_data_without_a_copy(sweep):
    def work(fetch, configuration, report):
        array = fetch("big")
        assert not array.flags.writeable
        assert not array.flags.owndata  # it lies in the object store
        scored_fold = configuration["x"] + float(array[0])
        for fold in range(1, 5):
            report({"fold": fold, "fold_loss": scored_fold, "loss": scored_fold, "seconds": 0.0, "reused": False})

    ended, updates = sweep(work, shared={"big": np.zeros(1 << 18)})
    assert ended == "done"
    assert [trial.name for trial in updates["begun"]] == [f"t{number:04d}" for number in range(1, 7)]
    assert len(updates["fold"]) == 24
    outcomes = {trial.point["x"]: (trial.state, trial.losses) for trial in updates["ended"]}
    assert outcomes == {x: ("finished", (x,) * 4) for x in range(1, 7)}


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
    _, updates = sweep(
        work,
        search=suggester_of("grid", space, 0),
        shared={"big": np.random.default_rng(0).random(size // 8)},
        trials=trials,
        resources=Resources(cpu=0.25),
    )
    assert len(list(tmp_path.glob("measured-*"))) == trials
    copy = size / 2**20
    private, shares = ([each.losses[-1] for each in updates["fold"] if len(each.losses) == fold] for fold in (1, 2))
    assert len(private) == len(shares) == trials
    assert sum(private) <= 0.2 * copy
    assert sum(shares) <= 1.2 * copy


def anonymous():
    """MiB of this process that no file is behind."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1024


@pytest.mark.parametrize(("trials", "most"), [(200, 10), pytest.param(2_000, 50, marks=pytest.mark.slow)])
def test_trials_leave_little_memory_in_the_driver(sweep, trials, most):
    space = Space.parse({"x": {"uniform": [0, 1]}})
    sweep(scored(), search=suggester_of("random", space, 1), trials=20)  # loads what loads lazily
    before = anonymous()
    _, updates = sweep(scored(), search=suggester_of("random", space, 0), trials=trials)
    del updates
    assert anonymous() - before <= most


def test_a_scheduler_stops_bad_trials_after_their_first_folds(sweep):
    for scheduler in ("asha", "median"):
        _, updates = sweep(scored(), scheduler=scheduler, resources=Resources(cpu=2))
        outcomes = {trial.point["x"]: (trial.state, trial.losses) for trial in updates["ended"]}
        assert outcomes[1][0] == "finished"
        assert outcomes[6] == ("stopped", (6.0,))


def test_a_resumed_sweep_counts_earlier_trials(sweep):
    earlier = [*map(finished, (1, 2, 3, 4)), Trial(name="t0005", point={"x": 6})]
    for scheduler in ("asha", "median"):
        _, updates = sweep(scored(), scheduler=scheduler, earlier=earlier)
        assert [trial.name for trial in updates["begun"]] == ["t0005", "t0006"]
        assert {trial.point["x"]: len(trial.losses) for trial in updates["ended"]} == {5: 1, 6: 1}


def test_a_failing_trial_is_reported_and_the_others_continue(sweep):
    def work(fetch, configuration, report):
        if configuration["x"] == 2:
            raise ZeroDivisionError("two")
        report({"fold": 1, "fold_loss": 1.0, "loss": 1.0, "seconds": 0.0, "reused": False})

    def configure(point):
        if point["x"] == 3:
            raise BitcornError("no three")
        return point

    ended, updates = sweep(work, configure=configure, max_failures=0.5)
    assert ended == "done"
    errors = {trial.point["x"]: trial.error for trial in updates["ended"] if trial.error}
    assert errors == {2: "ZeroDivisionError: two", 3: "no three"}
    assert sum(trial.state == "failed" for trial in updates["ended"]) == 2


def test_too_many_failures_end_the_sweep(sweep):
    def work(fetch, configuration, report):
        raise BitcornError("never")

    ended, updates = sweep(work, max_failures=0.25, resources=Resources(cpu=2))
    assert ended == "failures"
    assert len(updates["ended"]) == 2  # more than a quarter of six


def test_failing_storage_ends_the_sweep_and_fails_no_trial(sweep):
    def work(fetch, configuration, report):
        from bitcorn_ray.storage.storage import StorageError

        if configuration["x"] == 2:
            raise StorageError("no space left")
        report({"fold": 1, "fold_loss": 1.0, "loss": 1.0, "seconds": 0.0, "reused": False})

    seen = []
    with pytest.raises(BitcornError, match="no space left"):
        sweep(work, on_trial=seen.append, resources=Resources(cpu=2))
    assert [(trial.state, trial.point["x"], len(trial.losses)) for trial in seen] == [
        ("running", 1, 0),
        ("running", 1, 1),
        ("stopped", 1, 1),
        ("running", 2, 0),
    ]


def test_a_trial_whose_worker_is_killed_restarts(sweep, tmp_path):
    died = tmp_path / "died"

    def work(fetch, configuration, report):
        for fold in range(1, 5):
            report({"fold": fold, "fold_loss": fold, "loss": fold, "seconds": 0.0, "reused": False})
            if fold == 2 and configuration["x"] == 1 and not died.exists():
                died.write_text("")
                os.kill(os.getpid(), signal.SIGKILL)
            if configuration["x"] == 2:
                os.kill(os.getpid(), signal.SIGKILL)

    ended, updates = sweep(work, trials=3, max_failures=0.5)
    assert ended == "done"
    assert died.exists()
    trials = {trial.point["x"]: trial for trial in updates["ended"]}
    assert (trials[1].state, trials[1].losses) == ("finished", (1.0, 2.0, 3.0, 4.0))
    assert trials[2].error == "its process died 3 times"
    assert trials[3].state == "finished"


def slow():
    def work(fetch, configuration, report):
        for fold in range(1, 5):
            time.sleep(0.0 if fold == 1 else 3)
            report({"fold": fold, "fold_loss": 1.0, "loss": 1.0, "seconds": 0.0, "reused": False})

    return work


def test_ctrl_c_ends_the_trials_in_order(sweep):
    before = signal.getsignal(signal.SIGINT)

    def interrupt(trial):
        if trial.losses:
            threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()

    ended, updates = sweep(slow(), on_trial=interrupt, resources=Resources(cpu=2))
    assert ended == "interrupted"
    assert len(updates["fold"]) == 1
    assert updates["ended"] == []
    assert signal.getsignal(signal.SIGINT) is before


def test_max_hours_ends_the_trials(sweep):
    ended, updates = sweep(slow(), max_hours=1 / 3600)
    assert ended == "time"
    assert updates["ended"] == []


def test_more_resources_than_ray_has_are_refused(sweep):
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
from bitcorn_ray.tuning.config import Resources, SweepOptions
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
        on_trial=lambda trial: trial.state == "running" and losses.extend(trial.losses))
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


def test_an_error_of_the_search_ends_the_sweep(sweep):
    class Broken(Suggester):
        def ask(self):
            raise BitcornError("no point")

    with pytest.raises(BitcornError, match="no point"):
        sweep(scored(), search=Broken())


def test_a_finished_sweep_has_nothing_to_do(sweep):
    earlier = [finished(x) for x in range(1, 7)]
    assert sweep(scored(), earlier=earlier) == ("done", {"begun": [], "fold": [], "ended": []})


def decisions(scheduler, losses):
    """The decisions of a scheduler on trials that report the loss of their first fold, one after another."""
    made = []
    for number, loss in enumerate(losses):
        trial = type("Trial", (), {"trial_id": f"t{number}"})()
        scheduler.on_trial_add(None, trial)
        made.append(scheduler.on_trial_result(None, trial, {"fold": 1, "loss": loss}))
    return made


def test_hyperband_has_brackets_and_asha_one():
    assert [len(scheduler_of(name, 12, [])._brackets) for name in ("asha", "hyperband")] == [1, 3]


def test_schedulers_stop_bad_trials_after_their_first_fold():
    losses = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    assert decisions(scheduler_of("asha", 4, []), losses)[-1] == "STOP"
    assert decisions(scheduler_of("median", 4, []), losses)[-1] == "STOP"
    assert set(decisions(scheduler_of("none", 4, []), losses)) == {"CONTINUE"}


def test_schedulers_count_earlier_trials():
    earlier = [*map(finished, (1, 2, 3, 4)), Trial(name="t5", point={"x": 5}, state="failed")]
    for name in ("asha", "median"):
        assert decisions(scheduler_of(name, 4, earlier), [5.0, 0.5]) == ["STOP", "CONTINUE"]
