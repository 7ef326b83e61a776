"""Front door to reproducing a run: train it again from what it recorded, and say in what the two differ.

1. Read the run's lineage. 2. Read the bars again, as far as the run had them: what was changed since is told, what was
appended is left out. 3. Train by the recorded configuration. 4. Compare code, versions and machines, the losses of each
epoch, and the weights.

What is promised: in deterministic mode with the same data, code, versions and kind of machine, losses and weights that
are equal to the bit; else losses that are equal to 1e-6, relative.
"""

from __future__ import annotations

import io
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
from bitcorn_ray.sources.options import Reading
from bitcorn_ray.storage.location import shown_uri
from bitcorn_ray.training.config import RunConfig
from bitcorn_ray.training.lineage import run_lineage
from bitcorn_ray.training.run import load_run, read_metadata
from bitcorn_ray.training.train import require_free, train_from_config

TOLERANCE = 1e-6
"""The largest relative difference of losses between machines of two kinds."""
_LOSSES = ("train_loss", "val_loss")


@dataclass(frozen=True, kw_only=True)
class Reproduction:
    """A run beside the one that was made again of what it recorded.

    data, code, versions, machines: what differs, a line each, empty where nothing does. appended: bars that the source
    has got since and that were left out, by partition. epochs: losses then and now, None where one has no such epoch.
    loss_difference: the largest, relative. weight_difference: the largest, absolute; 0 where all are equal to the bit.
    None where shapes differ. bitwise: whether equal bits were promised. equal: as far as was promised.
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
        """Everything in plain values."""
        return asdict(self)


def reproduce(
    run: str | Path,
    *,
    source: str | Path | None = None,
    out: str | Path | None = None,
    cache_dir: str | Path | None = None,
    log_fn: Callable[[str], None] | None = None,
) -> Reproduction:
    """Train a run again from what it recorded, and compare.

    run: its folder or URI. source: of the bars, by default the recorded one, whose URI has lost its secrets. out: where
    the new run goes, by default nowhere. It trains on Ray where the run did.
    Raises BitcornError for a run that recorded no configuration, an `out` that holds something, and as the training
    does.
    """
    recorded = run_lineage(run)
    if recorded["config"] is None:
        raise BitcornError(
            f"the run in {shown_uri(run)} recorded no configuration, as its features were given in Python: "
            "train it there again"
        )
    place = str(source or recorded["data"]["source"])
    if out is not None:
        require_free(out, resume=False, overwrite=False)
    with tempfile.TemporaryDirectory(prefix="bitcorn-reproduce-") as folder:
        made = str(out or f"{folder}/run")
        config = {**recorded["config"], "db": place, "out": made, "mlflow": None}
        told = _compared_bars(recorded, config)
        _train_again(recorded, config, told.until, cache_dir, log_fn)
        return _compared(run, made, recorded, told, None if out is None else shown_uri(out))


@dataclass(frozen=True)
class _Bars:
    """What has changed of the bars, how many were appended, and the opening of each partition's last bar, in ms."""

    changed: list[str]
    appended: dict[str, int]
    until: list[int]


def _compared_bars(recorded: Mapping[str, Any], config: Mapping[str, Any]) -> _Bars:
    told = _Bars([], {}, [])
    inputs = (recorded["features"] or {}).get("inputs", ())
    policy = None if config["clean"] is None else CleaningPolicy(**config["clean"])
    reading = Reading.of(config["table"], config["mapping"], policy=policy).with_columns(inputs)
    for then in recorded["data"]["partitions"]:
        name, last = f"{then['symbol']} {then['timeframe']}", milliseconds_of(then["last"])
        asked = (config["db"], then["symbol"], then["timeframe"])
        every = load_bars(*asked, reading=reading).bars
        bars = load_bars(*asked, reading=reading, until=last).bars
        if len(every) > len(bars):
            told.appended[name] = len(every) - len(bars)
        told.changed.extend(f"{name}: {what}" for what in _changed_chunks(then["chunks"], bars.with_extra(inputs)))
        told.until.append(last)
    return told


def _changed_chunks(chunks: Sequence[Mapping[str, Any]], bars: Bars) -> Iterator[str]:
    """Say which of the chunks that a run recorded have other bars now."""
    if len(bars) == 0:
        yield "none of its bars is there any more"
        return
    # A chunk goes on to the next one's first bar: there may be bars now in what was a gap.
    edges = [milliseconds_of(each["first"]) for each in chunks] + [milliseconds_of(chunks[-1]["last"]) + 1]
    rows_at = np.searchsorted(bars.timestamp, edges).tolist()
    for then, (start, stop) in zip(chunks, pairwise(rows_at), strict=True):
        if bars_digest(bars, start, start, stop)[:32] != then["bars"]:
            rows = f"; there were {then['rows']:,} and are {stop - start:,}" if stop - start != then["rows"] else ""
            yield f"bars between {then['first']} and {then['last']} have changed{rows}"
    if rows_at[0]:
        yield f"{rows_at[0]:,} bars were put before {chunks[0]['first']}"


