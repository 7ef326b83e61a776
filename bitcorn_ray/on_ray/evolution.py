"""What all generations of an evolution share: put into Ray's object store once, read there by the trials of each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import ray

from bitcorn_ray.on_ray.sweeps import Work

__all__ = ["hold", "with_held"]


def hold(shared: dict[str, Any]) -> Mapping[str, Any]:
    """Put values into the object store, and empty the mapping, so that there is one copy. Returns references by name.

    The values stay there for as long as the references are kept.
    """
    return {name: ray.put(shared.pop(name)) for name in list(shared)}


def with_held(work: Work, held: Mapping[str, Any]) -> Work:
    """The work of a trial, see `run_trials`, that fetches what is held."""
    return partial(_fetching, work, dict(held))


def _fetching(
    work: Work,
    held: Mapping[str, Any],
    fetch: Callable[[str], Any],
    configuration: Mapping[str, Any],
    report: Callable[[Mapping[str, Any]], None],
) -> None:
    work(lambda name: ray.get(held[name]) if name in held else fetch(name), configuration, report)
