import json
import os
import subprocess
import sys

import pytest

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.on_ray.session import ray_session

_RUN = """
from bitcorn_ray.on_ray.session import ray_session
with ray_session(cpus=1):
    import ray
    assert ray.cluster_resources()["CPU"] == 1
    with ray_session():
        assert ray.is_initialized()
    assert ray.is_initialized(), "the inner block must leave the outer one's Ray alone"
assert not ray.is_initialized()
"""


def test_a_private_ray_lives_as_long_as_its_block_and_leaves_the_home_folder_alone(tmp_path):
    drop = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_ADDRESS")
    environment = {name: value for name, value in os.environ.items() if name not in drop}
    subprocess.run([sys.executable, "-c", _RUN], env={**environment, "HOME": str(tmp_path)}, check=True, timeout=120)
    assert not (tmp_path / ".ray" / "auth_token").exists()


def test_an_existing_session_is_used(ray_cluster):
    import ray

    node = ray.get_runtime_context().get_node_id()
    with ray_session():
        assert ray.get_runtime_context().get_node_id() == node
    assert ray.is_initialized()


@pytest.mark.parametrize("how", ["option", "environment"])
def test_a_cluster_that_is_not_there_is_a_clear_error(how):
    # In a process of its own: this one is connected already.
    argument = '"127.0.0.1:1"' if how == "option" else ""
    code = (
        "from bitcorn_ray.errors import BitcornError\n"
        "from bitcorn_ray.on_ray.session import ray_session\n"
        f"try:\n    with ray_session({argument}): pass\n"
        "except BitcornError as error:\n    print(error)"
    )
    environment = {**os.environ, **({"RAY_ADDRESS": "127.0.0.1:1"} if how == "environment" else {})}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120)
    assert done.stdout.startswith("no Ray cluster at '127.0.0.1:1'"), done.stderr
    assert issubclass(BitcornError, ValueError)


_WORKER = """
from bitcorn_ray.logging import LogOutput, log_output, logged, logger_of
from bitcorn_ray.on_ray.session import ray_session

def work():
    with logged(logger_of("bitcorn_ray.trial"), "fold", partition="AAAUSDT 1h", trial="t0001", fold=3):
        pass

with log_output(LogOutput(format="json")), ray_session(cpus=1):
    import ray
    ray.get(ray.remote(work).remote())
"""


def test_logs_of_workers_come_to_standard_error_where_they_are_asked_for():
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    worker = subprocess.run(
        [sys.executable, "-c", _WORKER], env=environment, check=True, capture_output=True, text=True, timeout=120
    )
    records = [json.loads(line) for line in worker.stderr.splitlines()]
    assert [each["message"] for each in records] == ["fold begun", "fold done"]
    for each in records:
        assert (each["partition"], each["trial"], each["fold"]) == ("AAAUSDT 1h", "t0001", 3)
        assert each["task_name"] == "work"
        assert {"job_id", "node_id", "worker_id"} <= set(each)


def test_a_dashboard_is_no_place_to_work_at_and_the_error_says_what_is(monkeypatch):
    import ray

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with (
        pytest.raises(BitcornError, match=r"bitcorn --address http://head:8265 --submit .* such as head:6379"),
        ray_session("http://head:8265"),
    ):
        pass


_LOSING = """
import socket, threading, time
from bitcorn_ray.on_ray.session import _exit_if_lost
head, over = socket.create_server(("127.0.0.1", 0)), threading.Event()
at = "%s:%d" % head.getsockname()
watch = threading.Thread(target=_exit_if_lost, args=(at, over))
watch.start()
time.sleep(3)
print("still there", flush=True)
head.close()
watch.join()
"""


def test_a_process_whose_cluster_is_lost_ends_and_says_how_to_go_on():
    environment = {**os.environ, "RAY_gcs_rpc_server_reconnect_timeout_s": "7"}
    done = subprocess.run([sys.executable, "-c", _LOSING], env=environment, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (2, "still there\n"), done.stderr
    assert done.stderr.startswith("bitcorn: the connection to the Ray cluster at 127.0.0.1:")
    assert len(done.stderr.splitlines()) == 1
    assert "with --resume" in done.stderr
