"""Skill against baselines: tests of Diebold and Mariano (1995), and verdicts as text.

1. The loss differential, a forecast's loss minus the baseline's at the same window, is negative on average if the
   forecast is better. Losses are QLIKE of the variance, in nats, and the squared error of the return, in units of the
   partition's mean squared return, so that a random walk has 1 and a difference is a share of variance explained.
2. Windows overlap and volatility clusters: the mean of the differential has the error of `hac`, with the small-sample
   correction of Harvey, Leybourne and Newbold (1997).
3. Several partitions are first averaged at each instant: bars of one market move together, and six symbols are not six
   times the evidence.
4. "Better" and "worse" have a two-sided p-value below 5 %; all else is "not distinguishable". The best baseline is the
   one with the best result on the test windows themselves, which makes it harder to beat.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.metrics.hac import MeanTest, average_by_instant, mean_test
from bitcorn_ray.metrics.losses import Direction, direction, qlike

Array = NDArray[np.floating]
Rows = NDArray[np.int64]
Outcome = Literal["better", "not distinguishable", "worse"]

_SIGNIFICANCE = 0.05


@dataclass(frozen=True, kw_only=True, eq=False)
class EvaluatedWindows:
    """Forecasts of one partition at N successive windows, their outcomes, and the forecasts of baselines.

    times: (N,) int64 instants of the forecasts, ascending, in the same unit for all partitions. returns, volatilities:
    (N, H). outcome, realised: (N, H) log returns and realised VARIANCES, NaN if unknown. baseline_returns,
    baseline_variances: by the baseline's name, (N, H); NaN without a forecast: that window is not compared.
    """

    times: Rows
    returns: Array
    volatilities: Array
    outcome: Array
    realised: Array
    baseline_returns: Mapping[str, Array]
    baseline_variances: Mapping[str, Array]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A forecast against one baseline.

    baseline: its name. loss, baseline_loss: mean losses over the `test.count` instants at which both are known.
    test: of the difference, loss - baseline_loss; p_negative is the one-sided p-value of being better.
    outcome: better or worse if the two-sided p-value is below 5 %.
    """

    baseline: str
    loss: float
    baseline_loss: float
    test: MeanTest
    outcome: Outcome


@dataclass(frozen=True, kw_only=True)
class HorizonSkill:
    """Skill at one horizon: against each baseline by QLIKE and by squared error of the return; direction; as text."""

    horizon: int
    volatility: tuple[Comparison, ...]
    returns: tuple[Comparison, ...]
    direction: Direction | None
    verdict: str


def compare(
    baseline: str, times: Sequence[Rows], losses: Sequence[Array], baseline_losses: Sequence[Array], horizon: int
) -> Comparison:
    """Return the comparison of forecasts `horizon` bars ahead with a baseline, over one or several partitions.

    times, losses, baseline_losses: (N_p,) of each partition, successive windows. A window with a NaN loss is left out.
    Raises BitcornError if lengths differ, or no window has both losses.
    """
    both = [np.column_stack(pair) for pair in zip(losses, baseline_losses, strict=True)]
    averages = average_by_instant(times, both)
    if not len(averages):
        raise BitcornError(f"no window of horizon {horizon} has both an outcome and a forecast of {baseline}")
    difference = averages[:, 0] - averages[:, 1]
    # Equal forecasts from two computations differ by rounding, which must not be significant.
    rounding = np.abs(difference) <= 1e-12 * np.abs(averages).max(1)
    test = mean_test(np.where(rounding, 0.0, difference), horizon)
    side: Outcome = "better" if test.mean < 0 else "worse"
    return Comparison(
        baseline=baseline,
        loss=float(averages[:, 0].mean()),
        baseline_loss=float(averages[:, 1].mean()),
        test=test,
        outcome=side if test.p_value < _SIGNIFICANCE else "not distinguishable",
    )


def evaluate_skill(horizons: Sequence[int], partitions: Sequence[EvaluatedWindows]) -> list[HorizonSkill]:
    """Return the skill of forecasts of one partition, or of several together, at each of H horizons.

    Baselines that some of the partitions lack are left out. Raises BitcornError if a forecast is not finite, or a
    volatility not above 0, at a window with a known outcome: leaving it out would flatter the model.
    """
    if not partitions:
        raise BitcornError("no partition to evaluate: give the forecasts of at least one")
    return [_skill_at(j, horizon, partitions) for j, horizon in enumerate(horizons)]


