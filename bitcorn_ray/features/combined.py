"""Feature systems put together of some features of others: `v2[log_ret_1,rsi_14]+v4:short=12[adx,macd_hist]`.

1. Each parent is named as everywhere, with the features that are kept of it in brackets. A JSON file that holds such a
text as `system` stands for it, see `read_combined`.
2. The features are the parents' columns, bit for bit. They keep their names; where two parents have one of the same
name, each is called `<parent>_<name>`.
3. The warm-up is the parents' longest, and so is how far features look back. Identity is that of the function, which
holds the parents with their versions, parameters and code, and what is kept of them.

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
from bitcorn_ray.features.system import FeatureSystem
from bitcorn_ray.market.bars import Bars
from bitcorn_ray.storage.location import Location, shown_uri

__all__ = ["CombinedSystem", "combine", "combined_names", "combined_text", "is_combined", "parse_combined"]

_VERSION = 1
_RESERVED = frozenset("[],+")

Floats = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class CombinedSystem(FeatureSystem):
    """Some features of other systems, made by `combine`. kept: of each parent, names of its features, in its order."""

    parents: tuple[FeatureSystem, ...] = ()
    kept: tuple[tuple[str, ...], ...] = ()

    @cached_property
    def own_warmup(self) -> int:
        """The longest of the parents' warm-ups without their contexts, in bars."""
        return max((parent.own_warmup for parent in self.parents), default=0)

    @cached_property
    def warmup_bars(self) -> int:
        """How many first bars have no complete row of features."""
        return max(parent.warmup_bars for parent in self.parents)

    def first_rows(self, bars: Bars, rows: Sequence[int]) -> list[int]:
        """First rows that the features of any parent from some rows on need."""
        own = [max(0, row - self.warmup_bars) for row in rows]
        return [min(each) for each in zip(own, *(p.first_rows(bars, rows) for p in self.parents), strict=True)]

    def on_grid(self, step: int) -> FeatureSystem:
        """Return this system for bars that are ``step`` milliseconds apart; only parents' contexts depend on it."""
        if all(parent.on_grid(step) is parent for parent in self.parents):
            return self
        return replace(self, step=step, parents=tuple(parent.on_grid(step) for parent in self.parents))

    def with_context(self, *timeframes: str) -> FeatureSystem:
        """Raise BitcornError: parents have contexts."""
        raise BitcornError(
            f"{self.spec} has no context of its own: give it to a system inside, as in v4:context=4h[adx,adx_4h]"
        )

    def _call(self, bars: Bars) -> Mapping[str, Any]:
        # Not by the function, which knows no grid: the same code must be told for any.
        return _columns(self.parents, self.kept, self.own_features, bars.read_only())


def combine(parents: Sequence[FeatureSystem], kept: Sequence[Sequence[str]]) -> CombinedSystem:
    """Put a system together of some features of others.

    kept: of each parent, the features wanted, in any order. Raises BitcornError where none is, where a parent has not
    got one or is there twice, and for names that could not be written down.
    """
    chosen = [(parent, _ordered(parent, names)) for parent, names in zip(parents, kept, strict=True) if names]
    if not chosen:
        raise BitcornError("a feature system of no features cannot be: keep at least one, as in v2[rsi_14]")
    used, names_kept = tuple(parent for parent, _ in chosen), tuple(names for _, names in chosen)
    if len({parent.spec for parent in used}) < len(used):
        raise BitcornError(f"a feature system is combined with itself: {', '.join(parent.spec for parent in used)}")
    names = tuple(name for group in combined_names(used, names_kept) for name in group)

    def features(bars: Bars) -> dict[str, Floats]:
        return _columns(used, names_kept, names, bars)

    return CombinedSystem(
        name="_and_".join(dict.fromkeys(parent.name for parent in used)),
        version=_VERSION,
        function=features,
        warmup=0,
        declared=names,
        inputs=tuple(dict.fromkeys(name for parent in used for name in parent.inputs)),
        origin=combined_text(used, names_kept),
        parents=used,
        kept=names_kept,
    )


