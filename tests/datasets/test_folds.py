from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from bitcorn_ray.datasets.folds import FoldsConfig, Span, Timeline, walk_forward_folds
from bitcorn_ray.errors import BitcornError

HOUR = 3_600_000
DAY = 24 * HOUR
BEGIN = 1_500_000_000_000 // HOUR * HOUR
PARTS = ("train", "validation", "test")


def hours(count, step=1, start=0, name="1h"):
    """Closing instants of successive bars of `step` hours, from hour `start` on."""
    return Timeline(name=name, instants=BEGIN + (start + step * np.arange(1, count + 1)) * HOUR, step=step * HOUR)


@st.composite
def markets(draw):
    """One to three partitions of 1 to 4 hours a bar, each with its own start and holes."""
    lines = []
    for number in range(draw(st.integers(1, 3))):
        step, rng = draw(st.sampled_from([1, 2, 4])), np.random.default_rng(draw(st.integers(0, 999)))
        kept = np.sort(rng.choice(2_400 // step, int(2_400 // step * draw(st.floats(0.7, 1))), replace=False))
        start = draw(st.integers(0, 600))
        lines.append(Timeline(name=str(number), instants=BEGIN + (start + step * kept) * HOUR, step=step * HOUR))
    return lines


CONFIGS = st.builds(
    FoldsConfig,
    train=st.sampled_from(["20d", "600h", "40d"]),
    validation=st.sampled_from(["7d", "200h", 0]),
    test=st.sampled_from(["6d", "240h"]),
    step=st.sampled_from([None, "5d", "12d"]),
    window=st.sampled_from(["rolling", "expanding"]),
    embargo=st.sampled_from([0, "1d"]),
    disjoint_inputs=st.booleans(),
    last=st.sampled_from([None, 1, 3]),
)


@settings(deadline=None, max_examples=150)
@given(lines=markets(), config=CONFIGS, horizon=st.integers(1, 24))
def test_ranges_are_ordered_disjoint_and_no_label_crosses(lines, config, horizon):
    seq_len = 16
    try:
        folds = walk_forward_folds(config, lines, horizon, seq_len)
    except BitcornError as error:
        assert "one fold needs" in str(error) or "take" in str(error)  # noqa: PT017 - either it fits or it says what is needed
        assume(False)
    assert [fold.number for fold in folds] == list(range(len(folds)))
    assert config.last is None or len(folds) <= config.last
    for fold in folds:
        assert fold.train.start < fold.train.stop <= fold.validation.start <= fold.validation.stop <= fold.test.start
        for line, rows in zip(lines, fold.rows, strict=True):
            closed = {part: line.instants[slice(*getattr(rows, part))] for part in PARTS}
            for earlier, later in (("train", "validation"), ("train", "test"), ("validation", "test")):
                # Labels end no later than the next part begins, in any partition.
                others = [
                    other.instants[slice(*getattr(they, later))] for other, they in zip(lines, fold.rows, strict=True)
                ]
                first = min((when[0] for when in others if len(when)), default=np.inf)
                reach = horizon * line.step
                assert (closed[earlier] + reach <= first).all()
                if config.disjoint_inputs:
                    assert (closed[earlier] + reach + seq_len * line.step <= first).all()
            # What no span holds is either purged or outside of the fold: nothing is lost in between.
            gap = set(line.instants[rows.train.start : rows.test.stop]) - set(np.concatenate(list(closed.values())))
            for instant in gap:
                cut = fold.validation.start if instant < fold.validation.start else fold.test.start
                assert cut - fold.purge < instant < cut
    for one, two in pairwise(folds):
        step = two.test.start - one.test.start
        assert two.validation.start - one.validation.start == two.test.stop - one.test.stop == step
        length = one.test.length
        assert one.test.stop <= two.test.start or step < length  # overlap only where the step is shorter
        assert two.train.start == (one.train.start if config.window == "expanding" else one.train.start + step)


@settings(deadline=None, max_examples=60)
@given(
    bars=st.integers(300, 900),
    train=st.integers(100, 150),
    validation=st.integers(30, 60),
    test=st.integers(10, 60),
    horizon=st.integers(1, 24),
)
def test_folds_equal_the_slow_definition(bars, train, validation, test, horizon):
    config = FoldsConfig(train=train, validation=validation, test=test)
    folds = walk_forward_folds(config, [hours(bars)], horizon)
    stop, expected = bars, []
    while stop - test - validation - train >= 0:
        cut, tested = stop - test - validation, stop - test
        # A window may stay if its label ends no later than the bar that the next range begins with.
        kept = [
            [row for row in range(cut - train, cut) if row + horizon <= cut],
            [row for row in range(cut, tested) if row + horizon <= tested],
            list(range(tested, stop)),
        ]
        expected.insert(0, kept)
        stop -= test
    found = [[list(range(*getattr(fold.rows[0], part))) for part in PARTS] for fold in folds]
    assert found == expected
    # Test ranges side by side make one stretch up to the last bar.
    tested_rows = [row for fold in found for row in fold[2]]
    assert tested_rows == list(range(bars - len(folds) * test, bars))


def test_durations_and_bar_counts_give_equal_folds():
    lines = [hours(24 * 100)]
    timed = walk_forward_folds(
        FoldsConfig(train="50d", validation="10d", test="5d", step="5d", embargo="6h"), lines, 12
    )
    counted = walk_forward_folds(FoldsConfig(train=1200, validation=240, test=120, embargo=6), lines, 12)
    assert timed == counted
    assert len(timed) == 8  # 100 - 50 - 10 days leave 40 of tests
    assert timed[-1].rows[0].test == Span(24 * 95, 24 * 100)
    assert timed[-1].purge == 18 * HOUR
    assert timed[-1].rows[0].validation == Span(24 * 85, 24 * 95 - 17)


def test_timeframes_are_split_at_the_same_instants():
    lines = [hours(24 * 60), hours(6 * 60, step=4, name="4h"), hours(24 * 12, start=24 * 48, name="late")]
    folds = walk_forward_folds(FoldsConfig(train="30d", validation="5d", test="5d"), lines, 6)
    assert len(folds) == 5
    for fold in folds:
        assert fold.purge == 24 * HOUR  # six bars of four hours
        hour, four, _ = fold.rows
        assert hour.test == Span(4 * four.test.start, 4 * four.test.stop)
        assert lines[0].instants[hour.test.start] == fold.test.start
    assert [fold.rows[2].train.length for fold in folds] == [
        0,
        0,
        0,
        0,
        25,
    ]  # it began in the last one's training range
    assert folds[-1].rows[2].test == Span(24 * 7, 24 * 12)


def test_last_keeps_the_later_folds_unchanged():
    every = walk_forward_folds(FoldsConfig(train=300, validation=50, test=50), [hours(1_000)], 4)
    some = walk_forward_folds(FoldsConfig(train=300, validation=50, test=50, last=3), [hours(1_000)], 4)
    assert [(fold.train, fold.test) for fold in some] == [(fold.train, fold.test) for fold in every[-3:]]


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ({"train": 0}, "train is 0: it must be at least 1"),
        ({"test": "0d"}, "test is '0d'"),
        ({"validation": -1}, "validation is -1: it must be at least 0"),
        ({"step": 0}, "step is 0"),
        ({"train": "1y"}, "train is '1y': give bars, such as 720, or a duration, such as \"30d\""),
        ({"train": True}, "train is True"),
        ({"window": "sliding"}, "use rolling or expanding"),
        ({"last": 0}, "at least 1 fold"),
        ({"purge": "2d", "disjoint_inputs": True}, "give one of"),
    ],
)
def test_impossible_configurations_are_refused(values, match):
    with pytest.raises(BitcornError, match=match):
        FoldsConfig(**values)


