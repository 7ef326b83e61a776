"""Publishing a file: it is there whole, under its name, or not at all."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["TEMPORARY", "publish", "publish_json"]

TEMPORARY = ".writing-"


def publish(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` fill a file of a temporary name beside ``path``, then rename it.

    A rename within a folder is atomic: a reader sees the old file, none, or the whole new one, and of two writers at
    once one wins. No lock is taken, and no fsync: after a power cut a file may be torn, which its reader notices.
    """
    temporary = path.with_name(f"{TEMPORARY}{uuid.uuid4().hex}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def publish_json(path: Path, value: Any) -> None:
    """Publish a value as JSON."""
    text = json.dumps(value, indent=1, allow_nan=False)
    publish(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))
