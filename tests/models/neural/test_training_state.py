from bitcorn_ray.models.base import EpochResult
from bitcorn_ray.models.neural.trainer import diverging


def result(epoch, by_horizon, best=False):
    return EpochResult(epoch, 0.0, sum(by_horizon) / len(by_horizon), [], by_horizon, best, 1e-3, 1.0, 1.0)


def history(*losses):
    return [result(epoch, list(each)) for epoch, each in enumerate(losses, 1)]


def test_a_horizon_that_gets_worse_while_others_get_better_is_named():
    rising = history((1.0, 1.0), (1.1, 0.9), (1.2, 0.8), (1.3, 0.7))
    (warning,) = diverging(rising, (1, 12))
    assert warning.startswith("the validation loss of horizon 1 rose over 3 epochs")
    assert diverging(rising[:3], (1, 12)) == []


def test_losses_that_all_rise_or_waver_are_no_news():
    assert diverging(history((1, 1), (2, 2), (3, 3), (4, 4)), (1, 12)) == []
    assert diverging(history((1, 4), (2, 3), (1.5, 2), (4, 1)), (1, 12)) == []
    assert diverging(history((1,), (2,), (3,), (4,)), (1,)) == []
