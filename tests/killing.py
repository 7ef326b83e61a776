"""Killing what does a sweep: its driver, a trial's worker."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

_DRIVER = """
import json, sys
import bitcorn_ray
getattr(bitcorn_ray, sys.argv[1])(json.loads(sys.argv[2]))
"""


def written(out):
    """When each record in the folder of a sweep was written, by its name."""
    return {path.name: path.stat().st_mtime_ns for path in (Path(out) / "records").glob("*.npz")}


def process_environment(cache_dir):
    """For a process of its own, which starts a Ray of its own and finds the modules beside this one."""
    paths = [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "BITCORN_CACHE_DIR": str(cache_dir), "PYTHONPATH": os.pathsep.join(paths)}
    environment.pop("RAY_ADDRESS", None)
    return environment


def kill_driver(command, values, cache_dir, records):
    """Run `tune` or `evolve` in a process of its own, and kill it when it has so many records; returns `written`."""
    out = Path(values["out"])
    driver = subprocess.Popen(
        [sys.executable, "-c", _DRIVER, command, json.dumps(values)], env=process_environment(cache_dir)
    )
    try:
        wait_for(lambda: len(written(out)) >= records or driver.poll() is not None)
        assert driver.poll() is None, "it ended before it could be killed"
    finally:
        driver.send_signal(signal.SIGKILL)
        driver.wait()
    seen = None
    while seen != (seen := written(out)):  # until its workers are gone too
        time.sleep(1)
    return seen


def trial_workers():
    """Ids of the processes below this one in which trials run."""
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            parents[int(folder.name)] = (int(fields[1]), (folder / "cmdline").read_bytes())
        except OSError:
            continue

    def below(process):
        while process in parents and process != os.getpid():
            process = parents[process][0]
        return process == os.getpid()

    return [process for process, (_, command) in parents.items() if b"ImplicitFunc" in command and below(process)]


def wait_for(what, seconds=90):
    """Wait until something is so."""
    until = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < until
        time.sleep(0.05)
