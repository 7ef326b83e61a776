"""The manifests are valid to the letter: by KubeRay's own schemas, and by Ray's own validators."""

import copy
import gzip
import json
import os
import re
from pathlib import Path

import pytest
import yaml

import bitcorn_ray
from bitcorn_ray.on_ray.doctor import pins

_ROOT = Path(__file__).parent.parent.parent
_CLUSTER = _ROOT / "cluster"


def load(name):
    return yaml.safe_load((_CLUSTER / name).read_text())


@pytest.fixture(scope="module")
def definitions():
    """KubeRay's definitions by kind; where BITCORN_TEST_DATA is set, their absence is a failure and not a skip."""
    named = os.environ.get("BITCORN_TEST_DATA")
    data = Path(named) if named else _ROOT.parent / "shared" / "data"
    folder = data.parent / "reference" / "kuberay-crd"
    if not folder.is_dir():
        message = f"no schemas of KubeRay at {folder}: set BITCORN_TEST_DATA to the folder beside its reference/"
        if named:
            pytest.fail(message)
        pytest.skip(message)
    texts = [gzip.decompress(path.read_bytes()) for path in folder.glob("*.yaml.gz")]
    loaded = [yaml.load(text, Loader=yaml.CSafeLoader) for text in texts]
    return {each["spec"]["names"]["kind"]: each for each in loaded}


MANIFESTS = {"RayCluster": "raycluster.yaml", "RayJob": "rayjob.yaml"}


@pytest.fixture(params=MANIFESTS)
def manifest(request):
    return load(MANIFESTS[request.param])


def wrong(manifest, definitions):
    from kuberay_crd import problems

    definition = definitions.get(manifest.get("kind"))
    return problems(manifest, definition) if definition else ["no such kind"]


def test_manifests_are_valid(manifest, definitions):
    assert wrong(manifest, definitions) == []


def fields(value, place=()):
    """Every place of a manifest at which there is a mapping's key."""
    if isinstance(value, dict):
        for name, item in value.items():
            yield (*place, name)
            yield from fields(item, (*place, name))
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from fields(item, (*place, number))


# Keys that are the user's own words.
_FREE = {"rayStartParams", "labels", "annotations", "limits", "requests"}


def test_a_misspelt_field_fails_at_any_depth(manifest, definitions):
    places = [place for place in fields(manifest) if not _FREE & set(map(str, place[:-1]))]
    assert len(places) > 150
    assert max(map(len, places)) > 8
    changed = json.loads(json.dumps(manifest))  # where aliases of YAML are objects of their own
    for place in places:
        inside = changed
        for name in place[:-1]:
            inside = inside[name]
        inside[f"{place[-1]}x"] = inside.pop(place[-1])
        assert wrong(changed, definitions), f"{place} may be misspelt"
        inside[place[-1]] = inside.pop(f"{place[-1]}x")
    assert wrong(changed, definitions) == []


@pytest.mark.parametrize(
    ("place", "value", "told"),
    [
        (("spec", "rayVersion"), 2.6, "no string"),
        (("spec", "authOptions", "mode"), "tokens", "none of"),
        (("spec", "workerGroupSpecs", 0, "maxReplicas"), "4", "no integer"),
        (
            ("spec", "headGroupSpec", "template", "spec", "containers", 0, "resources", "limits", "cpu"),
            "4 cores",
            "not like",
        ),
        (("spec", "headGroupSpec", "rayStartParams", "num-cpus"), 0, "no string"),
        (("spec", "enableInTreeAutoscaling"), None, "null"),
    ],
)
def test_a_value_of_another_kind_fails(definitions, place, value, told):
    changed = load("raycluster.yaml")
    inside = changed
    for name in place[:-1]:
        inside = inside[name]
    inside[place[-1]] = value
    assert any(told in problem for problem in wrong(changed, definitions))


# What is promised beyond the schema


def cluster_of(manifest):
    return manifest["spec"].get("rayClusterSpec", manifest["spec"])


def pods(manifest):
    """The specifications of all pods: of the head, of each group of workers, of what submits."""
    cluster = cluster_of(manifest)
    templates = [cluster["headGroupSpec"]["template"], *(group["template"] for group in cluster["workerGroupSpecs"])]
    if submitter := manifest["spec"].get("submitterPodTemplate"):
        templates.append(submitter)
    return [template["spec"] for template in templates]


