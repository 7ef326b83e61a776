import sys

import pytest

from benchmarks.peers import asked_peer, run_peer


def test_the_report_is_the_last_line(tmp_path):
    script = tmp_path / "peer.py"
    script.write_text("import json, os, sys; print('noise'); print(json.dumps([sys.argv[1:], os.getcwd()]))")
    assert run_peer(sys.executable, str(script), ["--count", 3], tmp_path) == [["--count", "3"], str(tmp_path)]


def test_a_failure_says_why(tmp_path):
    script = tmp_path / "peer.py"
    script.write_text("raise ImportError('no such project')")
    with pytest.raises(RuntimeError, match=r"failed under .*no such project"):
        run_peer(sys.executable, str(script), [], tmp_path)


def test_a_peer_works_when_it_is_asked_to(tmp_path):
    script = tmp_path / "peer.py"
    answer = "print('noise'); print(json.dumps({'turn': turn}), flush=True)"
    script.write_text(f"import json, sys\nfor turn, _ in enumerate(sys.stdin): {answer}")
    with asked_peer(sys.executable, str(script), [], tmp_path) as ask:
        assert [ask(), ask()] == [{"turn": 0}, {"turn": 1}]


def test_a_peer_that_has_ended_is_told_of(tmp_path):
    script = tmp_path / "peer.py"
    script.write_text("import sys; sys.stdin.readline(); sys.exit(3)")
    with asked_peer(sys.executable, str(script), [], tmp_path) as ask, pytest.raises(RuntimeError, match="status 3"):
        ask()
