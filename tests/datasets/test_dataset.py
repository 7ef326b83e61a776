from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from small_training import HOUR, MODEL, TRAINING, make_data, partition_bars, shares_of

from bitcorn_ray.datasets.dataset import PartitionBars, build_dataset
from bitcorn_ray.datasets.folds import FoldRows, FoldsConfig, Span, Timeline, walk_forward_folds
from bitcorn_ray.errors import BitcornError
from bitcorn_ray.market.bars import Bars
from bitcorn_ray.market.reference_volatility import reference_volatility
from bitcorn_ray.market.simulate import simulate_bars
from bitcorn_ray.models.neural.config import LSTMConfig


def all_ends(data):
    return np.concatenate((data.train_ends, data.validation_ends, data.test_ends))


def test_targets_are_stored_at_window_ends_in_real_units(random_bars):
    one, other = random_bars(500, gaps=1), random_bars(300, seed=4)
    data, _, facts = make_data(one, other)
    close = np.concatenate((one.close, other.close))
    for end in all_ends(data)[::37]:
        for column, horizon in enumerate(MODEL.horizons):
            steps = np.diff(np.log(close[end : end + horizon + 1]))
            assert data.returns[end, column] == pytest.approx(steps.sum(), rel=1e-5, abs=1e-9)
            assert data.volatilities[end, column] == pytest.approx(np.sqrt((steps**2).sum()), rel=1e-5)
    assert facts["windows"] == facts["train_windows"] + facts["validation_windows"] + facts["purged_windows"]
    assert facts["windows"] == sum(each["windows"] for each in facts["partitions"])


def test_each_partition_has_its_own_reference_and_the_scale_is_relative_to_it(random_bars):
    one, other = random_bars(500), random_bars(300, seed=4)
    data, _, _ = make_data(one, other)
    expected = np.concatenate([reference_volatility(np.log(bars.close), 24) for bars in (one, other)])
    known = np.isfinite(expected)
    np.testing.assert_allclose(data.reference[known], expected[known], rtol=1e-6)
    assert (data.reference[~known] == 1).all()
    relative = data.volatilities[data.train_ends].astype(float) / data.reference[data.train_ends, None]
    np.testing.assert_allclose(data.output_scale, np.sqrt((relative**2).mean(0)), rtol=1e-5)
    assert data.typical_reference == pytest.approx(np.median(data.reference[data.train_ends]))


def test_without_a_reference_targets_are_absolute(random_bars):
    data, _, _ = make_data(random_bars(500), model=replace(MODEL, reference_span=0))
    assert (data.reference == 1).all()
    assert data.typical_reference == 1
    squares = data.volatilities[data.train_ends].astype(float) ** 2
    np.testing.assert_allclose(data.output_scale, np.sqrt(squares.mean(0)), rtol=1e-5)


def test_the_scaler_is_fitted_only_on_training_rows(random_bars):
    one, other = random_bars(500), random_bars(400, seed=4)
    features = np.random.default_rng(0).normal(size=(900, 4)).astype(np.float32)
    data, scaler, _ = build_dataset(
        features.copy(), [partition_bars(one), partition_bars(other)], MODEL, shares_of(TRAINING)
    )
    last = [int(data.train_ends[data.train_ends < 500][-1]), int(data.train_ends[-1])]
    fitted = np.concatenate((features[: last[0] + 1], features[500 : last[1] + 1]))
    np.testing.assert_allclose(scaler.mean_, fitted.mean(0), rtol=1e-4, atol=1e-6)
    assert scaler.n_samples_seen_ == len(fitted)
    np.testing.assert_allclose(data.matrix, scaler.transform(features), rtol=1e-4, atol=1e-5)


def test_the_matrix_is_scaled_in_place(random_bars):
    bars = random_bars(300)
    features = np.random.default_rng(0).normal(size=(300, 4)).astype(np.float32)
    assert build_dataset(features, [partition_bars(bars)], MODEL, shares_of(TRAINING))[0].matrix is features


@pytest.mark.parametrize("part", ["validation", "test"])
def test_later_data_does_not_change_earlier_parts(random_bars, part):
    training = replace(TRAINING, test_frac=0.2)
    bars = [random_bars(500), random_bars(400, seed=4)]
    features = np.random.default_rng(0).normal(size=(900, 4)).astype(np.float32)

    def made(closes, matrix):
        rows = [
            replace(partition_bars(each), close=close, reference=reference_volatility(np.log(close), 24))
            for each, close in zip(bars, closes, strict=True)
        ]
        return build_dataset(matrix, rows, MODEL, shares_of(training))

    data, scaler, _ = made([each.close for each in bars], features.copy())
    # From the bar after the one at which the later part begins, in time, both markets become other ones.
    first = min(getattr(data, f"{part}_ends")) + 1
    closes, later = [each.close.copy() for each in bars], features.copy()
    for close, start in zip(closes, data.partition_starts, strict=False):
        close[first:] *= np.linspace(2, 9, len(close) - first)
        later[start + first : start + len(close)] += 100
    changed, changed_scaler, _ = made(closes, later)
    np.testing.assert_array_equal(changed_scaler.mean_, scaler.mean_)
    np.testing.assert_array_equal(changed_scaler.scale_, scaler.scale_)
    np.testing.assert_array_equal(changed.output_scale, data.output_scale)
    assert changed.typical_reference == data.typical_reference
    for ends in ["train_ends", "validation_ends"][: 1 + (part == "test")]:
        np.testing.assert_array_equal(getattr(changed, ends), getattr(data, ends))
        rows = getattr(data, ends)
        for name in ("matrix", "reference", "returns", "volatilities"):
            np.testing.assert_array_equal(getattr(changed, name)[rows], getattr(data, name)[rows], err_msg=name)


