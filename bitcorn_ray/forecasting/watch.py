"""Watch a source: forecast from every new bar, and record the outcomes of earlier forecasts.

1. Compare the source's fingerprint, without reading it.
2. Read the new bars, and forecast from each closed bar without a forecast, with the bands of that time.
3. Find the outcomes of earlier forecasts.
4. Write all of it to the journal at once, and only then report it.

The state is in the journal: a restarted watch resumes from it, catches up on missed bars, and forecasts from no bar
twice. The first poll forecasts from the last closed bar only.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.features.plan import requested_of
from bitcorn_ray.forecasting.batch import plan_forecasts
from bitcorn_ray.forecasting.forecaster import Forecaster
from bitcorn_ray.forecasting.forecasts import Forecasts
from bitcorn_ray.forecasting.journal import Journal
from bitcorn_ray.market.bars import Bars, closed_bars, joined, milliseconds_of, show_time
from bitcorn_ray.market.outcomes import forward_return, outcome_known, realised_variance
from bitcorn_ray.market.partition import Partition
from bitcorn_ray.metrics.live import LiveSkill
from bitcorn_ray.models.baselines.history import History
from bitcorn_ray.models.baselines.simple import ewma_variance
from bitcorn_ray.sources.loading import load_bars, load_partition
from bitcorn_ray.sources.options import SourceOptions
from bitcorn_ray.sources.source import SourceFile, open_file, open_source, shown_source

_OVERLAP = 64  # bars that are read again with the new ones, to detect revisions
_EWMA_BARS = 500  # older ones have no weight at a decay of 0.94

Entry = dict[str, Any]


@dataclass
class _Watched:
    """The state of one partition.

    filled: (T,) mask of filled bars, None if no bars are filled. open: forecasts without all outcomes, by cutoff in ms.
    settled: cutoff and horizon of the known outcomes of open forecasts. skill: by horizon.
    """

    partition: Partition
    file: str
    bars: Bars | None = None
    filled: NDArray[np.bool_] | None = None
    last_cutoff: int | None = None
    open: dict[int, Entry] = field(default_factory=dict)
    settled: set[tuple[int, int]] = field(default_factory=set)
    skill: dict[int, LiveSkill] = field(default_factory=dict)


class Watcher:
    """A watch of a source for a run; it locks its journal until it is closed.

    symbols: by default the trained ones. source_options: of the source; bars are cleaned by the run's policy. A
    timeframe that is not stored is resampled from one that is, as soon as all lower bars of a bar exist.
    Raises BitcornError as `plan_forecasts` and `Journal` do.
    """

    def __init__(
        self,
        forecaster: Forecaster,
        source: str | Path,
        journal: str | Path,
        symbols: Sequence[str] | None = None,
        source_options: SourceOptions | None = None,
    ) -> None:
        self.forecaster, self.source, self._step = forecaster, source, forecaster.step
        plan = plan_forecasts(forecaster, source, symbols=symbols, source_options=source_options)
        self._reading = plan.source_options
        self._watched: dict[Partition, _Watched] = {}
        timeframe = forecaster.run.metadata["timeframe"]
        for job in plan.jobs:
            partitions = [job.partition] if job.partition else self._partitions_in(job.path, plan.symbols, timeframe)
            for partition in partitions:
                self._watched[partition] = _Watched(partition, job.path)
        if not self._watched:
            shown = shown_source(source)
            raise BitcornError(f"{shown} has none of the requested symbols on {timeframe}: check the names")
        self._fingerprints: list[str | None] | None = None
        self.errors: dict[Partition, str] = {}
        self._journal = Journal(journal)
        try:
            for entry in self._journal.read():
                self._apply(entry)
        except BaseException:
            self._journal.close()
            raise

    def __enter__(self) -> Watcher:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the journal."""
        self._journal.close()

    @property
    def partitions(self) -> list[Partition]:
        """The watched partitions, sorted."""
        return sorted(self._watched)

    def poll(self) -> list[Entry]:
        """Check the source once; return the entries that were added to the journal.

        `errors` contains the partitions that failed; the next poll tries them again. Raises BitcornError if the source
        no longer exists or the journal cannot be written.
        """
        fingerprints = [file.fingerprint() for file in open_source(self.source).files]
        if None not in fingerprints and fingerprints == self._fingerprints:
            return []
        self.errors = {}
        added = self._add(lambda watched: [*self._outcomes(watched), *self._forecasts(watched)], read=True)
        # The outcome of a late forecast may be known already.
        added += self._add(self._outcomes)
        if not self.errors:
            self._fingerprints = fingerprints
        return added

    def _add(self, find: Callable[[_Watched], list[Entry]], read: bool = False) -> list[Entry]:
        """Find the entries of each partition, add them to the journal, and apply them to the state."""
        entries = list[Entry]()
        for watched in self._watched.values():
            try:
                if read:
                    self._read(watched)
                if watched.bars is not None:
                    entries += find(watched)
            except BitcornError as error:  # the others continue, and the next poll tries this one again
                self.errors[watched.partition] = str(error)
        self._journal.add(entries)
        for entry in entries:
            self._apply(entry)
        return entries

    def skill(self) -> list[Entry]:
        """Return the skill of each partition and horizon so far, see `LiveSkill.shares`."""
        return [
            {"symbol": partition.symbol, "timeframe": partition.timeframe, "horizon": horizon, **skill.shares()}
            for partition, watched in sorted(self._watched.items())
            for horizon, skill in sorted(watched.skill.items())
        ]

    def _read(self, watched: _Watched) -> None:
        """Read the closed bars of a partition: the new ones, or all if earlier ones changed."""
        known, partition, source_options = watched.bars, watched.partition, self._reading
        bars = filled = None
        # With a policy, a bar depends on earlier ones; files without an index are read as a whole anyway.
        if known is not None and source_options.policy is None and SourceFile.at(watched.file).is_indexed:
            limit = _OVERLAP + self._expected_new(known)
            newest = load_bars(watched.file, partition.symbol, partition.timeframe, limit, source_options).bars
            bars = _continued(known, self._closed(newest))
        if bars is None:
            with open_file(watched.file, source_options) as reader:
                loaded = load_partition(reader, partition, source_options.policy)
            bars = self._closed(loaded.bars)
            filled = None if loaded.filled is None else loaded.filled[: len(bars)]
        if len(bars) == 0:
            raise BitcornError(f"{partition} has no bar that has closed yet")
        watched.bars, watched.filled = bars, filled

    def _partitions_in(self, path: str, symbols: Sequence[str] | None, timeframe: str) -> list[Partition]:
        with open_file(path, self._reading) as reader:
            return requested_of(reader.partitions, symbols, [timeframe])

    def _expected_new(self, known: Bars) -> int:
        """Return about how many bars may be new since the last poll."""
        return max(int(time.time() * 1000) - int(known.timestamp[-1]), 0) // self._step % 100_000 + 1

    def _closed(self, bars: Bars) -> Bars:
        """Return the closed bars; an open one would change after the forecast."""
        return closed_bars(bars, self._step, int(time.time() * 1000))

    def _forecasts(self, watched: _Watched) -> list[Entry]:
        bars = watched.bars
        assert bars is not None
        first = len(bars) - 1
        if watched.last_cutoff is not None:
            first = int(np.searchsorted(bars.timestamp, watched.last_cutoff, side="right"))
        if first == len(bars):
            return []
        done = self.forecaster.forecast(bars, watched.partition, first, remember=True, filled=watched.filled)
        made, ewma = datetime.now(UTC).isoformat(timespec="seconds"), self._ewma(bars, done)
        entries = [self._forecast_entry(done, row, made, ewma) for row in range(len(done))]
        skipped = ~np.isin(bars.timestamp, done.cutoffs)
        skipped[:first] = False
        if watched.filled is not None:
            skipped &= ~watched.filled
        for row in np.flatnonzero(skipped):
            why = self.forecaster.explain_missing(bars.take(slice(int(row) + 1)))
            entries.append(self._entry("skipped", watched.partition, int(bars.timestamp[row]), why=why))
        return sorted(entries, key=lambda entry: str(entry["cutoff"]))

    def _forecast_entry(self, done: Forecasts, row: int, made: str, ewma: np.ndarray[Any, Any]) -> Entry:
        widths = {f"{c:g}": _finite(done.widths[row, k]) for k, c in enumerate(done.coverages)}
        return self._entry(
            "forecast",
            done.partition,
            int(done.cutoffs[row]),
            made=made,
            close=float(done.close[row]),
            sample=str(done.sample[row]),
            horizons=list(done.horizons),
            **{"return": _finite(done.returns[row]), "volatility": _finite(done.volatilities[row])},
            ewma=_finite(ewma[row]),
            widths=widths,
        )

    def _ewma(self, bars: Bars, done: Forecasts) -> np.ndarray[Any, Any]:
        """Return the volatility over each horizon by the exponentially weighted variance, (N, H)."""
        rows = np.searchsorted(bars.timestamp, done.cutoffs)
        begin = max(int(rows[0]) - _EWMA_BARS, 0) if len(rows) else 0
        late = bars.take(slice(begin, None))
        history = History(
            timestamps=late.timestamp, high=late.high, low=late.low, close=late.close, timeframe_ms=self._step
        )
        return np.sqrt(ewma_variance(history, done.horizons, rows - begin))

    def _outcomes(self, watched: _Watched) -> list[Entry]:
        """Return the new outcomes, known ones and those that missing bars make unknown for ever."""
        bars = watched.bars
        assert bars is not None
        numbers, entries = bars.timestamp // self._step, list[Entry]()
        for cutoff, forecast in watched.open.items():
            row = int(np.searchsorted(bars.timestamp, cutoff))
            exists = row < len(bars) and bars.timestamp[row] == cutoff
            for horizon in forecast["horizons"]:
                if (cutoff, horizon) in watched.settled or numbers[-1] < cutoff // self._step + horizon:
                    continue
                outcome = variance = None
                if exists and outcome_known(numbers, np.array([row]), (horizon,), watched.filled)[0, 0]:
                    ahead = bars.take(slice(row, row + horizon + 1))
                    ahead.require_usable()
                    log_close, start = np.log(ahead.close), np.array([0])
                    outcome = float(forward_return(log_close, start, horizon)[0])
                    variance = float(realised_variance(log_close, start, horizon)[0])
                realised = {"return": outcome, "variance": variance}
                entries.append(self._entry("outcome", watched.partition, cutoff, horizon=horizon, **realised))
        return entries

    def _entry(self, kind: str, partition: Partition, cutoff: int, **fields: Any) -> Entry:
        named = {"symbol": partition.symbol, "timeframe": partition.timeframe, "cutoff": show_time(cutoff)}
        return {"kind": kind, **named, **fields}

    def _apply(self, entry: Entry) -> None:
        """Apply an entry of the journal to the state."""
        watched = self._watched.get(Partition(entry["symbol"], entry["timeframe"]))
        if watched is None:
            return  # of a symbol that is no longer watched
        cutoff = milliseconds_of(entry["cutoff"])
        if entry["kind"] == "outcome":
            self._settle(watched, cutoff, entry)
            return
        watched.last_cutoff = cutoff if watched.last_cutoff is None else max(cutoff, watched.last_cutoff)
        if entry["kind"] == "forecast":
            watched.open[cutoff] = entry
            for horizon in entry["horizons"]:
                watched.skill.setdefault(horizon, LiveSkill())

    def _settle(self, watched: _Watched, cutoff: int, outcome: Entry) -> None:
        forecast, horizon = watched.open.get(cutoff), outcome["horizon"]
        if forecast is None or (cutoff, horizon) in watched.settled:
            return
        column = forecast["horizons"].index(horizon)
        widths = {level: values[column] for level, values in forecast["widths"].items()}
        watched.skill[horizon].add(
            forecast["return"][column],
            forecast["volatility"][column],
            forecast["ewma"][column],
            widths,
            outcome["return"],
            outcome["variance"],
        )
        watched.settled.add((cutoff, horizon))
        if all((cutoff, h) in watched.settled for h in forecast["horizons"]):
            del watched.open[cutoff]
            watched.settled -= {(cutoff, h) for h in forecast["horizons"]}


def _continued(known: Bars, newest: Bars) -> Bars | None:
    """Return the known bars with the newest ones, or None if these do not overlap or revise the known ones."""
    if len(newest) == 0 or newest.timestamp[0] > known.timestamp[-1]:
        return None
    begin = int(np.searchsorted(known.timestamp, newest.timestamp[0]))
    overlap = known.take(slice(begin, None))
    same = newest.take(slice(len(overlap)))
    for old, new in ((overlap.columns(), same.columns()), (overlap.extra, same.extra)):
        if not all(np.array_equal(column, new[name]) for name, column in old.items()):
            return None
    return joined([known, newest.take(slice(len(overlap), None))])


def _finite(values: np.ndarray[Any, Any]) -> list[float | None]:
    return [float(value) if math.isfinite(value) else None for value in values]
