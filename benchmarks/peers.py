"""Running what measures another project, by the interpreter of an environment that has it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

__all__ = ["run_peer"]


def run_peer(python: str, script: str, arguments: Sequence[object], folder: Path) -> dict[str, Any]:
    """What a script of this folder reports: the last line that it prints, as JSON.

    folder: where it runs, and leaves what it leaves. Raises RuntimeError where it fails, with the last line of why.
    """
    command = [python, str(Path(__file__).parent / script), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    if done.returncode:
        why = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise RuntimeError(f"{script} failed under {python}: {why}")
    report: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return report
