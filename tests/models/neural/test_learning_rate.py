from itertools import pairwise

import pytest

from bitcorn_ray.models.neural.config import TrainingConfig
from bitcorn_ray.models.neural.trainer import rate_factor


def rates(config, steps, val_losses=()):
    return [rate_factor(config, step, steps, val_losses) for step in range(config.epochs * steps)]


@pytest.mark.parametrize("schedule", ["constant", "cosine", "plateau"])
def test_warming_up_takes_equal_steps_to_the_whole_rate(schedule):
    config = TrainingConfig(epochs=3, warmup=0.5, schedule=schedule)
    assert rates(config, 8)[:4] == [0.25, 0.5, 0.75, 1.0]


def test_constant_stays():
    assert set(rates(TrainingConfig(epochs=3, warmup=0), 8)) == {1.0}


def test_cosine_falls_from_one_to_nearly_nothing_by_halves_at_the_middle():
    config = TrainingConfig(epochs=10, warmup=0, schedule="cosine")
    found = rates(config, 10)
    assert found[0] == 1.0
    assert found[50] == pytest.approx(0.5)
    assert all(later < earlier for earlier, later in pairwise(found))
    assert 0 < found[-1] < 0.001
    # A training that is gone on with for longer than was planned does not stand still by accident.
    assert rate_factor(config, 10_000, 10, []) > 0


@pytest.mark.parametrize(
    ("losses", "factor"),
    [
        ([], 1.0),
        ([3, 2, 1], 1.0),
        ([1, 2], 1.0),
        ([1, 2, 3], 0.5),
        ([1, 2, 3, 0.5], 0.5),
        ([1, 2, 3, 4], 0.5),
        ([1, 2, 3, 4, 5], 0.25),
        ([1, 2, 0.9, 2, 3], 0.5),
    ],
)
def test_a_plateau_halves_after_two_epochs_that_were_not_better(losses, factor):
    config = TrainingConfig(epochs=20, warmup=0, schedule="plateau")
    assert rate_factor(config, 100, 10, losses) == factor
