"""The identity of what the cache holds: the one place where keys are made.

1. A system's identity: name, version, parameters, features, warm-up, context, and its code (see `code`).
2. A chunk is the features of the bars between two boundaries that are fixed in time. Its key is a hash of its system's
   identity and of the bars that it is computed from: its own, and before them its halo, the bars that its first
   features look back to. It is always computed from exactly these, so a cold build and an incremental one are the same
   bytes.
3. An entry is a list of chunks; its key is a hash of theirs.

File times, paths, symbols, workers and machines are in no key: equal bars share chunks wherever they come from.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.features.system import FeatureSystem
from bitcorn_ray.fingerprint import CodeIdentity, Memo, code_identity
from bitcorn_ray.market.bars import Bars, require_chronology

__all__ = [
    "CHUNK_BARS",
    "FORMAT",
    "KEY_LENGTH",
    "Chunk",
    "EntryPlan",
    "SystemIdentity",
    "bars_digest",
    "identify",
    "plan_entry",
    "system_code",
]

KEY_LENGTH = 32  # hexadecimal digits: 128 bits
CHUNK_BARS = 32_768
FORMAT = 2  # of the stored files; another one makes other keys
_MINUTE = 60_000


@dataclass(frozen=True, kw_only=True)
class SystemIdentity:
    """A system on a grid, what identifies it in plain values, and the digest of these."""

    system: FeatureSystem
    facts: Mapping[str, Any]
    digest: str


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """Rows start to stop of the bars; computed from row `first` on."""

    key: str
    first: int
    start: int
    stop: int


@dataclass(frozen=True, kw_only=True)
class EntryPlan:
    """An entry: the chunks of T bars. step: the distance of the bars in milliseconds, 0 without times."""

    key: str
    identity: SystemIdentity
    chunks: tuple[Chunk, ...]
    step: int


def system_code(system: FeatureSystem, memo: Memo | None = None) -> CodeIdentity:
    """Return the identity of a system's code: of its function, and of the module that calls it.

    Raises BitcornError for code that has no stable identity.
    """
    return code_identity(system.function, memo, callers=(FeatureSystem.__module__,))


def identify(system: FeatureSystem, code: CodeIdentity | None = None, memo: Memo | None = None) -> SystemIdentity:
    """Identify a system. code: as another process identified it, by default as it is here.

    Raises BitcornError where parameters are no plain JSON values or the code cannot be identified.
    """
    code = code or system_code(system, memo)
    facts = {
        "format": FORMAT,
        "name": system.name,
        "version": system.version,
        "parameters": system.all_parameters,
        "features": list(system.own_features),
        "warmup": system.own_warmup,
        "context": list(system.context),
        **({"inputs": list(system.inputs)} if system.inputs else {}),
        "step": system.step,
        "code": {name: value if isinstance(value, str) else dict(value) for name, value in vars(code).items()},
    }
    try:
        text = json.dumps(facts, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise BitcornError(f"parameters of feature system {system.name!r} are no plain JSON values: {error}") from error
    return SystemIdentity(system=system, facts=json.loads(text), digest=hashlib.sha256(text.encode()).hexdigest())


def plan_entry(
    bars: Bars, system: FeatureSystem, code: CodeIdentity | None = None, memo: Memo | None = None
) -> EntryPlan:
    """Cut bars into chunks and make their keys.

    Raises BitcornError for too few bars, for times out of order, and as `identify` does.
    """
    if bars.timestamp is not None:
        require_chronology(bars.timestamp)
    bars, step = bars.with_extra(system.inputs), bars.grid_step()
    on_grid = system.on_grid(step)
    on_grid.require_enough(bars)
    edges = _boundaries(bars, step)
    needed = on_grid.first_rows(bars, [start for start, _ in edges])
    places = [(first, start, stop) for first, (start, stop) in zip(needed, edges, strict=True)]
    identity = identify(on_grid, code, memo)
    chunks = tuple(
        Chunk(key=_hashed([identity.digest, bars_digest(bars, *place)]), first=place[0], start=place[1], stop=place[2])
        for place in places
    )
    key = _hashed([identity.digest, *(chunk.key for chunk in chunks)])
    return EntryPlan(key=key, identity=identity, chunks=chunks, step=step)


def _boundaries(bars: Bars, step: int) -> list[tuple[int, int]]:
    """Cut where the time is a multiple of `CHUNK_BARS` steps since the epoch; by row where there are no times."""
    if bars.timestamp is None:
        cuts = np.arange(CHUNK_BARS, len(bars), CHUNK_BARS)
    else:
        length = CHUNK_BARS * (step or _MINUTE)
        numbers = np.arange(bars.timestamp[0] // length + 1, bars.timestamp[-1] // length + 1)
        cuts = np.unique(np.searchsorted(bars.timestamp, numbers * length))
    edges = [0, *cuts.tolist(), len(bars)]
    return list(pairwise(edges))


def bars_digest(bars: Bars, first: int, start: int, stop: int) -> str:
    """Hash of the bars from row ``start`` to ``stop``, and of the halo from row ``first`` on before them."""
    chunk = bars.take(slice(first, stop))
    columns = {**chunk.columns(), **{f"extra {name}": column for name, column in chunk.extra.items()}}
    layout = {name: column.dtype.str for name, column in columns.items()}
    digest = hashlib.sha256(json.dumps([start - first, stop - start, layout]).encode())
    for column in columns.values():
        digest.update(np.ascontiguousarray(column).data)
    return digest.hexdigest()


def _hashed(parts: list[str]) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:KEY_LENGTH]
