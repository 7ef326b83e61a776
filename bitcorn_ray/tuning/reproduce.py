"""Reproduction of a run: train it again from what it recorded, and report the differences.

1. Read the run's lineage. 2. Read the bars again, up to the last bar of the run; report changed bars, and leave out
appended ones. 3. Train the recorded configuration. 4. Compare code, versions and machines, the losses of each epoch,
and the weights.

In deterministic mode with the same data, code, versions and kind of machine, losses and weights are equal to the bit;
otherwise losses are equal to 1e-6, relative.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise, zip_longest
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.features.explain import library_changes, system_changes
from bitcorn_ray.features.identity import bars_digest
from bitcorn_ray.market.bars import Bars, milliseconds_of
from bitcorn_ray.market.policy import CleaningPolicy
from bitcorn_ray.sources.loading import load_bars
from bitcorn_ray.sources.options import SourceOptions
from bitcorn_ray.storage.arrays import unpack_arrays
from bitcorn_ray.storage.location import shown_uri
from bitcorn_ray.training.config import RunConfig
from bitcorn_ray.training.lineage import run_lineage
from bitcorn_ray.training.run import load_run, read_metadata
from bitcorn_ray.training.train import require_free, train_from_config

TOLERANCE = 1e-6
"""The largest relative difference of losses between different machines."""
_LOSSES = ("train_loss", "val_loss")


@dataclass(frozen=True, kw_only=True)
class Reproduction:
    """The comparison of a run with its reproduction.

    data, code, versions, machines: the differences, a line each. appended: new bars of the source that were left out,
    by partition. epochs: losses of both runs, None where one has no such epoch. loss_difference: the largest, relative;
    None with different numbers of epochs. weight_difference: the largest, absolute; None with different shapes.
    bitwise: True if equal bits are promised. equal: True if losses and weights are equal as far as promised.
    """

    run: str
    out: str | None
    data: tuple[str, ...]
    appended: dict[str, int]
    code: tuple[str, ...]
    versions: tuple[str, ...]
    machines: tuple[str, ...]
    epochs: tuple[dict[str, Any], ...]
    loss_difference: float | None
    weight_difference: float | None
    bitwise: bool
    equal: bool

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


def reproduce(
    run: str | Path,
    *,
    source: str | Path | None = None,
    out: str | Path | None = None,
    cache_dir: str | Path | None = None,
    log_fn: Callable[[str], None] | None = None,
) -> Reproduction:
    """Train a run again from what it recorded, and compare. It trains on Ray if the run did.

    run: its folder or URI. source: of the bars, by default the recorded one, whose URI has no secrets. out: where the
    new run is saved, by default nowhere.
    Raises BitcornError for a run that recorded no configuration, an `out` that is not empty, and as the training does.
    """
    recorded = run_lineage(run)
    if recorded["config"] is None:
        raise BitcornError(
            f"the run in {shown_uri(run)} recorded no configuration, as its features were given in Python: "
            "train it there again"
        )
    if out is not None:
        require_free(out, resume=False, overwrite=False)
    with tempfile.TemporaryDirectory(prefix="bitcorn-reproduce-") as folder:
        made = str(out or f"{folder}/run")
        db = str(source or recorded["data"]["source"])
        config = {**recorded["config"], "db": db, "out": made, "mlflow": None}
        changed, appended, until = _compare_bars(recorded, config)
        _train_again(recorded, config, until, cache_dir, log_fn)
        return _compare_runs(run, made, None if out is None else shown_uri(out), changed, appended)


def _compare_bars(
    recorded: Mapping[str, Any], config: Mapping[str, Any]
) -> tuple[list[str], dict[str, int], list[int]]:
    """Return the changes of bars, the numbers of appended bars, and the open of each partition's last bar in ms."""
    changed, appended, until = list[str](), dict[str, int](), list[int]()
    inputs = (recorded["features"] or {}).get("inputs", ())
    policy = None if config["clean"] is None else CleaningPolicy(**config["clean"])
    source_options = SourceOptions.of(
        config["table"],
        config["mapping"],
        policy=policy,
        time_format=config.get("time_format"),
        timezone=config.get("timezone"),
    ).with_columns(inputs)
    for partition in recorded["data"]["partitions"]:
        name, last = f"{partition['symbol']} {partition['timeframe']}", milliseconds_of(partition["last"])
        asked = (config["db"], partition["symbol"], partition["timeframe"])
        bars = load_bars(*asked, options=source_options, until=last).bars
        if later := len(load_bars(*asked, options=source_options).bars) - len(bars):
            appended[name] = later
        changed += [f"{name}: {change}" for change in _chunk_changes(partition["chunks"], bars.with_extra(inputs))]
        until.append(last)
    return changed, appended, until


