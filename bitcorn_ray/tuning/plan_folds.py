"""The walk-forward folds of a configuration, for `bitcorn folds` and for reports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bitcorn_ray.datasets.folds import Fold, FoldsConfig, Span, Timeline, walk_forward_folds
from bitcorn_ray.errors import BitcornError
from bitcorn_ray.market.bars import show_time


@dataclass(frozen=True, kw_only=True, eq=False)
class FoldPlan:
    """The folds of some partitions.

    horizon: bars of the longest label. timelines: one a partition.
    """

    config: FoldsConfig
    horizon: int
    timelines: tuple[Timeline, ...]
    folds: tuple[Fold, ...]

    def to_json(self) -> dict[str, Any]:
        """Return plain values: the ranges of each fold, purged, with the closes of their first and last bars.

        `span` is a half-open range in ms. `bars` counts the bars of each partition, in the order of `partitions`.
        """
        return {
            "horizon": self.horizon,
            "window": self.config.window,
            "partitions": [
                {
                    "name": line.name,
                    "bars": len(line.instants),
                    "first": show_time(int(line.instants[0])),
                    "last": show_time(int(line.instants[-1])),
                }
                for line in self.timelines
            ],
            "folds": [
                {
                    "fold": fold.number,
                    "purge_ms": fold.purge,
                    **{part: self._range(fold, part) for part in ("train", "validation", "test")},
                }
                for fold in self.folds
            ],
        }

    def _range(self, fold: Fold, part: str) -> dict[str, Any] | None:
        span: Span = getattr(fold, part)
        if not span.length:
            return None
        rows = [getattr(one, part) for one in fold.rows]
        closes = np.concatenate(
            [line.instants[slice(*own)][[0, -1]] for line, own in zip(self.timelines, rows, strict=True) if own.length]
        )
        return {
            "span": list(span),
            "first": show_time(int(closes.min())),
            "last": show_time(int(closes.max())),
            "bars": [own.length for own in rows],
        }


def plan_folds(config: str | Path | Mapping[str, Any]) -> FoldPlan:
    """Return the folds of the bars that a configuration names.

    config: a YAML file, or its values: `db`, `symbol` or `symbols`, `timeframe` (or `timeframes`), `model` with
    `horizons` and `seq_len`, `folds`, the fields of `FoldsConfig`, `table`, `mapping` and `clean`, which say how to
    read the bars, and `search`, whose longest `seq_len` counts. Other fields of a run or a sweep are ignored.
    Raises BitcornError for a missing or malformed file, missing or impossible fields, bars that aren't there, and as
    `walk_forward_folds` does.
    """
    from bitcorn_ray.market.policy import CleaningPolicy
    from bitcorn_ray.market.timeframe import timeframe_ms
    from bitcorn_ray.models.registry import model_config
    from bitcorn_ray.sources.loading import load_bars
    from bitcorn_ray.sources.options import Reading
    from bitcorn_ray.training.config import read_yaml, validated
    from bitcorn_ray.tuning.space import SEQ_LEN, Space

    values = dict(config) if isinstance(config, Mapping) else read_yaml(config)
    symbols, timeframes = _named(values, "symbol", "symbols"), _named(values, "timeframe", "timeframes")
    if not isinstance(values.get("db"), str | Path):
        raise BitcornError("db is missing: name the database or file of bars")
    folds: FoldsConfig = validated(FoldsConfig, values.get("folds") or {}, "folds")
    model = model_config(values.get("model") or {})
    policy = validated(CleaningPolicy, values["clean"], "clean") if values.get("clean") is not None else None
    reading = Reading.of(values.get("table"), values.get("mapping") or {}, policy=policy)
    timelines = []
    for symbol in symbols:
        for timeframe in timeframes:
            loaded, step = load_bars(str(values["db"]), symbol, timeframe, reading=reading), timeframe_ms(timeframe)
            timelines.append(Timeline(name=str(loaded.partition), instants=loaded.bars.timestamp + step, step=step))
    horizon = max(model.horizons)
    searched = {name: given for name, given in (values.get("search") or {}).items() if name in SEQ_LEN}
    seq_len = Space.parse(searched).greatest(SEQ_LEN, model.seq_len)
    cut = walk_forward_folds(folds, timelines, horizon, seq_len)
    return FoldPlan(config=folds, horizon=horizon, timelines=tuple(timelines), folds=tuple(cut))


def _named(values: Mapping[str, Any], one: str, several: str) -> list[str]:
    given = [values[name] for name in (one, several) if values.get(name)]
    if len(given) != 1:
        raise BitcornError(
            f"the configuration names {'both' if given else 'neither'} {one} {'and' if given else 'nor'} "
            f"{several}: give one of them"
        )
    return [str(name) for name in given[0]] if isinstance(given[0], list | tuple) else [str(given[0])]
