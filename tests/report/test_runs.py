from dataclasses import replace

from rendered import printed, titles
from small_evaluations import EVALUATION

from bitcorn_ray.market.diagnosis import diagnose
from bitcorn_ray.market.partition import Partition
from bitcorn_ray.report.forecasts import Fan, FanPanel
from bitcorn_ray.report.quality import PartitionQuality
from bitcorn_ray.report.runs import (
    RunReport,
    comparison_tables,
    lineage_tables,
    reproduction_tables,
    run_facts,
    run_page,
    runs_table,
)
from bitcorn_ray.tuning.reproduce import Reproduction

ROW = {
    "run": "models/a", "created": "2026-01-01T10:30:00+00:00", "imported_from": None, "symbols": ["A", "B", "C", "D"],
    "timeframe": "1h", "feature_system": "v4:short=12", "feature_version": 1, "features": 20,
    "train": ["2020-01-01T00:00:00Z", "2021-01-01T00:00:00Z"], "validation": None, "test": None,
    "windows": {"train": 12_345, "validation": None, "test": None},
    "model": {"horizons": [1, 4], "hidden_size": 64, "num_layers": 2, "seq_len": 48, "cell": "gru", "skip": True},
    "training": {"loss": "mse", "horizon_weights": [1.0, 2.0], "checkpoint_minutes": None},
    "epochs": 7, "best_epoch": 5, "val_loss": 0.123456, "val_loss_by_horizon": {"1": 0.1, "4": 0.15},
    "calibration": "rolling", "versions": {"torch": "2"},
}  # fmt: skip


def test_a_list_has_a_row_per_run_even_if_unreadable():
    text = printed(runs_table([{"name": "models/a", **ROW}, {"name": "models/b", "error": "is damaged"}]))
    for part in ("models/a", "2026-01-01 10:30", "A, B, C and 1 more 1h", "v4:short=12", "gru 2 x 64, skip", "5 of 7"):
        assert part in text
    assert "0.1235" in text
    assert "models/b" in text
    assert "cannot be read" in text


def test_all_facts_of_a_run_are_shown():
    text = printed(run_facts(ROW))
    for part in (
        "A, B, C, D, 1h", "20 of v4:short=12, version 1", "12,345, 2020-01-01 00:00 to 2021-01-01 00:00", "48 bars",
        "loss mse, horizon_weights 1.0, 2.0", "7, the best was 5", "1: 0.1000, 4: 0.1500", "rolling", "torch 2",
    ):  # fmt: skip
        assert part in text
    assert "test windows" not in text
    imported = {**ROW, "imported_from": "old/x", "symbols": [], "epochs": 0, "best_epoch": None, "val_loss": None}
    assert "unknown, 1h" in printed(run_facts(imported))
    assert "-" in printed(runs_table([{"name": "x", **imported}]))


def test_a_comparison_has_a_column_per_run_and_a_warning():
    result = {
        "runs": ["a", "b"],
        "differs": {"model.hidden_size": [64, 32], "symbols": [["A"], ["A", "B"]]},
        "losses": {"val_loss": [0.1, None]},
        "comparable": False,
        "not_comparable_for": ["symbols"],
    }
    made, warning = comparison_tables(result)
    text = printed(made)
    for part in ("model.hidden_size", "64", "32", "A, B", "0.1000", "-"):
        assert part in text
    assert "not comparable: symbols differ" in warning
    assert len(comparison_tables({**result, "comparable": True})) == 1


