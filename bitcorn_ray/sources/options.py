"""Options for reading a source, for what its names do not say."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from bitcorn_ray.market.policy import CleaningPolicy
from bitcorn_ray.sources.columns import parse_mapping
from bitcorn_ray.sources.times import PLAIN, TimeForm


@dataclass(frozen=True)
class SourceOptions:
    """Options for reading a source; by default its names decide.

    table: the one table of a database to read. mapping: pairs of our column name and the stored one.
    columns: further numeric columns to keep, by their stored name or one of ours (`quote_volume`, `trades`, ...).
    policy: how to repair bars after reading; None only keeps one of several rows of one time. times: how times are
    written. default_symbol: of the bars if nothing else says one.
    """

    table: str | None = None
    mapping: tuple[tuple[str, str], ...] = ()
    columns: tuple[str, ...] = ()
    policy: CleaningPolicy | None = None
    times: TimeForm = PLAIN
    default_symbol: str | None = None

    @property
    def chooses_among_rows(self) -> bool:
        """Whether the policy chooses among rows of one time, whatever tells them apart."""
        return self.policy is not None and self.policy.duplicates is not None

    def with_columns(self, names: Iterable[str]) -> SourceOptions:
        """Return these options with further columns added."""
        return replace(self, columns=tuple(dict.fromkeys((*self.columns, *names))))

    def with_symbols(self, symbols: Sequence[str] | None) -> SourceOptions:
        """Return these options for a request of some symbols: a single one is that of bars that say none."""
        return self if symbols is None or len(symbols) != 1 else replace(self, default_symbol=symbols[0])

    @classmethod
    def of(
        cls,
        table: str | None = None,
        mapping: Mapping[str, str] | Iterable[str] = (),
        columns: Iterable[str] = (),
        policy: CleaningPolicy | None = None,
        time_format: str | None = None,
        timezone: str | None = None,
    ) -> SourceOptions:
        """Return options made from plain values.

        mapping: our names to stored ones, or texts such as `open=o,high=h`. time_format: of times in text, as for
        `strptime`. timezone: of times without an offset. Raises BitcornError if one is not valid.
        """
        texts = [f"{ours}={stored}" for ours, stored in mapping.items()] if isinstance(mapping, Mapping) else mapping
        pairs = tuple(sorted(parse_mapping(texts).items()))
        return cls(table, pairs, tuple(dict.fromkeys(columns)), policy, TimeForm(time_format, timezone))
