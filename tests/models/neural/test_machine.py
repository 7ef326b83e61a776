import torch

from bitcorn_ray.models.neural.acceleration import cpu_family, machine
from bitcorn_ray.training.lineage import installed_versions, machine_shape


def test_a_machine_says_what_the_last_bits_depend_on():
    told = machine("cpu")
    assert told["cpu"] == cpu_family()
    assert told["threads"] == torch.get_num_threads()
    assert told["gpu"] is None
    assert told["instructions"]
    assert machine_shape()["nodes"] == 1


def test_versions_are_those_of_the_packages_here():
    versions = installed_versions()
    assert versions["torch"].partition("+")[0] == torch.__version__.partition("+")[0]
    assert {"bitcorn_ray", "python", "numpy", "pyarrow", "ray"} <= versions.keys()
