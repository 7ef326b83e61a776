"""An evaluation of two partitions at two horizons, for the tests of what shows it."""

from __future__ import annotations

from bitcorn_ray.evaluation.evaluate import Evaluation, PartitionEvaluation
from bitcorn_ray.metrics.hac import MeanTest
from bitcorn_ray.metrics.losses import Band, HorizonMetrics, Pit, Share
from bitcorn_ray.metrics.skill import Comparison, HorizonSkill


def comparison(baseline, mean, error=0.1, outcome="better"):
    p_values = {"p_value": 0.01, "p_negative": 0.005, "p_positive": 0.995}
    test = MeanTest(count=100, lag=0, mean=mean, standard_error=error, statistic=0.0, **p_values)
    return Comparison(baseline=baseline, loss=mean, baseline_loss=0.0, test=test, outcome=outcome)


def metrics(horizon, count, inside, lowest):
    """Metrics of a horizon: `inside` the 80 % band; the 95 % band is unbounded. lowest: share in the first PIT bin."""
    errors = dict.fromkeys(("rmse_return", "mae_return", "rmse_price", "mae_price", "qlike", "nll"), 0.5)
    covered = Share(count=count, share=inside, lower=0.0, upper=1.0, effective_count=count)
    bands = (
        Band(level=0.8, covered=covered, width=0.1, unbounded=0),
        Band(level=0.95, covered=None, width=None, unbounded=count),
    )
    moments = {"z_mean": 0.0, "z_std": 1.0, "p_mean": 1.0, "p_spread": 1.0, "p_calibrated": 1.0}
    pit = Pit(histogram=(lowest, 0.1 - lowest, *[0.05] * 18), **moments)
    return HorizonMetrics(
        horizon=horizon, count=count, unknown=0, direction=None, crps=0.01, bands=bands, pit=pit, **errors
    )


SKILL = tuple(
    HorizonSkill(
        horizon=horizon,
        volatility=(comparison("EWMA", -0.5), comparison("GARCH", 0.25, None, "not distinguishable")),
        returns=(comparison("random walk", 0.125),),
        direction=None,
        verdict="volatility: better than <log-HAR>; direction: a coin",
    )
    for horizon in (1, 4)
)


def partition(symbol, *of_horizons, remarks=None):
    return PartitionEvaluation(
        symbol=symbol,
        timeframe="1h",
        sample="test",
        windows=4,
        first="2026-01-01T00:00:00Z",
        last="2026-02-01T00:00:00Z",
        fitted_until="2025-12-01T00:00:00Z",
        metrics=of_horizons,
        skill=SKILL,
        remarks=remarks or {},
        left_out={},
    )


EVALUATION = Evaluation(
    run="models/a",
    source="market.db",
    horizons=(1, 4),
    partitions=(
        partition("[A]", metrics(1, 100, 0.75, 0.08), metrics(4, 100, 0.5, 0.08), remarks={"GARCH": "too few"}),
        partition("B", metrics(1, 300, 0.95, 0.04), metrics(4, 300, 0.5, 0.04)),
    ),
    skill=SKILL,
    errors={"C 1h": "too short"},
    notes=("its code has changed",),
)
