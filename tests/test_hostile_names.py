"""Names from outside that mean harm: as folders, as keys, on a page, on a terminal; and pickles from outside."""

import ast
import json
import os
import pickle
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from click.testing import CliRunner
from small_evolutions import evolve_here, evolve_values
from small_sweeps import make_sweep, sweep_values

import bitcorn_ray
from bitcorn_ray import evolve
from bitcorn_ray.cli import main
from bitcorn_ray.errors import BitcornError
from bitcorn_ray.models.neural.checkpoint import CheckpointFolder
from bitcorn_ray.report.evolution import evolution_page
from bitcorn_ray.training.run import load_run
from bitcorn_ray.tuning.folder import SweepFolder

SCRIPT = "<script>alert(1)</script>"
NAMES = [
    "../../x",
    "a/b",
    "..",
    ".",
    "C:\\x",
    "n\0ul",
    "new\nline",
    "y" * 150,
    "/etc/x",
    "c%2F..%2Fd",
    "~root",
    "s3://b/x",
    "symbol=q/timeframe=1h",
    "\x1b[31mred",
    "[/bold]",
    SCRIPT,
]
TOO_LONG = "z" * 5_000


@pytest.fixture
def box(tmp_path, monkeypatch):
    """A folder deep in an empty one, in which everything is to stay."""
    inside = tmp_path / "a" / "b" / "box"
    inside.mkdir(parents=True)
    monkeypatch.chdir(inside)
    monkeypatch.setenv("BITCORN_CACHE_DIR", "cache")
    return inside


def bitcorn(*arguments, status=0):
    done = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert done.exit_code == status, done.output[-2_000:]
    assert "\x1b" not in done.output
    return done


def write_file(bars, name, path):
    columns = bars.columns()
    times = columns.pop("timestamp")
    pq.write_table(pa.table({"symbol": [name] * len(times), "timestamp": times, **columns}), path)


def files_below(folder):
    return sorted(str((Path(at) / name).relative_to(folder)) for at, _, names in os.walk(folder) for name in names)


def require_text(page):
    """A page shows the name as text, neither as a tag nor as what Plotly would take for one."""
    assert "alert(1)" in page
    assert "<script>alert" not in page
    assert "\\u003cscript" not in page


def require_contained(box):
    """Nothing was written beside the box, and in the cache, runs and sweeps no file is named by a symbol."""
    outside = box.parent.parent.parent
    assert [each.name for each in outside.iterdir()] == ["a"]
    assert [each.name for each in (outside / "a").iterdir()] == ["b"]
    assert [each.name for each in box.parent.iterdir()] == ["box"]
    for name in files_below(box):
        top = name.split("/")[0]
        assert top in ("cache", "exported", "run", "sweep", "evolved", "market.db") or "/" not in name, name
        assert top == "exported" or not any(odd in name for odd in ("..", "\\", "%", "~", "\n", "script", "yyy")), name


def test_no_name_leaves_its_folder_by_any_command(box, random_bars):
    for number, name in enumerate(NAMES):
        write_file(random_bars(400, seed=number), name, f"f{number}_1h.parquet")
    bitcorn("ingest", *(f"f{number}_1h.parquet" for number in range(len(NAMES))), "--db", "market.db")
    seen = json.loads(bitcorn("inspect", "market.db", "--json").stdout)["partitions"]
    assert {each["symbol"] for each in seen} == set(NAMES)
    bitcorn("inspect", "market.db")
    bitcorn("quality", "market.db", "--out", "quality.html")
    bitcorn("export", "market.db", "--to", "exported")
    folders = [each.name for each in (box / "exported").iterdir()]
    assert len(folders) == len(NAMES)
    assert all(folder.startswith("symbol=") for folder in folders)
    back = json.loads(bitcorn("inspect", "exported", "--json").stdout)["partitions"]
    assert {each["symbol"] for each in back} == set(NAMES)
    model = {"horizons": [1, 4], "seq_len": 8, "hidden_size": 4, "num_layers": 1, "reference_span": 24}
    values = {
        **{"db": "market.db", "symbols": NAMES, "timeframe": "1h", "out": "run", "workers": 0, "model": model},
        **{"training": {"epochs": 1, "threads": 1, "test_frac": 0.2, "batch_size": 256}},
        "folds": {"train": "8d", "validation": "2d", "test": "2d", "last": 1},
    }
    Path("folds.yaml").write_text(json.dumps(values))
    bitcorn("folds", "folds.yaml", "--plot", "folds.html")
    del values["folds"]
    Path("run.yaml").write_text(json.dumps(values))
    bitcorn("train", "--config", "run.yaml")
    for command in (("ls", "."), ("show", "run"), ("show", "run", "--lineage"), ("compare", "run", "run")):
        bitcorn("runs", *command)
    bitcorn("forecast", "run", "exported", "--out", "forecasts.parquet", "--plot", "fan.html")
    assert set(pq.read_table("forecasts.parquet")["symbol"].to_pylist()) == set(NAMES)
    bitcorn("evaluate", "run", "market.db", "--out", "evaluation.json")
    bitcorn("watch", "run", "market.db", "--once")
    bitcorn("cache", "ls")
    bitcorn("cache", "explain", "market.db")
    for page in ("quality.html", "fan.html", "folds.html"):
        content = Path(page).read_text()
        require_text(content)
    require_contained(box)


