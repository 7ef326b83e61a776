"""Commands on features and their cache: features, audit, cache."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from bitcorn_ray.cache.store import open_cache
from bitcorn_ray.cli import options
from bitcorn_ray.cli.session import connect_ray, exit_with_failures, load_system, settings, show
from bitcorn_ray.report.console import progress
from bitcorn_ray.report.features import audit_tables, cache_table, explain_table, features_table
from bitcorn_ray.report.sources import cleaning_line
from bitcorn_ray.report.table import counted, name_of, size
from bitcorn_ray.sources.options import SourceOptions
from bitcorn_ray.storage.location import shown_uri

if TYPE_CHECKING:
    from bitcorn_ray.features.distribute import PartitionAudit
    from bitcorn_ray.features.receipts import PartitionStatus

Names = list[str] | None


@click.command()
@options.partitions
@options.system
@options.cache_dir
@options.common
def features(
    source: str, symbols: Names, timeframes: Names, source_options: SourceOptions, system: str, cache_dir: str | None
) -> None:
    """Compute the features of every partition of a source into the cache, in parallel on Ray.

    SOURCE is a SQLite database, a file of bars, or a folder or URI of such files. Unchanged files are not read again.
    Exits with status 2 if a partition fails; the others are stored.

    \b
    Example:
      bitcorn features --db market.db --symbols BTCUSDT,ETHUSDT --timeframes 1h
      bitcorn features s3://bucket/bars --system v4 --cache-dir s3://bucket/cache
      bitcorn features market.db --system my_features:momentum:window=50
      bitcorn features market.db --clean off-grid=snap,gaps=forward:3
    """
    from bitcorn_ray import compute_features
    from bitcorn_ray.features.plan import FeaturePlan

    found = load_system(system)
    with ExitStack() as stack:
        advance: Callable[[str], None]

        def on_plan(plan: FeaturePlan) -> None:
            nonlocal advance
            stack.enter_context(connect_ray(bool(plan.jobs)))
            total = len(plan.jobs) + len(plan.done)
            advance = stack.enter_context(progress("computing features", total, settings().as_json))

        done = compute_features(
            source,
            symbols=symbols,
            timeframes=timeframes,
            system=found,
            cache_dir=cache_dir,
            on_plan=on_plan,
            on_done=lambda status: advance(f"{status.symbol} {status.timeframe}"),
            table=source_options.table,
            mapping=dict(source_options.mapping),
            policy=source_options.policy,
            time_format=source_options.times.format,
            timezone=source_options.times.zone,
        )
    rows = [{name: value for name, value in asdict(status).items() if name != "superseded"} for status in done]
    show(
        {"source": shown_uri(source), "system": found.spec, "partitions": rows},
        lambda _: (features_table(done), *_cleaning_lines(done)),
    )
    exit_with_failures(f"{s.symbol} {s.timeframe} failed: {s.error}" for s in done if s.error)


@click.command("audit")
@options.partitions
@options.system
@click.option("--cuts", type=click.IntRange(1), default=64, show_default=True, help="Cut points to test per partition.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the random cut points.")
@options.common
def audit_system(
    source: str, symbols: Names, timeframes: Names, source_options: SourceOptions, system: str, cuts: int, seed: int
) -> None:
    """Find look-ahead, undeclared warm-up, NaN and infinities in the features of a system, on Ray.

    The future is cut off and changed at many places of every partition: no feature of the past may change. Exits with
    status 1 if something was found.

    \b
    Example:
      bitcorn audit market.db --system my_features:momentum
    """
    from bitcorn_ray.features.distribute import run_audit
    from bitcorn_ray.features.plan import requested_jobs
    from bitcorn_ray.sources.source import open_source

    found = load_system(system)
    total = len(requested_jobs(open_source(source, source_options), symbols, timeframes))
    with connect_ray(), progress("auditing", total, settings().as_json) as advance:
        done = run_audit(
            source,
            found,
            symbols=symbols,
            timeframes=timeframes,
            cuts=cuts,
            seed=seed,
            source_options=source_options,
            on_done=lambda result: advance(f"{result.symbol} {result.timeframe}"),
        )
    show(
        {"source": shown_uri(source), "system": found.spec, "partitions": [asdict(result) for result in done]},
        lambda _: (*audit_tables(done), *_cleaning_lines(done)),
    )
    exit_with_failures(f"{r.symbol} {r.timeframe} was not audited: {r.error}" for r in done if r.error)
    sys.exit(1 if any(result.report and not result.report.passed for result in done) else 0)


def _cleaning_lines(results: Iterable[PartitionStatus | PartitionAudit]) -> list[str]:
    return [cleaning_line(name_of(result), result.cleaning) for result in results if result.cleaning]


_bytes = options.amount({"": 1, "B": 1, "kB": 1e3, "KB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12})
_seconds = options.amount({"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800})


@click.group(cls=options.CommandGroup)
def cache() -> None:
    """List, verify and prune the feature cache."""


@cache.command("stats")
@options.cache_dir
@options.common
def cache_stats(cache_dir: str | None) -> None:
    """Count the entries, chunks, rows, bytes and hits of the cache.

    \b
    Example:
      bitcorn cache stats --json
    """
    from bitcorn_ray.cache.pruning import stats

    show(
        stats(open_cache(cache_dir)),
        lambda found: (
            f"{counted(found['entries'], 'entry', 'entries')} of {counted(found['chunks'], 'chunk', 'chunks')}, "
            f"{counted(found['rows'], 'row', 'rows')}, {size(found['bytes'])} in {found['folder']}, "
            f"{size(found['unreferenced_bytes'])} of them in unreferenced chunks; "
            f"{counted(found['hits'], 'hit', 'hits')}"
        ),
    )


@cache.command("ls")
@options.cache_dir
@options.common
def cache_ls(cache_dir: str | None) -> None:
    """List the entries, newest first.

    \b
    Example:
      bitcorn cache ls
    """
    store = open_cache(cache_dir)
    entries = store.entries()
    show({"entries": entries}, lambda _: cache_table(entries) if entries else f"no entries in {store.storage.shown}")


@cache.command("verify")
@click.option("--repair", is_flag=True, help="Remove damaged files, so that they are recomputed when next needed.")
@options.cache_dir
@options.common
def cache_verify(repair: bool, cache_dir: str | None) -> None:
    """Verify the checksum of every file. Exits with status 1 if a file is damaged.

    \b
    Example:
      bitcorn cache verify --repair
    """
    from bitcorn_ray.cache.pruning import verify

    store = open_cache(cache_dir)
    damaged = verify(store, repair)
    removed = ", removed" if repair else ""
    lines = [f"{damage.file}: {damage.problem}{removed}" for damage in damaged]
    state = "has no damaged files" if any(store.storage.files()) else "is empty"
    show(
        {"folder": store.storage.shown, "damaged": [asdict(damage) for damage in damaged], "repaired": repair},
        lambda _: "\n".join(lines) or f"{store.storage.shown} {state}",
    )
    sys.exit(1 if damaged else 0)


@cache.command("prune")
@click.option("--max-size", callback=_bytes, help="Remove the longest unused entries until this is left, such as 5GB.")
@click.option("--older-than", callback=_seconds, help="Remove entries unused for this long, such as 30d.")
@click.option(
    "--grace", callback=_seconds, default="1h", show_default=True, help="Keep entries that were used more recently."
)
@click.option("--dry-run", is_flag=True, help="Show what would be removed, and remove nothing.")
@options.cache_dir
@options.common
def cache_prune(
    max_size: float | None, older_than: float | None, grace: float, dry_run: bool, cache_dir: str | None
) -> None:
    """Remove entries by size or age, and always unreferenced chunks and files of killed writers.

    Entries used within the grace period are kept, because a running job may be reading them.

    \b
    Example:
      bitcorn cache prune --max-size 5GB --older-than 30d
    """
    from bitcorn_ray.cache.pruning import prune

    store = open_cache(cache_dir)
    store.grace = grace
    done = prune(store, None if max_size is None else int(max_size), older_than, dry_run=dry_run)
    if not dry_run and (done.entries or done.chunks):
        store.refresh_index()
    verb = "would remove" if dry_run else "removed"
    kept = f"; {len(done.in_use)} more are in use" if done.in_use else ""
    show(
        {**asdict(done), "dry_run": dry_run},
        lambda _: (
            f"{verb} {counted(len(done.entries), 'entry', 'entries')} and {counted(done.chunks, 'chunk', 'chunks')}, "
            f"{size(done.bytes)}; {size(done.bytes_left)} are left in {store.storage.shown}{kept}"
        ),
    )


@cache.command("clear")
@click.option("--db", help="Remove only the entries of this database or file that no other one uses.")
@options.cache_dir
@options.common
def cache_clear(db: str | None, cache_dir: str | None) -> None:
    """Remove the entries of one database, or all entries.

    \b
    Example:
      bitcorn cache clear --db market.db
    """
    count = open_cache(cache_dir).invalidate(db)
    show({"cleared": count}, lambda _: f"cleared {counted(count, 'entry', 'entries')}")


@cache.command("explain")
@options.partitions
@options.system
@options.cache_dir
@options.common
def cache_explain(
    source: str, symbols: Names, timeframes: Names, source_options: SourceOptions, system: str, cache_dir: str | None
) -> None:
    """Explain why each partition of a source would hit or miss the cache; computes nothing.

    \b
    Example:
      bitcorn cache explain market.db --system v4
    """
    from bitcorn_ray.features.explain import explain

    found = explain(source, load_system(system), open_cache(cache_dir), symbols, timeframes, source_options)
    rows = [asdict(partition) for partition in found]
    show({"source": shown_uri(source), "system": system, "partitions": rows}, lambda _: explain_table(found))


COMMANDS = (features, audit_system, cache)
