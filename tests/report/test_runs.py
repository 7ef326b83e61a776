import io

from rich.console import Console

from bitcorn_ray.report.runs import comparison_tables, run_table, runs_table

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


def printed(table):
    console = Console(file=io.StringIO(), width=200)
    console.print(table)
    return console.file.getvalue()


def test_a_list_has_a_row_a_run_and_says_what_is_wrong_with_one():
    text = printed(runs_table([{"name": "models/a", **ROW}, {"name": "models/b", "error": "is damaged"}]))
    for part in ("models/a", "2026-01-01 10:30", "A, B, C and 1 more 1h", "v4:short=12", "gru 2 x 64, skip", "5 of 7"):
        assert part in text
    assert "0.1235" in text
    assert "models/b" in text
    assert "cannot be read" in text


def test_one_run_is_told_in_full():
    text = printed(run_table(ROW))
    for part in (
        "A, B, C, D, 1h", "20 of v4:short=12, version 1", "12,345, 2020-01-01 00:00 to 2021-01-01 00:00", "48 bars",
        "loss mse, horizon_weights 1.0, 2.0", "7, the best was 5", "1: 0.1000, 4: 0.1500", "rolling", "torch 2",
    ):  # fmt: skip
        assert part in text
    assert "test windows" not in text
    imported = {**ROW, "imported_from": "old/x", "symbols": [], "epochs": 0, "best_epoch": None, "val_loss": None}
    assert "not known, 1h" in printed(run_table(imported))
    assert "-" in printed(runs_table([{"name": "x", **imported}]))


def test_a_comparison_has_a_column_a_run_and_a_warning():
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