def test_a_name_that_no_folder_can_have_is_told_before_anything_is_written(box, random_bars):
    write_file(random_bars(300), TOO_LONG, "f_1h.parquet")
    bitcorn("ingest", "f_1h.parquet", "--db", "market.db")
    refused = bitcorn("export", "market.db", "--to", "exported", status=2)
    assert "its folder's name would have 5,007 bytes, and 255 is the most" in refused.stderr
    assert len(refused.stderr) < 300
    bitcorn("quality", "market.db", "--out", "quality.html")
    assert "exported" not in files_below(box)
    require_contained(box)


@pytest.mark.parametrize("name", ["../../x", SCRIPT, "n\0ul"])
def test_no_name_leaves_the_folder_of_a_sweep_or_an_evolution(box, random_bars, monkeypatch, name):
    write_file(random_bars(1_500), name, "f_1h.parquet")
    bitcorn("ingest", "f_1h.parquet", "--db", "market.db")
    make_sweep(sweep_values("market.db", "sweep", symbol=name))
    assert SweepFolder("sweep").bars()[0].symbol == name
    bitcorn("leaderboard", "sweep")
    evolve_here(monkeypatch)
    evolve(evolve_values("market.db", "evolved", symbol=name))
    assert SCRIPT not in Path("evolved/evolution.html").read_text()
    require_contained(box)


def test_names_of_features_are_text_on_the_page_of_an_evolution():
    one = {"name": "t1", "count": 1, "features": [SCRIPT], "loss": 1.0, "held_out_loss": 1.0, "search": {}}
    generation = {"generation": 1, "trained": 1, "best": 1.0, "front": ["t1"], "survival": {SCRIPT: 1.0}}
    importance = [{"feature": SCRIPT, "increase": 0.1, "standard_error": None}]
    page = evolution_page(
        {
            **{"ended": "done", "tried": 1, "winner": "t1", "generations": [generation], "importance": importance},
            **{"front": [one], "compared": [one | {"name": SCRIPT}]},
        }
    )
    require_text(page)


class Harm:
    """A pickle that writes a file when it is read."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path(self.path).write_text, ("harm",)


def test_a_pickle_in_a_run_or_a_checkpoint_is_never_read(box, market_db):
    values = {"db": str(market_db), "symbol": "AAAUSDT", "timeframe": "1h", "out": "run", "workers": 0}
    model = {"horizons": [1], "seq_len": 8, "hidden_size": 4, "num_layers": 1}
    Path("run.yaml").write_text(json.dumps({**values, "model": model, "training": {"epochs": 1, "threads": 1}}))
    bitcorn("train", "--config", "run.yaml")
    harm = pickle.dumps(Harm(box / "harm"))
    Path("run/scaler.pkl").write_bytes(harm)
    bitcorn("forecast", "run", market_db)  # the scaler's numbers are in metadata.json
    metadata = json.loads(Path("run/metadata.json").read_text())
    del metadata["files"]["model.pt"]
    Path("run/metadata.json").write_text(json.dumps(metadata))
    for content in (harm, None):
        if content is None:
            torch.save(Harm(box / "harm"), "run/model.pt")
        else:
            Path("run/model.pt").write_bytes(content)
        with pytest.raises(BitcornError, match="is damaged"):
            load_run("run")
    checkpoints = CheckpointFolder("checkpoints")
    Path("checkpoints").mkdir()
    torch.save({"step": 1, "identity": "", "model": Harm(box / "harm")}, "checkpoints/step-0000000001.pt")
    assert checkpoints.load() is None
    Path("old").mkdir()
    Path("old/model.json").write_text(
        json.dumps({"feature_cols": ["a"], "seq_len": 8, "horizons": [1], "num_layers": 1, "hidden": 4})
    )
    torch.save({"lstm.weight": Harm(box / "harm")}, "old/model.pt")
    Path("old/scaler.pkl").write_bytes(harm)
    bitcorn("runs", "import", "old", "--timeframe", "1h", "--out", "new", status=2)
    assert not Path("harm").exists()


READS = {"torch.load": {"weights_only"}, "np.load": {"allow_pickle"}}
# Where a pickle is read: a scaler's, once --trust-pickle is given; and what Ray carries between our own processes.
MAY_UNPICKLE = {
    "training/legacy.py",
    "forecasting/distribute.py",
    *(f"on_ray/{name}.py" for name in ("map", "pickling", "nodes", "versions")),
}


@pytest.mark.parametrize("path", sorted(Path(bitcorn_ray.__file__).parent.rglob("*.py")), ids=lambda path: path.name)
def test_no_source_reads_a_pickle_from_storage(path):
    name = path.relative_to(Path(bitcorn_ray.__file__).parent).as_posix()
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        if called in READS:
            given = {each.arg: ast.unparse(each.value) for each in node.keywords}
            safe = {"weights_only": "True", "allow_pickle": "False"}
            assert all(given.get(argument) == safe[argument] for argument in READS[called]), ast.unparse(node)
        if called.endswith(("joblib.load", "pickle.load", "pickle.loads", "read_pickle")):
            assert name in MAY_UNPICKLE, ast.unparse(node)
