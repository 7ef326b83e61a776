"""What a training runs on: one scaled matrix of all partitions, targets by row, and the windows of each part.

1. In each partition find the windows that are valid for the longest horizon. 2. Split them in time, all partitions at
the same instants, purged by the longest horizon; or as a fold says. 3. Fit the scaler on each partition's rows up to
its last training window's end, from the first row or, in a fold, from that window's first bar with which training
begins; and scale all rows with it where they lie.
Nothing after the last training window's end reaches its inputs or the scaler; its targets end where validation begins.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bitcorn_ray.datasets.folds import FoldRows
from bitcorn_ray.datasets.gaps import gap_before
from bitcorn_ray.datasets.scaling import finite_rows, fit_scaler, scale_in_place
from bitcorn_ray.datasets.splits import Split, split_by_rows, split_by_time
from bitcorn_ray.datasets.targets import forward_return, realised_volatility
from bitcorn_ray.datasets.windows import require_horizons, window_index
from bitcorn_ray.errors import BitcornError
from bitcorn_ray.market.bars import modal_step, require_chronology, show_time
from bitcorn_ray.models.neural.config import ModelConfig, TrainingConfig

if TYPE_CHECKING:
    from sklearn.preprocessing import StandardScaler

__all__ = ["PartitionRows", "TrainingData", "training_data"]

Floats = NDArray[np.float32]
Rows = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class PartitionRows:
    """One partition beside its rows of the matrix.

    name: for messages, such as "BTCUSDT 1h". close: (T,). timestamp: (T,) ms, None treats rows as neighbouring bars.
    step: timeframe in ms, by default the most frequent distance. reference: (T,) volatility of one bar that targets are
    relative to, NaN where there is none; None: they are relative to nothing. barred_ends: (T,) rows at which no window
    may end, as they were filled from later bars.
    """

    name: str
    close: NDArray[np.float64]
    timestamp: Rows | None = None
    step: int | None = None
    reference: NDArray[np.float64] | None = None
    barred_ends: NDArray[np.bool_] | None = None


@dataclass(frozen=True)
class TrainingData:
    """Plain arrays, so that they travel through an object store without a copy. Nobody writes to them.

    matrix: (T, F) float32, scaled, the rows of one partition after those of another. reference: (T,) float32 volatility
    of one bar. partition_starts: (P + 1,) rows at which partitions begin, and T. names: of the partitions.
    timestamp: (T,) int64 ms, None where a partition has none. returns, volatilities: (T, H) float32 in real units, by
    the row at which a window ends; zero where no window ends. output_scale: (H,) root mean square, over the training
    windows, of the realised volatility in units of the reference. typical_reference: its median at these windows' ends.
    train_ends, validation_ends, test_ends: (N,) int64 rows, ascending.
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

    def whole_windows(self, steps: Sequence[int], seq_len: int) -> Rows:
        """Rows at which so many rows of one partition end, without a gap and with all features, whatever comes after.

        steps: of each partition, in ms.
        """
        assert self.timestamp is not None
        found = []
        for step, (start, stop) in zip(steps, pairwise(self.partition_starts.tolist()), strict=True):
            index = window_index(
                finite=finite_rows(self.matrix[start:stop]),
                usable_close=np.ones(stop - start, bool),
                gap_before=gap_before(self.timestamp[start:stop], step),
                seq_len=seq_len,
                horizon=0,
            )
            found.append(index.ends + start)
        return np.concatenate(found)

    def where(self, ends: Rows) -> str:
        """Say which partitions, and from when to when, some windows' last bars are of."""
        places = np.searchsorted(self.partition_starts, ends, side="right") - 1
        parts = []
        for place in np.unique(places):
            rows = ends[places == place]
            first, last = int(rows.min()), int(rows.max())
            if self.timestamp is None:
                span = f"rows {first - self.partition_starts[place]} to {last - self.partition_starts[place]}"
            else:
                span = f"{show_time(int(self.timestamp[first]))} to {show_time(int(self.timestamp[last]))}"
            parts.append(f"{self.names[place]}, {span}")
        return "; ".join(parts)


