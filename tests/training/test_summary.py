from copy import deepcopy

from bitcorn_ray.training.summary import comparison, summary

METADATA = {
    "created": "2026-01-01T00:00:00+00:00",
    "timeframe": "1h",
    "partitions": [
        {"symbol": "A", "train": ["2020-01-02T", "2021-01-01T"], "validation": ["2021-02-01T", "2021-03-01T"]},
        {"symbol": "B", "train": ["2020-01-01T", "2021-01-01T"], "validation": ["2021-02-01T", "2021-03-02T"]},
    ],
    "feature_system": "v2",
    "feature_version": 1,
    "feature_cols": ["a", "b"],
    "data": {"train_windows": 10, "validation_windows": 5, "test_windows": 0},
    "model": {"horizons": [1, 4], "hidden_size": 64, "num_layers": 2, "seq_len": 8},
    "training": {"loss": "mse", "seed": 0},
    "calibration": {"method": "rolling"},
    "history": [{"epoch": 1, "val_loss_by_horizon": [9, 9]}, {"epoch": 2, "val_loss_by_horizon": [0.1, 0.2]}],
    "best_epoch": 2,
    "val_loss": 0.15,
}  # fmt: skip


def test_a_summary_spans_all_partitions_and_has_the_best_epochs_losses():
    brief = summary("models/a", METADATA)
    assert brief["symbols"] == ["A", "B"]
    assert brief["train"] == ["2020-01-01T", "2021-01-01T"]
    assert brief["validation"] == ["2021-02-01T", "2021-03-02T"]
    assert brief["test"] is None
    assert brief["val_loss_by_horizon"] == {"1": 0.1, "4": 0.2}
    assert (brief["epochs"], brief["best_epoch"], brief["features"]) == (2, 2, 2)


def test_a_run_that_was_not_trained_here_has_a_summary_too():
    bare = {
        k: METADATA[k]
        for k in ("timeframe", "feature_system", "feature_version", "feature_cols", "model", "calibration")
    }
    brief = summary("x", {**bare, "partitions": []})
    assert (brief["val_loss"], brief["val_loss_by_horizon"], brief["train"], brief["symbols"]) == (None, {}, None, [])


def test_a_comparison_has_only_the_fields_that_differ():
    other = deepcopy(METADATA)
    other["model"]["hidden_size"], other["val_loss"], other["created"] = 32, 0.2, "2027"
    result = comparison([summary("a", METADATA), summary("b", other)])
    assert result["differs"] == {"model.hidden_size": [64, 32]}
    assert result["losses"] == {
        "val_loss": [0.15, 0.2], "val_loss_by_horizon.1": [0.1, 0.1], "val_loss_by_horizon.4": [0.2, 0.2],
    }  # fmt: skip
    assert result["comparable"]


def test_losses_on_other_windows_or_of_another_kind_are_not_compared():
    other = deepcopy(METADATA)
    other["partitions"][0]["validation"] = ["2021-01-15T", "2021-03-01T"]
    other["training"]["loss"] = "hybrid"
    result = comparison([summary("a", METADATA), summary("b", other)])
    assert not result["comparable"]
    assert result["not_comparable_for"] == ["validation", "training.loss"]
