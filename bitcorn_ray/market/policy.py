"""How bars are repaired, where a user says so: the policy, and the text of options that says one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from bitcorn_ray.errors import BitcornError

_CHOICES = {
    "duplicates": (None, "first", "last", "error"),
    "off_grid": ("drop", "snap"),
    "fill": (None, "forward", "linear"),
    "bad_prints": ("keep", "mask"),
}


@dataclass(frozen=True, kw_only=True)
class CleaningPolicy:
    """What `clean_bars` does; see `market.clean`. max_gap_size: in missing bars, None fills gaps of any length.

    duplicates: None keeps the last row of each time as well, but leaves it to who reads to refuse rows of one time that
    are of different markets (see `market.apart`); a row that is chosen is chosen among all.
    """

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    duplicates: str | None = None
    off_grid: str = "drop"
    bad_prints: str = "keep"
    fill: str | None = None
    max_gap_size: int | None = None

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                known = ", ".join(map(repr, choices))
                raise BitcornError(f"{name} is {getattr(self, name)!r} in the cleaning policy: use one of {known}")
        if self.max_gap_size is not None and self.max_gap_size < 1:
            raise BitcornError(f"max_gap_size is {self.max_gap_size}: it must be at least 1, or None for any size")

    @property
    def fills_ahead(self) -> bool:
        """Whether a bar that it fills says anything of later ones: of its price, or that a print was a bad one."""
        return self.fill == "linear" or (self.fill is not None and self.bad_prints == "mask")


def parse_policy(text: str) -> dict[str, Any]:
    """Read the fields of a policy from a text such as an option gives; `gaps` is `fill` with its largest size.

    >>> parse_policy("duplicates=last, gaps=forward:3")
    {'duplicates': 'last', 'fill': 'forward', 'max_gap_size': 3}
    >>> parse_policy("default")
    {}

    Raises BitcornError for an unknown field or an impossible value.
    """
    fields: dict[str, Any] = {}
    known = {"duplicates", "off_grid", "bad_prints", "gaps"}
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts:
        raise _unreadable(text)
    for part in parts if parts != ["default"] else []:
        name, said, value = (each.strip() for each in part.partition("="))
        name = name.lower().replace("-", "_")
        if not said or name not in known:  # or said twice
            raise _unreadable(text)
        known.remove(name)
        if name == "gaps":
            fill, _, most = value.partition(":")
            if most and not most.isdecimal():
                raise _unreadable(text)
            fields["fill"] = None if fill == "none" else fill
            fields["max_gap_size"] = int(most) if most else None
        else:
            fields[name] = value
    CleaningPolicy(**fields)
    return fields


def _unreadable(text: str) -> BitcornError:
    return BitcornError(
        f"{text!r} says no cleaning policy: write default, or some of duplicates=first|last|error, off-grid=drop|snap, "
        "bad-prints=keep|mask and gaps=none|forward|linear, with :3 for gaps of at most three bars, between commas"
    )
