import importlib.metadata
import time
import types
from pathlib import Path

import pytest

from bitcorn_ray.on_ray import doctor as module
from bitcorn_ray.on_ray.doctor import Check, doctor, pins
from bitcorn_ray.on_ray.nodes import NodeReply
from bitcorn_ray.storage.storage import Storage

_ROOT = Path(__file__).parents[2]


def by_name(checks):
    return {check.name: check for check in checks}


@pytest.fixture
def other_version(monkeypatch):
    """A function that lets a package seem to have another version, or none."""
    here = importlib.metadata.version
    module_of = importlib.metadata.distributions

    def change(package, version):
        def version_of(name):
            if name != package:
                return here(name)
            if version is None:
                raise importlib.metadata.PackageNotFoundError(name)
            return version

        def all_of_them():
            for each in module_of():
                yield types.SimpleNamespace(metadata=each.metadata, version=version_of(each.metadata["Name"]) or "")

        monkeypatch.setattr("bitcorn_ray._installed", {}, raising=False)
        monkeypatch.setattr(importlib.metadata, "version", version_of)
        if version is not None:
            monkeypatch.setattr(importlib.metadata, "distributions", all_of_them)

    return change


def test_the_pins_are_the_constraints_of_the_project():
    lines = (_ROOT / "constraints.txt").read_text().split()
    assert [f"{name}=={version}" for name, version in pins().items()] == lines
    assert pins()["ray"] == importlib.metadata.version("ray")


def test_a_sound_installation_passes_and_leaves_nothing_in_the_cache(ray_cluster, cache_dir):
    seen = []
    checks = doctor("local", on_check=seen.append)
    assert checks == seen
    check = {check.name: check.state for check in checks}
    assert list(check) == [
        *("python", "packages", "storage", "ray", "nodes", "versions", "gpus", "/dev/shm", "clock"),
        "storage on the nodes",
    ]
    assert set(check.values()) <= {"ok", "warn"}  # a container's shared memory may be small
    assert {check[name] for name in ("python", "storage", "ray", "nodes", "versions", "clock")} == {"ok"}
    assert "1 node, 2 CPUs, 0 GPUs" in by_name(checks)["nodes"].found
    assert list(Storage(cache_dir).files()) == []


def test_a_cache_on_s3_is_written_and_seen_by_the_nodes(ray_cluster, s3_uri):
    checks = by_name(doctor("local", s3_uri))
    assert checks["storage"].state == checks["storage on the nodes"].state == "ok"
    assert checks["storage"].found.startswith("s3://bucket/")
    assert "secret" not in str(checks)
    assert list(Storage(s3_uri).files()) == []


def test_storage_that_cannot_be_written_fails_with_a_remedy(ray_cluster, s3_uri, tmp_path):
    (tmp_path / "file").touch()
    for cache in (tmp_path / "file" / "cache", s3_uri.replace("@bucket/", "@nobucket/")):
        checks = by_name(doctor("local", cache))
        assert checks["storage"].state == "fail"
        assert "cannot be written" in checks["storage"].found
        assert "s3://" in checks["storage"].remedy
        assert "secret" not in str(checks)
        assert "storage on the nodes" not in checks
        assert checks["ray"].state == "ok"


def test_a_node_without_the_shared_cache_is_found(tmp_path):
    elsewhere = tmp_path / "elsewhere"
    probe = module._Probe(address=str(elsewhere), name="uses/probe", content=b"12345678")
    assert "of its own" in module._storage_problem(str(elsewhere), probe)
    Storage(elsewhere).publish("uses/probe", b"another")
    assert "another" in module._storage_problem(str(elsewhere), probe)
    Storage(elsewhere).publish("uses/probe", b"12345678")
    assert module._storage_problem(str(elsewhere), probe) is None
    assert [file.name for file in Storage(elsewhere).files()] == ["uses/probe"]


def test_untested_packages_are_a_warning(other_version):
    assert module._check_packages().state == "ok"
    other_version("numpy", "1.0")
    check = module._check_packages()
    assert (check.state, check.found) == ("warn", f"other than tested: numpy 1.0 and not {pins()['numpy']}")
    assert "constraints.txt" in check.remedy


def test_a_missing_package_fails(other_version):
    other_version("arch", None)
    check = module._check_packages()
    assert (check.state, check.found) == ("fail", "arch missing")


def test_a_cluster_that_is_not_there_fails_and_the_rest_is_checked(monkeypatch):
    import ray

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    checks = by_name(doctor("127.0.0.1:1"))
    assert checks["ray"].state == "fail"
    assert "no Ray cluster at '127.0.0.1:1'" in checks["ray"].found
    assert "--address" in checks["ray"].remedy
    assert checks["storage"].state == "ok"
    dashboard = by_name(doctor("http://127.0.0.1:1"))["ray"]
    assert dashboard.state == "fail"
    assert "http://127.0.0.1:1" in dashboard.found


def reply(node="a", **facts):
    resources = facts.pop("resources", {})
    return NodeReply(
        node=node,
        resources=resources,
        value={"time": time.time(), "shared_memory": 64 << 20, "devices": 0, "storage": None, **facts},
    )


def test_small_shared_memory_idle_gpus_and_wrong_clocks_are_found():
    fits = reply(resources={"object_store_memory": 32 << 20})
    assert module._check_shared_memory([fits]).state == "ok"
    small = module._check_shared_memory([fits, reply("b", resources={"object_store_memory": 1 << 30})])
    assert small.state == "warn"
    assert small.found == "0.07 GB on b for an object store of 1.07 GB"
    assert "emptyDir" in small.remedy

    assert module._check_gpus([fits]) == Check(name="gpus", state="ok", found="none")
    assert module._check_gpus([reply(devices=2, resources={"GPU": 2})]).found == "Ray has all 2"
    assert module._check_gpus([reply(devices=2, resources={"GPU": 1})]).found == "Ray has 1 of 2 GPUs of a"

    now = time.time()
    assert module._check_clock([reply(time=now)], now - 1, now + 1).state == "ok"
    late = module._check_clock([reply(time=now), reply("b", time=now - 60)], now - 1, now + 1)
    assert (late.state, late.found) == ("warn", "worst on b; its clock and this one differ by 59 s")
    assert "NTP" in late.remedy
    assert module._check_clock([reply(time=now + 1_000)], now - 1, now + 1).state == "fail"


def test_nodes_that_are_silent_or_differ_fail_and_are_named(monkeypatch):
    from bitcorn_ray.on_ray import nodes

    here = module.installed(module.libraries())
    replies = [
        NodeReply(node="a", resources={"CPU": 2.0}, value=here),
        NodeReply(node="b", resources={"CPU": 2.0}, value={**here, "numpy": "1.0"}),
        NodeReply(node="c", resources={"CPU": 2.0}, error="did not answer within 60 seconds"),
    ]
    monkeypatch.setattr(nodes, "ask_nodes", lambda question: replies)
    silent, other = module._check_nodes(module._Probe(address=None, name="x", content=b""))
    assert (silent.state, silent.found) == ("fail", "c did not answer within 60 seconds")
    assert (other.state, other.found) == ("fail", f"b has numpy 1.0 and not {here['numpy']}")
