"""The pages: their code runs, their commands exist, their links lead somewhere, their tables are what the code says."""

import importlib.util
import re
import shlex
import shutil
import sqlite3
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import click
import pandas as pd
import pytest
import yaml
from click.testing import CliRunner
from small_runs import make_run
from test_structure import ROOMS

import bitcorn_ray
from bitcorn_ray.cli import main
from bitcorn_ray.datasets.folds import FoldsConfig
from bitcorn_ray.features.registry import SYSTEMS
from bitcorn_ray.market.partition import Partition
from bitcorn_ray.market.policy import CleaningPolicy
from bitcorn_ray.market.simulate import simulate_bars
from bitcorn_ray.sources.ingest import write_bars
from bitcorn_ray.training.config import RunConfig, validated
from bitcorn_ray.tuning.config import SweepConfig
from bitcorn_ray.tuning.evolution.config import EvolveConfig

ROOT = Path(__file__).parent.parent
PACKAGE = Path(bitcorn_ray.__file__).parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
NAMES = [page.name for page in PAGES]
# Without Ray or a training, so that they take no time; what all others take is parsed.
QUICK = {"inspect", "quality", "folds", "cache", "runs ls", "runs show", "runs compare"}
# The same code with less to do.
SMALLER = {r"\bepochs=\d+": "epochs=1", r"\bhidden_size=\d+": "hidden_size=8"}
FENCE = re.compile(r"^(?:<!-- not run: [^>\n]+ -->\n+)?```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block. runs: whether no mark before it says why not."""

    language: str
    text: str
    line: int
    runs: bool

    @property
    def file(self):
        """The file that the first line says it is, if any."""
        named = re.match(r"# ([\w.]+\.(?:py|yaml))\b", self.text)
        return named and named[1]

    def commands(self):
        """Command lines, and what a block says that each prints."""
        lines = self.text.splitlines() if self.language in ("", "console", "bash") else []
        starts = [n for n, line in enumerate(lines) if re.match(r"(\$ )?bitcorn ", line)]
        for n, end in zip(starts, [*starts, len(lines)][1:], strict=True):
            yield shlex.split(lines[n].removeprefix("$ "), comments=True)[1:], lines[n + 1 : end]


def blocks(page):
    text = page.read_text()
    return [
        Block(found[1], found[2], text[: found.start()].count("\n") + 1, not found[0].startswith("<"))
        for found in FENCE.finditer(text)
    ]


def resolved(words):
    """The command that words begin with, its name and the other words."""
    command, name, rest = main, [], list(words)
    while rest and rest[0] in ("--address", "--submit"):  # of the group, before the command
        rest = rest[2:] if rest[0] == "--address" else rest[1:]
    while isinstance(command, click.Group) and rest and rest[0] in command.commands:
        name.append(rest.pop(0))
        command = command.commands[name[-1]]
    assert name, f"no command: bitcorn {' '.join(words)}"
    return command, " ".join(name), rest


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """What the pages name: bars as databases and files, a run and another, a module of one's own."""
    made = tmp_path_factory.mktemp("template")
    (made / "data").mkdir()
    bitcoin, ether = simulate_bars(1_500, seed=1, gaps=2), simulate_bars(900, seed=2)
    write_bars(stored(BTCUSDT=bitcoin, ETHUSDT=ether), made / "market.db")
    with sqlite3.connect(made / "market.db") as database:
        for column in ("quote_volume", "trades"):
            database.execute(f"ALTER TABLE ohlcv ADD COLUMN {column} REAL")
        database.execute("UPDATE ohlcv SET quote_volume = volume * close, trades = round(volume)")
    database.close()
    shutil.copy(made / "market.db", made / "data" / "btcusdt_1h.db")
    columns = bitcoin.columns()
    rows = pd.DataFrame({"ts": columns.pop("timestamp"), **columns})
    for name in ("BTCUSDT_1h.csv", "ETHUSDT_1h.csv", "prices.csv", "Binance_BTCUSDT_1h.csv.gz"):
        rows.to_csv(made / name, index=False)
    twice = rows.drop(columns="close").assign(close_price=rows["close"], price_close=rows["close"])
    twice.to_csv(made / "XUSDT_1h.csv", index=False)
    make_run(made / "models" / "btc", {"BTCUSDT": bitcoin.take(slice(900))})
    shutil.copytree(made / "models" / "btc", made / "models" / "btc_wide")
    (own,) = (block for block in blocks(ROOT / "README.md") if block.file == "my_features.py")
    (made / own.file).write_text(own.text)
    return made


def stored(**bars):
    return [("simulated", Partition(symbol, "1h"), each) for symbol, each in bars.items()]


@pytest.fixture
def folder(template, request, tmp_path, monkeypatch):
    """A working folder with a copy of all that, and a cache at its default place."""
    working = tmp_path / "working"
    shutil.copytree(template, working)
    monkeypatch.chdir(working)
    monkeypatch.syspath_prepend(working)
    monkeypatch.delitem(sys.modules, "my_features", raising=False)
    monkeypatch.delenv("BITCORN_CACHE_DIR")
    if request.param == "folds.md":  # two years
        longer = stored(BTCUSDT=simulate_bars(19_000, seed=1), ETHUSDT=simulate_bars(900, seed=2))
        write_bars(longer, "market.db", on_conflict="replace")
    return working


@pytest.fixture
def exchange(monkeypatch):
    """Binance without a network, with an hour of bars."""
    ccxt = pytest.importorskip("ccxt", reason="the extra `exchange` is not installed")
    start = 1_577_836_800_000

    class Exchange(ccxt.Exchange):
        def describe(self):
            has = {"fetchOHLCV": True, "fetchTime": True}
            return self.deep_extend(super().describe(), {"id": "binance", "has": has, "timeframes": {"1h": "1h"}})

        def load_markets(self, *_):
            self.markets = {"BTC/USDT": {"symbol": "BTC/USDT"}}
            return self.markets

        def feature_value(self, *_):
            return 10

        def fetch_time(self, *_):
            return start + 2 * 3_600_000

        def fetch_ohlcv(self, symbol, timeframe, since=None, limit=None):
            return [[at, 1.0, 2.0, 0.5, 1.5, 7.0] for at in (start,) if at >= since]

    monkeypatch.setattr(ccxt, "binance", Exchange)


@pytest.mark.parametrize(("page", "folder"), [*zip(PAGES, NAMES, strict=True)], ids=NAMES, indirect=["folder"])
def test_what_a_page_shows_works(page, folder, request):
    names = {"__name__": page.stem}
    for block in blocks(page):
        text = block.text
        if "s3://bucket" in text and block.language == "python":
            text = text.replace("s3://bucket/bars", request.getfixturevalue("s3_uri"))
        if "opened_exchange" in text:
            request.getfixturevalue("exchange")
        for pattern, less in SMALLER.items():
            text = re.sub(pattern, less, text)
        if block.file:
            Path(block.file).write_text(block.text)
        if block.language == "yaml":
            check_configuration(block)
        elif block.language == "python" and block.runs:
            exec(compile("\n" * block.line + text, str(page), "exec"), names)
        else:
            for words, says in block.commands():
                run_command(words, says, folder)


def check_configuration(block):
    """Load a configuration as the command that takes it would."""
    values = yaml.safe_load(block.text)
    if "evolve" in values:
        EvolveConfig.load(values)
    elif "search" in values:
        SweepConfig.load(values)
    elif "folds" in values:
        validated(FoldsConfig, values["folds"], "folds")
    elif "db" in values:
        Path("run.yaml").write_text(block.text)
        RunConfig.load("run.yaml", {})
    else:
        assert set(values) == {"clean"}
        validated(CleaningPolicy, values["clean"], "clean")


def run_command(words, says, folder):
    """Parse a command; run it where it is quick, or where the page shows the error that it ends with."""
    command, name, rest = resolved(words)
    refused = says and says[0].startswith("bitcorn: ")
    if not refused:
        command.make_context(name, list(rest))
    if not refused and name not in QUICK and name.split()[0] not in QUICK:
        return
    if "--lineage" in words:  # the template's runs were never trained
        return
    done = CliRunner().invoke(main, words)
    if refused:
        assert done.stderr.splitlines()[-1].replace(str(folder), "/data") == says[0]
    assert done.exit_code == (2 if refused else 0), done.output


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_commands_in_the_text_exist(page):
    for told in re.findall(r"`bitcorn ([a-z][^`]*)`", FENCE.sub("", page.read_text())):
        command, name, rest = resolved(re.split(r"[\s|\[\]]+", told))
        known = {option for each in command.params for option in each.opts}
        assert {word.partition("=")[0] for word in rest if word.startswith("--")} <= known, f"{name}: {told}"


def headings(page):
    text = FENCE.sub("", page.read_text())
    titles = (re.sub(r"[^\w\s-]", "", title).strip().lower() for title in re.findall(r"^#+ (.+)$", text, re.MULTILINE))
    return {re.sub(r"[\s-]+", "-", title) for title in titles}


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CHANGELOG.md"], ids=[*NAMES, "CHANGELOG.md"])
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", FENCE.sub("", page.read_text())):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        assert not anchor or anchor in headings(target), link


def test_every_page_is_in_the_navigation():
    text = (ROOT / "mkdocs.yml").read_text()
    assert {page.name for page in (ROOT / "docs").glob("*.md")} == set(re.findall(r"[\w-]+\.md", text))


def test_every_public_name_is_in_the_reference():
    shown = re.findall(r"bitcorn_ray\.(\w+)(?!\w|\.)", (ROOT / "docs" / "api.md").read_text())
    assert set(bitcorn_ray.__all__) <= set(shown)


def script(name):
    """Load a script of docs/."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def tables():
    return script("write_features")


def test_the_page_of_the_architecture_is_the_codes():
    architecture = script("write_architecture")
    page = (ROOT / "docs" / "architecture.md").read_text()
    assert architecture.written(page) == page, "stale: run python docs/write_architecture.py"
    assert sorted(architecture.rooms()) == sorted(room for room in ROOMS if (PACKAGE / room).is_dir())
    for name, picture in architecture.pictures().items():
        assert (ROOT / "docs" / "images" / name).read_text() == picture, name
    files = [PACKAGE / file for _, file, _ in architecture.STEPS]
    results = [result for _, _, result in architecture.STEPS if result[0].isupper()]
    assert all(file.exists() for file in files)
    code = "".join(path.read_text() for path in PACKAGE.rglob("*.py"))
    assert [result for result in results if f"class {result}" not in code] == []


def test_the_tables_of_features_are_the_codes(tables):
    page = (ROOT / "docs" / "features.md").read_text()
    assert tables.written(page) == page, "stale: run python docs/write_features.py"


@pytest.mark.parametrize("name", list(SYSTEMS))
def test_every_feature_has_a_formula(tables, name):
    told = {each: re.compile(re.sub("<[a-z]>", r"\\d+", each)) for each in tables.features_of(name)}
    found = {feature: [each for each, pattern in told.items() if pattern.fullmatch(feature)] for feature in
             SYSTEMS[name].features}  # fmt: skip
    assert {feature: each for feature, each in found.items() if len(each) != 1} == {}
    assert {each for one in found.values() for each in one} == set(told)


def test_every_source_is_given_in_full(tables):
    text = (ROOT / "docs" / "features.md").read_text()
    cited = {each.strip() for row in re.findall(r"\| ([^|]*\(\d{4}\)[^|]*) \|$", text, re.MULTILINE)
             for each in re.findall(tables.CITATION, row)}  # fmt: skip
    assert len(cited) > 10
    assert cited <= set(re.findall(r"^- (.+? \(\d{4}\)):", text, re.MULTILINE))


def test_the_pages_build_without_a_warning(tmp_path):
    for module in ("mkdocs", "material", "mkdocstrings"):
        pytest.importorskip(module, reason="the extra `docs` is not installed")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "train_multihorizon_model" in (tmp_path / "site" / "api.html").read_text()
