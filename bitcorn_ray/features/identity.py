"""Identity of features: the one place where cache keys are made.

1. A system's identity consists of its name, version, parameters, features, warm-up, context, code (`fingerprint`), and
   the contents of the files and variables that it declares (`reads`).
2. A chunk is the features of the bars between two boundaries that are fixed in time. Its key is a hash of the system's
   identity and of the bars that it is computed from: its own bars, and before them the halo that its first features
   look back to. It is always computed from exactly these, so a cold build and an incremental one give equal bytes.
3. An entry is a list of chunks. Its key is a hash of theirs.

File times, paths, symbols, workers and machines are in no key: equal bars share chunks wherever they come from.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitcorn_ray.cache.store import FORMAT, KEY_LENGTH
from bitcorn_ray.errors import BitcornError
from bitcorn_ray.features.reads import read_identity
from bitcorn_ray.features.system import FeatureSystem
from bitcorn_ray.fingerprint.code import CodeIdentity, Memo, code_identity
from bitcorn_ray.market.bars import Bars, require_chronology, show_time
from bitcorn_ray.market.timeframe import UNIT_MS

CHUNK_BARS = 32_768


@dataclass(frozen=True, kw_only=True)
class SystemIdentity:
    """A system on a grid. facts: its identity in plain JSON values. digest: a hash of them."""

    system: FeatureSystem
    facts: Mapping[str, Any]
    digest: str


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """Rows ``start`` to ``stop`` of the bars. They are computed from the bars from row ``first`` on."""

    key: str
    first: int
    start: int
    stop: int


@dataclass(frozen=True, kw_only=True)
class EntryPlan:
    """An entry: the chunks of T bars. step: distance of the bars in milliseconds, 0 without times."""

    key: str
    identity: SystemIdentity
    chunks: tuple[Chunk, ...]
    step: int

    def manifest(self, bars: Bars) -> dict[str, Any]:
        """Return what the cache records of this entry of these bars."""
        system = self.identity.system

        def at(row: int) -> str | int:
            return show_time(int(bars.timestamp[row])) if bars.timed else row

        return {
            "system": system.spec,
            "version": system.version,
            "features": list(system.features),
            "warmup": system.warmup_bars,
            "rows": len(bars) - system.warmup_bars,
            "first_timestamp": at(system.warmup_bars) if bars.timed else None,
            "last_timestamp": at(len(bars) - 1) if bars.timed else None,
            "identity": dict(self.identity.facts),
            "chunks": [
                {"key": chunk.key, "rows": chunk.stop - chunk.start, "from": at(chunk.start), "to": at(chunk.stop - 1)}
                for chunk in self.chunks
            ],
        }


def system_code(system: FeatureSystem, memo: Memo | None = None) -> CodeIdentity:
    """Return the identity of a system's code: of its function, and of the module that calls it.

    Raises BitcornError for code that has no stable identity.
    """
    return code_identity(system.function, memo, callers=(FeatureSystem.__module__,))


def identify(system: FeatureSystem, code: CodeIdentity | None = None, memo: Memo | None = None) -> SystemIdentity:
    """Return the identity of a system. code: as another process identified it, by default as it is here.

    Raises BitcornError for parameters that are not plain JSON values, and for code that has no stable identity.
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
        **read_identity(system.function, system.name, system.files, system.env),
        "step": system.step,
        "code": {name: value if isinstance(value, str) else dict(value) for name, value in vars(code).items()},
    }
    for name, value in system.all_parameters.items():
        if (found := _not_json(value)) is not None:
            raise BitcornError(
                f"parameters of feature system {system.name!r} must be plain JSON values, but {name} holds {found!r} "
                f"of type {type(found).__name__}: give a list, a number, a text, true, false, null, or an object"
            )
    # The order of a dictionary may decide what a function computes: it is kept inside a parameter.
    parameters = {name: json.dumps(value) for name, value in system.all_parameters.items()}
    text = json.dumps({**facts, "parameters": parameters}, sort_keys=True, allow_nan=False)
    plain = json.loads(json.dumps(facts))
    return SystemIdentity(system=system, facts=plain, digest=hashlib.sha256(text.encode()).hexdigest())


