"""What all commands share: their common options, how errors end, and how options are read."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import wraps
from typing import TYPE_CHECKING, Any

import click

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.report.console import printable

if TYPE_CHECKING:
    from bitcorn_ray.features.system import FeatureSystem
    from bitcorn_ray.sources.options import Reading

cache_dir_option = click.option(
    "--cache-dir",
    help="Cache folder or URI, such as s3://bucket/cache.  [default: BITCORN_CACHE_DIR, else cache/data_pipeline]",
)


clean_option = click.option(
    "--clean",
    help="Repair bars: default, or such as duplicates=first,off-grid=snap,bad-prints=mask,gaps=forward:3; see the "
    "documentation on quality.  [default: of rows of one time the last counts, and nothing else is touched]",
)


system_option = click.option(
    "--system",
    default="v2",
    show_default=True,
    help="Feature system: a name or module:function, and parameters, such as v4:short=12:context=4h+1d.",
)


class OrderedGroup(click.Group):
    """A group that lists its commands in the order of the work, not of the alphabet."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order in which they were added."""
        return list(self.commands)


def common_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of every command, and turn a BitcornError into one line and exit status 2."""

    @click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
    @click.option(
        "--address",
        help="Ray cluster to use where work is distributed.  [default: RAY_ADDRESS, else a private local Ray]",
    )
    @click.option("--debug", is_flag=True, help="Show the traceback of an error.")
    @wraps(command)
    def wrapped(*args: Any, debug: bool, address: str | None, **options: Any) -> Any:
        address = address or click.get_current_context().find_root().params.get("address")
        try:
            return command(*args, address=address, **options)
        except BitcornError as error:
            if debug:
                raise
            click.echo(f"bitcorn: {printable(' '.join(str(error).split()))}", err=True)
            sys.exit(2)
        except KeyboardInterrupt:
            click.echo(
                "bitcorn: interrupted; what was finished is kept, and the same command goes on from there", err=True
            )
            sys.exit(130)

    return wrapped


def source_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add a source of bars, as an argument or as --db, and which of its partitions are asked for."""

    @click.argument("source", required=False)
    @click.option("--db", help="The source, as an option.")
    @click.option("--symbols", callback=_names, help="Only these, separated by commas.")
    @click.option("--timeframes", callback=_names, help="Only these, separated by commas.")
    @wraps(command)
    def wrapped(*args: Any, source: str | None, db: str | None, **options: Any) -> Any:
        if (source is None) == (db is None):
            raise click.UsageError("give the source of bars once: as SOURCE or as --db")
        return command(*args, source=source or db, **options)

    return wrapped


def search_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the argument CONFIG and the options that start, limit and resume a search over folds."""

    @click.argument("config")
    @click.option("--out", help="Folder for the results; overrides the file.")
    @click.option(
        "--max-hours", type=float, help="Time limit in hours: start nothing new after it, and stop what is running."
    )
    @click.option("--resume", is_flag=True, help="Resume an interrupted search; finished work is not repeated.")
    @cache_dir_option
    @wraps(command)
    def wrapped(*args: Any, **options: Any) -> Any:
        return command(*args, **options)

    return wrapped


table_option = click.option("--table", help="Read this table of a database only.")
map_option = click.option(
    "--map", "mapping", multiple=True, help="Map columns to stored names, such as open=o,volume=base_qty."
)


def reading_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add what a user may say about a source whose names do not say it; the command gets it as `reading`.

    It stands below `common_options`, which then tells what is wrong with it.
    """

    @table_option
    @map_option
    @wraps(command)
    def wrapped(*args: Any, table: str | None, mapping: Sequence[str], **options: Any) -> Any:
        from bitcorn_ray.sources.options import Reading

        return command(*args, reading=Reading.of(table, mapping), **options)

    return wrapped


def cleaning_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `reading_options`, and --clean, whose policy is part of the `reading`."""

    @reading_options
    @clean_option
    @wraps(command)
    def wrapped(*args: Any, reading: Reading, clean: str | None, **options: Any) -> Any:
        from bitcorn_ray.market.policy import CleaningPolicy, parse_policy

        policy = None if clean is None else CleaningPolicy(**parse_policy(clean))
        return command(*args, reading=replace(reading, policy=policy), **options)

    return wrapped


def _names(context: click.Context, parameter: click.Parameter, text: str | None) -> list[str] | None:
    try:
        return listed(text)
    except BitcornError as error:
        raise click.BadParameter(str(error), context, parameter) from error


def system_of(spec: str) -> FeatureSystem:
    """Return the feature system of an option; modules are looked for in the working folder too."""
    from bitcorn_ray.features.registry import find_system

    look_in_working_folder()
    return find_system(spec)


def look_in_working_folder() -> None:
    """Let modules of the user's own, with feature systems or searches, be imported from the working folder."""
    if "" not in sys.path and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())


def end_with_failures(lines: Iterable[str]) -> None:
    """Print what failed on standard error; where anything did, end with status 2."""
    failed = list(lines)
    for line in failed:
        click.echo(f"bitcorn: {printable(' '.join(line.split()))}", err=True)
    if failed:
        sys.exit(2)


def amount(text: str | None, units: Mapping[str, float], option: str) -> float | None:
    """Number with a unit, such as 5GB or 30d; None stays None. Raises BitcornError for anything else."""
    if text is None:
        return None
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)", text.strip())
    if match is None or match[2] not in units:
        raise BitcornError(f"{option} is {text!r}: give a number and one of {', '.join(filter(None, units))}")
    return float(match[1]) * units[match[2]]


def say(line: str) -> None:
    """Print a line about the progress, on standard error."""
    print(printable(line), file=sys.stderr)  # not click.echo, which writes past a progress bar that is on the screen


def ray_if(needed: bool, address: str | None) -> Any:
    """Return the session of a command, or, where nothing is left to do, a context that does not start Ray."""
    return ray_for(address) if needed else nullcontext()


def ray_for(address: str | None) -> Any:
    """Return the session of a command that distributes work, a context manager."""
    from bitcorn_ray.on_ray.session import ray_session

    cluster = address or os.environ.get("RAY_ADDRESS")
    say(f"connecting to Ray at {cluster}" if cluster else "starting Ray")
    return ray_session(address)


def listed(text: str | None) -> list[str] | None:
    """Split an option at its commas; None stays None. Raises BitcornError where nothing is left."""
    if text is None:
        return None
    items = [item.strip() for item in text.split(",") if item.strip()]
    if not items:
        raise BitcornError(f"nothing is named in {text!r}: give names separated by commas, or leave the option out")
    return items


def integers(text: str | None, option: str) -> list[int] | None:
    """Split an option into whole numbers. Raises BitcornError for anything else."""
    try:
        return None if text is None else [int(item) for item in text.split(",")]
    except ValueError:
        raise BitcornError(f"{option} is {text!r}: give whole numbers separated by commas, such as 1,4,12") from None
