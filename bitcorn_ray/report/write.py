"""Front door to reports: a run, a sweep, an evolution, the feature cache or a source of bars as one page.

What lies at a place is found out by what it holds. The page opens offline, light and dark, on a phone too, and can be
printed.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.sources.options import Reading
from bitcorn_ray.storage.location import shown_uri
from bitcorn_ray.storage.storage import Storage, publish_file

if TYPE_CHECKING:
    from bitcorn_ray.cache.store import FeatureCache
    from bitcorn_ray.evaluation.evaluate import Evaluation
    from bitcorn_ray.forecasting.batch import PartitionForecast
    from bitcorn_ray.market.diagnosis import Diagnosis
    from bitcorn_ray.report.judgement import Track
    from bitcorn_ray.report.quality import QualityPanel
    from bitcorn_ray.sources.reader import StoredRows

OnDone = Callable[[str], None]

_FANS = 8  # forecasts one after another
_UNUSED_DAYS = (7, 30, 90)


@dataclass(frozen=True, kw_only=True)
class Report:
    """A page that was written. kind: run, sweep, evolution, cache or source. what, page: addresses, as shown."""

    kind: str
    what: str
    page: str
    bytes: int


@dataclass(frozen=True, kw_only=True)
class Diagnosed:
    """A partition of a source and what is wrong with it. row: its report in plain values."""

    stored: StoredRows
    found: Diagnosis

    @property
    def row(self) -> dict[str, Any]:
        """Symbol, timeframe, source, and all of the report."""
        partition = self.stored.partition
        named = {"symbol": partition.symbol, "timeframe": partition.timeframe, "source": self.stored.source}
        return {**named, **self.found.report}

    @property
    def panel(self) -> QualityPanel:
        """What a page draws."""
        from bitcorn_ray.report.quality import QualityPanel

        bars, days = self.found.bars, self.found.days
        return QualityPanel(
            name=str(self.stored.partition),
            source=self.stored.source,
            report=self.found.report,
            times=bars.timestamp,
            low=bars.low,
            high=bars.high,
            close=bars.close,
            marks=self.found.marks,
            first_day=days.first_day,
            expected=days.expected,
            there=days.there,
        )


@dataclass(frozen=True, kw_only=True)
class _JudgedOn:
    """The bars that a run is judged on and forecasts from, and how they are had: see `write_report`."""

    source: str | Path
    symbols: Sequence[str] | None
    cache_dir: str | Path | None
    reading: Reading | None
    allow_changed_code: bool


def write_report(
    place: str | Path,
    source: str | Path | None = None,
    *,
    out: str | Path = "report.html",
    symbols: Sequence[str] | None = None,
    cache_dir: str | Path | None = None,
    reading: Reading | None = None,
    level: float = 0.01,
    address: str | None = None,
    allow_changed_code: bool = False,
    on_done: OnDone = lambda _: None,
) -> Report:
    """Write a page about what lies at a place: a run, sweep, evolution, cache or source of bars.

    source: bars to judge a run on and to forecast from; without any its page tells of the training alone. out: file or
    URI of the page. symbols, reading: of the source. cache_dir: of features. level: of a sweep's verdict. address: of a
    Ray cluster, used where there is much to forecast. allow_changed_code: see `Forecaster.load`. on_done: called with
    each partition's name when it has been judged or diagnosed.
    Raises BitcornError where nothing is understood at the place, or the page cannot be written.
    """
    from bitcorn_ray.training.run import is_run
    from bitcorn_ray.tuning.folder import SweepFolder

    if not 0 < level < 1:
        raise BitcornError(f"level is {level}: give a level of significance between 0 and 1, such as 0.01")
    if is_run(place):
        judged_on = None
        if source is not None:
            judged_on = _JudgedOn(
                source=source,
                symbols=symbols,
                cache_dir=cache_dir,
                reading=reading,
                allow_changed_code=allow_changed_code,
            )
        kind, made = "run", _run(place, judged_on, address, on_done)
    elif SweepFolder(place).is_sweep:
        kind, made = _sweep(place, level, cache_dir)
    elif (cache := _cache_at(place)) is not None:
        kind, made = "cache", _cache(cache)
    else:
        try:
            kind, made = "source", _source(place, symbols, reading, on_done)
        except BitcornError as error:
            if Path(place).is_dir():
                raise BitcornError(
                    f"{shown_uri(str(place))} is no run, sweep, evolution or cache, and {error}"
                ) from None
            raise
    content = made.encode()
    publish_file(out, "report", content)
    return Report(kind=kind, what=shown_uri(str(place)), page=shown_uri(str(out)), bytes=len(content))


def diagnose_source(
    source: str | Path,
    symbols: Sequence[str] | None = None,
    timeframes: Sequence[str] | None = None,
    reading: Reading | None = None,
) -> Iterator[Diagnosed]:
    """Say what is wrong with every partition of a source, one after another. See `stored_rows`, also for its errors."""
    from bitcorn_ray.market.diagnosis import diagnose
    from bitcorn_ray.sources.source import open_source

    for stored in open_source(source, reading).stored_rows(symbols, timeframes):
        found = diagnose(
            stored.rows,
            stored.partition.timeframe,
            units=stored.units,
            formats=stored.formats,
            set_aside=stored.set_aside,
        )
        yield Diagnosed(stored=stored, found=found)


def _source(place: str | Path, symbols: Sequence[str] | None, reading: Reading | None, on_done: OnDone) -> str:
    from bitcorn_ray.report.quality import lightened, quality_page

    panels: list[QualityPanel] = []
    for each in diagnose_source(place, symbols, None, reading):
        panels = lightened([*panels, each.panel])
        on_done(str(each.stored.partition))
    return quality_page(panels)


def _sweep(place: str | Path, level: float, cache_dir: str | Path | None) -> tuple[str, str]:
    from bitcorn_ray.report.sweep_data import sweep_report
    from bitcorn_ray.report.sweep_page import sweep_page

    found = sweep_report(place, level=level, cache_dir=cache_dir)
    return "sweep" if found.evolution is None else "evolution", sweep_page(found)


def _cache_at(place: str | Path) -> FeatureCache | None:
    """The cache at a place that holds one."""
    from bitcorn_ray.cache.store import FeatureCache

    if Storage(place).is_file:
        return None
    cache = FeatureCache(place)
    return cache if cache.storage.read_json("index.json") is not None or cache.manifests() else None


def _cache(cache: FeatureCache) -> str:
    from bitcorn_ray.cache.pruning import prune, stats
    from bitcorn_ray.report.cache_page import CacheReport, cache_page

    now, day = time.time(), 86_400
    entries = [
        {**each, "age": (now - datetime.fromisoformat(each["last_used"]).timestamp()) / day} for each in cache.entries()
    ]
    prunable = [(days, asdict(prune(cache, older_than=days * day, dry_run=True))) for days in _UNUSED_DAYS]
    return cache_page(CacheReport(stats=stats(cache), entries=entries, prunable=prunable))


def _run(place: str | Path, judged_on: _JudgedOn | None, address: str | None, on_done: OnDone) -> str:
    from bitcorn_ray.evaluation.evaluate import evaluate
    from bitcorn_ray.report.fan import fan_panels
    from bitcorn_ray.report.run_page import RunReport, run_page
    from bitcorn_ray.training.artifacts import strict_json
    from bitcorn_ray.training.run import read_metadata
    from bitcorn_ray.training.summary import summary

    metadata, evaluation = read_metadata(place), None
    why_not = f"name the source of its bars: bitcorn report {shown_uri(str(place))} SOURCE"
    fans, quality = list[Any](), list[dict[str, Any]]()
    if judged_on is not None:
        done = _forecast(place, judged_on)
        fans, there = fan_panels(done), sorted({each.partition.symbol for each in done})
        found = diagnose_source(judged_on.source, there, [metadata["timeframe"]], judged_on.reading)
        quality = [each.row for each in found]
        try:
            evaluation = evaluate(
                place,
                judged_on.source,
                symbols=judged_on.symbols,
                cache_dir=judged_on.cache_dir,
                on_done=on_done,
                address=address,
                allow_changed_code=judged_on.allow_changed_code,
                reading=judged_on.reading,
            )
        except BitcornError as error:
            why_not = str(error)
    told = None if evaluation is None else json.loads(strict_json(evaluation.to_json()))
    about = RunReport(
        summary=summary(shown_uri(str(place)), metadata),
        metadata=metadata,
        evaluation=told,
        why_not=why_not,
        fans=fans,
        tracks=[] if evaluation is None else _tracks(evaluation),
        quality=quality,
    )
    return run_page(about)


def _forecast(place: str | Path, judged_on: _JudgedOn) -> list[PartitionForecast]:
    """The latest forecasts of each partition, and some before them."""
    from bitcorn_ray.forecasting.batch import plan_forecasts, run_forecasts
    from bitcorn_ray.forecasting.forecaster import Forecaster
    from bitcorn_ray.report.fan import bars_to_draw

    forecaster = Forecaster.load(place, allow_changed_code=judged_on.allow_changed_code)
    horizons = forecaster.run.config.horizons
    plan = plan_forecasts(
        forecaster,
        judged_on.source,
        symbols=judged_on.symbols,
        last=_FANS * max(horizons),
        cache_dir=judged_on.cache_dir,
        keep_bars=bars_to_draw(horizons),
        reading=judged_on.reading,
    )
    return run_forecasts(plan, on_ray=False)


def _tracks(evaluation: Evaluation) -> list[Track]:
    """Volatility of each partition at the shortest and the longest horizon."""
    from bitcorn_ray.report.judgement import Track

    tracks = []
    for partition, judged in zip(evaluation.partitions, evaluation.windows, strict=True):
        for horizon in sorted({min(evaluation.horizons), max(evaluation.horizons)}):
            column = evaluation.horizons.index(horizon)
            tracks.append(
                Track(
                    name=f"{partition.symbol} {partition.timeframe}",
                    horizon=horizon,
                    times=judged.times,
                    forecast=judged.volatilities[:, column],
                    realised=np.sqrt(judged.realised[:, column]),
                )
            )
    return tracks
