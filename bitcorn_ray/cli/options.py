"""Options that several commands share, and how their values are parsed."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial, wraps
from typing import Any

import click

from bitcorn_ray.cli.session import store_setting
from bitcorn_ray.errors import BitcornError
from bitcorn_ray.market.policy import CleaningPolicy, parse_policy
from bitcorn_ray.sources.columns import parse_mapping
from bitcorn_ray.sources.options import SourceOptions

Command = Callable[..., Any]


class CommandGroup(click.Group):
    """A group that lists its commands in the order in which they were added."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the commands."""
        return list(self.commands)


# Options of every command


_setting = partial(click.option, expose_value=False, callback=store_setting)


def common(command: Command) -> Command:
    """Add the options of every command; `settings` returns their values."""
    for option in (
        _setting("--debug", is_flag=True, is_eager=True, help="Show the traceback of an error."),
        _setting("--address", help="Ray cluster to use.  [default: RAY_ADDRESS, else a private local Ray]"),
        _setting("--json", "as_json", is_flag=True, help="Print the result as JSON."),
    ):
        command = option(command)
    return command


# Values of options


def parsed(parse: Callable[[str, str], Any]) -> Callable[..., Any]:
    """Make a function of a text and the name of its option into a callback; an option that is not given is None."""

    def callback(context: click.Context, parameter: click.Parameter, text: str | None) -> Any:
        return None if text is None else parse(text, parameter.opts[0])

    return callback


@parsed
def names(text: str, option: str) -> list[str]:
    """Return names separated by commas. Raises BitcornError if there are none."""
    items = [item.strip() for item in text.split(",") if item.strip()]
    if not items:
        raise BitcornError(f"{option} is {text!r}: give names separated by commas, or omit the option")
    return items


@parsed
def integers(text: str, option: str) -> list[int]:
    """Return a list of integers separated by commas. Raises BitcornError for anything else."""
    try:
        return [int(item) for item in text.split(",")]
    except ValueError:
        raise BitcornError(f"{option} is {text!r}: give integers separated by commas, such as 1,4,12") from None


def amount(units: Mapping[str, float]) -> Callable[..., Any]:
    """Return a callback that parses a number with a unit, such as 5GB or 30d. units: the factor of each unit."""

    @parsed
    def parse(text: str, option: str) -> float:
        match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)", text.strip())
        if match is None or match[2] not in units:
            raise BitcornError(f"{option} is {text!r}: give a number and one of {', '.join(filter(None, units))}")
        return float(match[1]) * units[match[2]]

    return parse


# Options of several commands

cache_dir = click.option(
    "--cache-dir",
    help="Cache folder or URI, such as s3://bucket/cache.  [default: BITCORN_CACHE_DIR, else cache/data_pipeline]",
)
system = click.option(
    "--system",
    default="v2",
    show_default=True,
    help="Feature system: a name or module:function, and parameters, such as v4:short=12:context=4h+1d.",
)
symbols = click.option(
    "--symbols", "--symbol", "symbols", callback=names, help="Use these symbols only, separated by commas."
)
timeframes = click.option(
    "--timeframes", "--timeframe", "timeframes", callback=names, help="Use these timeframes only."
)
changed_code = click.option(
    "--allow-changed-code", is_flag=True, help="Use the run even if the code of its features has changed since."
)
table_name = click.option("--table", help="Read this table of a database only.")
column_map = click.option(
    "--map",
    "mapping",
    multiple=True,
    callback=lambda context, parameter, pairs: parse_mapping(pairs),
    help="Map columns to stored names, such as open=o,volume=base_qty; timestamp=Date+Time joins two columns, "
    "timestamp=#0 is the first column, volume=none says that there is none. May be repeated.",
)
time_format = click.option(
    "--time-format", help="Format of times written as text, as for strptime, such as '%d.%m.%Y %H:%M'."
)
timezone = click.option(
    "--timezone", help="Time zone of times without an offset, such as America/New_York or EST.  [default: UTC]"
)
clean = click.option(
    "--clean",
    callback=parsed(lambda text, _: parse_policy(text)),
    help="Repair bars: default, or such as duplicates=first,off-grid=snap,bad-prints=mask,gaps=forward:3; see the "
    "documentation on quality.  [default: keep the last of rows with equal times, and change nothing else]",
)


def source(required: bool = True) -> Callable[[Command], Command]:
    """Add the source of bars as the argument SOURCE or the option --db; the command gets it as `source`."""

    def decorate(command: Command) -> Command:
        @click.argument("source", required=False)
        @click.option("--db", help="The source, as an option.")
        @wraps(command)
        def wrapped(*args: Any, source: str | None, db: str | None, **options: Any) -> Any:
            if (source and db) or (required and not (source or db)):
                raise click.UsageError("give the source of bars once: as SOURCE or as --db")
            return command(*args, source=source or db, **options)

        return wrapped

    return decorate


def source_options(command: Command) -> Command:
    """Add the options for reading a source; the command gets them as `source_options`, with --clean if it has that."""

    @table_name
    @column_map
    @time_format
    @timezone
    @wraps(command)
    def wrapped(
        *args: Any,
        table: str | None,
        mapping: Mapping[str, str],
        time_format: str | None,
        timezone: str | None,
        clean: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Any:
        policy = None if clean is None else CleaningPolicy(**clean)
        made = SourceOptions.of(table, mapping, policy=policy, time_format=time_format, timezone=timezone)
        return command(*args, source_options=made, **options)

    return wrapped


def partitions(command: Command) -> Command:
    """Add a source of bars, the choice of its partitions, and how to read and repair them."""
    for option in (source_options, clean, timeframes, symbols, source()):
        command = option(command)
    return command


def search(command: Command) -> Command:
    """Add the argument CONFIG, and the options that limit and resume a search over folds."""
    for option in (
        cache_dir,
        click.option("--resume", is_flag=True, help="Resume an interrupted search; finished work is not repeated."),
        click.option("--max-hours", type=float, help="Time limit in hours; running work is stopped when it is over."),
        click.option("--out", help="Folder for the results; overrides the file."),
        click.argument("config"),
    ):
        command = option(command)
    return command
