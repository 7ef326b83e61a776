import pytest

from benchmarks.capacity import PAGE, Costs, Site, Work, estimate, page_of
from benchmarks.results import load_results

COSTS = Costs(
    bar=1e-6,
    partition=2e-3,
    planning=1e-4,
    finishing=3e-4,
    task=5e-3,
    start=4.0,
    features_bytes=60.0,
    bars_bytes=40.0,
    peak=100.0,
    driver=1_000.0,
)
WORK = Work(symbols=10, minutes=(1, 60), years=1)
BARS = 10 * (525_600 + 8_760)


def test_the_page_is_what_the_results_give():
    held = PAGE.read_text(encoding="utf-8")
    assert page_of(load_results(), held) == held, "run python -m benchmarks.capacity"


def test_bars_and_partitions_are_counted():
    assert (WORK.partitions, WORK.longest, WORK.bars) == (20, 525_600, BARS)


def test_each_bound_is_its_formula():
    found = estimate(COSTS, WORK, Site(nodes=2, cpus=1, bandwidth=1e6))
    assert found.bounds == pytest.approx(
        {
            "the CPUs": (BARS * 1e-6 + 20 * 2e-3) / 2,
            "the longest partition": 0.5256 + 2e-3,
            "the driver's handing out": 16 * 5e-3,
            "the way to the storage": BARS * 100 / 2e6,
        }
    )
    assert found.bottleneck == "the way to the storage"
    assert found.serial == pytest.approx(4 + 20 * 4e-4)
    assert found.seconds == pytest.approx(found.serial + found.bounds[found.bottleneck])
    assert (found.storage, found.node, found.driver) == pytest.approx((BARS * 100, 52_560_000, 20_000))


def test_with_ever_more_nodes_a_partition_that_is_not_split_is_what_is_left():
    few, many = (estimate(COSTS, WORK, Site(nodes=nodes, cpus=4)) for nodes in (1, 64))
    assert few.bottleneck == "the CPUs"
    assert many.bottleneck == "the longest partition"
    assert many.seconds < few.seconds