RECORDED = {
    "run": "models/a",
    "created": "2026-01-01T00:00:00+00:00",
    "data": {
        "source": "s3://bucket/bars",
        "digest": "d" * 32,
        "partitions": [
            {
                "symbol": "[bold]X[/bold]",
                "timeframe": "1h",
                "bars": 1_000,
                "first": "2023-01-01T00:00:00Z",
                "last": "2023-02-01T00:00:00Z",
                "chunks": [{"key": "abcdef0123456789"}],
            }
        ],
    },
    "code": {"learning": "e" * 32},
    "config": {"db": "m.db", "symbols": [], "model": {"horizons": [1, 4]}},
    "cluster": {
        "ray": True,
        "nodes": 2,
        "cpus": 4.0,
        "gpus": 0.0,
        "workers": [{"cpu": "x86", "instructions": "AVX2", "threads": 1, "gpu": None}] * 2,
    },
    "features": None,
    "versions": {"torch": "2"},
    "seeds": {"training": 3},
    "deterministic": False,
    "precision": "float32",
}
RESULT = Reproduction(
    run="models/a",
    out=None,
    data=("X 1h: bars have changed",),
    appended={"X 1h": 3},
    code=(),
    versions=("numpy: 1 became 2",),
    machines=(),
    epochs=({"epoch": 1, "train_loss": [0.5, 0.5], "val_loss": [0.25, None]},),
    loss_difference=None,
    weight_difference=1e-3,
    bitwise=False,
    equal=False,
)


def test_a_lineage_has_its_facts_and_partitions():
    text = printed(*lineage_tables(RECORDED))
    for part in ("[bold]X[/bold] 1h", "1,000", "abcdef01", "seed", "3, not deterministic", "2 nodes", "2 x x86, AVX2"):
        assert part in text
    assert "horizons 1 4" in text


def test_a_reproduction_has_the_losses_and_all_differences():
    text = printed(*reproduction_tables(RESULT))
    for part in ("0.250000", "data: X 1h: bars have changed", "version: numpy: 1 became 2", "3 bars appended since"):
        assert part in text
    assert "DIFFERENT, where equal to 1e-6 in the losses is promised" in text
    same = replace(RESULT, equal=True, bitwise=True, loss_difference=0.0, weight_difference=0.0)
    same = printed(*reproduction_tables(same))
    assert "equal, where equal to the bit is promised: losses and weights are the same" in same


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


def test_the_page_of_a_run_begins_with_the_verdict(random_bars):
    panel = FanPanel(name="A 1h", times=["2026-01-01T00:00:00"], closes=[1.0], fans=[FAN])
    bars = random_bars(100)
    bars.close[10] = float("nan")
    quality = PartitionQuality(partition=Partition("A", "1h"), source="m.db", diagnosis=diagnose(bars, "1h"))
    page = run_page(
        RunReport(summary=SUMMARY, metadata=METADATA, evaluation=EVALUATION, fans=[panel], quality=[quality])
    )
    assert titles(page) == [
        "Verdict",
        "Latest forecast: A 1h",
        "Skill against each baseline",
        "Calibration",
        "Learning curves",
        "Data",
        "Configuration and lineage",
    ]
    assert "<b>1 bar ahead</b><br>volatility: better than &lt;log-HAR&gt;<br>direction: a coin" in page
    assert "Out of sample, on market.db: 8 windows of 2 partitions, 2026-01-01 to 2026-02-01." in page
    assert "C 1h could not be evaluated: too short" in page
    assert "its code has changed" in page
    assert "1 row with missing values" in page
    assert "&quot;abc&quot;" in page
    assert "&lt;one&gt;" in page
    assert "<li>&lt;b&gt;</li>" in page


def test_a_run_without_an_evaluation_says_why():
    page = run_page(RunReport(summary=SUMMARY, metadata=METADATA, why_not="name the source"))
    assert "Not evaluated out of sample: name the source" in page
    assert titles(page) == ["Verdict", "Learning curves", "Data", "Configuration and lineage"]


def test_a_run_without_a_history_has_a_page():
    summary = {**SUMMARY, "epochs": 0, "best_epoch": None, "val_loss": None, "val_loss_by_horizon": {}}
    page = run_page(RunReport(summary=summary, metadata={**METADATA, "history": []}))
    assert "Learning curves" not in titles(page)
