"""The cleaning policy of bars, and its text form for command line options."""

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
    """The choices of `clean_bars`; see `market.clean`. max_gap_size: in missing bars, None fills gaps of any length.

    duplicates: None keeps the last row of each time, but lets the reader of a source refuse rows of one time that
    belong to different markets; any other value chooses among all rows.
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
        """True if a filled bar depends on later bars: on their prices, or because they identify a bad print."""
        return self.fill == "linear" or (self.fill is not None and self.bad_prints == "mask")


def parse_policy(text: str) -> dict[str, Any]:
    """Return the fields of a policy from an option's text; `gaps` is `fill` with its maximum size.

    >>> parse_policy("duplicates=last, gaps=forward:3")
    {'duplicates': 'last', 'fill': 'forward', 'max_gap_size': 3}
    >>> parse_policy("default")
    {}

    Raises BitcornError for an unknown or repeated field or an invalid value.
    """
    invalid = BitcornError(
        f"{text!r} is not a cleaning policy: write default, or some of duplicates=first|last|error, "
        "off-grid=drop|snap, bad-prints=keep|mask and gaps=none|forward|linear, with :3 for gaps of at most three "
        "bars, separated by commas"
    )
    fields: dict[str, Any] = {}
    known = {"duplicates", "off_grid", "bad_prints", "gaps"}
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts:
        raise invalid
    for part in parts if parts != ["default"] else []:
        name, equals, value = (token.strip() for token in part.partition("="))
        name = name.lower().replace("-", "_")
        if not equals or name not in known:
            raise invalid
        known.remove(name)
        if name != "gaps":
            fields[name] = value
            continue
        fill, _, most = value.partition(":")
        if most and not most.isdecimal():
            raise invalid
        fields["fill"] = None if fill == "none" else fill
        fields["max_gap_size"] = int(most) if most else None
    CleaningPolicy(**fields)
    return fields
