"""What an evaluation says, in plain values, for the tests of what shows it."""

from __future__ import annotations


def comparison(name, mean, error=0.1):
    return {"baseline": name, "test": {"mean": mean, "standard_error": error, "p_value": 0.01}}


def metrics(horizon, count, inside, lowest):
    bins = [0.05] * 20
    bins[0], bins[1] = lowest, 0.1 - lowest
    bands = [{"level": 0.8, "covered": {"share": inside}}, {"level": 0.95, "covered": None}]
    return {"horizon": horizon, "count": count, "crps": 0.01, "bands": bands, "pit": {"histogram": bins}}


EVALUATION = {
    "horizons": [1, 4],
    "skill": [
        {
            "horizon": horizon,
            "volatility": [comparison("EWMA", -0.5), comparison("GARCH", 0.25, None)],
            "returns": [comparison("random walk", 0.125)],
        }
        for horizon in (1, 4)
    ],
    "partitions": [
        {"symbol": "A", "timeframe": "1h", "metrics": [metrics(1, 100, 0.75, 0.08), metrics(4, 100, 0.5, 0.08)]},
        {"symbol": "B", "timeframe": "1h", "metrics": [metrics(1, 300, 0.95, 0.04), metrics(4, 300, 0.5, 0.04)]},
    ],
}