def _train_again(
    recorded: Mapping[str, Any],
    config: Mapping[str, Any],
    until: Sequence[int],
    cache_dir: str | Path | None,
    log_fn: Callable[[str], None] | None,
) -> None:
    """Train by the recorded configuration: that of a run, or of a sweep whose best trial the run is."""
    if (trial := recorded["sweep"]) is None:
        train_from_config(RunConfig.load(None, config), cache_dir=cache_dir, until=until, log_fn=log_fn)
        return
    from bitcorn_ray.tuning.config import SweepConfig
    from bitcorn_ray.tuning.study import refit

    refit(SweepConfig.from_json(config), trial, str(config["out"]), cache_dir=cache_dir, until=until, log_fn=log_fn)


def _compared(run: str | Path, made: str, recorded: Mapping[str, Any], bars: _Bars, out: str | None) -> Reproduction:
    now, then_history, now_history = run_lineage(made), *(read_metadata(each)["history"] for each in (run, made))
    same_data = recorded["data"]["digest"] == now["data"]["digest"]
    data = [*bars.changed, *([] if same_data or bars.changed else ["the features are others, of the same bars"])]
    code = [
        f"code of {name if ':' in name else f'bitcorn_ray.{name}'} changed"
        for name in _differing(recorded["code"], now["code"])
    ]
    then_features, now_features = ({**each["features"], "format": None} for each in (recorded, now))
    code += [change for change in system_changes(then_features, now_features) if "bitcorn_ray." not in change]
    versions = [
        f"{name}: {recorded['versions'].get(name, 'none')} became {now['versions'].get(name, 'none')}"
        for name in _differing(recorded["versions"], now["versions"])
    ]
    versions += [change for change in library_changes(then_features, now_features)]
    machines = list(_machine_changes(recorded["cluster"]["workers"], now["cluster"]["workers"]))
    bitwise = bool(recorded["deterministic"] and not (data or code or versions or machines))
    losses, weights = _loss_difference(then_history, now_history), _weight_difference(run, made)
    close = not bars.changed and losses is not None and losses <= TOLERANCE
    return Reproduction(
        run=shown_uri(run),
        out=out,
        data=tuple(data),
        appended=bars.appended,
        code=tuple(code),
        versions=tuple(versions),
        machines=tuple(machines),
        epochs=tuple(_epochs(then_history, now_history)),
        loss_difference=losses,
        weight_difference=weights,
        bitwise=bitwise,
        equal=losses == 0 and weights == 0 if bitwise else close,
    )


def _differing(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    return sorted(name for name in then.keys() | now.keys() if then.get(name) != now.get(name))


def _machine_changes(then: Sequence[Mapping[str, Any]], now: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    if len(then) != len(now):
        yield f"{len(then)} workers became {len(now)}"
    for number, (one, other) in enumerate(zip(then, now, strict=False), start=1):
        for name in _differing(one, other):
            yield f"{name} of worker {number}: {one.get(name)} became {other.get(name)}"


def _epochs(then: Sequence[Mapping[str, Any]], now: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    for number, (one, other) in enumerate(zip_longest(then, now), start=1):
        told = {name: [each and each[name] for each in (one, other)] for name in _LOSSES}
        yield {"epoch": number, **told}


def _loss_difference(then: Sequence[Mapping[str, Any]], now: Sequence[Mapping[str, Any]]) -> float | None:
    """The largest difference of two losses, relative to the larger one; None where the epochs are not as many."""
    if len(then) != len(now):
        return None
    pairs = [(one[name], other[name]) for one, other in zip(then, now, strict=True) for name in _LOSSES]
    return max((abs(a - b) / max(abs(a), abs(b)) for a, b in pairs if a != b), default=0.0)


def _weight_difference(run: str | Path, made: str) -> float | None:
    """Return the largest difference of two fitted numbers of the models; None if they have other shapes."""
    then, now = (_numbers(load_run(place).model.artifacts()) for place in (run, made))
    if {name: value.shape for name, value in then.items()} != {name: value.shape for name, value in now.items()}:
        return None
    differences = (float(np.abs(value - now[name]).max()) for name, value in then.items() if value.size)
    return max(differences, default=0.0)


def _numbers(artifacts: Mapping[str, bytes]) -> dict[str, NDArray[np.float64]]:
    """Return the numbers of a model's files, by file and name."""
    found = dict[str, NDArray[np.float64]]()
    for file, content in artifacts.items():
        if file.endswith(".pt"):
            from bitcorn_ray.models.neural.model import read_state

            found |= {f"{file}/{name}": value.double().numpy() for name, value in read_state(content).items()}
        elif file.endswith(".npz"):
            with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
                found |= {f"{file}/{name}": arrays[name].astype(np.float64) for name in arrays.files}
    return found
