"""What all commands share: their common options, how errors end, and how options are read."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any

import click

from bitcorn_ray.errors import BitcornError

if TYPE_CHECKING:
    from bitcorn_ray.cache.store import FeatureCache

__all__ = [
    "OrderedGroup",
    "cache_dir_option",
    "common_options",
    "integers",
    "listed",
    "open_cache",
    "ray_for",
    "say",
]

cache_dir_option = click.option(
    "--cache-dir", help="Cache folder.  [default: BITCORN_CACHE_DIR, else cache/data_pipeline]"
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
    def wrapped(*args: Any, debug: bool, **options: Any) -> Any:
        try:
            return command(*args, **options)
        except BitcornError as error:
            if debug:
                raise
            click.echo(f"bitcorn: {' '.join(str(error).split())}", err=True)
            sys.exit(2)
        except KeyboardInterrupt:
            click.echo(
                "bitcorn: interrupted; what was finished is kept, and the same command goes on from there", err=True
            )
            sys.exit(130)

    return wrapped


def say(line: str) -> None:
    """Print a line about the progress, on standard error."""
    print(line, file=sys.stderr)  # not click.echo, which writes past a progress bar that is on the screen


def ray_for(address: str | None) -> Any:
    """Return the session of a command that distributes work, a context manager."""
    from bitcorn_ray.on_ray.session import ray_session

    cluster = address or os.environ.get("RAY_ADDRESS")
    say(f"connecting to Ray at {cluster}" if cluster else "starting Ray")
    return ray_session(address)


def open_cache(cache_dir: str | None) -> FeatureCache:
    """Open the cache in the given or the default folder."""
    from bitcorn_ray.cache.store import FeatureCache
    from bitcorn_ray.data_loader import cache_folder

    return FeatureCache(cache_folder(cache_dir))


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
