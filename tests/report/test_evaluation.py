import io
from dataclasses import asdict

import numpy as np
from rich.console import Console

from bitcorn_ray.metrics.losses import forecast_metrics
from bitcorn_ray.metrics.skill import EvaluatedWindows, evaluate_skill
from bitcorn_ray.report.evaluation import evaluation_tables


def text_of(tables):
    console = Console(width=220, file=io.StringIO(), record=True)
    for table in tables:
        console.print(table)
    return console.export_text()


def test_every_partition_horizon_and_baseline_is_told():
    rng = np.random.default_rng(0)
    sigma = np.exp(rng.normal(0, 0.5, (400, 2)))
    outcome = sigma * rng.normal(size=(400, 2))
    one = EvaluatedWindows(
        times=np.arange(400),
        returns=0.01 * rng.normal(size=(400, 2)),
        volatilities=sigma,
        outcome=outcome,
        realised=outcome**2,
        baseline_returns={"random walk": np.zeros((400, 2))},
        baseline_variances={"strong HAR": np.ones((400, 2)), "EWMA": 2 * np.ones((400, 2))},
    )
    widths = np.full((400, 3, 2), 1.0)
    widths[:, 2] = np.inf
    metrics = forecast_metrics(
        (1, 4), one.returns, sigma, outcome, outcome**2, np.full(400, 100.0), (0.5, 0.8, 0.95), widths
    )
    skill = [asdict(each) for each in evaluate_skill((1, 4), [one])]
    partition = {
        "symbol": "[AAA]",
        "timeframe": "1h",
        "first": "2026-01-01T00:00:00Z",
        "metrics": [asdict(each) for each in metrics],
        "skill": skill,
        "remarks": {"GARCH(1,1)": "left out: too few"},
    }
    text = text_of(evaluation_tables({"skill": skill, "partitions": [partition]}))
    assert "1 bar ahead\n  volatility: " in text
    assert "4 bars ahead\n  volatility: " in text
    assert "GARCH(1,1) of [AAA]: left out: too few" in text
    lines = text.splitlines()
    (against,) = (line for line in lines if line.strip().startswith("EWMA"))
    assert against.split()[1:] == [f"{skill[0]['volatility'][1]['test']['mean']:+.4f}", "*",
                                   f"{skill[1]['volatility'][1]['test']['mean']:+.4f}", "*"]  # fmt: skip
    rows = [line for line in lines if line.strip().startswith("[AAA] 1h")]
    assert len(rows) == 2
    assert f"{metrics[0].qlike:.4f}" in rows[0]
    assert f"{100 * metrics[0].bands[0].covered.share:.1f} %" in rows[0]
