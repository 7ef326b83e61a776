from rich.console import Console

from bitcorn_ray.report.lineage import lineage_tables, reproduction_tables

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
RESULT = {
    "run": "models/a",
    "out": None,
    "data": ["X 1h: bars have changed"],
    "appended": {"X 1h": 3},
    "code": [],
    "versions": ["numpy: 1 became 2"],
    "machines": [],
    "epochs": [{"epoch": 1, "train_loss": [0.5, 0.5], "val_loss": [0.25, None]}],
    "loss_difference": None,
    "weight_difference": 1e-3,
    "bitwise": False,
    "equal": False,
}


def printed(parts):
    console = Console(width=200)
    with console.capture() as caught:
        for part in parts:
            if part is not None:
                console.print(part, markup=not isinstance(part, str))
    return caught.get()


def test_a_lineage_is_told_with_its_partitions_as_they_are_named():
    told = printed(lineage_tables(RECORDED))
    for part in ("[bold]X[/bold] 1h", "1,000", "abcdef01", "seed", "3, not deterministic", "2 nodes", "2 x x86, AVX2"):
        assert part in told
    assert "horizons 1 4" in told


def test_a_reproduction_is_told_with_what_differs():
    told = printed(reproduction_tables(RESULT))
    for part in ("0.250000", "data: X 1h: bars have changed", "version: numpy: 1 became 2", "3 bars appended since"):
        assert part in told
    assert "DIFFERENT, where equal to 1e-6 in the losses is promised" in told
    same = {**RESULT, "equal": True, "bitwise": True, "loss_difference": 0.0, "weight_difference": 0.0}
    assert "equal, where equal to the bit is promised: losses and weights are the same" in printed(
        reproduction_tables(same)
    )
