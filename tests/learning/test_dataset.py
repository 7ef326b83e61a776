import numpy as np
import pytest
from small_training import MODEL, TRAINING, make_data

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.learning.config import ModelConfig
from bitcorn_ray.learning.dataset import training_data
from bitcorn_ray.market.bars import Bars


def test_targets_stand_at_the_row_where_their_window_ends(random_bars):
    bars = random_bars(500, gaps=1)
    data, _, facts = make_data(bars)
    log_close = np.log(bars.close)
    for end in (*data.train_ends[::50], *data.validation_ends[::20]):
        for column, horizon in enumerate(MODEL.horizons):
            steps = np.diff(log_close[end : end + horizon + 1])
            assert data.returns[end, column] == pytest.approx(steps.sum(), rel=1e-5, abs=1e-9)
            assert data.volatilities[end, column] == pytest.approx(np.sqrt((steps**2).sum()), rel=1e-5)
    assert facts["windows"] == facts["train_windows"] + facts["validation_windows"] + facts["purged_windows"]


def test_the_scaler_is_fitted_on_training_rows_only(random_bars):
    bars = random_bars(500)
    features = np.random.default_rng(0).normal(size=(500, 4)).astype(np.float32)
    data, scaler, _ = training_data(features, bars.close, bars.timestamp, 3_600_000, MODEL, TRAINING)
    np.testing.assert_allclose(scaler.mean_, features[: data.train_ends[-1] + 1].mean(0), rtol=1e-5)
    assert scaler.n_samples_seen_ == data.train_ends[-1] + 1


def test_nothing_that_comes_after_the_training_reaches_it(random_bars):
    bars = random_bars(500)
    features = np.random.default_rng(0).normal(size=(500, 4)).astype(np.float32)
    data, scaler, _ = training_data(features, bars.close, bars.timestamp, 3_600_000, MODEL, TRAINING)
    # From the bar after the one at which validation begins, the market becomes another one.
    first = data.validation_ends[0] + 1
    later_close, later_features = bars.close.copy(), features.copy()
    later_close[first:] *= np.linspace(2, 9, 500 - first)
    later_features[first:] += 100
    changed, changed_scaler, _ = training_data(later_features, later_close, bars.timestamp, 3_600_000, MODEL, TRAINING)
    np.testing.assert_array_equal(changed_scaler.mean_, scaler.mean_)
    np.testing.assert_array_equal(changed_scaler.scale_, scaler.scale_)
    np.testing.assert_array_equal(changed.output_scale, data.output_scale)
    np.testing.assert_array_equal(changed.train_ends, data.train_ends)
    rows = slice(0, data.train_ends[-1] + 1)
    np.testing.assert_array_equal(changed.matrix[rows], data.matrix[rows])
    np.testing.assert_array_equal(changed.returns[data.train_ends], data.returns[data.train_ends])
    np.testing.assert_array_equal(changed.volatilities[data.train_ends], data.volatilities[data.train_ends])


def test_no_window_and_no_target_spans_a_gap(random_bars):
    bars = random_bars(600, gaps=4)
    data, _, facts = make_data(bars)
    ends = np.concatenate((data.train_ends, data.validation_ends))
    longest = max(MODEL.horizons)
    for end in ends:
        times = bars.timestamp[end - MODEL.seq_len + 1 : end + longest + 1]
        assert (np.diff(times) == 3_600_000).all()
    assert facts["left_out"]["gap"] > 0


def test_rows_without_finite_features_are_in_no_window(random_bars):
    bars = random_bars(300)
    features = np.random.default_rng(0).normal(size=(300, 4)).astype(np.float32)
    features[100, 2] = np.nan
    data, _, facts = training_data(features, bars.close, bars.timestamp, 3_600_000, MODEL, TRAINING)
    ends = np.concatenate((data.train_ends, data.validation_ends))
    assert not set(ends) & set(range(100, 100 + MODEL.seq_len))
    assert facts["left_out"]["non_finite_features"] == MODEL.seq_len
    assert np.isfinite(data.matrix).all()


def test_too_few_bars_say_what_is_needed(random_bars):
    bars = random_bars(10)
    with pytest.raises(BitcornError, match="seq_len 8 and horizon 3 need at least 11"):
        make_data(bars)


def test_a_market_that_never_moves_has_a_finite_scale():
    still = np.full(300, 5.0)
    times = np.arange(300) * 3_600_000
    data, _, _ = make_data(Bars(timestamp=times, open=still, high=still, low=still, close=still, volume=still))
    assert data.output_scale.tolist() == [1.0, 1.0]


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [("horizons", (), "horizons are"), ("hidden_size", 0, "hidden_size is 0"), ("dropout", 1.0, "dropout is 1.0")],
)
def test_an_impossible_model_is_refused(field, value, message):
    with pytest.raises(BitcornError, match=message):
        ModelConfig(**{field: value})
