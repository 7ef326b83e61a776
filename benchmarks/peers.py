"""Running what measures another project, by the interpreter of an environment that has it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = ["asked_peer", "run_peer"]


def run_peer(python: str, script: str, arguments: Sequence[object], folder: Path) -> dict[str, Any]:
    """What a script of this folder reports: the last line that it prints, as JSON.

    folder: where it runs, and leaves what it leaves. Raises RuntimeError where it fails, with the last line of why.
    """
    done = subprocess.run(_command(python, script, arguments), capture_output=True, text=True, cwd=folder)
    if done.returncode:
        why = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise RuntimeError(f"{script} failed under {python}: {why}")
    report: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return report


@contextmanager
def asked_peer(
    python: str, script: str, arguments: Sequence[object], folder: Path
) -> Iterator[Callable[[], dict[str, Any]]]:
    """Start a script of this folder that does a piece of work for each line it reads, and answers in a line of JSON.

    Between its turns it waits, so that its work and other work can be measured turn by turn. It ends with the block.
    The function that asks raises RuntimeError where the script has ended; what it wrote is on standard error.
    """
    peer = subprocess.Popen(
        _command(python, script, arguments), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=folder
    )
    output: Iterable[str] = peer.stdout or ()

    def ask() -> dict[str, Any]:
        print(file=peer.stdin, flush=True)
        for line in output:
            if line.startswith("{"):  # libraries may print too
                answer: dict[str, Any] = json.loads(line)
                return answer
        raise RuntimeError(f"{script} ended under {python} before it answered: exit status {peer.wait()}")

    try:
        yield ask
    finally:
        peer.kill()
        peer.communicate()


def _command(python: str, script: str, arguments: Sequence[object]) -> list[str]:
    return [python, str(Path(__file__).parent / script), *map(str, arguments)]