def _chunk_changes(chunks: Sequence[Mapping[str, Any]], bars: Bars) -> Iterator[str]:
    """Yield the chunks that a run recorded whose bars have changed."""
    if len(bars) == 0:
        yield "none of its bars exists any more"
        return
    # A chunk extends to the first bar of the next: bars may have been added in a gap.
    edges = [milliseconds_of(chunk["first"]) for chunk in chunks] + [milliseconds_of(chunks[-1]["last"]) + 1]
    rows_at = np.searchsorted(bars.timestamp, edges).tolist()
    for chunk, (start, stop) in zip(chunks, pairwise(rows_at), strict=True):
        if bars_digest(bars, start, start, stop)[:32] != chunk["bars"]:
            rows = f": {chunk['rows']:,} bars became {stop - start:,}" if stop - start != chunk["rows"] else ""
            yield f"bars between {chunk['first']} and {chunk['last']} have changed{rows}"
    if rows_at[0]:
        yield f"{rows_at[0]:,} bars were added before {chunks[0]['first']}"


def _train_again(
    recorded: Mapping[str, Any],
    config: Mapping[str, Any],
    until: Sequence[int],
    cache_dir: str | Path | None,
    log_fn: Callable[[str], None] | None,
) -> None:
    """Train the recorded configuration: of a run, or of the best trial of a sweep."""
    if (trial := recorded["sweep"]) is None:
        train_from_config(RunConfig.load(None, config), cache_dir=cache_dir, until=until, log_fn=log_fn)
        return
    from bitcorn_ray.tuning.config import SweepConfig
    from bitcorn_ray.tuning.study import refit

    refit(SweepConfig.from_json(config), trial, str(config["out"]), cache_dir=cache_dir, until=until, log_fn=log_fn)


def _compare_runs(
    run: str | Path, made: str, out: str | None, changed: Sequence[str], appended: dict[str, int]
) -> Reproduction:
    then, now = run_lineage(run), run_lineage(made)
    same_data = then["data"]["digest"] == now["data"]["digest"]
    data = changed if changed or same_data else ["the features of the same bars have changed"]
    code = [
        f"code of {name if ':' in name else f'bitcorn_ray.{name}'} changed"
        for name in _changed_keys(then["code"], now["code"])
    ]
    features = [{**lineage["features"], "format": None} for lineage in (then, now)]
    code += [change for change in system_changes(*features) if "bitcorn_ray." not in change]
    versions = [
        f"{name}: {then['versions'].get(name, 'none')} became {now['versions'].get(name, 'none')}"
        for name in _changed_keys(then["versions"], now["versions"])
    ]
    versions += library_changes(*features)
    machines = list(_machine_changes(then["cluster"]["workers"], now["cluster"]["workers"]))
    bitwise = bool(then["deterministic"] and not (data or code or versions or machines))
    epochs = list(zip_longest(*(read_metadata(place)["history"] for place in (run, made))))
    losses, weights = _loss_difference(epochs), _weight_difference(run, made)
    close = not changed and losses is not None and losses <= TOLERANCE
    return Reproduction(
        run=shown_uri(run),
        out=out,
        data=tuple(data),
        appended=appended,
        code=tuple(code),
        versions=tuple(versions),
        machines=tuple(machines),
        epochs=tuple(
            {"epoch": number, **{name: [epoch and epoch[name] for epoch in pair] for name in _LOSSES}}
            for number, pair in enumerate(epochs, start=1)
        ),
        loss_difference=losses,
        weight_difference=weights,
        bitwise=bitwise,
        equal=losses == 0 and weights == 0 if bitwise else close,
    )


def _changed_keys(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    return sorted(name for name in then.keys() | now.keys() if then.get(name) != now.get(name))


def _machine_changes(then: Sequence[Mapping[str, Any]], now: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    if len(then) != len(now):
        yield f"{len(then)} workers became {len(now)}"
    for number, (one, other) in enumerate(zip(then, now, strict=False), start=1):
        for name in _changed_keys(one, other):
            yield f"{name} of worker {number}: {one.get(name)} became {other.get(name)}"


def _loss_difference(epochs: Sequence[tuple[Any, Any]]) -> float | None:
    """Return the largest difference of two losses, relative to the larger one; None if an epoch has one loss."""
    if any(None in pair for pair in epochs):
        return None
    losses = [(then[name], now[name]) for then, now in epochs for name in _LOSSES]
    return max((abs(a - b) / max(abs(a), abs(b)) for a, b in losses if a != b), default=0.0)


def _weight_difference(run: str | Path, made: str) -> float | None:
    """Return the largest difference of two fitted numbers of the models; None if they have other shapes."""
    then, now = (_numbers(load_run(place).model.artifacts()) for place in (run, made))
    if {name: value.shape for name, value in then.items()} != {name: value.shape for name, value in now.items()}:
        return None
    differences = (float(np.abs(value - now[name]).max()) for name, value in then.items() if value.size)
    return max(differences, default=0.0)


def _numbers(artifacts: Mapping[str, bytes]) -> dict[str, NDArray[np.float64]]:
    """Return the numbers of a model's files, by file and name."""
    from bitcorn_ray.models.neural.model import read_state

    found = dict[str, NDArray[np.float64]]()
    for file, content in artifacts.items():
        if file.endswith(".pt"):
            found |= {f"{file}/{name}": value.double().numpy() for name, value in read_state(content).items()}
        elif file.endswith(".npz"):
            found |= {f"{file}/{name}": value.astype(np.float64) for name, value in unpack_arrays(content).items()}
    return found
