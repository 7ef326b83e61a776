import pytest
import torch

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.models.neural.acceleration import torch_runtime
from bitcorn_ray.models.neural.config import TrainingConfig


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
