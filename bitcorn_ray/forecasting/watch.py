"""Front door to watching: a forecast at every new bar of a source, and how the forecasts turned out.

1. Look whether the source changed; its fingerprint says so without reading it. 2. Read what is new, and forecast from
each bar that has closed and was not forecast from before, as its bands were known then. 3. Find the outcomes of earlier
forecasts. 4. Write all of it into the journal, at once, and only then tell of it.

The journal is what is remembered: who starts again goes on from it, catches up on what was missed, and forecasts from
no bar twice. The first time there is a forecast from the last closed bar only.
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
from bitcorn_ray.market.bars import Bars, joined, milliseconds_of, show_time
from bitcorn_ray.market.outcomes import forward_return, outcome_known, realised_variance
from bitcorn_ray.market.partition import Partition
from bitcorn_ray.metrics.live import LiveSkill
from bitcorn_ray.models.baselines.history import History
from bitcorn_ray.models.baselines.simple import ewma_variance
from bitcorn_ray.sources.loading import load_bars, load_partition
from bitcorn_ray.sources.options import Reading
from bitcorn_ray.sources.source import SourceFile, open_file, open_source, shown_source

_OVERLAP = 64  # bars read again with the new ones, so that a revision is noticed
_EWMA_BARS = 500  # beyond which a weight of 0.94 a bar leaves nothing

Entry = dict[str, Any]


@dataclass
class _Watched:
    """What is known of one partition.

    filled: (T,) those of its bars that were never traded, None where none are filled. open: forecasts whose outcomes
    are not all known, by cutoff in ms.
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
    """Watches a source for a run, with a journal that it holds until it is closed.

    symbols: by default those that the run was trained on. reading: what the user says about the source; bars are
    repaired by the policy that the run was trained with. A timeframe that is not stored is put together from one that
    is: a bar of it is there when all of its lower bars are. Raises BitcornError as `plan_forecasts` and `Journal` do.
    """

    def __init__(
        self,
        forecaster: Forecaster,
        source: str | Path,
        journal: str | Path,
        symbols: Sequence[str] | None = None,
        reading: Reading | None = None,
    ) -> None:
        self.forecaster, self.source, self._step = forecaster, source, forecaster.step
        plan = plan_forecasts(forecaster, source, symbols=symbols, reading=reading)
        self._reading = plan.reading
        self._watched: dict[Partition, _Watched] = {}
        timeframe = forecaster.run.metadata["timeframe"]
        for job in plan.jobs:
            partitions = [job.partition] if job.partition else self._partitions_in(job.path, plan.symbols, timeframe)
            for partition in partitions:
                self._watched[partition] = _Watched(partition, job.path)
        if not self._watched:
            shown = shown_source(source)
            raise BitcornError(f"{shown} holds none of the asked symbols on {timeframe}: check the names")
        self._print: list[str | None] | None = None
        self.errors: dict[Partition, str] = {}
        self._journal = Journal(journal)
        try:
            for entry in self._journal.read():
                self._take(entry)
        except BaseException:
            self._journal.close()
            raise

    def __enter__(self) -> Watcher:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the journal."""
        self._journal.close()

    @property
    def partitions(self) -> list[Partition]:
        """Those that are watched."""
        return sorted(self._watched)

    def poll(self) -> list[Entry]:
        """Look at the source once; returns what was added to the journal.

        What goes wrong with a partition is in `errors`, and it is looked at again the next time. Raises BitcornError
        where the source is gone or the journal cannot be written.
        """
        prints = [file.fingerprint() for file in open_source(self.source).files]
        if None not in prints and prints == self._print:
            return []
        self.errors = {}
        added = self._add(lambda watched: [*self._outcomes(watched), *self._forecasts(watched)], read=True)
        # A forecast that is made late may have its outcome already.
        added += self._add(self._outcomes)
        if not self.errors:
            self._print = prints
        return added

    def _add(self, find: Callable[[_Watched], list[Entry]], read: bool = False) -> list[Entry]:
        """Find entries for each partition, add them to the journal, and take them over."""
        entries = list[Entry]()
        for watched in self._watched.values():
            try:
                if read:
                    self._read(watched)
                if watched.bars is not None:
                    entries += find(watched)
            except BitcornError as error:  # the others go on, and this one is looked at again
                self.errors[watched.partition] = str(error)
        self._journal.add(entries)
        for entry in entries:
            self._take(entry)
        return entries

    def skill(self) -> list[Entry]:
        """How the forecasts of each partition and horizon turned out so far, see `LiveSkill.shares`."""
        return [
            {"symbol": partition.symbol, "timeframe": partition.timeframe, "horizon": horizon, **skill.shares()}
            for partition, watched in sorted(self._watched.items())
            for horizon, skill in sorted(watched.skill.items())
        ]

    def latest(self) -> list[Entry]:
        """The last cutoff that was forecast from, of each partition, None where there is none yet."""
        return [
            {
                "symbol": partition.symbol,
                "timeframe": partition.timeframe,
                "cutoff": None if watched.last_cutoff is None else show_time(watched.last_cutoff),
                "open": len(watched.open),
            }
            for partition, watched in sorted(self._watched.items())
        ]

    def _read(self, watched: _Watched) -> None:
        """Read the closed bars of a partition: what is new, or all of them where old ones changed."""
        known, partition, reading = watched.bars, watched.partition, self._reading
        bars = filled = None
        # A policy may judge a bar by those before it, and a file is read whole anyway.
        if known is not None and reading.policy is None and SourceFile.at(watched.file).is_indexed:
            limit = _OVERLAP + self._missed(known)
            newest = load_bars(watched.file, partition.symbol, partition.timeframe, limit, reading).bars
            bars = _joined(known, self._closed(newest))
        if bars is None:
            with open_file(watched.file, reading) as reader:
                loaded = load_partition(reader, partition, reading.policy)
            bars = self._closed(loaded.bars)
            filled = None if loaded.filled is None else loaded.filled[: len(bars)]
        if len(bars) == 0:
            raise BitcornError(f"{partition} has no bar that has closed yet")
        watched.bars, watched.filled = bars, filled

    def _partitions_in(self, path: str, symbols: Sequence[str] | None, timeframe: str) -> list[Partition]:
        with open_file(path, self._reading) as reader:
            return requested_of(reader.partitions, symbols, [timeframe])

    def _missed(self, known: Bars) -> int:
        """About how many bars may have come since the last look."""
        return max(int(time.time() * 1000) - int(known.timestamp[-1]), 0) // self._step % 100_000 + 1

    def _closed(self, bars: Bars) -> Bars:
        """Those whose time is over: the one that is still open would change after it was forecast from."""
        return bars.take(bars.timestamp + self._step <= int(time.time() * 1000))

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
        entries = [self._forecast_entry(done, place, made, ewma) for place in range(len(done))]
        none = ~np.isin(bars.timestamp, done.cutoffs)
        none[:first] = False
        if watched.filled is not None:
            none &= ~watched.filled  # where there was no bar, none was skipped
        for row in np.flatnonzero(none):
            why = self.forecaster.why_not(bars.take(slice(int(row) + 1)))
            entries.append(self._entry("skipped", watched.partition, int(bars.timestamp[row]), why=why))
        return sorted(entries, key=lambda entry: str(entry["cutoff"]))

    def _forecast_entry(self, done: Forecasts, place: int, made: str, ewma: np.ndarray[Any, Any]) -> Entry:
        widths = {f"{c:g}": _finite(done.widths[place, k]) for k, c in enumerate(done.coverages)}
        return self._entry(
            "forecast",
            done.partition,
            int(done.cutoffs[place]),
            made=made,
            close=float(done.close[place]),
            sample=str(done.sample[place]),
            horizons=list(done.horizons),
            **{"return": _finite(done.returns[place]), "volatility": _finite(done.volatilities[place])},
            ewma=_finite(ewma[place]),
            widths=widths,
        )

    def _ewma(self, bars: Bars, done: Forecasts) -> np.ndarray[Any, Any]:
        """Volatility over each horizon that the exponentially weighted variance says, (N, H)."""
        rows = np.searchsorted(bars.timestamp, done.cutoffs)
        begin = max(int(rows[0]) - _EWMA_BARS, 0) if len(rows) else 0
        late = bars.take(slice(begin, None))
        history = History(
            timestamps=late.timestamp, high=late.high, low=late.low, close=late.close, timeframe_ms=self._step
        )
        return np.sqrt(ewma_variance(history, done.horizons, rows - begin))

    def _outcomes(self, watched: _Watched) -> list[Entry]:
        """Outcomes that are known now, and those that will never be, as bars are missing before the horizon's end."""
        bars = watched.bars
        assert bars is not None
        numbers, entries = bars.timestamp // self._step, list[Entry]()
        for cutoff, forecast in watched.open.items():
            row = int(np.searchsorted(bars.timestamp, cutoff))
            there = row < len(bars) and bars.timestamp[row] == cutoff
            for horizon in forecast["horizons"]:
                if (cutoff, horizon) in watched.settled or numbers[-1] < cutoff // self._step + horizon:
                    continue
                outcome = variance = None
                if there and outcome_known(numbers, np.array([row]), (horizon,))[0, 0]:
                    ahead = bars.take(slice(row, row + horizon + 1))
                    ahead.require_usable()
                    log_close, here = np.log(ahead.close), np.array([0])
                    outcome = float(forward_return(log_close, here, horizon)[0])
                    variance = float(realised_variance(log_close, here, horizon)[0])
                numbers_told = {"return": outcome, "variance": variance}
                entries.append(self._entry("outcome", watched.partition, cutoff, horizon=horizon, **numbers_told))
        return entries

    def _entry(self, kind: str, partition: Partition, cutoff: int, **fields: Any) -> Entry:
        named = {"symbol": partition.symbol, "timeframe": partition.timeframe, "cutoff": show_time(cutoff)}
        return {"kind": kind, **named, **fields}

    def _take(self, entry: Entry) -> None:
        """Take an entry of the journal over into what is known."""
        watched = self._watched.get(Partition(entry["symbol"], entry["timeframe"]))
        if watched is None:
            return  # of a symbol that is not watched now
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
        place = forecast["horizons"].index(horizon)
        widths = {level: values[place] for level, values in forecast["widths"].items()}
        watched.skill[horizon].add(
            forecast["return"][place],
            forecast["volatility"][place],
            forecast["ewma"][place],
            widths,
            outcome["return"],
            outcome["variance"],
        )
        watched.settled.add((cutoff, horizon))
        if all((cutoff, each) in watched.settled for each in forecast["horizons"]):
            del watched.open[cutoff]
            watched.settled -= {(cutoff, each) for each in forecast["horizons"]}


def _joined(known: Bars, newest: Bars) -> Bars | None:
    """Bars that go on from known ones; None where the newest do not reach back to these, or tell of them otherwise."""
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
