"""Commands on features and their cache: features, audit, cache."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from typing import Any

import click

from bitcorn_ray.cache.store import open_cache
from bitcorn_ray.cli.options import (
    OrderedGroup,
    amount,
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
from bitcorn_ray.report.console import (
    audit_tables,
    cache_table,
    counted,
    explain_table,
    features_table,
    progress,
    show,
    size,
)
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
@click.option("--cuts", type=click.IntRange(1), default=64, show_default=True, help="Cut points to test per partition.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the random cut points.")
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


_BYTES = {"": 1, "B": 1, "kB": 1e3, "KB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12}
_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}


@click.group(cls=OrderedGroup)
def cache() -> None:
    """Look at the feature cache, check it, and make room."""


@cache.command("stats")
@cache_dir_option
@common_options
def cache_stats(cache_dir: str | None, as_json: bool, address: str | None) -> None:
    """Say how many entries there are, how much room they take, and when they were last used.

    \b
    Example:
      bitcorn cache stats --json
    """
    from bitcorn_ray.cache.pruning import stats

    found = stats(open_cache(cache_dir))
    show(
        found,
        lambda: (
            f"{counted(found['entries'], 'entry', 'entries')} of {counted(found['chunks'], 'chunk', 'chunks')}, "
            f"{counted(found['rows'], 'row', 'rows')}, {size(found['bytes'])} in {found['folder']}, "
            f"{size(found['unreferenced_bytes'])} of them in chunks that no entry names; "
            f"{counted(found['hits'], 'hit', 'hits')}"
        ),
        as_json,
    )


@cache.command("ls")
@cache_dir_option
@common_options
def cache_ls(cache_dir: str | None, as_json: bool, address: str | None) -> None:
    """List the entries, newest first.

    \b
    Example:
      bitcorn cache ls
    """
    store = open_cache(cache_dir)
    entries = store.entries()
    nothing = f"no entries are in {store.storage.shown}"
    show({"entries": entries}, lambda: cache_table(entries) if entries else nothing, as_json)


@cache.command("verify")
@click.option("--repair", is_flag=True, help="Remove damaged files, so that they are recomputed when next needed.")
@cache_dir_option
@common_options
def cache_verify(repair: bool, cache_dir: str | None, as_json: bool, address: str | None) -> None:
    """Read everything with its checksums. Ends with status 1 where something is damaged.

    \b
    Example:
      bitcorn cache verify --repair
    """
    from bitcorn_ray.cache.pruning import verify

    store = open_cache(cache_dir)
    damaged = verify(store, repair)
    done = ", removed" if repair else ""
    lines = [f"{damage.file}: {damage.problem}{done}" for damage in damaged]
    state = "all of {} is whole" if any(store.storage.files()) else "nothing is in {}"
    show(
        {"folder": store.storage.shown, "damaged": [asdict(damage) for damage in damaged], "repaired": repair},
        lambda: "\n".join(lines) or state.format(store.storage.shown),
        as_json,
    )
    sys.exit(1 if damaged else 0)


@cache.command("prune")
@click.option("--max-size", help="Remove the longest unused entries until no more than this is left, such as 5GB.")
@click.option("--older-than", help="Remove entries unused for this long, such as 30d.")
@click.option("--grace", default="1h", show_default=True, help="Keep whatever was used or written more recently.")
@click.option("--dry-run", is_flag=True, help="Show what would be removed, and remove nothing.")
@cache_dir_option
@common_options
def cache_prune(
    max_size: str | None,
    older_than: str | None,
    grace: str,
    dry_run: bool,
    cache_dir: str | None,
    as_json: bool,
    address: str | None,
) -> None:
    """Make room: by size, by age, and always of what no entry names and what killed writers left.

    What was used within the grace period is kept, as a running job may be reading it.

    \b
    Example:
      bitcorn cache prune --max-size 5GB --older-than 30d
    """
    from bitcorn_ray.cache.pruning import prune

    store = open_cache(cache_dir)
    store.grace = amount(grace, _SECONDS, "--grace") or 0.0
    most = amount(max_size, _BYTES, "--max-size")
    done = prune(
        store, None if most is None else int(most), amount(older_than, _SECONDS, "--older-than"), dry_run=dry_run
    )
    if not dry_run and (done.entries or done.chunks):
        store.refresh_index()
    verb = "would remove" if dry_run else "removed"
    kept = f"; {len(done.in_use)} more are in use" if done.in_use else ""
    show(
        {**asdict(done), "dry_run": dry_run},
        lambda: (
            f"{verb} {counted(len(done.entries), 'entry', 'entries')} and {counted(done.chunks, 'chunk', 'chunks')}, "
            f"{size(done.bytes)}; {size(done.bytes_left)} are left in {store.storage.shown}{kept}"
        ),
        as_json,
    )


@cache.command("clear")
@click.option("--db", help="Only what this database or file uses and no other.")
@cache_dir_option
@common_options
def cache_clear(db: str | None, cache_dir: str | None, as_json: bool, address: str | None) -> None:
    """Remove entries: those of one database, or all.

    \b
    Example:
      bitcorn cache clear --db market.db
    """
    count = open_cache(cache_dir).invalidate(db)
    show({"cleared": count}, lambda: f"cleared {counted(count, 'entry', 'entries')}", as_json)


@cache.command("explain")
@source_options
@system_option
@cache_dir_option
@common_options
@cleaning_options
def cache_explain(
    source: str,
    symbols: list[str] | None,
    timeframes: list[str] | None,
    system: str,
    cache_dir: str | None,
    as_json: bool,
    address: str | None,
    reading: Reading,
) -> None:
    """Explain why each partition of a source would hit or miss the cache; computes nothing.

    \b
    Example:
      bitcorn cache explain market.db --system v4
    """
    from bitcorn_ray.features.explain import explain

    found = explain(source, system_of(system), open_cache(cache_dir), symbols, timeframes, reading)
    rows = [asdict(each) for each in found]
    show({"source": shown_uri(source), "system": system, "partitions": rows}, lambda: explain_table(rows), as_json)