@settings(max_examples=25, deadline=None)
@given(
    lengths=st.lists(st.integers(60, 200), min_size=1, max_size=4),
    gaps=st.integers(0, 3),
    seq_len=st.integers(1, 12),
    horizons=st.sampled_from([(1,), (1, 3), (2, 7)]),
    broken=st.lists(st.integers(0, 10_000), max_size=4),
    test_frac=st.sampled_from([0.0, 0.2]),
)
def test_no_window_and_no_target_spans_a_gap_or_a_partition(lengths, gaps, seq_len, horizons, broken, test_frac):
    model = LSTMConfig(horizons=horizons, seq_len=seq_len, reference_span=24)
    bars = [simulate_bars(length, seed=place, gaps=gaps) for place, length in enumerate(lengths)]
    times = np.concatenate([each.timestamp for each in bars])
    partition = np.repeat(np.arange(len(bars)), [len(each) for each in bars])
    features = np.random.default_rng(0).normal(size=(len(times), 3)).astype(np.float32)
    for row in broken:
        features[row % len(times), row % 3] = np.nan if row % 2 else np.inf
    finite = np.isfinite(features).all(1)
    training = replace(TRAINING, val_frac=0.3, test_frac=test_frac)
    try:
        data, _, _ = build_dataset(features, [partition_bars(each) for each in bars], model, shares_of(training))
    except BitcornError:
        reject()  # too few windows are left to share out
    longest = max(horizons)
    for end in all_ends(data):
        rows = slice(end - seq_len + 1, end + longest + 1)
        assert (np.diff(times[rows]) == HOUR).all()
        assert len(set(partition[rows])) == 1
        assert finite[end - seq_len + 1 : end + 1].all()
    assert np.isfinite(data.matrix).all()
    assert (data.matrix[~finite] == 0).all()
    # Each label ends no later than the next part begins, in every partition.
    for before, after in ((data.train_ends, data.validation_ends), (data.validation_ends, data.test_ends)):
        if len(before) and len(after):
            assert (times[before] + longest * HOUR).max() <= times[after].min()


def test_partitions_are_split_at_the_same_instants(random_bars):
    long, short = random_bars(800), random_bars(500, seed=4).take(slice(200, 500))
    data, _, facts = make_data(long, short)
    times = np.concatenate((long.timestamp, short.timestamp))
    assert times[data.train_ends].max() < times[data.validation_ends].min()
    assert [each["name"] for each in facts["partitions"]] == ["SIM 1h", "SIM1 1h"]


def test_several_partitions_need_times():
    close = np.exp(np.random.default_rng(0).normal(0, 0.01, 100).cumsum())
    rows = [
        PartitionBars(symbol=name, timeframe="1h", close=close, timestamp=np.arange(100), step=1, timed=False)
        for name in "ab"
    ]
    with pytest.raises(BitcornError, match="a 1h has no timestamps"):
        build_dataset(np.zeros((200, 2), np.float32), rows, MODEL, shares_of(TRAINING))
    with pytest.raises(BitcornError, match="200 closes, the matrix 150 rows"):
        build_dataset(np.zeros((150, 2), np.float32), rows, MODEL, shares_of(TRAINING))


def test_windows_are_described_by_partition_and_time(random_bars):
    one, other = random_bars(300), random_bars(300, seed=4)
    data, _, _ = make_data(one, other)
    described = data.describe(np.array([20, 305, 310]))
    assert described == "SIM 1h, 2023-01-01T20:00:00Z to 2023-01-01T20:00:00Z; " + (
        "SIM1 1h, 2023-01-01T05:00:00Z to 2023-01-01T10:00:00Z"
    )
    assert replace(data, timestamp=None).describe(np.array([305])) == "SIM1 1h, rows 5 to 5"


def test_no_window_contains_rows_with_non_finite_features(random_bars):
    bars = random_bars(300)
    features = np.random.default_rng(0).normal(size=(300, 4)).astype(np.float32)
    features[100, 2] = np.nan
    data, _, facts = build_dataset(features, [partition_bars(bars)], MODEL, shares_of(TRAINING))
    assert not set(all_ends(data)) & set(range(100, 100 + MODEL.seq_len))
    assert facts["left_out"]["non_finite_features"] == MODEL.seq_len
    assert np.isfinite(data.matrix).all()


