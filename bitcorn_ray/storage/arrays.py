"""Arrays by name as the bytes of one npz file, without pickles."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray


def pack_arrays(arrays: Mapping[str, Any], *, compress: bool = False) -> bytes:
    """Return the bytes of an npz file of arrays."""
    content = io.BytesIO()
    save: Any = np.savez_compressed if compress else np.savez
    save(content, allow_pickle=False, **arrays)
    return content.getvalue()


def unpack_arrays(content: bytes) -> dict[str, NDArray[Any]]:
    """Return the arrays of `pack_arrays`. Raises ValueError for damaged content, or pickled objects in it."""
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            return dict(arrays)
    except (OSError, ValueError, TypeError, AttributeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"the arrays cannot be read: {error}") from error
