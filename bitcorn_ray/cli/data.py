"""Commands on data: features, audit."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from typing import Any

import click

from bitcorn_ray.cli.options import (
    cache_dir_option,
    cleaning_options,
    common_options,
    end_with_failures,
    ray_for,
    ray_if,
    source_options,
    system_of,
    system_option,
)
from bitcorn_ray.report.cleaning import cleaning_line
from bitcorn_ray.report.console import audit_tables, features_table, progress, show
from bitcorn_ray.sources.options import Reading
from bitcorn_ray.storage.location import shown_uri


@click.command()
@source_options
@system_option
@cache_dir_option
@common_options
@cleaning_options
def features(
    source: str,
    symbols: list[str] | None,
    timeframes: list[str] | None,
    system: str,
    cache_dir: str | None,
    as_json: bool,
    address: str | None,
    reading: Reading,
) -> None:
    """Compute the features of every partition of a source into the cache, in parallel on Ray.

    SOURCE is a SQLite database, a file of bars, or a folder or URI of such files. What has not changed is not read
    again. Ends with status 2 where a partition failed; the others are kept.

    \b
    Example:
      bitcorn features --db market.db --symbols BTCUSDT,ETHUSDT --timeframes 1h
      bitcorn features s3://bucket/bars --system v4 --cache-dir s3://bucket/cache
      bitcorn features market.db --system my_features:momentum:window=50
      bitcorn features market.db --clean off-grid=snap,gaps=forward:3
    """
    from bitcorn_ray.features.distribute import compute_features
    from bitcorn_ray.features.plan import FeaturePlan
    from bitcorn_ray.features.receipts import PartitionStatus

    found = system_of(system)
    with ExitStack() as stack:
        advance: Callable[[str], None]

        def start(plan: FeaturePlan) -> None:
            nonlocal advance
            stack.enter_context(ray_if(bool(plan.jobs), address))
            total = len(plan.jobs) + len(plan.done)
            advance = stack.enter_context(progress("computing features", total, as_json))

        def show_progress(status: PartitionStatus) -> None:
            advance(f"{status.symbol} {status.timeframe}")

        done = compute_features(
            source,
            symbols=symbols,
            timeframes=timeframes,
            system=found,
            cache_dir=cache_dir,
            address=address,
            on_plan=start,
            on_done=show_progress,
            table=reading.table,
            mapping=dict(reading.mapping),
            policy=reading.policy,
        )
    rows = [{name: value for name, value in asdict(status).items() if name != "superseded"} for status in done]
    show(
        {"source": shown_uri(source), "system": found.spec, "partitions": rows},
        lambda: (features_table(rows), *_cleaned(rows)),
        as_json,
    )
    end_with_failures(f"{s.symbol} {s.timeframe} failed: {s.error}" for s in done if s.error)


@click.command("audit")
@source_options
@system_option
@click.option("--cuts", type=click.IntRange(1), default=64, show_default=True, help="Places to look at a partition.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the random places.")
@common_options
@cleaning_options
def audit_system(
    source: str,
    symbols: list[str] | None,
    timeframes: list[str] | None,
    system: str,
    cuts: int,
    seed: int,
    as_json: bool,
    address: str | None,
    reading: Reading,
) -> None:
    """Find look-ahead, undeclared warm-up, NaN and infinities in the features of a system, on Ray.

    The future is cut off and changed at many places of every partition: no feature of the past may change. Ends with
    status 1 where something was found.

    \b
    Example:
      bitcorn audit market.db --system my_features:momentum
    """
    from bitcorn_ray.features.distribute import audit_jobs_of, run_audit

    found = system_of(system)
    total = len(audit_jobs_of(source, symbols, timeframes, reading))
    with ray_for(address), progress("auditing", total, as_json) as advance:
        done = run_audit(
            source,
            found,
            symbols=symbols,
            timeframes=timeframes,
            cuts=cuts,
            seed=seed,
            reading=reading,
            on_done=lambda result: advance(f"{result.symbol} {result.timeframe}"),
        )
    rows = [asdict(result) for result in done]
    show(
        {"source": shown_uri(source), "system": found.spec, "partitions": rows},
        lambda: (*audit_tables(rows), *_cleaned(rows)),
        as_json,
    )
    end_with_failures(f"{r.symbol} {r.timeframe} was not audited: {r.error}" for r in done if r.error)
    sys.exit(1 if any(result.report and not result.report.passed for result in done) else 0)


def _cleaned(rows: list[dict[str, Any]]) -> list[str]:
    """A line for each partition that a policy cleaned."""
    return [cleaning_line(f"{row['symbol']} {row['timeframe']}", row["cleaning"]) for row in rows if row["cleaning"]]