def _skill_at(j: int, horizon: int, partitions: Sequence[EvaluatedWindows]) -> HorizonSkill:
    times = [one.times for one in partitions]
    known = [np.isfinite(one.outcome[:, j]) & np.isfinite(one.realised[:, j]) for one in partitions]
    for one, rows in zip(partitions, known, strict=True):
        valid = np.isfinite(one.returns[:, j]) & np.isfinite(one.volatilities[:, j]) & (one.volatilities[:, j] > 0)
        if (rows & ~valid).any():
            raise BitcornError(
                f"{(rows & ~valid).sum()} of {rows.sum()} forecasts of horizon {horizon} are not finite or have a "
                "volatility of 0 or less: every window with a known outcome needs a forecast"
            )

    def variance_losses(variances: Sequence[Array]) -> list[Array]:
        # Without an outcome, or a baseline variance above 0, there is no loss.
        return [
            qlike(np.where(rows & (v[:, j] > 0), v[:, j], np.nan), one.realised[:, j])
            for one, rows, v in zip(partitions, known, variances, strict=True)
        ]

    def return_losses(returns: Sequence[Array]) -> list[Array]:
        return [
            np.where(rows, (one.outcome[:, j] - r[:, j].astype(np.float64)) ** 2, np.nan)
            / _mean_square(one.outcome[rows, j])
            for one, rows, r in zip(partitions, known, returns, strict=True)
        ]

    mine = variance_losses([one.volatilities.astype(np.float64) ** 2 for one in partitions])
    volatility = [
        compare(name, times, mine, variance_losses(theirs), horizon)
        for name, theirs in _shared([one.baseline_variances for one in partitions])
    ]
    mine = return_losses([one.returns for one in partitions])
    returns = [
        compare(name, times, mine, return_losses(theirs), horizon)
        for name, theirs in _shared([one.baseline_returns for one in partitions])
    ]
    outcomes = [np.where(rows, one.outcome[:, j], np.nan) for one, rows in zip(partitions, known, strict=True)]
    signs = direction(times, [one.returns[:, j] for one in partitions], outcomes, horizon)
    return HorizonSkill(
        horizon=int(horizon),
        volatility=tuple(volatility),
        returns=tuple(returns),
        direction=signs,
        verdict=_verdict(volatility, returns, signs),
    )


def _mean_square(outcome: Array) -> float:
    """Return the mean squared outcome; 1 for a market that did not move, whose errors then stay unscaled."""
    return float(np.mean(outcome.astype(np.float64) ** 2) or 1.0) if len(outcome) else 1.0


def _shared(forecasts: Sequence[Mapping[str, Array]]) -> list[tuple[str, list[Array]]]:
    """Return the baselines that all partitions have, with each partition's forecasts."""
    return [(name, [one[name] for one in forecasts]) for name in forecasts[0] if all(name in one for one in forecasts)]


def _verdict(volatility: Sequence[Comparison], returns: Sequence[Comparison], found: Direction | None) -> str:
    parts = []
    if volatility:
        parts.append("volatility: " + _against(volatility, "log-HAR", "nats", 1))
    if returns:
        parts.append("return: " + _against(returns, "random walk", "% of variance", 100))
    return "; ".join([*parts, "direction: " + _direction_in_words(found)])


def _against(comparisons: Sequence[Comparison], reference: str, unit: str, factor: float) -> str:
    """Return the text on the reference and on the best baseline."""
    # By the mean of the test: mean losses may be over different windows.
    best = max(comparisons, key=lambda one: one.test.mean)
    first = next((one for one in comparisons if one.baseline == reference), best)
    text = _in_words(first, first is best, unit, factor)
    if first is best:
        return text
    joint = "and" if first.outcome == best.outcome else "but"
    return f"{text}, {joint} {_in_words(best, True, unit, factor)}"


def _in_words(one: Comparison, is_best: bool, unit: str, factor: float) -> str:
    name = f"{one.baseline}, the best baseline" if is_best else one.baseline
    size = factor * abs(one.test.mean)
    amount = f"{size:.2g} {unit}" if size >= 0.0001 else f"less than 0.0001 {unit}"
    p = _p_in_words(one.test.p_value)
    if size == 0:
        return f"equal to {name}"
    if one.outcome == "not distinguishable":
        return f"not distinguishable from {name} ({amount} {'lower' if one.test.mean < 0 else 'higher'}, {p})"
    return f"{one.outcome} than {name}{',' if is_best else ''} by {amount}, {p}"


def _direction_in_words(found: Direction | None) -> str:
    if found is None:
        return "not forecast"
    if found.p_value >= _SIGNIFICANCE:
        skill = "no better than a coin"
    else:
        skill = "better than a coin" if found.accuracy.share > found.expected else "worse than a coin"
    right, chance = 100 * found.accuracy.share, 100 * found.expected
    return f"{skill} ({right:.1f} % right, {chance:.1f} % by chance, {_p_in_words(found.p_value)})"


def _p_in_words(p_value: float) -> str:
    return "p < 0.001" if p_value < 0.001 else f"p = {p_value:.2g}"