def training_data(
    matrix: Floats,
    partitions: Sequence[PartitionRows],
    model: ModelConfig,
    training: TrainingConfig,
    stops: Sequence[tuple[int, int, int]] | None = None,
    fold: Sequence[FoldRows] | None = None,
) -> tuple[TrainingData, StandardScaler, dict[str, Any]]:
    """Turn the (T, F) features of partitions, one after another, into training data, their scaler, and facts.

    The matrix is scaled where it lies and belongs to the training data from then on.
    stops: for each partition the rows at which its fit, validation and test ranges end (`split_by_rows`), in place of
    the shares in `training`. fold: for each partition the rows at which the windows of each range of a fold end
    (`walk_forward_folds`), in place of both; a partition may have none of them.
    Raises BitcornError for too few rows, times out of order, and where no window is valid.
    """
    starts = np.cumsum([0, *(len(partition.close) for partition in partitions)], dtype=np.int64)
    if starts[-1] != len(matrix):
        raise BitcornError(f"the partitions have {starts[-1]} closes, the matrix {len(matrix)} rows: they must agree")
    longest = max(model.horizons)
    found = [
        _valid_windows(partition, matrix[start:stop], model, required=fold is None)
        for partition, start, stop in zip(partitions, starts[:-1], starts[1:], strict=True)
    ]
    if fold is None:
        splits, first_fitted = _split([ends for ends, _ in found], partitions, longest, training, stops), starts[:-1]
    else:
        found = [(_within(ends, own), left_out) for (ends, left_out), own in zip(found, fold, strict=True)]
        splits = _split_by_fold([ends for ends, _ in found], fold)
        begun = [max(0, rows.train.start - model.seq_len + 1) for rows in fold]
        first_fitted = starts[:-1] + np.array(begun, np.int64)
    ends = [_stacked([split[part] for split in splits], starts) for part in range(3)]
    scaler = fit_scaler(
        *(
            matrix[first : start + split.train[-1] + 1]
            for first, start, split in zip(first_fitted, starts, splits, strict=False)
            if len(split.train)
        )
    )
    scale_in_place(matrix, scaler)
    reference, returns, volatilities = _targets([ends for ends, _ in found], partitions, starts, model.horizons)
    train = ends[0]
    # A market that never moved has no scale: 1 keeps the arithmetic finite.
    mean_square = np.zeros(len(model.horizons))
    for block in np.array_split(train, max(len(train) >> 16, 1)):
        mean_square += np.square(volatilities[block] / reference[block, None], dtype=np.float64).sum(0) / len(train)
    output_scale = np.sqrt(np.where(mean_square > 0, mean_square, 1.0)).astype(np.float32)
    timed = all(partition.timestamp is not None for partition in partitions)
    data = TrainingData(
        matrix=matrix,
        reference=reference,
        partition_starts=starts,
        names=tuple(partition.name for partition in partitions),
        timestamp=np.concatenate([p.timestamp for p in partitions if p.timestamp is not None]) if timed else None,
        returns=returns,
        volatilities=volatilities,
        output_scale=output_scale,
        typical_reference=float(np.median(reference[train])),
        train_ends=train,
        validation_ends=ends[1],
        test_ends=ends[2],
    )
    return data, scaler, _facts(partitions, found, splits)


def _valid_windows(
    partition: PartitionRows, matrix: Floats, model: ModelConfig, required: bool
) -> tuple[Rows, dict[str, int]]:
    """End rows of the partition's valid windows, and how many were left out for which reason.

    required: raise BitcornError where there are none.
    """
    if required:
        require_horizons(model.horizons, model.seq_len, len(matrix))
    gaps = None
    if partition.timestamp is not None:
        require_chronology(partition.timestamp)
        gaps = gap_before(partition.timestamp, partition.step or modal_step(partition.timestamp))
    usable = np.isfinite(partition.close) & (partition.close > 0)
    if partition.reference is not None:
        usable &= np.isfinite(partition.reference)
    index = window_index(
        finite=finite_rows(matrix),
        usable_close=usable,
        gap_before=gaps,
        seq_len=model.seq_len,
        horizon=max(model.horizons),
        barred_ends=partition.barred_ends,
    )
    if required:
        index.require_any()
    return index.ends, index.left_out


