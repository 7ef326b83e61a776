"""Combined feature systems of some features of others: `v2[log_ret_1,rsi_14]+v4:short=12[adx,macd_hist]`.

1. Each parent is named as everywhere, with the selected features in brackets. A JSON file with such a text in its field
   `system` names it too.
2. The features are the parents' columns, bit for bit. They keep their names; if two parents have a feature of the same
   name, both are called `<parent>_<name>`.
3. Warm-up and look-back are the longest of the parents. The identity includes the versions, parameters and code of the
   parents and the selected features, which are in the closure of the system's function.

Shapes: T bars, F features.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.features.reads import resolved_files
from bitcorn_ray.features.system import FeatureSystem
from bitcorn_ray.market.bars import Bars
from bitcorn_ray.storage.location import Location, shown_uri

_VERSION = 1
_RESERVED = frozenset("[],+")

Floats = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class CombinedSystem(FeatureSystem):
    """Some features of other systems, made by `combine`. selected: names of features of each parent, in its order."""

    parents: tuple[FeatureSystem, ...] = ()
    selected: tuple[tuple[str, ...], ...] = ()

    @cached_property
    def own_warmup(self) -> int:
        """Return the longest of the parents' warm-ups without their contexts, in bars."""
        return max((parent.own_warmup for parent in self.parents), default=0)

    @cached_property
    def warmup_bars(self) -> int:
        """Return the number of first bars without a complete row of features."""
        return max(parent.warmup_bars for parent in self.parents)

    def first_rows(self, bars: Bars, rows: Sequence[int]) -> list[int]:
        """Return the first rows that the features of any parent from some rows on need."""
        own = [max(0, row - self.warmup_bars) for row in rows]
        return [min(first) for first in zip(own, *(p.first_rows(bars, rows) for p in self.parents), strict=True)]

    def on_grid(self, step: int) -> FeatureSystem:
        """Return this system for bars that are ``step`` milliseconds apart; only parents' contexts depend on it."""
        if all(parent.on_grid(step) is parent for parent in self.parents):
            return self
        return replace(self, step=step, parents=tuple(parent.on_grid(step) for parent in self.parents))

    def with_context(self, *timeframes: str) -> FeatureSystem:
        """Raise BitcornError: only parents have contexts."""
        raise BitcornError(
            f"{self.spec} has no context of its own: give it to a system inside, as in v4:context=4h[adx,adx_4h]"
        )

    def _call(self, bars: Bars) -> Mapping[str, Any]:
        # Not by the function: it knows no grid, so that its identity is the same for all grids.
        return _columns(self.parents, self.selected, self.own_features, bars.read_only())


def combine(parents: Sequence[FeatureSystem], selected: Sequence[Sequence[str]]) -> CombinedSystem:
    """Return a system of some features of others.

    selected: names of features of each parent, in any order. Raises BitcornError if none is selected, for unknown and
    repeated features, for repeated parents, and for names that cannot be part of the system's text.
    """
    chosen = [(parent, _ordered(parent, names)) for parent, names in zip(parents, selected, strict=True) if names]
    if not chosen:
        raise BitcornError("a combined feature system needs at least one feature, as in v2[rsi_14]")
    used, selected_names = tuple(parent for parent, _ in chosen), tuple(names for _, names in chosen)
    if len({parent.spec for parent in used}) < len(used):
        raise BitcornError(f"a feature system is combined with itself: {', '.join(parent.spec for parent in used)}")
    names = tuple(name for group in combined_names(used, selected_names) for name in group)

    def features(bars: Bars) -> dict[str, Floats]:
        return _columns(used, selected_names, names, bars)

    return CombinedSystem(
        name="_and_".join(dict.fromkeys(parent.name for parent in used)),
        version=_VERSION,
        function=features,
        warmup=0,
        declared=names,
        inputs=tuple(dict.fromkeys(name for parent in used for name in parent.inputs)),
        files=tuple(dict.fromkeys(path for parent in used for path in resolved_files(parent.function, parent.files))),
        env=tuple(dict.fromkeys(name for parent in used for name in parent.env)),
        origin=combined_text(used, selected_names),
        parents=used,
        selected=selected_names,
    )


