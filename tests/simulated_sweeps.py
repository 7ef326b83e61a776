"""Sweeps over simulated markets by forecasters that cost nothing: what a leaderboard must tell apart.

A trial forecasts the variance by an exponentially weighted mean, a HAR regression or a mean over some length, drawn to
the constant by a random share and disturbed by a little noise; the return by a regression on a random momentum.
"""

import numpy as np
from small_baselines import constant_variance, log_har, realised_returns, realised_variances

from bitcorn_ray.datasets.folds import FoldsConfig, Timeline, walk_forward_folds
from bitcorn_ray.market.simulate import simulate_bars
from bitcorn_ray.metrics.comparison import TrialComparison
from bitcorn_ray.metrics.losses import qlike
from bitcorn_ray.metrics.signal import rank_scores, sign_losses, sign_scores
from bitcorn_ray.models.baselines.history import History
from bitcorn_ray.models.baselines.simple import ewma_variance

HORIZONS = (1, 4, 12)
HOUR = 3_600_000


def random_walk(bars, seed):
    """A market without anything to find: normal returns of constant volatility."""
    steps = np.random.default_rng(seed).standard_normal((bars, 4)) * 0.004
    path = np.cumsum(steps.ravel()).reshape(bars, 4)
    return History(
        timestamps=HOUR * np.arange(bars),
        high=np.exp(path.max(1)),
        low=np.exp(path.min(1)),
        close=np.exp(path[:, -1]),
        timeframe_ms=HOUR,
    )


def garch_market(bars, seed):
    """A market whose volatility clusters and whose direction is pure chance."""
    simulated = simulate_bars(bars, seed=seed, gaps=0)
    return History(
        timestamps=simulated.timestamp, high=simulated.high, low=simulated.low, close=simulated.close, timeframe_ms=HOUR
    )


def questions_of(history, seed, trials=8, folds=3):
    """What a sweep of random trials over walk-forward folds asks its leaderboard: volatility and direction."""
    rng = np.random.default_rng([seed, 1])
    bars = len(history.close)
    outcome, realised = realised_returns(history.close, HORIZONS), realised_variances(history.close, HORIZONS)
    cut = walk_forward_folds(
        FoldsConfig(train=2_000, validation=500, test=800, last=folds),
        [Timeline(name="simulated", instants=np.arange(bars), step=1)],
        max(HORIZONS),
    )
    drawn = [_draw(rng) for _ in range(trials)]
    folds, happened, came, variances, returns = [], [], [], [], []
    baselines = {"constant variance": [], "EWMA": [], "log-HAR": []}
    for fold in cut:
        (rows,) = fold.rows
        fit = np.arange(rows.train.start, rows.test.start)  # a baseline has seen what the trial has
        test = np.arange(*rows.test)
        test = test[np.isfinite(outcome[test]).all(1)]
        forecasts = [_forecast(trial, history, outcome, realised, fit, test, rng) for trial in drawn]
        variances.append(np.stack([variance for variance, _ in forecasts], axis=2))
        returns.append(np.stack([expected for _, expected in forecasts], axis=2))
        came.append(realised[test])
        happened.append(outcome[test])
        baselines["constant variance"].append(constant_variance(realised, HORIZONS, fit, test))
        baselines["EWMA"].append(ewma_variance(history, HORIZONS, test))
        baselines["log-HAR"].append(log_har(history, realised, HORIZONS, fit, test))
        folds.append(np.full(len(test), fold.number))
    folds, happened, came, variances, returns = map(np.concatenate, (folds, happened, came, variances, returns))
    always = {f"always {name}": np.full((*happened.shape, 1), sign) for name, sign in (("up", 1.0), ("down", -1.0))}
    return [
        TrialComparison(
            name="volatility",
            loss="QLIKE",
            losses=qlike(variances, came[..., None]).mean(1),
            score="rank correlation",
            scores=rank_scores(variances, came, folds),
            baselines={name: qlike(np.concatenate(parts), came).mean(1) for name, parts in baselines.items()},
            folds=folds,
            horizon=max(HORIZONS),
        ),
        TrialComparison(
            name="direction",
            loss="share of wrong signs",
            losses=sign_losses(returns, happened),
            score="right signs beyond chance",
            scores=sign_scores(returns, happened, folds),
            baselines={name: sign_losses(said, happened)[:, 0] for name, said in always.items()},
            naive_baselines=tuple(always),
            folds=folds,
            horizon=max(HORIZONS),
        ),
    ]


def _draw(rng):
    return {
        "kind": rng.choice(["ewma", "har", "mean"]),
        "span": int(np.exp(rng.uniform(np.log(8), np.log(400)))),
        "own": rng.uniform(0.1, 1),
        "noise": rng.uniform(0.001, 0.05),
        "momentum": int(np.exp(rng.uniform(0, np.log(100)))),
    }


def _forecast(trial, history, outcome, realised, fit, test, rng):
    """Variances and returns (N, H) at the test rows."""
    constant = constant_variance(realised, HORIZONS, fit, test)
    if trial["kind"] == "ewma":
        own = ewma_variance(history, HORIZONS, test, alpha=2 / (trial["span"] + 1))
    elif trial["kind"] == "har":
        own = log_har(history, realised, HORIZONS, fit[-max(600, 5 * trial["span"]) :], test)
    else:
        own = constant_variance(realised, HORIZONS, fit[-5 * trial["span"] :], test)
    share = trial["own"]
    variance = own**share * constant ** (1 - share) * np.exp(trial["noise"] * rng.standard_normal(constant.shape))
    log_close, lag = np.log(history.close), trial["momentum"]
    momentum = np.concatenate([np.zeros(lag), log_close[lag:] - log_close[:-lag]])
    known = fit[: -max(HORIZONS)]
    slopes = [np.polyfit(momentum[known], outcome[known, j], 1) for j in range(len(HORIZONS))]
    scale = outcome[known].std(0) * trial["noise"]
    returns = np.stack([np.polyval(slope, momentum[test]) for slope in slopes], axis=1)
    return variance, returns + scale * rng.standard_normal(constant.shape)
