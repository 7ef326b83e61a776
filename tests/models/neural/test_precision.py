import time

import pytest
import torch

from bitcorn_ray.models.neural.acceleration import autocast, choose_precision, supports_bfloat16

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
