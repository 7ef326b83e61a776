"""Commands on runs: ls, show, compare, import."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from bitcorn_ray.cli.options import OrderedGroup, common_options, say, system_of
from bitcorn_ray.errors import BitcornError
from bitcorn_ray.report.console import show
from bitcorn_ray.report.lineage import lineage_tables
from bitcorn_ray.report.runs import comparison_tables, run_table, runs_table
from bitcorn_ray.storage.location import Location, shown_uri


@click.group(cls=OrderedGroup)
def runs() -> None:
    """Look at trained models, compare them, and import those of the older system."""


@runs.command("ls")
@click.argument("folder", default="models")
@common_options
def runs_ls(folder: str, as_json: bool, address: str | None) -> None:
    """List the runs in a folder and in the folders inside it, newest first.

    \b
    Example:
      bitcorn runs ls models
    """
    from bitcorn_ray.training.run import find_runs

    rows = []
    root = Location.of(folder)
    for name in find_runs(folder):
        place = root.child(name) if name else root
        try:
            rows.append({"name": name or ".", **_summary(place.address)})
        except BitcornError as error:
            rows.append({"name": name or ".", "run": place.shown, "created": None, "error": str(error)})
            say(str(error))
    rows.sort(key=lambda row: row["created"] or "", reverse=True)
    shown = shown_uri(folder)
    show({"folder": shown, "runs": rows}, lambda: runs_table(rows) if rows else f"no runs in {shown}", as_json)


@runs.command("show")
@click.argument("run")
@click.option("--lineage", is_flag=True, help="Say what it was made of: data, code, configuration, versions, machines.")
@common_options
def runs_show(run: str, lineage: bool, as_json: bool, address: str | None) -> None:
    """Say everything about one run: data, features, network, training, losses, calibration.

    With --json: all of its metadata, or all of its lineage. `bitcorn reproduce` makes it again from that.

    \b
    Example:
      bitcorn runs show models/run_001
      bitcorn runs show models/run_001 --lineage --json
    """
    from bitcorn_ray.training.lineage import run_lineage
    from bitcorn_ray.training.run import read_metadata

    if lineage:
        recorded = run_lineage(run)
        return show(recorded, lambda: lineage_tables(recorded), as_json)
    row = _summary(run)
    show(read_metadata(run) if as_json else row, lambda: run_table(row), as_json)


@runs.command("compare")
@click.argument("several", nargs=-1, required=True, metavar="RUN RUN...")
@common_options
def runs_compare(several: Sequence[str], as_json: bool, address: str | None) -> None:
    """Say in what two or more runs differ, with their validation losses side by side.

    \b
    Example:
      bitcorn runs compare models/run_001 models/run_002
    """
    from bitcorn_ray.training.summary import comparison

    if len(several) < 2:
        raise click.UsageError("give two runs or more")
    result = comparison([_summary(run) for run in several])
    show(result, lambda: comparison_tables(result), as_json)


@runs.command("import")
@click.argument("folder")
@click.option("--out", required=True, help="Folder for the run.")
@click.option("--trust-pickle", is_flag=True, help="Unpickle the scaler, which can run any code its writer put there.")
@click.option("--system", default="v2", show_default=True, help="Feature system that computes its features.")
@click.option("--timeframe", help="Timeframe of its bars, such as 1h, where its JSON file does not say it.")
@click.option("--overwrite", is_flag=True, help="Replace a run that is there already.")
@common_options
def runs_import(
    folder: str,
    out: str,
    trust_pickle: bool,
    system: str,
    timeframe: str | None,
    overwrite: bool,
    as_json: bool,
    address: str | None,
) -> None:
    """Make a run of a trained model of the older system: model.pt, a pickled scaler and a JSON file.

    It forecasts what it did. As the older system kept no scores, its bands start on the bars that are forecast from,
    and are infinite until there are enough of these.

    \b
    Example:
      bitcorn runs import old/BTCUSDT_1h --trust-pickle --out models/old
    """
    from bitcorn_ray.training.legacy import import_older
    from bitcorn_ray.training.run import is_run, run_storage, save_run

    target = run_storage(out)
    target.require_writable()
    if not overwrite and target.names():
        what = "a run" if is_run(out) else "something"
        raise BitcornError(f"{target.shown} holds {what} already: give another --out, or --overwrite")
    found = system_of(system)
    run = import_older(folder, feature_system=found.spec, timeframe=timeframe, trust_pickle=trust_pickle)
    if absent := sorted(set(run.metadata["feature_cols"]) - set(found.features)):
        raise BitcornError(
            f"the model was trained on {', '.join(absent)}, which {found.spec} does not have: name its system with "
            "--system"
        )
    save_run(run, out)
    say(f"imported {shown_uri(folder)} to {shown_uri(out)}")
    row = _summary(out)
    show(row, lambda: run_table(row), as_json)


def _summary(run: str) -> dict[str, Any]:
    from bitcorn_ray.training.run import read_metadata
    from bitcorn_ray.training.summary import summary

    return summary(shown_uri(run), read_metadata(run))