def _split(
    ends: list[Rows],
    partitions: Sequence[PartitionRows],
    longest: int,
    training: TrainingConfig,
    stops: Sequence[tuple[int, int, int]] | None,
) -> list[Split]:
    if stops is not None:
        return [split_by_rows(rows, stop, longest) for rows, stop in zip(ends, stops, strict=True)]
    shares = (training.val_frac, training.test_frac)
    if len(partitions) == 1 and partitions[0].timestamp is None:
        return split_by_time(ends, ends, longest, *shares)
    closed, reaches = [], []
    for rows, partition in zip(ends, partitions, strict=True):
        if partition.timestamp is None:
            raise BitcornError(f"{partition.name} has no timestamps: several partitions are cut at the same instants")
        step = partition.step or modal_step(partition.timestamp)
        closed.append(partition.timestamp[rows] + step)  # a bar's label is its opening
        reaches.append(longest * step)
    return split_by_time(ends, closed, reaches, *shares)


def _within(ends: Rows, own: FoldRows) -> Rows:
    """The windows from the first to the last range of a fold, what is purged between them included."""
    spans = [span for span in (own.train, own.validation, own.test) if span.length]
    if not spans:
        return ends[:0]
    return ends[(ends >= min(span.start for span in spans)) & (ends < max(span.stop for span in spans))]


def _split_by_fold(ends: list[Rows], fold: Sequence[FoldRows]) -> list[Split]:
    """The valid windows in each range of a fold, which is purged already."""
    splits = [
        Split(*(rows[(rows >= span.start) & (rows < span.stop)] for span in (own.train, own.validation, own.test)))
        for rows, own in zip(ends, fold, strict=True)
    ]
    train, validation = (sum(len(split[part]) for split in splits) for part in range(2))
    if not train or not validation:
        raise BitcornError(
            f"the fold leaves {train} windows for training and {validation} for validation: give longer ranges, or a "
            "shorter seq_len where bars are missing"
        )
    return splits


def _stacked(parts: list[Rows], starts: Rows) -> Rows:
    """Rows of the whole matrix for rows of each partition."""
    return np.concatenate([rows + start for rows, start in zip(parts, starts, strict=False)])


def _targets(
    ends: list[Rows], partitions: Sequence[PartitionRows], starts: Rows, horizons: tuple[int, ...]
) -> tuple[Floats, Floats, Floats]:
    """Reference (T,), returns (T, H) and realised volatilities (T, H) by row; 1 where there is no reference."""
    reference = np.ones(starts[-1], np.float32)
    returns, volatilities = (np.zeros((starts[-1], len(horizons)), np.float32) for _ in range(2))
    for rows, partition, start in zip(ends, partitions, starts, strict=False):
        with np.errstate(invalid="ignore", divide="ignore"):
            log_close = np.log(partition.close)
        if partition.reference is not None:
            there = np.isfinite(partition.reference)
            reference[start : start + len(there)][there] = partition.reference[there]
        for column, horizon in enumerate(horizons):
            returns[start + rows, column] = forward_return(log_close, rows, horizon)
            volatilities[start + rows, column] = realised_volatility(log_close, rows, horizon)
    return reference, returns, volatilities


def _facts(
    partitions: Sequence[PartitionRows], found: list[tuple[Rows, dict[str, int]]], splits: list[Split]
) -> dict[str, Any]:
    """What the data are, in plain values."""
    told = []
    for partition, (ends, left_out), split in zip(partitions, found, splits, strict=True):
        one: dict[str, Any] = {"name": partition.name, "rows": len(partition.close), "windows": len(ends)}
        for part, rows in zip(("train", "validation", "test"), split, strict=True):
            one[f"{part}_windows"] = len(rows)
            one[f"{part}_rows"] = [int(rows[0]), int(rows[-1])] if len(rows) else None
        one["left_out"] = left_out
        if partition.timestamp is not None:
            one["first_timestamp"] = show_time(int(partition.timestamp[0]))
            one["last_timestamp"] = show_time(int(partition.timestamp[-1]))
        told.append(one)
    counts = ("rows", "windows", "train_windows", "validation_windows", "test_windows")
    facts = {name: sum(one[name] for one in told) for name in counts}
    facts["purged_windows"] = facts["windows"] - sum(facts[name] for name in counts[2:])
    reasons = {reason: sum(one["left_out"].get(reason, 0) for one in told) for reason in told[0]["left_out"]}
    return {**facts, "left_out": reasons, "partitions": told}
