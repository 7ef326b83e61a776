"""What a feature function reads belongs to its key, or is refused."""

import os
import re
import sqlite3
import sys
import threading

import numpy as np
import pandas as pd
import pytest

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.features.audit import audit
from bitcorn_ray.features.compute import prepare
from bitcorn_ray.features.identity import identify
from bitcorn_ray.features.reads import watched_reads
from bitcorn_ray.features.registry import find_system


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A function that writes a module of a feature system and imports it anew."""
    monkeypatch.syspath_prepend(tmp_path)

    def make(body, declaration="", name="own_reads"):
        sys.modules.pop(name, None)
        text = "import os, sqlite3, subprocess\nfrom pathlib import Path\nimport numpy as np\nimport pandas as pd\n"
        text += "from bitcorn_ray import feature_system\n\n\n"
        text += f"@feature_system(name='own', warmup=0, features=['f']{declaration})\n"
        text += f"def own(bars):\n    {body}\n    return {{'f': bars.close * factor}}\n"
        (tmp_path / f"{name}.py").write_text(text)
        return find_system(f"{name}:own")

    yield make
    for name in [name for name in sys.modules if name.startswith("own_reads")]:
        del sys.modules[name]


@pytest.mark.parametrize(
    ("body", "what"),
    [
        ("factor = float(open({path!r}).read())", "reads .*factor.txt"),
        ("factor = float(Path({path!r}).read_text())", "reads .*factor.txt"),
        ("factor = float(np.loadtxt({path!r}))", "reads .*factor.txt"),
        ("factor = float(pd.read_csv({path!r}, header=None)[0][0])", "reads .*factor.txt"),
        ("factor = float(os.environ['OWN_FACTOR'])", "reads the variable OWN_FACTOR"),
        ("factor = float(os.getenv('OWN_FACTOR', '1'))", "reads the variable OWN_FACTOR"),
        (
            "factor = float(len(sqlite3.connect(':memory:').execute('select 1').fetchall()))",
            "opens the database :memory:",
        ),
        ("factor = float(subprocess.run(['echo', '2'], capture_output=True).stdout)", "runs echo"),
        (
            "factor = 2.0\n    try:\n        open({path!r}).close()\n    except Exception:\n        pass",
            "reads .*factor.txt",
        ),
    ],
)
def test_what_is_not_declared_is_refused_with_the_remedy(module, tmp_path, monkeypatch, random_bars, cache, body, what):
    (tmp_path / "factor.txt").write_text("2.0")
    monkeypatch.setenv("OWN_FACTOR", "2.0")
    system = module(body.format(path=str(tmp_path / "factor.txt")))
    with pytest.raises(BitcornError, match=rf"{what}.*feature_system\(files="):
        prepare(random_bars(400), system, cache, None)
    assert list(cache.storage.files("features")) == []
    (finding,) = audit(random_bars(400), system).findings
    assert re.search(what, finding.detail)


def test_the_content_of_a_declared_file_is_in_the_key_and_its_place_is_not(module, tmp_path, random_bars, cache):
    bars, body = random_bars(400), "factor = float((Path(__file__).parent / 'factor.txt').read_text())"

    def prepared(content, name):
        (tmp_path / "factor.txt").write_text(content)
        return prepare(bars, module(body, ", files=['factor.txt']", name), cache, None)

    first, other = prepared("2.0", "own_reads"), prepared("3.0", "own_reads")
    np.testing.assert_allclose(first.columns["f"], 2 * bars.close, rtol=1e-6)
    np.testing.assert_allclose(other.columns["f"], 3 * bars.close, rtol=1e-6)
    assert not other.hit
    assert prepared("2.0", "own_reads").hit


def test_the_value_of_a_declared_variable_is_in_the_key_but_is_not_written_down(
    module, monkeypatch, random_bars, cache
):
    system = module("factor = float(os.environ['OWN_FACTOR'])", ", env=['OWN_FACTOR']")
    digests = []
    for value in ("2.125", "3.0", "2.125"):
        monkeypatch.setenv("OWN_FACTOR", value)
        identity = identify(system)
        assert "2.125" not in str(identity.facts)
        digests.append(identity.digest)
        bars = random_bars(400)
        found = prepare(bars, system, cache, None).columns["f"]
        np.testing.assert_allclose(found, float(value) * bars.close, rtol=1e-6)
    assert digests[0] == digests[2] != digests[1]


def test_a_declared_file_that_is_gone_is_told(module, random_bars):
    system = module("factor = 1.0", ", files=['gone.csv']")
    with pytest.raises(BitcornError, match=r"declares gone\.csv, which cannot be read"):
        identify(system)


def test_what_libraries_read_does_not_count(module, random_bars, cache):
    body = (
        "factor = 1.0\n    pd.Timestamp('2024-06-01').tz_localize('Pacific/Auckland')\n    import json.tool, zoneinfo\n"
        "    zoneinfo.ZoneInfo('Asia/Kathmandu')\n    pd.get_option('display.width')"
    )
    prepare(random_bars(400), module(body), cache, None)


def test_only_the_thread_that_computes_is_watched(tmp_path):
    (tmp_path / "x").write_text("")
    with watched_reads() as reads:
        other = threading.Thread(target=lambda: (open(tmp_path / "x").close(), os.environ.get("HOME")))
        other.start()
        other.join()
    assert (reads.files, reads.variables, reads.others) == ([], [], [])
    with watched_reads() as reads:
        open(tmp_path / "x").close()
        os.environ.get("OWN_NOTHING")
        sqlite3.connect(":memory:").close()
    assert reads.files == [str(tmp_path / "x")]
    assert (reads.variables, reads.others) == (["OWN_NOTHING"], ["opens the database :memory:"])
    open(tmp_path / "x").close()
    assert len(reads.files) == 1
    with watched_reads() as reads, open(tmp_path / "log", "w") as log:  # what is written decides no feature
        log.write("done")
    assert reads.files == []


def test_the_environment_stays_what_it_was(monkeypatch):
    with watched_reads():
        pass
    monkeypatch.setenv("OWN_NEW", "1")
    assert os.environ["OWN_NEW"] == "1"
    assert "OWN_NEW" in os.environ
    assert dict(os.environ)["OWN_NEW"] == "1"
    monkeypatch.delenv("OWN_NEW")
    assert os.environ.get("OWN_NEW") is None
    assert pd.Series(dict(os.environ)).index.is_unique