def _not_json(value: Any) -> Any:
    """Return the first value inside a parameter that JSON would not give back as it is, None if there is none.

    A tuple would come back as a list, a key of a dictionary as text, and an instance of a subclass as its base.
    """
    if type(value) is list:
        return next((found for item in value if (found := _not_json(item)) is not None), None)
    if type(value) is dict:
        wrong = next((key for key in value if type(key) is not str), None)
        return wrong if wrong is not None else _not_json(list(value.values()))
    is_plain = value is None or type(value) in (str, bool, int) or (type(value) is float and math.isfinite(value))
    return None if is_plain else value


def plan_entry(
    bars: Bars, system: FeatureSystem, code: CodeIdentity | None = None, memo: Memo | None = None
) -> EntryPlan:
    """Split bars into chunks and make their keys.

    Raises BitcornError for too few bars, for times out of order, and as `identify` does.
    """
    if bars.timed:
        require_chronology(bars.timestamp)
    bars, step = bars.with_extra(system.inputs), bars.grid_step()
    on_grid = system.on_grid(step)
    on_grid.require_enough(bars)
    edges = _boundaries(bars, step)
    firsts = on_grid.first_rows(bars, [start for start, _ in edges])
    identity = identify(on_grid, code, memo)
    chunks = tuple(
        Chunk(
            key=_hashed([identity.digest, bars_digest(bars, first, start, stop)]), first=first, start=start, stop=stop
        )
        for first, (start, stop) in zip(firsts, edges, strict=True)
    )
    key = _hashed([identity.digest, *(chunk.key for chunk in chunks)])
    return EntryPlan(key=key, identity=identity, chunks=chunks, step=step)


def _boundaries(bars: Bars, step: int) -> list[tuple[int, int]]:
    """Cut where the time is a multiple of `CHUNK_BARS` steps since the epoch; by row if there are no times."""
    if not bars.timed:
        cuts = np.arange(CHUNK_BARS, len(bars), CHUNK_BARS)
    else:
        length = CHUNK_BARS * (step or UNIT_MS["m"])
        numbers = np.arange(bars.timestamp[0] // length + 1, bars.timestamp[-1] // length + 1)
        cuts = np.unique(np.searchsorted(bars.timestamp, numbers * length))
    return list(pairwise([0, *cuts.tolist(), len(bars)]))


def bars_digest(bars: Bars, first: int, start: int, stop: int) -> str:
    """Return a hash of the bars from row ``start`` to ``stop`` and of their halo from row ``first`` on."""
    chunk = bars.take(slice(first, stop))
    columns = {**chunk.columns(), **{f"extra {name}": column for name, column in chunk.extra.items()}}
    layout = {name: column.dtype.str for name, column in columns.items()}
    digest = hashlib.sha256(json.dumps([start - first, stop - start, layout]).encode())
    for column in columns.values():
        digest.update(np.ascontiguousarray(column).data)
    return digest.hexdigest()


def bar_hashes(bars: Bars) -> NDArray[np.uint32]:
    """Return a hash of each bar's prices and volume, (T,); chunks store it, so that `explain` finds changed bars."""
    mixed = np.zeros(len(bars), np.uint64)
    for name, column in bars.columns().items():
        if name != "timestamp":
            # One round of the finaliser of MurmurHash3 per column; products wrap around.
            mixed ^= np.ascontiguousarray(column).view(np.uint64)
            mixed ^= mixed >> np.uint64(33)
            mixed *= np.uint64(0xFF51AFD7ED558CCD)
    return (mixed >> np.uint64(32)).astype(np.uint32)


def _hashed(parts: list[str]) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:KEY_LENGTH]
