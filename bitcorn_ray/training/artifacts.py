"""Files of a run: told apart by their digests, and JSON that every reader understands."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from bitcorn_ray.storage.storage import Storage


def digest(content: bytes) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def read_checked(storage: Storage, name: str, digests: Mapping[str, str]) -> bytes:
    """Read a file. Raises ValueError where it is not the one that the digests, by name, tell of."""
    content = bytes(storage.read(name))
    if name in digests and digest(content) != digests[name]:
        raise ValueError(f"{name} is not the file that was written with the others")
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
