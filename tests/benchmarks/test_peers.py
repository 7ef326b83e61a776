import sys

import pytest

from benchmarks.peers import run_peer


def test_the_report_is_the_last_line(tmp_path):
    script = tmp_path / "peer.py"
    script.write_text("import json, os, sys; print('noise'); print(json.dumps([sys.argv[1:], os.getcwd()]))")
    assert run_peer(sys.executable, str(script), ["--count", 3], tmp_path) == [["--count", "3"], str(tmp_path)]


def test_a_failure_says_why(tmp_path):
    script = tmp_path / "peer.py"
    script.write_text("raise ImportError('no such project')")
    with pytest.raises(RuntimeError, match=r"failed under .*no such project"):
        run_peer(sys.executable, str(script), [], tmp_path)
