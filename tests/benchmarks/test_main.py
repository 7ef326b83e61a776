import json

import pytest
from click.testing import CliRunner

from benchmarks import __main__ as command
from benchmarks.results import load_results
from benchmarks.timing import Figure

MEASURED = {
    "load": [Figure("ours", (0.1, 0.2, 0.4), target=0.3).beside(Figure("theirs", (0.4,))), Figure("theirs", (0.4,))],
    "read": [],  # it lacks something here
}
PAGE = """people's text
<!-- benchmark:load -->
<!-- /benchmark:load -->
<!-- benchmark:read -->
read before
<!-- /benchmark:read -->
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "page.md").write_text(PAGE)
    monkeypatch.setattr(command, "PAGE", tmp_path / "page.md")
    monkeypatch.setattr(command, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(command, "find_benchmark", lambda name: lambda: MEASURED[name])
    return tmp_path


def run(*arguments):
    return CliRunner().invoke(command.main, arguments, catch_exceptions=False)


def test_it_prints_ratio_spread_and_verdict(folder):
    shown = " ".join(run("load").stdout.split())
    for part in ("ours", "200.0 ms", "100.0 ms", "400.0 ms", "0.5 x", "yes", "Python"):
        assert part in shown
    assert not (folder / "results").exists()
    assert (folder / "page.md").read_text() == PAGE


def test_json_has_the_numbers(folder):
    (result,) = json.loads(run("load", "--json").stdout)
    assert result["name"] == "load"
    assert result["rows"][0]["ratio"] == 0.5
    assert result["machine"]["cores"] >= 1


def test_write_keeps_the_result_and_touches_no_other_section(folder):
    run("load", "read", "--write")
    assert list(load_results(folder / "results")) == ["load"]
    page = (folder / "page.md").read_text()
    assert "| ours | 300 ms | 200.0 ms |" in page
    assert page.startswith("people's text\n<!-- benchmark:load -->")
    assert page.endswith(PAGE[PAGE.index("<!-- benchmark:read") :])


def test_what_was_measured_before_a_failure_is_kept(folder):
    with pytest.raises(KeyError):
        run("load", "hit", "--write")
    assert list(load_results(folder / "results")) == ["load"]


def test_an_unknown_name_is_refused(folder):
    assert run("nothing").exit_code == 2