def combined_names(
    parents: Sequence[FeatureSystem], kept: Sequence[Sequence[str]] | None = None
) -> tuple[tuple[str, ...], ...]:
    """Names in the combined system of the features kept of each parent, None for all of them."""
    groups = [parent.features for parent in parents] if kept is None else kept
    twice = {name for name, count in Counter(name for group in groups for name in group).items() if count > 1}
    same = Counter(parent.name for parent in parents)
    labels = [
        parent.name if same[parent.name] == 1 else f"{parent.name}{place}"
        for place, parent in enumerate(parents, start=1)
    ]
    return tuple(
        tuple(f"{label}_{name}" if name in twice else name for name in group)
        for label, group in zip(labels, groups, strict=True)
    )


def combined_text(parents: Sequence[FeatureSystem], kept: Sequence[Sequence[str]]) -> str:
    """The text of a combined system, as `parse_combined` reads it. Raises BitcornError for names with []+ or commas."""
    for parent, names in zip(parents, kept, strict=True):
        if bad := [name for name in names if _RESERVED & set(name)]:
            raise BitcornError(f"feature {bad[0]!r} of {parent.spec} cannot be combined: rename it without any of []+,")
    return "+".join(f"{parent.spec}[{','.join(names)}]" for parent, names in zip(parents, kept, strict=True) if names)


def is_combined(text: str) -> bool:
    """Tell whether a text names a combined system, or a file that holds one.

    >>> is_combined("v2[rsi_14]"), is_combined("mine:windows:of=[1,2]"), is_combined("v4:context=4h+1d")
    (True, False, False)
    """
    head = text.split("]+")[0].rpartition("[")[0]
    return _is_file(text) or (text.endswith("]") and bool(head) and head[-1] not in "=,[ ")


def parse_combined(text: str, find: Callable[[str], FeatureSystem]) -> CombinedSystem:
    """Return the system that a text, or a file that holds one, names. find: a parent by its text.

    Raises BitcornError for what is not understood, a file that cannot be read, and as `combine` does.
    """
    if _is_file(text):
        text = _read(text)
    parents, kept = list[FeatureSystem](), list[list[str]]()
    for part in text.removesuffix("]").split("]+"):
        spec, bracket, names = part.rpartition("[")
        if not (spec and bracket):
            raise BitcornError(
                f"feature system {text!r} is not understood: name the features of each in brackets, as in "
                "v2[rsi_14]+v4:short=12[adx]"
            )
        parents.append(find(spec))
        kept.append([name.strip() for name in names.split(",") if name.strip()])
    return combine(parents, kept)


def _is_file(text: str) -> bool:
    head = text.partition("?")[0] if "://" in text else text
    return head.endswith(".json") and "=" not in head  # a parameter may be the name of a file


def _read(path: str) -> str:
    shown = shown_uri(path)
    try:
        with Location.of(path).opened() as file:
            text = json.loads(bytes(file.read()))["system"]
    except BitcornError as error:
        raise BitcornError(f"no feature system at {shown}: {error}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise BitcornError(f"{shown} holds no feature system: it must be JSON with a field `system`") from error
    if not isinstance(text, str) or not is_combined(text) or _is_file(text):
        raise BitcornError(f"{shown} names {text!r}, which is no combined system such as v2[rsi_14]+v4[adx]")
    return text


def _ordered(parent: FeatureSystem, names: Sequence[str]) -> tuple[str, ...]:
    """Some features of a parent, in its order."""
    known = parent.features
    if absent := [name for name in names if name not in known]:
        raise BitcornError(f"system {parent.spec} has no feature {', '.join(absent)}: it has {', '.join(known)}")
    if len(set(names)) < len(names):
        raise BitcornError(f"of system {parent.spec} a feature is kept twice: {', '.join(names)}")
    return tuple(name for name in known if name in set(names))


def _columns(
    parents: Sequence[FeatureSystem], kept: Sequence[Sequence[str]], names: Sequence[str], bars: Bars
) -> dict[str, Floats]:
    """The columns (T,) of the features that are kept, by their names in the combined system."""
    columns = list[Floats]()
    for parent, wanted in zip(parents, kept, strict=True):
        matrix = parent.matrix(bars)
        columns += [matrix[parent.features.index(name)] for name in wanted]
    return dict(zip(names, columns, strict=True))
