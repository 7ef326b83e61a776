"""Files of a run: written so that an older set is replaced whole or not at all, and told apart by their digests."""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bitcorn_ray.errors import BitcornError

__all__ = ["digest", "read_checked", "replace_files", "require_writable", "strict_json"]


def require_writable(folder: str | Path) -> None:
    """Raise BitcornError where a folder could not be written to or made; asked before what takes long."""
    folder = Path(folder).expanduser().absolute()
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    if not (existing.is_dir() and os.access(existing, os.W_OK)):
        raise BitcornError(f"nothing can be written to {folder}: {existing} is no folder that may be written")


def replace_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write a set of files over an older one; the last file is what makes the set valid.

    All are written beside their places first, so that a full disk leaves the older set as it was. Then only names
    change: the older set's last file goes first, and the new one's comes last.
    Raises BitcornError where the folder cannot be written or the disk is full.
    """
    suffix, written = uuid.uuid4().hex, list[Path]()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            written.append(folder / f".{name}.{suffix}")
            with open(written[-1], "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())  # a disk that is full says so here at the latest
        (folder / list(files)[-1]).unlink(missing_ok=True)
        for path, name in zip(written, files, strict=True):
            os.replace(path, folder / name)
    except OSError as error:
        raise BitcornError(
            f"the run cannot be written to {folder}: {error.strerror or error}; make room or give another folder"
        ) from error
    finally:
        for path in written:
            path.unlink(missing_ok=True)


def digest(content: bytes) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def read_checked(path: Path, digests: Mapping[str, str]) -> bytes:
    """Read a file. Raises ValueError where it is not the one that the digests, by name, tell of."""
    content = path.read_bytes()
    if path.name in digests and digest(content) != digests[path.name]:
        raise ValueError(f"{path.name} is not the file that was written with the others")
    return content


def strict_json(value: Any) -> str:
    """JSON that every reader understands: it has no NaN and no infinity, which become null.

    >>> strict_json({"loss": float("nan"), "horizons": (1, 4)}).split()
    ['{', '"loss":', 'null,', '"horizons":', '[', '1,', '4', ']', '}']
    """

    def plain(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {str(name): plain(each) for name, each in value.items()}
        if isinstance(value, list | tuple):
            return [plain(each) for each in value]
        if isinstance(value, np.generic):
            value = value.item()
        return None if isinstance(value, float) and not np.isfinite(value) else value

    return json.dumps(plain(value), indent=1, allow_nan=False)
