"""Memory of processes, as Linux tells it: what `resource` calls the peak, a process inherits from the one before it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["highest", "peak", "proc_mib"]


def proc_mib(begins: str, process: int | str = "self", file: str = "status") -> float:
    """MiB that the lines of /proc/PROCESS/FILE say that begin so, such as RssAnon, together."""
    lines = Path(f"/proc/{process}/{file}").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith(begins)) / 1024


def peak() -> float:
    """MiB that this program held at most."""
    return proc_mib("VmHWM")


@contextmanager
def highest(measure: Callable[[], float], seconds: float = 0.1) -> Iterator[list[float]]:
    """Sample a measure every so many seconds for the length of a block; the list holds the highest value."""
    found, finished = [measure()], threading.Event()

    def sample() -> None:
        while not finished.wait(seconds):
            found[0] = max(found[0], measure())

    sampler = threading.Thread(target=sample)
    sampler.start()
    try:
        yield found
    finally:
        finished.set()
        sampler.join()
