import pytest

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.tuning.options import Resources, SweepOptions


def test_by_default_a_trial_takes_a_cpu():
    assert SweepOptions().resources == Resources(cpu=1, gpu=0)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"scheduler": "best"}, "use none, asha"),
        ({"objective": "mse"}, "use qlike"),
        ({"search": "best"}, "use tpe"),
        ({"trials": 0}, "trials is 0"),
        ({"seeds": 0}, "seeds is 0"),
        ({"max_hours": 0}, "max_hours is 0"),
        ({"max_failures": 2}, "max_failures is 2"),
    ],
)
def test_impossible_options_are_refused(changes, match):
    with pytest.raises(BitcornError, match=match):
        SweepOptions(**changes)
    with pytest.raises(BitcornError, match="0 CPUs"):
        Resources(cpu=0)
