import pytest

from benchmarks.timing import Figure


def test_ratio_is_of_the_medians_and_less_is_better_for_seconds():
    reference = Figure("reference", (2.0, 4.0, 9.0))
    figure = Figure("ours", (1.0, 3.0, 2.0)).beside(reference, 0.5)
    assert (figure.ratio, figure.best, figure.worst, figure.reached) == (0.5, 1.0, 3.0, True)
    assert Figure("ours", (2.1,)).beside(reference, 0.5).reached is False


def test_more_is_better_for_a_rate():
    reference = Figure("reference", (10.0,), unit="windows/s")
    figure = Figure("ours", (15.0, 25.0, 20.0), unit="windows/s")
    assert (figure.best, figure.worst) == (25.0, 15.0)
    assert figure.beside(reference, 2.0).reached is True
    assert figure.beside(reference, 2.1).reached is False


def test_both_a_target_and_a_limit_are_to_be_reached():
    reference = Figure("reference", (4.0,))
    assert Figure("ours", (2.0,), target=2.0).beside(reference, 0.4).reached is False
    assert Figure("ours", (2.0,), target=1.0).beside(reference, 0.6).reached is False
    assert Figure("ours", (2.0,), target=2.0).beside(reference, 0.5).reached is True
    assert Figure("ours", (2.0,)).beside(reference).reached is None


def test_a_reference_has_the_same_unit():
    with pytest.raises(ValueError, match="no ratio"):
        Figure("ours", (1.0,)).beside(Figure("reference", (1.0,), unit="MiB"))
