"""The running command: its settings, what it prints, its connection to Ray, and the modules of the user."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from bitcorn_ray.report import console
from bitcorn_ray.report.table import printable
from bitcorn_ray.training.artifacts import strict_json

if TYPE_CHECKING:
    from bitcorn_ray.features.system import FeatureSystem


@dataclass
class Settings:
    """Values of the options of every command. as_json: print results as JSON. address: of a Ray cluster."""

    as_json: bool = False
    address: str | None = None
    debug: bool = False


def settings() -> Settings:
    """Return the settings of the running command."""
    return click.get_current_context().find_root().ensure_object(Settings)


def store_setting(context: click.Context, parameter: click.Parameter, value: Any) -> Any:
    """Store an option in the settings. `--address` of a command overrides `--address` before the command."""
    if value:
        setattr(context.find_root().ensure_object(Settings), str(parameter.name), value)
    return value


def show(result: Mapping[str, Any], render: Callable[[Any], Any], title: str | None = None) -> None:
    """Print a result on standard output: as JSON with --json, else as `render` draws the same values.

    render: returns a table, a text, or a tuple of these. title: a line above them.
    """
    text = strict_json(result)
    if settings().as_json:
        click.echo(text)
    else:
        console.show(render(json.loads(text)), title)


def print_status(line: str) -> None:
    """Print a line about the progress on standard error."""
    print(printable(line), file=sys.stderr)  # click.echo would write past a progress bar on the screen


def print_error(message: str) -> None:
    """Print an error as one line on standard error."""
    click.echo(f"bitcorn: {printable(' '.join(message.split()))}", err=True)


def exit_with_failures(messages: Iterable[str]) -> None:
    """Print failures on standard error and, if there are any, exit with status 2."""
    failures = list(messages)
    for message in failures:
        print_error(message)
    if failures:
        sys.exit(2)


def connect_ray(needed: bool = True) -> Any:
    """Return a context manager that connects to Ray; it does nothing if Ray is not needed."""
    if not needed:
        return nullcontext()
    from bitcorn_ray.on_ray.session import ray_session

    address = settings().address
    cluster = address or os.environ.get("RAY_ADDRESS")
    print_status(f"connecting to Ray at {cluster}" if cluster else "starting Ray")
    return ray_session(address)


def load_system(spec: str) -> FeatureSystem:
    """Return the feature system of an option; its module may be in the working folder."""
    from bitcorn_ray.features.registry import find_system

    import_from_working_folder()
    return find_system(spec)


def import_from_working_folder() -> None:
    """Allow imports of the user's own modules from the working folder."""
    if "" not in sys.path and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
