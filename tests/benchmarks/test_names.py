import pytest

from benchmarks.names import BENCHMARKS, find_benchmark


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_benchmark_can_be_found_and_says_what_it_measures(name):
    assert find_benchmark(name).__doc__
