"""Write the page of a run, a sweep, an evolution, the feature cache or a source of bars.

The content of the folder or file decides which of these it is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.sources.options import SourceOptions
from bitcorn_ray.storage.location import shown_uri
from bitcorn_ray.storage.storage import Storage, publish_file

if TYPE_CHECKING:
    from bitcorn_ray.cache.store import FeatureCache
    from bitcorn_ray.forecasting.batch import PartitionForecast
    from bitcorn_ray.report.quality import PartitionQuality

OnDone = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Report:
    """A page that was written. kind: run, sweep, evolution, cache or source. what, page: addresses without secrets."""

    kind: str
    what: str
    page: str
    bytes: int


def write_report(
    place: str | Path,
    source: str | Path | None = None,
    *,
    out: str | Path = "report.html",
    symbols: Sequence[str] | None = None,
    cache_dir: str | Path | None = None,
    source_options: SourceOptions | None = None,
    level: float = 0.01,
    address: str | None = None,
    allow_changed_code: bool = False,
    on_done: OnDone = lambda _: None,
) -> Report:
    """Write a page about a run, a sweep, an evolution, a cache or a source of bars.

    place: its file, folder or URI. source: bars to evaluate a run on and to forecast from; without them, the page of a
    run shows its training only. out: file or URI of the page. symbols, source_options: of the source. cache_dir: of
    features. level: significance level of a sweep's verdict. address: of a Ray cluster for large forecasts.
    allow_changed_code: see `Forecaster.load`. on_done: called with the name of each partition that was evaluated or
    diagnosed.
    Raises BitcornError if the place is none of these, or the page cannot be written.
    """
    from bitcorn_ray.report.features import CacheReport, cache_page
    from bitcorn_ray.report.sweep_page import sweep_page, sweep_report
    from bitcorn_ray.training.run import is_run
    from bitcorn_ray.tuning.folder import SweepFolder

    if not 0 < level < 1:
        raise BitcornError(f"level is {level}: give a level of significance between 0 and 1, such as 0.01")
    if is_run(place):
        bars = None if source is None else _Bars(source, symbols, cache_dir, source_options, allow_changed_code)
        kind, page = "run", _run_page(place, bars, address, on_done)
    elif SweepFolder(place).is_sweep:
        report = sweep_report(place, level=level, cache_dir=cache_dir)
        kind, page = "sweep" if report.evolution is None else "evolution", sweep_page(report)
    elif (cache := _cache_at(place)) is not None:
        kind, page = "cache", cache_page(CacheReport.of(cache))
    else:
        kind, page = "source", _source_page(place, symbols, source_options, on_done)
    content = page.encode()
    publish_file(out, "report", content)
    return Report(kind=kind, what=shown_uri(str(place)), page=shown_uri(str(out)), bytes=len(content))


def _cache_at(place: str | Path) -> FeatureCache | None:
    from bitcorn_ray.cache.store import FeatureCache

    if Storage(place).is_file:
        return None
    cache = FeatureCache(place)
    return cache if cache.storage.read_json("index.json") is not None or cache.manifests() else None


def _source_page(
    place: str | Path, symbols: Sequence[str] | None, source_options: SourceOptions | None, on_done: OnDone
) -> str:
    from bitcorn_ray.report.quality import diagnose_source, lightened, quality_page

    results: list[PartitionQuality] = []
    try:
        for one in diagnose_source(place, symbols, None, source_options):
            results = lightened([*results, one])
            on_done(str(one.partition))
    except BitcornError as error:
        if Path(place).is_dir():
            raise BitcornError(f"{shown_uri(str(place))} is no run, sweep, evolution or cache, and {error}") from None
        raise
    return quality_page(results)


@dataclass(frozen=True)
class _Bars:
    """The bars to evaluate a run on and to forecast from: see `write_report`."""

    source: str | Path
    symbols: Sequence[str] | None
    cache_dir: str | Path | None
    source_options: SourceOptions | None
    allow_changed_code: bool


def _run_page(place: str | Path, bars: _Bars | None, address: str | None, on_done: OnDone) -> str:
    from bitcorn_ray.evaluation.evaluate import evaluate
    from bitcorn_ray.report.evaluation import evaluation_tracks
    from bitcorn_ray.report.forecasts import fan_panels
    from bitcorn_ray.report.quality import diagnose_source
    from bitcorn_ray.report.runs import RunReport, run_page
    from bitcorn_ray.training.run import read_metadata
    from bitcorn_ray.training.summary import summary

    metadata = read_metadata(place)
    about = summary(shown_uri(str(place)), metadata)
    if bars is None:
        why_not = f"name the source of its bars: bitcorn report {shown_uri(str(place))} SOURCE"
        return run_page(RunReport(summary=about, metadata=metadata, why_not=why_not))
    forecasts = _forecast(place, bars)
    symbols = sorted({one.partition.symbol for one in forecasts})
    quality = list(diagnose_source(bars.source, symbols, [metadata["timeframe"]], bars.source_options))
    evaluation, why_not = None, ""
    try:
        evaluation = evaluate(
            place,
            bars.source,
            symbols=bars.symbols,
            cache_dir=bars.cache_dir,
            on_done=on_done,
            address=address,
            allow_changed_code=bars.allow_changed_code,
            source_options=bars.source_options,
        )
    except BitcornError as error:
        why_not = str(error)
    report = RunReport(
        summary=about,
        metadata=metadata,
        evaluation=evaluation,
        why_not=why_not,
        fans=fan_panels(forecasts),
        tracks=[] if evaluation is None else evaluation_tracks(evaluation),
        quality=quality,
    )
    return run_page(report)


def _forecast(place: str | Path, bars: _Bars) -> list[PartitionForecast]:
    """Return the latest forecasts of each partition, and some before them."""
    from bitcorn_ray.forecasting.batch import plan_forecasts, run_forecasts
    from bitcorn_ray.forecasting.forecaster import Forecaster
    from bitcorn_ray.report.forecasts import FANS, bars_to_draw

    forecaster = Forecaster.load(place, allow_changed_code=bars.allow_changed_code)
    horizons = forecaster.run.config.horizons
    plan = plan_forecasts(
        forecaster,
        bars.source,
        symbols=bars.symbols,
        last=FANS * max(horizons),
        cache_dir=bars.cache_dir,
        keep_bars=bars_to_draw(horizons),
        source_options=bars.source_options,
    )
    return run_forecasts(plan, on_ray=False)
