import json

import pytest


def test_the_page_is_named(run, market_db, tmp_path):
    done = run("report", market_db, "--out", tmp_path / "page.html")
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith(f"report on the source {market_db}: {tmp_path / 'page.html'}, ")
    told = json.loads(run("report", market_db, "--symbols", "BBBUSDT", "--out", tmp_path / "b.html", "--json").stdout)
    assert told["kind"] == "source"
    assert told["bytes"] == (tmp_path / "b.html").stat().st_size
    assert "AAAUSDT" not in (tmp_path / "b.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [(["nothing.db"], "nothing.db"), (["{db}", "--out", "{db}/page.html"], "the report cannot be written to")],
)
def test_mistakes_are_one_line(run, market_db, arguments, told):
    done = run("report", *(each.format(db=market_db) for each in arguments))
    assert done.exit_code == 2
    assert told in done.stderr
    assert len(done.stderr.splitlines()) <= 3
