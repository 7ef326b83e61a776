"""The examples are understood by the code that reads them, and what is written beside them is true."""

import re
import shlex
from pathlib import Path

import pytest
import yaml

from bitcorn_ray.cli import main
from bitcorn_ray.features.audit import audit
from bitcorn_ray.features.registry import find_system
from bitcorn_ray.training.config import RunConfig
from bitcorn_ray.tuning.config import SweepConfig

_ROOT = Path(__file__).parent.parent.parent
_CLUSTER = _ROOT / "cluster"
_EXAMPLES = _CLUSTER / "examples"


def test_the_folder_holds_what_is_tested_here_and_nothing_else():
    assert sorted(path.name for path in _EXAMPLES.iterdir() if path.name != "__pycache__") == [
        "features.py",
        "sweep.yaml",
        "train.yaml",
    ]
    table = (_CLUSTER / "README.md").read_text()
    for path in _CLUSTER.iterdir():
        assert f"| `{path.name}" in table or path.name in ("README.md", "__pycache__"), f"{path.name} is not told of"


def test_the_training_is_understood():
    config = RunConfig.load(_EXAMPLES / "train.yaml", {})
    assert config.all_symbols == ("BTCUSDT", "ETHUSDT")
    assert config.workers == (1, 4)
    assert find_system(config.features).name == "vol"
    assert config.training.test_frac == 0.2


def test_the_sweep_is_understood():
    config = SweepConfig.load(_EXAMPLES / "sweep.yaml")
    assert config.variants() == ("v2", "vol")
    assert config.sweep.trials == 64
    assert config.folds.last == 6


def test_the_features_look_at_no_future(monkeypatch, random_bars):
    monkeypatch.chdir(_ROOT)
    monkeypatch.syspath_prepend(str(_ROOT))
    system = find_system("cluster.examples.features:momentum:window=50")
    report = audit(random_bars(600, seed=3), system, cuts=8, seed=0)
    assert report.passed, report
    assert system.features == ("momentum", "range")


def commands(text):
    """Command lines of bitcorn in a text, without what comes before and after them."""
    for line in re.findall(r"^(?:# |\$ )?(bitcorn .*?)(?:\s+#.*)?$", text, flags=re.MULTILINE):
        yield shlex.split(line)


@pytest.mark.parametrize(
    "path", [_CLUSTER / "README.md", *_EXAMPLES.iterdir(), _ROOT / "docs" / "cluster.md"], ids=lambda path: path.name
)
def test_every_command_that_is_told_is_understood(path):
    if path.is_dir():
        pytest.skip("no file")
    told = list(commands(path.read_text()))
    assert told
    for words in told:
        context = main.make_context("bitcorn", words[1:])
        name, command, rest = main.resolve_command(context, [*context._protected_args, *context.args])
        if not context.params["submit"]:
            command.make_context(name, rest, parent=context)


def test_paths_of_the_examples_are_shared_by_all_nodes():
    for name in ("train.yaml", "sweep.yaml"):
        values = yaml.safe_load((_EXAMPLES / name).read_text())
        assert values["db"].startswith("s3://bitcorn/")
        assert values["out"].startswith(("/shared/", "s3://bitcorn/"))
