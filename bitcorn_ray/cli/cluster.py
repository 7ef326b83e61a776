"""The doctor command, and the group of all commands: how errors end, and --submit."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import Any

import click

from bitcorn_ray.cli import options
from bitcorn_ray.cli.session import Settings, print_error, print_status, settings, show
from bitcorn_ray.errors import BitcornError
from bitcorn_ray.report.console import checks_table


@click.command()
@options.cache_dir
@options.common
def doctor(cache_dir: str | None) -> None:
    """Check an installation: Python, packages, Ray and all its nodes, GPUs, shared memory, storage, clocks.

    Each problem is shown with its remedy. Exits with status 1 if a check fails.

    \b
    Example:
      bitcorn doctor
      bitcorn doctor --address head:6379 --cache-dir s3://bucket/cache
      bitcorn --address http://head:8265 --submit doctor --cache-dir s3://bucket/cache
    """
    from bitcorn_ray.on_ray.doctor import doctor as check_installation

    checks = check_installation(settings().address, cache_dir)
    show({"checks": [asdict(check) for check in checks]}, lambda _: checks_table(checks))
    sys.exit(1 if any(check.state == "fail" for check in checks) else 0)


class MainGroup(options.CommandGroup):
    """The group of all commands.

    A BitcornError is printed as one line and exits with status 2. With --submit the command line is sent to a cluster.
    """

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except BitcornError as error:
            if settings().debug:
                raise
            print_error(str(error))
            sys.exit(2)
        except KeyboardInterrupt:
            print_error(
                "interrupted; finished work is kept: run the same command again to continue "
                "(train, tune and evolve with --resume)"
            )
            sys.exit(130)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command of the arguments; with --submit, one that submits it."""
        name, command, rest = super().resolve_command(ctx, args)
        if not ctx.params["submit"] or command is None:
            return name, command, rest
        current = ctx.find_root().ensure_object(Settings)
        address = current.address
        command.make_context(name, list(rest), parent=ctx)  # report errors of usage before anything is sent
        if current.address != address:
            raise click.UsageError("with --submit, give --address before the command: it is the dashboard's")
        # Options with `=`, because the name of a job is its first word without a dash.
        log_options = {"--log-format": ctx.params["log_format"], "--log-level": ctx.params["log_level"]}
        words = ["bitcorn", *(f"{option}={value}" for option, value in log_options.items() if value), str(name), *rest]
        return name, click.Command(name, callback=lambda: _submit(address, words)), []


def _submit(address: str | None, words: list[str]) -> None:
    """Submit a command line, print its log, and exit with its status."""
    from bitcorn_ray.on_ray.jobs import submit_job

    job = submit_job(address, words)
    print_status(f"submitted as {job.name} to {job.address}")
    job_options = f"{job.name} --address {job.address}"
    try:
        sys.exit(job.follow(lambda text: click.echo(text, nl=False)))
    except KeyboardInterrupt:
        click.echo()
        print_error(
            f"the job continues; to follow it: ray job logs --follow {job_options}; to stop it: ray job stop "
            f"{job_options}, after which the same command continues from its finished work"
        )
        sys.exit(130)
    except BitcornError as error:
        raise BitcornError(f"{error}; the job may still run: ray job status {job_options}") from error


COMMANDS = (doctor,)
