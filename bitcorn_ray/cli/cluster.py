"""The doctor command, and --submit, which runs any command on a cluster."""

from __future__ import annotations

import sys
from dataclasses import asdict

import click

from bitcorn_ray.cli.options import OrderedGroup, cache_dir_option, common_options, say
from bitcorn_ray.errors import BitcornError
from bitcorn_ray.report.console import show
from bitcorn_ray.report.doctor import checks_table


@click.command()
@cache_dir_option
@common_options
def doctor(cache_dir: str | None, as_json: bool, address: str | None) -> None:
    """Check an installation: Python, packages, Ray and all its nodes, GPUs, shared memory, storage, clocks.

    What is not as it should be is told with its remedy. Ends with status 1 where anything fails.

    \b
    Example:
      bitcorn doctor
      bitcorn doctor --address head:6379 --cache-dir s3://bucket/cache
      bitcorn --address http://head:8265 --submit doctor --cache-dir s3://bucket/cache
    """
    from bitcorn_ray.on_ray.doctor import doctor as examine

    rows = [asdict(check) for check in examine(address, cache_dir)]
    show({"checks": rows}, lambda: checks_table(rows), as_json)
    sys.exit(1 if any(row["state"] == "fail" for row in rows) else 0)


_LOGS = ("log-format", "log-level")


class SubmittingGroup(OrderedGroup):
    """The group of all commands, which with --submit runs none of them here but sends the command line to a cluster."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command that was named, or in its place, with --submit, one that submits it."""
        name, command, rest = super().resolve_command(ctx, args)
        if not ctx.params["submit"] or command is None:
            return name, command, rest
        # What cannot be understood there is told here, before anything is sent.
        understood = command.make_context(name, list(rest), parent=ctx)
        if understood.params.get("address"):
            raise click.UsageError("with --submit, give --address before the command: it is the dashboard's")
        # As single words, which a job's name does not take for the command.
        logs = [f"--{option}={value}" for option in _LOGS if (value := ctx.params[option.replace("-", "_")])]
        words, address = ["bitcorn", *logs, str(name), *rest], ctx.params["address"]
        return name, click.Command(name, callback=lambda: _submit(address, words)), []


def _submit(address: str | None, words: list[str]) -> None:
    """Submit a command line, print its log, and end with its exit status."""
    from bitcorn_ray.on_ray.jobs import submit_job

    try:
        job = submit_job(address, words)
        say(f"submitted as {job.name} to {job.address}")
        on = f"{job.name} --address {job.address}"
        try:
            sys.exit(job.follow(lambda text: click.echo(text, nl=False)))
        except KeyboardInterrupt:
            click.echo(
                f"\nbitcorn: the job goes on, no longer followed; to follow it: ray job logs --follow {on}; to end it: "
                f"ray job stop {on}, after which the same command goes on from what is finished",
                err=True,
            )
            sys.exit(130)
        except BitcornError as error:
            raise BitcornError(f"{error}; the job may go on: ray job status {on}") from error
    except BitcornError as error:
        click.echo(f"bitcorn: {error}", err=True)
        sys.exit(2)
