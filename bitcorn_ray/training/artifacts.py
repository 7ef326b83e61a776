"""Files of a run: their digests, and JSON without NaN."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from bitcorn_ray.storage.storage import Storage


def digest(content: bytes) -> str:
    """Return the SHA-256 of a file's content in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def read_checked(storage: Storage, name: str, digests: Mapping[str, str]) -> bytes:
    """Return the content of a file. Raises ValueError if its digest is not the one in ``digests`` by name."""
    content = bytes(storage.read(name))
    if name in digests and digest(content) != digests[name]:
        raise ValueError(f"{name} is not the file that was written with the others")
    return content


def strict_json(value: Any) -> str:
    """Return JSON that every reader accepts: NaN and infinity become null.

    >>> strict_json({"loss": float("nan"), "horizons": (1, 4)}).split()
    ['{', '"loss":', 'null,', '"horizons":', '[', '1,', '4', ']', '}']
    """

    def plain(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {str(name): plain(item) for name, item in value.items()}
        if isinstance(value, list | tuple):
            return [plain(item) for item in value]
        if isinstance(value, np.generic):
            value = value.item()
        return None if isinstance(value, float) and not np.isfinite(value) else value

    return json.dumps(plain(value), indent=1, allow_nan=False)