def test_the_versions_are_those_of_constraints_txt(manifest):
    assert cluster_of(manifest)["rayVersion"] == pins()["ray"]
    image = f"bitcorn-ray:{bitcorn_ray.__version__}-ray{pins()['ray']}"
    assert {container["image"] for pod in pods(manifest) for container in pod["containers"]} == {image}
    assert load("launcher.yaml")["docker"]["image"] == image
    for text in ("Dockerfile", "README.md"):
        assert set(re.findall(r"bitcorn-ray:\S+", (_CLUSTER / text).read_text())) == {image}


def test_the_head_does_no_work_and_workers_come_and_go(manifest):
    cluster = cluster_of(manifest)
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    assert cluster["enableInTreeAutoscaling"] is True
    assert cluster["authOptions"] == {"mode": "token"}
    with_gpus = [
        any(
            "nvidia.com/gpu" in container["resources"]["limits"]
            for container in group["template"]["spec"]["containers"]
        )
        for group in cluster["workerGroupSpecs"]
    ]
    assert sorted(with_gpus) == [False, True]


def test_no_container_runs_as_root_or_without_limits(manifest):
    for pod in pods(manifest):
        assert pod["securityContext"]["runAsNonRoot"] is True
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
            }
            for kind in ("requests", "limits"):
                assert {"cpu", "memory"} <= set(container["resources"][kind])


def test_nodes_have_probes_shared_memory_and_the_cache(manifest):
    nodes = pods(manifest)[:3]
    for pod in nodes:
        (container,) = pod["containers"]
        assert {"startupProbe", "livenessProbe", "readinessProbe"} <= set(container)
        mounted = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        assert set(mounted.values()) == set(volumes)
        assert volumes[mounted["/dev/shm"]]["emptyDir"]["medium"] == "Memory"
        assert "persistentVolumeClaim" in volumes[mounted["/shared"]]
        assert {"name": "BITCORN_CACHE_DIR", "value": "s3://bitcorn/cache"} in container["env"]
        assert container["envFrom"] == [{"secretRef": {"name": "bitcorn-storage", "optional": True}}]


def test_a_job_ends_by_itself_and_runs_on_the_same_cluster():
    job = load("rayjob.yaml")["spec"]
    assert job["submissionMode"] == "K8sJobMode"
    assert job["shutdownAfterJobFinishes"] is True
    assert {"backoffLimit", "activeDeadlineSeconds", "ttlSecondsAfterFinished"} <= set(job)
    own = job["rayClusterSpec"]
    # Beside the standing cluster's, its nodes have the configurations of the command.
    for group in (own["headGroupSpec"], *own["workerGroupSpecs"]):
        pod = group["template"]["spec"]
        pod["volumes"] = [volume for volume in pod["volumes"] if volume["name"] != "config"]
        for container in pod["containers"]:
            container["volumeMounts"] = [mount for mount in container["volumeMounts"] if mount["name"] != "config"]
    assert own == load("raycluster.yaml")["spec"]


def test_the_command_of_the_job_is_understood(monkeypatch):
    import shlex

    from bitcorn_ray.cli import main

    words = shlex.split(load("rayjob.yaml")["spec"]["entrypoint"])
    assert words[0] == "bitcorn"
    name, command, rest = main.resolve_command(main.make_context("bitcorn", words[1:]), words[1:])
    options = command.make_context(name, rest).params
    assert options["resume"]
    assert (_CLUSTER / "examples" / Path(options["config"]).name).is_file()


# Ray's own validators


def prepared(config):
    from ray.autoscaler._private.util import prepare_config, validate_config

    made = prepare_config(copy.deepcopy(config))
    validate_config(made)
    return made


def test_the_launcher_s_file_is_valid():
    made = prepared(load("launcher.yaml"))
    assert made["provider"]["type"] == "local"
    assert "--num-cpus=0" in made["head_start_ray_commands"][-1]


@pytest.mark.parametrize("place", [("max_worker",), ("docker", "images"), ("auth", "ssh_users")])
def test_a_misspelt_field_of_the_launcher_s_file_fails(place):
    import jsonschema

    config = load("launcher.yaml")
    inside = config
    for name in place[:-1]:
        inside = inside[name]
    inside[place[-1]] = 1
    with pytest.raises(jsonschema.ValidationError, match=place[-1]):
        prepared(config)


def test_the_runtime_environment_is_valid_and_holds_no_secret():
    from ray.runtime_env import RuntimeEnv

    values = load("runtime_env.yaml")
    made = RuntimeEnv(**values)
    assert made["env_vars"]["BITCORN_CACHE_DIR"] == "s3://bitcorn/cache"
    assert set(values) == {"env_vars", "excludes"}  # Ray warns of an unknown field, and goes on
