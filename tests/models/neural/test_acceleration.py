import time

import pytest
import torch

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.models.neural.acceleration import (
    autocast,
    choose_precision,
    cpu_family,
    machine,
    supports_bfloat16,
    torch_runtime,
)
from bitcorn_ray.models.neural.config import TrainingConfig
from bitcorn_ray.training.lineage import installed_versions, machine_shape

CPU = torch.device("cpu")


def never(precision):
    raise AssertionError("no trial is needed")


def timed(seconds):
    """A step that takes its time by the precision."""
    return lambda precision: time.sleep(seconds[precision])


@pytest.fixture
def with_bfloat16(monkeypatch):
    monkeypatch.setattr("bitcorn_ray.models.neural.acceleration.supports_bfloat16", lambda device: True)


def test_what_is_wanted_is_taken_without_a_trial():
    assert choose_precision("bfloat16", True, CPU, never) == "bfloat16"
    assert choose_precision("float32", False, CPU, never) == "float32"


def test_deterministic_training_is_in_float32_without_a_trial(with_bfloat16):
    assert choose_precision("auto", True, CPU, never) == "float32"


def test_a_processor_without_bfloat16_is_not_tried(monkeypatch):
    monkeypatch.setattr("bitcorn_ray.models.neural.acceleration.supports_bfloat16", lambda device: False)
    assert choose_precision("auto", False, CPU, never) == "float32"


@pytest.mark.parametrize("faster", ["float32", "bfloat16"])
def test_the_trial_takes_the_faster_one(with_bfloat16, faster):
    seconds = {"float32": 0.03, "bfloat16": 0.03, faster: 0.002}
    assert choose_precision("auto", False, CPU, timed(seconds)) == faster


def test_a_step_that_takes_long_is_tried_few_times(with_bfloat16, monkeypatch):
    monkeypatch.setattr("bitcorn_ray.models.neural.acceleration._SECONDS", 0.01)
    calls = []
    choose_precision("auto", False, CPU, lambda precision: (calls.append(1), time.sleep(0.02)))
    assert len(calls) == 4  # one of each to warm up and one of each to measure


def test_autocast_computes_products_in_bfloat16_and_leaves_float32_alone():
    a = torch.randn(4, 4)
    with autocast("bfloat16", CPU):
        assert (a @ a).dtype == torch.bfloat16
    with autocast("float32", CPU):
        assert (a @ a).dtype == torch.float32
    assert isinstance(supports_bfloat16(CPU), bool)


def test_what_was_set_comes_back_even_after_an_error():
    threads = torch.get_num_threads()
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    inside = []

    def fail():
        with torch_runtime(TrainingConfig(threads=threads + 1, deterministic=True, seed=3), "cpu"):
            inside.extend((torch.get_num_threads(), torch.are_deterministic_algorithms_enabled(), torch.rand(3)))
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert inside[:2] == [threads + 1, True]
    assert torch.get_num_threads() == threads
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.equal(torch.rand(3), expected)
    torch.manual_seed(3)
    assert torch.equal(torch.rand(3), inside[2])


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_a_device_that_is_not_there_is_refused():
    with pytest.raises(BitcornError, match="has no CUDA device"), torch_runtime(TrainingConfig(), "cuda"):
        pass


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_on_a_gpu_tf32_is_used_and_put_back():
    before = torch.get_float32_matmul_precision()
    with torch_runtime(TrainingConfig(), "cuda"):
        assert torch.get_float32_matmul_precision() == "high"
    assert torch.get_float32_matmul_precision() == before


def test_a_machine_has_cpu_instructions_threads_and_gpu():
    found = machine(torch.device("cpu"))
    assert found["cpu"] == cpu_family()
    assert found["threads"] == torch.get_num_threads()
    assert found["gpu"] is None
    assert found["instructions"]
    assert machine_shape()["nodes"] == 1


def test_versions_are_those_of_the_packages_here():
    versions = installed_versions()
    assert versions["torch"].partition("+")[0] == torch.__version__.partition("+")[0]
    assert {"bitcorn_ray", "python", "numpy", "pyarrow", "ray"} <= versions.keys()
