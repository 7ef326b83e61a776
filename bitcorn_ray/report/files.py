"""Results as files, each there whole or not at all."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable
from pathlib import Path

from bitcorn_ray.errors import BitcornError

__all__ = ["write_whole"]


def write_whole(path: str | Path, what: str, write: Callable[[Path], object]) -> None:
    """Let ``write`` fill a file beside its place, and then put it there, over an older one.

    what: it is, for messages. Raises BitcornError where it cannot be written; an older file is then still there.
    """
    path = Path(path).expanduser()
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            write(temporary)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise BitcornError(f"the {what} cannot be written to {path}: {error.strerror or error}") from error
