import re

from small_evaluations import EVALUATION

from bitcorn_ray.report.fan import Fan, FanPanel
from bitcorn_ray.report.run_page import RunReport, run_page

MODEL = {"horizons": [1, 4], "hidden_size": 8, "num_layers": 1, "seq_len": 16}
SUMMARY = {
    "run": "models/<one>",
    "created": "2026-01-01T00:00:00+00:00",
    "imported_from": None,
    "symbols": ["A"],
    "timeframe": "1h",
    "feature_system": "v2",
    "feature_version": 1,
    "features": 2,
    "train": None,
    "validation": None,
    "test": None,
    "windows": {"train": None, "validation": None, "test": None},
    "model": MODEL,
    "training": {"epochs": 3},
    "epochs": 2,
    "best_epoch": 2,
    "val_loss": 0.5,
    "val_loss_by_horizon": {"1": 0.25, "4": 0.75},
    "calibration": "rolling conformal",
    "versions": {"torch": "2"},
}
HISTORY = [
    {"epoch": n, "train_loss": 1 / n, "val_loss": 0.5, "train_loss_by_horizon": [1, 2], "val_loss_by_horizon": [3, 4]}
    for n in (1, 2)
]
METADATA = {
    "history": HISTORY,
    "horizons": [1, 4],
    "feature_cols": ["rsi_14", "<b>"],
    "model": MODEL,
    "training": {"epochs": 3},
    "cache_keys": ["abc"],
}
FAN = Fan(
    cutoff="2026-01-01T00:00:00",
    close=1.0,
    times=["2026-01-01T01:00:00"],
    price=[1.0],
    bands={0.8: ([0.9], [1.1])},
    sample="test",
)
JUDGED = {
    "source": "market.db",
    **EVALUATION,
    "skill": [
        {**each, "verdict": "volatility: better than <log-HAR>; direction: a coin"} for each in EVALUATION["skill"]
    ],
    "partitions": [
        {**each, "first": "2026-01-01", "last": "2026-02-01", "windows": 4} for each in EVALUATION["partitions"]
    ],
    "errors": {"C 1h": "too short"},
    "notes": ["its code has changed"],
}


def titles(page):
    return re.findall("<h2>(.*?)</h2>", page)


def test_the_verdict_comes_first_and_all_else_follows():
    panel = FanPanel(name="A 1h", times=["2026-01-01T00:00:00"], closes=[1.0], fans=[FAN])
    quality = [{"symbol": "A", "timeframe": "1h", "score": 99.5, "bars": 100, "reasons": [{"text": "a gap"}]}]
    page = run_page(RunReport(summary=SUMMARY, metadata=METADATA, evaluation=JUDGED, fans=[panel], quality=quality))
    assert titles(page) == [
        "Verdict",
        "Latest forecast: A 1h",
        "Skill against each baseline",
        "Calibration",
        "Learning curves",
        "What went in",
        "Configuration and lineage",
    ]
    assert "<b>1 bar ahead</b><br>volatility: better than &lt;log-HAR&gt;<br>direction: a coin" in page
    assert "Out of sample, on market.db: 8 windows of 2 partitions, 2026-01-01 to 2026-02-01." in page
    assert "C 1h could not be judged: too short" in page
    assert "its code has changed" in page
    assert "a gap" in page
    assert "&quot;abc&quot;" in page
    assert "&lt;one&gt;" in page
    assert "<li>&lt;b&gt;</li>" in page


def test_a_run_that_was_not_judged_says_why():
    page = run_page(RunReport(summary=SUMMARY, metadata=METADATA, why_not="name the source"))
    assert "Not judged out of sample: name the source" in page
    assert titles(page) == ["Verdict", "Learning curves", "What went in", "Configuration and lineage"]


def test_a_run_without_a_history_has_a_page():
    summary = {**SUMMARY, "epochs": 0, "best_epoch": None, "val_loss": None, "val_loss_by_horizon": {}}
    page = run_page(RunReport(summary=summary, metadata={**METADATA, "history": []}))
    assert "Learning curves" not in titles(page)
