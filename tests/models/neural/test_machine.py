import torch

from bitcorn_ray.models.neural.acceleration import cpu_family, machine
from bitcorn_ray.training.lineage import installed_versions, machine_shape


def test_a_machine_says_what_the_last_bits_depend_on():
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