def test_too_few_bars_are_refused(random_bars):
    with pytest.raises(BitcornError, match="seq_len 8 and horizon 3 need at least 11"):
        make_data(random_bars(10))


def test_a_market_that_never_moves_has_a_finite_scale():
    still = np.full(300, 5.0)
    times = np.arange(300) * HOUR
    data, _, _ = make_data(Bars(timestamp=times, open=still, high=still, low=still, close=still, volume=still))
    assert data.output_scale.tolist() == [1.0, 1.0]


def folds_of(*bars, **changes):
    lines = [Timeline(name=f"{n}", instants=each.timestamp + HOUR, step=HOUR) for n, each in enumerate(bars)]
    return walk_forward_folds(FoldsConfig(**{"train": 150, "validation": 50, "test": 50, **changes}), lines, 3)


def fold_data(bars, fold, features=None, model=MODEL):
    rows = [partition_bars(each, f"SIM{n}", model.reference_span) for n, each in enumerate(bars)]
    if features is None:
        features = np.random.default_rng(0).normal(size=(sum(map(len, bars)), 4)).astype(np.float32)
    return build_dataset(features, rows, model, fold.rows)


def test_the_windows_of_a_rolling_fold_are_those_of_its_ranges(random_bars):
    bars = [random_bars(500, gaps=1), random_bars(400, seed=4)]
    for fold in folds_of(*bars):
        data, _, facts = fold_data(bars, fold)
        for part in ("train", "validation", "test"):
            ends = getattr(data, f"{part}_ends")
            spans = [getattr(rows, part) for rows in fold.rows]
            second = data.partition_starts[1]
            assert all(spans[0].start <= end < spans[0].stop for end in ends if end < second)
            assert all(spans[1].start <= end - second < spans[1].stop for end in ends if end >= second)
            assert len(ends) > 0.8 * sum(span.length for span in spans)
        assert facts["purged_windows"] <= 4 * 3


def test_the_scaler_of_a_fold_is_fitted_on_its_own_training_rows_only(random_bars):
    bars = [random_bars(500)]
    features = np.random.default_rng(0).normal(size=(500, 4)).astype(np.float32)
    features += np.arange(500, dtype=np.float32)[:, None]
    fold = folds_of(*bars)[-1]
    train = fold.rows[0].train
    assert train.start > 100
    _, scaler, _ = fold_data(bars, fold, features.copy())
    fitted = features[train.start - MODEL.seq_len + 1 : train.stop]
    np.testing.assert_allclose(scaler.mean_, fitted.mean(0), rtol=1e-5)
    assert scaler.n_samples_seen_ == len(fitted)


@pytest.mark.parametrize("part", ["validation", "test"])
def test_later_data_does_not_change_earlier_ranges_of_a_fold(random_bars, part):
    bars = [random_bars(500), random_bars(500, seed=4)]
    fold = folds_of(*bars)[1]
    features = np.random.default_rng(0).normal(size=(1000, 4)).astype(np.float32)
    data, scaler, _ = fold_data(bars, fold, features.copy())
    # The labels of earlier windows end no later than the first bar of the part; all after that is another market.
    first = getattr(fold.rows[0], part).start + 1
    later, changed_bars = features.copy(), []
    for place, each in enumerate(bars):
        close = each.close.copy()
        close[first:] *= np.linspace(2, 9, 500 - first)
        later[500 * place + first : 500 * (place + 1)] += 100
        changed_bars.append(replace(each, close=close))
    changed, changed_scaler, _ = fold_data(changed_bars, fold, later)
    np.testing.assert_array_equal(changed_scaler.mean_, scaler.mean_)
    np.testing.assert_array_equal(changed_scaler.scale_, scaler.scale_)
    np.testing.assert_array_equal(changed.output_scale, data.output_scale)
    assert changed.typical_reference == data.typical_reference
    for name in ["train_ends", "validation_ends"][: 1 + (part == "test")]:
        rows = getattr(data, name)
        np.testing.assert_array_equal(getattr(changed, name), rows)
        for what in ("matrix", "reference", "returns", "volatilities"):
            np.testing.assert_array_equal(getattr(changed, what)[rows], getattr(data, what)[rows], err_msg=what)


def test_one_partition_may_lack_windows_in_a_fold_but_not_all(random_bars):
    bars = [random_bars(500), random_bars(5, seed=4)]
    nothing = FoldRows(Span(0, 0), Span(0, 0), Span(0, 0))
    whole = folds_of(bars[0])[0]
    data, _, facts = fold_data(bars, replace(whole, rows=(*whole.rows, nothing)))
    assert max(data.train_ends) < 500
    assert facts["partitions"][1]["train_windows"] == 0
    with pytest.raises(BitcornError, match="leaves 0 windows for training and 0 for validation"):
        fold_data(bars, replace(whole, rows=(nothing, nothing)))
