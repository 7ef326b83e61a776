"""Memory of processes, as Linux tells it: what `resource` calls the peak, a process inherits from the one before it."""

from __future__ import annotations

from pathlib import Path

__all__ = ["peak", "proc_mib"]


def proc_mib(begins: str, process: int | str = "self", file: str = "status") -> float:
    """MiB that the lines of /proc/PROCESS/FILE say that begin so, such as RssAnon, together."""
    lines = Path(f"/proc/{process}/{file}").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith(begins)) / 1024


def peak() -> float:
    """MiB that this program held at most."""
    return proc_mib("VmHWM")