def test_a_configuration_comes_from_plain_values():
    adapter = TypeAdapter(FoldsConfig)
    config = adapter.validate_python({"train": 700, "validation": "2w", "test": "1d", "window": "expanding"})
    assert config == FoldsConfig(train=700, validation="2w", test="1d", window="expanding")
    with pytest.raises(ValidationError, match="trian"):
        adapter.validate_python({"trian": 700})
    with pytest.raises(ValidationError, match="use rolling or expanding"):
        adapter.validate_python({"window": "sliding"})


@pytest.mark.parametrize(
    ("values", "lines", "horizon", "match"),
    [
        (
            {"train": 90, "validation": 5, "test": 6},
            [hours(100)],
            1,
            r"one fold needs 101 bars \(4.2 days\).*has 100 bars",
        ),
        ({"train": 4, "validation": 9, "test": 9}, [hours(100)], 4, "train is 4 but purge and embargo take 4 bars"),
        ({"train": 50, "validation": 4, "test": 9}, [hours(100)], 4, "give a longer validation"),
        ({"train": 50, "validation": 9, "test": 9, "purge": 3}, [hours(100)], 4, "purge is 3, less than the longest"),
        ({"train": 50}, [hours(100), hours(100, step=4, name="4h")], 1, "50 bars of several timeframes"),
        ({"train": "9d"}, [Timeline(name="x", instants=np.arange(99), step=1)], 1, "these rows have no times"),
        ({"train": 50, "validation": 9, "test": 9, "disjoint_inputs": True}, [hours(100)], 4, "length of a window"),
        ({}, [], 4, "0 partitions and a horizon of 4"),
        ({}, [hours(100)], 0, "a horizon of 0"),
    ],
)
def test_ranges_that_do_not_fit_are_refused(values, lines, horizon, match):
    with pytest.raises(BitcornError, match=match):
        walk_forward_folds(FoldsConfig(**values), lines, horizon)


def test_a_range_inside_a_gap_is_refused():
    instants = np.concatenate([np.arange(1, 500), np.arange(700, 1_000)]) * HOUR
    with pytest.raises(BitcornError, match="the test range of fold 1 holds no bar of gappy"):
        walk_forward_folds(
            FoldsConfig(train=300, validation=100, test=50), [Timeline(name="gappy", instants=instants, step=HOUR)], 4
        )
    with pytest.raises(BitcornError, match="2 rows of step 1"):
        Timeline(name="x", instants=np.array([2, 1]), step=1)
