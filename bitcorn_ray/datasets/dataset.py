"""From features and bars to the arrays that a model is fitted on: one scaled matrix, targets by row, and window ends.

1. In each partition, find the windows that are valid for the longest horizon (`windows`). 2. Split them in time: by
shares of all windows, or by the ranges of a fold (`folds`). All partitions are split at the same instants, with a purge
of the longest horizon. 3. Fit the scaler on each partition's training rows: from the first bar of the first training
window to the end of the last one. 4. Scale all rows in place.

Nothing after the end of the last training window reaches its inputs or the scaler. Its targets end before validation
begins.

Shapes: T rows of all partitions, P partitions, F features, H horizons, N windows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from bitcorn_ray.datasets.folds import FoldRows, Shares, Span, split_by_shares
from bitcorn_ray.datasets.scaling import finite_rows, fit_scaler, scale_in_place
from bitcorn_ray.datasets.windows import WindowIndex, WindowOptions, gap_before, window_index
from bitcorn_ray.errors import BitcornError
from bitcorn_ray.market.bars import Bars, require_chronology, show_time
from bitcorn_ray.market.outcomes import forward_return, outcomes, realised_volatility
from bitcorn_ray.market.partition import Partition
from bitcorn_ray.market.reference_volatility import reference_volatility
from bitcorn_ray.market.timeframe import timeframe_ms

if TYPE_CHECKING:
    from sklearn.preprocessing import StandardScaler

Floats = NDArray[np.floating]
Prices = NDArray[np.float64]
Rows = NDArray[np.int64]
Mask = NDArray[np.bool_]

_PARTS = ("train", "validation", "test")


@dataclass(frozen=True, kw_only=True, eq=False)
class PartitionBars:
    """T bars of one partition, as models and folds see them.

    symbol, timeframe: of the partition, as stored. timestamp: (T,) int64 ms at which each bar opens. step: timeframe in
    ms. timed: False if there are no times, and timestamp holds row numbers, with a step of 1. close: (T,) prices. high,
    low: (T,), None if only closes are known. reference: (T,) volatility of one bar that targets are relative to, NaN
    where it is unknown; None for targets that are relative to nothing. excluded_ends: (T,) rows at which no window may
    end, as their bars were filled from later ones. filled: (T,) rows of bars that were filled in, which are in no
    outcome.
    """

    symbol: str
    timeframe: str
    close: Prices
    timestamp: Rows
    step: int
    timed: bool = True
    high: Prices | None = None
    low: Prices | None = None
    reference: Prices | None = None
    excluded_ends: Mask | None = None
    filled: Mask | None = None

    @classmethod
    def of(cls, bars: Bars, partition: Partition, filled: Mask | None = None, fills_ahead: bool = False) -> Self:
        """Return the bars of a partition, which have times. fills_ahead: filled bars depend on later ones."""
        return cls(
            symbol=partition.symbol,
            timeframe=partition.timeframe,
            timestamp=bars.timestamp,
            step=timeframe_ms(partition.timeframe),
            close=bars.close,
            high=bars.high,
            low=bars.low,
            excluded_ends=filled if fills_ahead else None,
            filled=filled,
        )

    def __len__(self) -> int:
        return len(self.close)

    @property
    def name(self) -> str:
        """Return the partition's name for messages, such as "BTCUSDT 1h"."""
        return f"{self.symbol} {self.timeframe}"

    def with_reference(self, span: int) -> Self:
        """Return the same bars with the reference volatility of a span in bars; 0 for none."""
        if not span:
            return replace(self, reference=None)
        with np.errstate(invalid="ignore", divide="ignore"):
            return replace(self, reference=reference_volatility(np.log(self.close), span))

    def outcomes(self, horizons: Sequence[int]) -> tuple[Prices, Prices]:
        """Return the log returns and realised variances (T, H) after each bar; NaN at a gap or a filled bar."""
        return outcomes(self.close, horizons, self.timestamp // self.step, self.filled)

    def take(self, rows: slice) -> Self:
        """Return a range of rows, as views."""
        arrays: dict[str, Any] = {
            name: value[rows] for name, value in vars(self).items() if isinstance(value, np.ndarray)
        }
        return replace(self, **arrays)


@dataclass(frozen=True, eq=False)
class Dataset:
    """Read-only plain arrays, which travel through an object store without a copy.

    matrix: (T, F) float32, scaled, one partition after another. reference: (T,) float32 volatility of one bar, 1 where
    there is none. partition_starts: (P + 1,) first row of each partition, then T. names: of the partitions. timestamp:
    (T,) int64 ms, None if a partition has none. returns, volatilities: (T, H) float32 targets by the row at which a
    window ends, zero where no window ends. output_scale: (H,) root mean square, over the training windows, of the
    realised volatility in units of the reference. typical_reference: median reference at the ends of the training
    windows. train_ends, validation_ends, test_ends: (N,) int64 rows, ascending. bars: of the partitions, for models
    that use prices; empty if the model uses none.
    """

    matrix: Floats
    reference: Floats
    partition_starts: Rows
    names: tuple[str, ...]
    timestamp: Rows | None
    returns: Floats
    volatilities: Floats
    output_scale: Floats
    typical_reference: float
    train_ends: Rows
    validation_ends: Rows
    test_ends: Rows
    bars: tuple[PartitionBars, ...] = ()

    def partition_of(self, ends: Rows) -> Rows:
        """Return the index of the partition that each row belongs to: (N,)."""
        return np.searchsorted(self.partition_starts, ends, side="right") - 1

    def whole_windows(self, steps: Sequence[int], seq_len: int) -> Rows:
        """Return the rows at which seq_len rows of one partition end without a gap and with all features.

        steps: timeframe of each partition in ms. What follows a row does not matter.
        """
        assert self.timestamp is not None
        ends = []
        for step, (start, stop) in zip(steps, pairwise(self.partition_starts.tolist()), strict=True):
            index = window_index(
                rows=stop - start,
                seq_len=seq_len,
                horizon=0,
                finite=finite_rows(self.matrix[start:stop]),
                gaps=gap_before(self.timestamp[start:stop], step),
            )
            ends.append(index.ends + start)
        return np.concatenate(ends)

    def describe(self, ends: Rows) -> str:
        """Return, for messages, the partitions and the time range of the last bars of some windows."""
        partitions = self.partition_of(ends)
        parts = []
        for index in np.unique(partitions):
            rows = ends[partitions == index]
            first, last = int(rows.min()), int(rows.max())
            if self.timestamp is None:
                span = f"rows {first - self.partition_starts[index]} to {last - self.partition_starts[index]}"
            else:
                span = f"{show_time(int(self.timestamp[first]))} to {show_time(int(self.timestamp[last]))}"
            parts.append(f"{self.names[index]}, {span}")
        return "; ".join(parts)


def build_dataset(
    matrix: Floats, partitions: Sequence[PartitionBars], windows: WindowOptions, split: Shares | Sequence[FoldRows]
) -> tuple[Dataset, StandardScaler, dict[str, Any]]:
    """Return the dataset of some partitions, its fitted scaler, and facts for a run's metadata.

    matrix: (T, F) features, one partition after another. It is scaled in place and belongs to the dataset afterwards.
    split: shares of all valid windows, or the ranges of a fold, for each partition the rows at which its windows end;
    a partition may have no rows in a range.
    A partition without a valid window is left out of all parts, and `facts` count its windows as 0.
    Raises BitcornError for times out of order, and if no partition has a valid window.
    """
    starts = np.cumsum([0, *(len(partition) for partition in partitions)], dtype=np.int64)
    if starts[-1] != len(matrix):
        raise BitcornError(f"the partitions have {starts[-1]} closes, the matrix {len(matrix)} rows: they must agree")
    by_shares = isinstance(split, Shares)
    indexes = [
        _valid_windows(partition, matrix[start:stop], windows)
        for partition, start, stop in zip(partitions, starts[:-1], starts[1:], strict=True)
    ]
    if by_shares and not any(len(index.ends) for index in indexes):
        whys = [why_no_window(own, index, windows) for own, index in zip(partitions, indexes, strict=True)]
        raise BitcornError("; ".join(whys))
    if isinstance(split, Shares):
        fold = _fold_of_shares(split, indexes, partitions, windows)
    else:
        fold = split
        indexes = [
            WindowIndex(_within(index.ends, rows), index.left_out) for index, rows in zip(indexes, fold, strict=True)
        ]
    parts = [
        {part: _in_span(index.ends, getattr(rows, part)) for part in _PARTS}
        for index, rows in zip(indexes, fold, strict=True)
    ]
    _require_parts(parts)
    ends = {
        part: np.concatenate([own[part] + start for own, start in zip(parts, starts, strict=False)]) for part in _PARTS
    }
    scaler = fit_scaler(
        *(
            matrix[start + max(0, rows.train.start - windows.seq_len + 1) : start + own["train"][-1] + 1]
            for rows, start, own in zip(fold, starts, parts, strict=False)
            if len(own["train"])
        )
    )
    scale_in_place(matrix, scaler)
    reference, returns, volatilities = _targets([index.ends for index in indexes], partitions, starts, windows.horizons)
    timed = all(partition.timed for partition in partitions)
    dataset = Dataset(
        matrix=matrix,
        reference=reference,
        partition_starts=starts,
        names=tuple(partition.name for partition in partitions),
        timestamp=np.concatenate([partition.timestamp for partition in partitions]) if timed else None,
        returns=returns,
        volatilities=volatilities,
        output_scale=_output_scale(volatilities, reference, ends["train"]),
        typical_reference=float(np.median(reference[ends["train"]])),
        train_ends=ends["train"],
        validation_ends=ends["validation"],
        test_ends=ends["test"],
        bars=tuple(replace(partition, reference=None) for partition in partitions),
    )
    return dataset, scaler, _facts(partitions, indexes, parts, windows)


def build_fold_dataset(
    matrix: Floats,
    columns: Sequence[int],
    partitions: Sequence[PartitionBars],
    windows: WindowOptions,
    fold: Sequence[FoldRows],
    *,
    all_rows: bool = False,
    history: int = 1,
) -> tuple[Dataset, StandardScaler, dict[str, Any]]:
    """Return the dataset of a fold as `build_dataset` does, from a copy of the rows that the fold needs.

    matrix: (T, F) features of all partitions, which stays as it is. columns: of the matrix, in the order of the
    dataset's. all_rows: keep every row, which gives equal windows and values. history: number of rows, up to the end of
    the first window, to keep at least.
    """
    rows, spans, parts, start = [], [], [], 0
    for partition, own in zip(partitions, fold, strict=True):
        kept = slice(0, len(partition)) if all_rows else _needed(own, windows, len(partition), history)
        part = matrix[start + kept.start : start + kept.stop]
        parts.append(part if list(columns) == list(range(matrix.shape[1])) else part[:, columns])
        rows.append(partition.with_reference(windows.reference_span).take(kept))
        spans.append(_shifted(own, kept.start))
        start += len(partition)
    return build_dataset(np.concatenate(parts), rows, windows, spans)


def why_no_window(partition: PartitionBars, index: WindowIndex, windows: WindowOptions) -> str:
    """Return the reason why a partition has no valid window, and what to do."""
    need, name = windows.seq_len + max(windows.horizons), partition.name
    if len(partition) and np.ptp(partition.close) == 0:
        return f"{name}: the price is {partition.close[0]:g} in all {len(partition):,} bars: there is nothing to learn"
    if len(partition) < need or index.left_out.get("non_finite_features", 0) >= len(partition) - need + 1:
        return (
            f"{name}: {len(partition):,} bars are too few: seq_len {windows.seq_len} and horizon "
            f"{max(windows.horizons)} need at least {need} after the warm-up of the features; give more bars, a "
            f"shorter seq_len, or leave {partition.symbol} out"
        )
    reasons = ", ".join(f"{count:,} for {reason}" for reason, count in index.left_out.items() if count)
    return f"{name}: no valid window is left ({reasons}): fill the gaps, or use a shorter seq_len or horizons"


def _valid_windows(partition: PartitionBars, matrix: Floats, windows: WindowOptions) -> WindowIndex:
    """Return the valid windows of a partition."""
    require_chronology(partition.timestamp)
    usable = np.isfinite(partition.close) & (partition.close > 0)
    if partition.reference is not None:
        usable &= np.isfinite(partition.reference)
    index = window_index(
        rows=len(matrix),
        seq_len=windows.seq_len,
        horizon=max(windows.horizons),
        gaps=gap_before(partition.timestamp, partition.step),
        excluded=partition.excluded_ends,
        filled=partition.filled,
        finite=finite_rows(matrix),
        usable_close=usable,
    )
    return index


def _fold_of_shares(
    shares: Shares, indexes: Sequence[WindowIndex], partitions: Sequence[PartitionBars], windows: WindowOptions
) -> Sequence[FoldRows]:
    """Return the rows of each partition that shares of all valid windows leave for each part."""
    if len(partitions) > 1 and (untimed := [partition.name for partition in partitions if not partition.timed]):
        raise BitcornError(f"{untimed[0]} has no timestamps: several partitions are split at the same instants")
    instants = [partition.timestamp + partition.step for partition in partitions]  # a bar is labelled by its open
    reaches = [max(windows.horizons) * partition.step for partition in partitions]
    return split_by_shares(shares, instants, [index.ends for index in indexes], reaches)


def _in_span(ends: Rows, span: Span) -> Rows:
    return ends[(ends >= span.start) & (ends < span.stop)]


def _within(ends: Rows, fold: FoldRows) -> Rows:
    """Return the windows from the first to the last range of a fold, the purged ones included."""
    spans = [span for span in (fold.train, fold.validation, fold.test) if span.length]
    return _in_span(ends, Span(min(s.start for s in spans), max(s.stop for s in spans))) if spans else ends[:0]


def _require_parts(parts: Sequence[dict[str, Rows]]) -> None:
    train, validation = (sum(len(own[part]) for own in parts) for part in _PARTS[:2])
    if not (train and validation):
        raise BitcornError(
            f"the fold leaves {train} windows for training and {validation} for validation: give longer ranges, or a "
            "shorter seq_len if bars are missing"
        )


def _output_scale(volatilities: Floats, reference: Floats, train_ends: Rows) -> Floats:
    """Return the root mean square of the training targets in units of the reference: (H,)."""
    mean_square = np.zeros(volatilities.shape[1])
    for block in np.array_split(train_ends, max(len(train_ends) >> 16, 1)):
        relative = volatilities[block] / reference[block, None]
        mean_square += np.square(relative, dtype=np.float64).sum(0) / len(train_ends)
    # A market that never moved has no scale: 1 keeps the arithmetic finite.
    return np.sqrt(np.where(mean_square > 0, mean_square, 1.0)).astype(np.float32)


def _targets(
    ends: Sequence[Rows], partitions: Sequence[PartitionBars], starts: Rows, horizons: tuple[int, ...]
) -> tuple[Floats, Floats, Floats]:
    """Return the reference (T,), 1 where there is none, and the returns and realised volatilities (T, H) by row."""
    reference = np.ones(starts[-1], np.float32)
    returns, volatilities = (np.zeros((starts[-1], len(horizons)), np.float32) for _ in range(2))
    for rows, partition, start in zip(ends, partitions, starts, strict=False):
        with np.errstate(invalid="ignore", divide="ignore"):
            log_close = np.log(partition.close)
        if partition.reference is not None:
            known = np.isfinite(partition.reference)
            reference[start : start + len(known)][known] = partition.reference[known]
        for column, horizon in enumerate(horizons):
            returns[start + rows, column] = forward_return(log_close, rows, horizon)
            volatilities[start + rows, column] = realised_volatility(log_close, rows, horizon)
    return reference, returns, volatilities


def _needed(fold: FoldRows, windows: WindowOptions, length: int, history: int) -> slice:
    """Return the rows that the windows and targets of a fold reach; at least one, so that no partition is dropped."""
    spans = [span for span in (fold.train, fold.validation, fold.test) if span.length]
    if not spans:
        return slice(0, 1)
    first = max(0, min(span.start for span in spans) - max(windows.seq_len, history) + 1)
    return slice(first, min(length, max(span.stop for span in spans) + max(windows.horizons)))


def _shifted(fold: FoldRows, first: int) -> FoldRows:
    return FoldRows(
        *(
            Span(max(0, span.start - first), max(0, span.stop - first)) if span.length else Span(0, 0)
            for span in (fold.train, fold.validation, fold.test)
        )
    )


def _facts(
    partitions: Sequence[PartitionBars],
    indexes: Sequence[WindowIndex],
    parts: Sequence[dict[str, Rows]],
    windows: WindowOptions,
) -> dict[str, Any]:
    """Return the counts and ranges of the data as plain values."""
    described = []
    for partition, index, own in zip(partitions, indexes, parts, strict=True):
        facts: dict[str, Any] = {"name": partition.name, "rows": len(partition), "windows": len(index.ends)}
        for part, rows in own.items():
            facts[f"{part}_windows"] = len(rows)
            facts[f"{part}_rows"] = [int(rows[0]), int(rows[-1])] if len(rows) else None
        facts["left_out"] = index.left_out
        if len(index.ends) == 0:
            facts["why_no_window"] = why_no_window(partition, index, windows)
        if partition.timed:
            facts["first_timestamp"] = show_time(int(partition.timestamp[0]))
            facts["last_timestamp"] = show_time(int(partition.timestamp[-1]))
        described.append(facts)
    counts = ("rows", "windows", "train_windows", "validation_windows", "test_windows")
    total = {name: sum(facts[name] for facts in described) for name in counts}
    total["purged_windows"] = total["windows"] - sum(total[name] for name in counts[2:])
    reasons = {
        reason: sum(facts["left_out"].get(reason, 0) for facts in described) for reason in described[0]["left_out"]
    }
    return {**total, "left_out": reasons, "partitions": described}