def combined_names(
    parents: Sequence[FeatureSystem], selected: Sequence[Sequence[str]] | None = None
) -> tuple[tuple[str, ...], ...]:
    """Return the names of the selected features of each parent in the combined system; by default of all features."""
    groups = [parent.features for parent in parents] if selected is None else selected
    repeated = {name for name, count in Counter(name for group in groups for name in group).items() if count > 1}
    same = Counter(parent.name for parent in parents)
    labels = [
        parent.name if same[parent.name] == 1 else f"{parent.name}{number}"
        for number, parent in enumerate(parents, start=1)
    ]
    return tuple(
        tuple(f"{label}_{name}" if name in repeated else name for name in group)
        for label, group in zip(labels, groups, strict=True)
    )


def combined_text(parents: Sequence[FeatureSystem], selected: Sequence[Sequence[str]]) -> str:
    """Return the text of a combined system for `parse_combined`. Raises BitcornError for names with []+ or commas."""
    for parent, names in zip(parents, selected, strict=True):
        if bad := [name for name in names if _RESERVED & set(name)]:
            raise BitcornError(f"feature {bad[0]!r} of {parent.spec} cannot be combined: rename it without any of []+,")
    return "+".join(
        f"{parent.spec}[{','.join(names)}]" for parent, names in zip(parents, selected, strict=True) if names
    )


def is_combined(text: str) -> bool:
    """Return True if a text names a combined system, or a file that contains one.

    >>> is_combined("v2[rsi_14]"), is_combined("mine:windows:of=[1,2]"), is_combined("v4:context=4h+1d")
    (True, False, False)
    """
    head = text.split("]+")[0].rpartition("[")[0]
    return _is_file(text) or (text.endswith("]") and bool(head) and head[-1] not in "=,[ ")


def parse_combined(text: str, find: Callable[[str], FeatureSystem]) -> CombinedSystem:
    """Return the system that a text, or a file that contains one, names. find: returns a parent by its text.

    Raises BitcornError for invalid text, for a file that cannot be read, and as `combine` does.
    """
    if _is_file(text):
        text = _read(text)
    parents, selected = list[FeatureSystem](), list[list[str]]()
    for part in text.removesuffix("]").split("]+"):
        spec, bracket, names = part.rpartition("[")
        if not (spec and bracket):
            raise BitcornError(
                f"feature system {text!r} is invalid: name the features of each system in brackets, as in "
                "v2[rsi_14]+v4:short=12[adx]"
            )
        parents.append(find(spec))
        selected.append([name.strip() for name in names.split(",") if name.strip()])
    return combine(parents, selected)


def _is_file(text: str) -> bool:
    head = text.partition("?")[0] if "://" in text else text
    return head.endswith(".json") and "=" not in head  # else a parameter names a file


def _read(path: str) -> str:
    shown = shown_uri(path)
    try:
        with Location.of(path).opened() as file:
            text = json.loads(bytes(file.read()))["system"]
    except BitcornError as error:
        raise BitcornError(f"cannot read a feature system from {shown}: {error}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise BitcornError(f"{shown} is not a feature system: it must be JSON with a field `system`") from error
    if not isinstance(text, str) or not is_combined(text) or _is_file(text):
        raise BitcornError(f"{shown} names {text!r}, which is not a combined system such as v2[rsi_14]+v4[adx]")
    return text


def _ordered(parent: FeatureSystem, names: Sequence[str]) -> tuple[str, ...]:
    """Return features of a parent in its order. Raises BitcornError for unknown and repeated ones."""
    known = parent.features
    if absent := [name for name in names if name not in known]:
        raise BitcornError(f"system {parent.spec} has no feature {', '.join(absent)}: it has {', '.join(known)}")
    if len(set(names)) < len(names):
        raise BitcornError(f"a feature of system {parent.spec} is selected twice: {', '.join(names)}")
    return tuple(name for name in known if name in set(names))


def _columns(
    parents: Sequence[FeatureSystem], selected: Sequence[Sequence[str]], names: Sequence[str], bars: Bars
) -> dict[str, Floats]:
    """Return the columns (T,) of the selected features by their names in the combined system."""
    columns = list[Floats]()
    for parent, features in zip(parents, selected, strict=True):
        matrix = parent.matrix(bars)
        columns += [matrix[parent.features.index(name)] for name in features]
    return dict(zip(names, columns, strict=True))
