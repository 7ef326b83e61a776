"""Names of the files of the cache: hashes of what they hold, and nothing that came from outside."""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any

from bitcorn_ray.features.identity import FORMAT, KEY_LENGTH
from bitcorn_ray.market.partition import Partition, normalise_symbol
from bitcorn_ray.storage.location import shown_uri
from bitcorn_ray.storage.publish import TEMPORARY
from bitcorn_ray.storage.storage import StoredFile

__all__ = [
    "chunk_name",
    "is_manifest",
    "is_ours",
    "is_understood",
    "key_of",
    "link_folder",
    "manifest_name",
    "quality_name",
    "source_id",
    "use_name",
]

_KEY = re.compile(rf"[0-9a-f]{{{KEY_LENGTH}}}")


def chunk_name(key: str) -> str:
    """File of a chunk."""
    return f"features/{key}.parquet"


def manifest_name(key: str) -> str:
    """File of an entry's manifest."""
    return f"features/{key}.meta.json"


def key_of(name: str) -> str:
    """Key that a file is named by."""
    return name.rpartition("/")[2].partition(".")[0]


def source_id(source: str | Path) -> str:
    """Short name of a database, file or folder, by its path; of a URI by what is shown of it."""
    text = str(source)
    named = shown_uri(text) if "://" in text else os.path.realpath(Path(source).expanduser())
    return hashlib.sha256(named.encode()).hexdigest()[:16]


def is_understood(manifest: dict[str, Any]) -> bool:
    """Tell whether a manifest is of the format of today."""
    identity = manifest.get("identity")
    return isinstance(identity, dict) and identity.get("format") == FORMAT


def is_manifest(file: StoredFile) -> bool:
    """Tell whether a file is the manifest of an entry."""
    return file.name.endswith(".meta.json") and is_ours(file)


def quality_name(key: str) -> str:
    """File of the quality report of an entry's bars."""
    return f"data_quality/{key}.json"


def use_name(key: str) -> str:
    """File whose time says when an entry was used."""
    return f"uses/{key}"


def is_ours(file: StoredFile) -> bool:
    """Tell whether the cache wrote a file, and not the older system, whose entries lie in the same folders."""
    folder = file.name.partition("/")[0]
    if folder in ("links", "sources", "uses", "code") or file.name.rpartition("/")[2].startswith(TEMPORARY):
        return True
    return folder in ("features", "data_quality") and _KEY.fullmatch(key_of(file.name)) is not None


def link_folder(source: str | Path, partition: Partition | None, system: str) -> str:
    """Folder of the links of a source for a partition and system."""
    # Hashed, as a symbol may hold characters that a file name must not.
    names = [normalise_symbol(partition.symbol), partition.timeframe] if partition else []
    what = hashlib.sha256(json.dumps([*names, system]).encode()).hexdigest()[:16]
    return f"links/{source_id(source)}-{what}"
