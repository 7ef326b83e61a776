import json

import numpy as np
import pandas as pd
import pytest
import torch
from own_systems import momentum
from small_runs import MODEL, make_run

from bitcorn_ray.data_loader import prepare_features
from bitcorn_ray.errors import BitcornError
from bitcorn_ray.features.registry import find_system
from bitcorn_ray.forecasting.forecaster import Forecaster
from bitcorn_ray.market.reference_volatility import reference_volatility
from bitcorn_ray.market.simulate import simulate_bars

COLUMNS = [
    "symbol", "timeframe", "cutoff", "horizon", "time", "return", "volatility", "price",
    "lo50", "hi50", "lo80", "hi80", "lo95", "hi95", "sample",
]  # fmt: skip


@pytest.fixture(scope="module")
def trained_on():
    return simulate_bars(1_100, seed=2, gaps=0).take(slice(900))


@pytest.fixture(scope="module")
def folder(tmp_path_factory, trained_on):
    """A run on the first 900 bars of a market; its validation windows are the last 250 or so."""
    return make_run(tmp_path_factory.mktemp("runs") / "run", {"BBBUSDT": trained_on})


@pytest.fixture(scope="module")
def bars():
    """The bars that the run was trained on, and 200 more."""
    frame = simulate_bars(1_100, seed=2, gaps=0).to_frame()
    frame.attrs.update(symbol="BBBUSDT", timeframe="1h")
    return frame


def cut(frame, rows):
    """The first rows of a frame, with its attributes."""
    return frame.iloc[:rows].copy()


def test_a_forecast_is_a_row_a_horizon_from_the_last_bar(folder, bars):
    forecast = Forecaster.load(folder).predict(bars)
    assert list(forecast.columns) == COLUMNS
    assert forecast.horizon.tolist() == [1, 4]
    assert (forecast.cutoff == bars.timestamp.iloc[-1]).all()
    assert (forecast.time - forecast.cutoff).dt.total_seconds().tolist() == [3_600, 4 * 3_600]
    np.testing.assert_allclose(forecast.price, bars.close.iloc[-1] * np.exp(forecast["return"]))
    order = ["lo95", "lo80", "lo50", "price", "hi50", "hi80", "hi95"]
    assert (np.diff(forecast[order].to_numpy()) > 0).all()
    assert (forecast.volatility > 0).all()
    assert forecast["sample"].tolist() == ["out of sample"] * 2
    assert forecast.symbol.tolist() == ["BBBUSDT"] * 2


def test_it_equals_the_models_word_on_the_last_window(folder, bars):
    forecaster = Forecaster.load(folder)
    frame = prepare_features(bars, use_cache=False)
    window = frame.dataframe[frame.feature_cols].to_numpy()[-16:]
    scaled = torch.from_numpy(forecaster.run.scaler.transform(window).astype(np.float32))[None]
    reference = reference_volatility(np.log(bars.close.to_numpy()), MODEL.reference_span)[-1:]
    with torch.no_grad():
        returns, volatilities = forecaster.run.model.network(scaled, torch.from_numpy(reference).float())
    forecast = forecaster.predict(bars)
    np.testing.assert_allclose(forecast["return"], returns[0].numpy(), rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(forecast.volatility, volatilities[0].numpy(), rtol=1e-4)


def test_a_forecast_is_the_same_from_all_bars_and_from_bars_cut_at_its_cutoff(folder, bars):
    """Bands included, in the training, validation and later ranges."""
    history = Forecaster.load(folder).history(bars)
    for row in (300, 640, 655, 800, 899, 905, 1_000, 1_099):
        alone = Forecaster.load(folder).predict(cut(bars, row + 1))
        together = history[history.cutoff == bars.timestamp[row]].reset_index(drop=True)
        pd.testing.assert_frame_equal(together, alone, rtol=1e-5, atol=1e-8, check_categorical=False)


def test_bars_that_go_on_cost_only_what_is_new_and_give_the_same(folder, bars, monkeypatch):
    from bitcorn_ray.models.neural import model as networks

    forecaster, fresh, windows = Forecaster.load(folder), Forecaster.load(folder), []
    predict = networks.predict_windows

    def counted(model, matrix, reference, ends, *rest):
        windows.append(len(ends))
        return predict(model, matrix, reference, ends, *rest)

    forecaster.predict(cut(bars, 1_098))
    monkeypatch.setattr(networks, "predict_windows", counted)
    one = forecaster.predict(cut(bars, 1_099))
    assert windows == [1]
    pd.testing.assert_frame_equal(one, fresh.predict(cut(bars, 1_099)), rtol=1e-5)
    # Bars that were revised are not gone on from.
    revised = cut(bars, 1_100)
    revised.loc[1_050, "close"] *= 1.001
    windows.clear()
    again = forecaster.predict(revised)
    assert windows[0] > 150
    pd.testing.assert_frame_equal(again, Forecaster.load(folder).predict(revised), rtol=1e-5)


def test_bars_may_be_written_to_between_two_forecasts(folder, bars):
    """What was seen is kept as it was, and not as the caller's memory is later."""
    forecaster, mine = Forecaster.load(folder), cut(bars, 1_100)
    first = forecaster.predict(mine)
    mine.loc[1_060:, ["open", "high", "low", "close"]] *= 1.01
    assert forecaster.predict(mine).volatility[0] != first.volatility[0]
    pd.testing.assert_frame_equal(forecaster.predict(mine), Forecaster.load(folder).predict(mine), rtol=1e-5)


def test_the_last_bars_and_those_since_a_time_are_a_part_of_the_history(folder, bars):
    forecaster = Forecaster.load(folder)
    history = forecaster.history(bars)
    last = forecaster.predict(bars, last=30)
    assert len(last) == 60
    since = forecaster.history(bars, since=last.cutoff.iloc[0])
    for part in (last, since):
        expected = history.iloc[-60:].reset_index(drop=True)
        pd.testing.assert_frame_equal(part, expected, rtol=1e-5)
    with pytest.raises(BitcornError, match="no bar opens at 2099-01-01 or later"):
        forecaster.history(bars, since="2099-01-01")
    with pytest.raises(BitcornError, match="'yesterdayish' is not a time"):
        forecaster.history(bars, since="yesterdayish")


def test_history_says_what_the_training_knew_and_counts_what_has_no_window(folder, bars):
    gappy = bars.drop(index=[950, 951]).reset_index(drop=True)
    gappy.attrs.update(bars.attrs)
    history = Forecaster.load(folder).history(gappy)
    first = history.groupby("sample").cutoff.min()
    metadata = json.loads((folder / "metadata.json").read_text())["partitions"][0]
    assert first["train"] == pd.Timestamp(metadata["train"][0])
    assert first["validation"] == pd.Timestamp(metadata["validation"][0])
    assert first["out of sample"] == pd.Timestamp(metadata["validation"][1]) + pd.Timedelta("1h")
    assert history.attrs["left_out"] == {"too few bars before": 49 + 15, "bars missing": 15}
    assert len(history) == 2 * (1_098 - 64 - 15)
    # Where the weights were fitted, no score is honest, so that nothing can be promised.
    assert np.isinf(history[history["sample"] == "train"].hi50).all()
    assert np.isfinite(history[history["sample"] == "out of sample"].hi95).all()


def test_a_frame_says_its_symbol_in_a_column_too(folder, bars):
    named = bars.assign(Symbol="CCC/USDT")
    for frame in (named, named.set_index("timestamp")):
        told = Forecaster.load(folder).predict(frame)
        assert set(told.symbol) == {"CCC/USDT"}
        assert set(told["sample"]) == {"other symbol"}
    with pytest.raises(BitcornError, match=r"the frame holds 2 symbols \(A, B, \.\.\.\)"):
        Forecaster.load(folder).predict(bars.assign(symbol=["A", "B"] * (len(bars) // 2)))


def test_two_bars_of_one_hour_are_refused_by_name(folder, bars):
    stray = bars.iloc[[900]].assign(timestamp=bars["timestamp"].iloc[900] + pd.Timedelta("30min"))
    frame = pd.concat([bars.iloc[:901], stray, bars.iloc[901:]], ignore_index=True)
    first, second = (f"{time:%Y-%m-%dT%H:%M:%SZ}" for time in frame["timestamp"].iloc[900:902])
    with pytest.raises(BitcornError, match=f"the bars at {first} and {second} lie within one 1h: repair"):
        Forecaster.load(folder).history(frame)


def test_a_symbol_that_was_not_trained_on_is_calibrated_on_its_own_past(folder, random_bars):
    other = random_bars(700, seed=9).to_frame()
    other.attrs["symbol"] = "CCC"
    history = Forecaster.load(folder).history(other)
    assert set(history["sample"]) == {"other symbol"}
    assert set(history.symbol) == {"CCC"}
    one_ahead = history[history.horizon == 1]
    assert np.isinf(one_ahead.hi95[:19]).all()
    assert np.isfinite(one_ahead.hi95.iloc[30:]).all()
    returns = np.log(other.close).diff().shift(-1).to_numpy()[64:-1]
    half = np.log(one_ahead.hi80 / one_ahead.price).to_numpy()[:-1]
    inside = np.abs(returns - one_ahead["return"].to_numpy()[:-1]) <= half
    assert 0.72 < inside[100:].mean() < 0.88


def test_no_score_is_used_before_its_horizon_has_passed(folder, bars):
    """What happens after a cutoff changes no band of it, and what happened until then does."""
    row = 1_000
    history = Forecaster.load(folder).history(bars, since=bars.timestamp[row - 30])
    changed = bars.copy()
    changed.loc[row + 1 :, ["open", "high", "low", "close"]] *= 3.0
    after = Forecaster.load(folder).history(changed, since=bars.timestamp[row - 30])
    upto = history.cutoff <= bars.timestamp[row]
    pd.testing.assert_frame_equal(history[upto], after[upto], rtol=1e-6)
    shocked = after[(after.cutoff == bars.timestamp[row + 1]) & (after.horizon == 1)]
    plain = history[(history.cutoff == bars.timestamp[row + 1]) & (history.horizon == 1)]
    assert np.log(shocked.hi95 / shocked.price).item() / shocked.volatility.item() >= (
        np.log(plain.hi95 / plain.price).item() / plain.volatility.item()
    )


def test_horizons_between_those_trained_on_are_interpolated(folder, bars):
    forecaster = Forecaster.load(folder)
    known, between = forecaster.predict(bars), forecaster.predict(bars, horizons=[1, 2, 4])
    assert between.horizon.tolist() == [1, 2, 4]
    np.testing.assert_allclose(between["return"][1], 2 / 3 * known["return"][0] + known["return"][1] / 3, rtol=1e-5)
    variance = known.volatility**2
    np.testing.assert_allclose(between.volatility[1] ** 2, 2 / 3 * variance[0] + variance[1] / 3, rtol=1e-5)
    pd.testing.assert_frame_equal(between.iloc[[0, 2]].reset_index(drop=True), known, rtol=1e-5, check_exact=False)
    with pytest.raises(BitcornError, match="horizons 5 cannot be interpolated: the model was trained on 1, 4"):
        forecaster.predict(bars, horizons=[5])


def test_a_gap_inside_the_last_window_is_refused_and_an_earlier_one_is_not(folder, bars):
    forecaster = Forecaster.load(folder)
    with pytest.raises(BitcornError, match="bars are missing between 2023-02-07T01:00:00Z and 2023-02-07T03:00:00Z"):
        forecaster.predict(bars.drop(index=890).loc[:898])
    forecaster.predict(bars.drop(index=880).loc[:898])


def test_too_few_bars_are_refused(folder, bars):
    with pytest.raises(BitcornError, match="64 bars are too few to forecast: v2 and seq_len 16 need 65"):
        Forecaster.load(folder).predict(bars.tail(64))
    Forecaster.load(folder).predict(bars.tail(65))
    with pytest.raises(BitcornError, match="no bars"):
        Forecaster.load(folder).predict(bars.head(0))


def test_a_market_that_stands_still_is_refused(folder, bars):
    still = bars.copy()
    still[["open", "high", "low", "close"]] = 5.0
    with pytest.raises(BitcornError, match="no finite fib_composite"):
        Forecaster.load(folder).predict(still)


def test_bars_of_another_timeframe_are_refused(folder, bars):
    with pytest.raises(BitcornError, match="the bars are 4h apart, but the run forecasts 1h"):
        Forecaster.load(folder).predict(bars.iloc[::4])


def test_bars_without_times_are_refused(folder, bars):
    with pytest.raises(BitcornError, match="no timestamp"):
        Forecaster.load(folder).predict(bars.drop(columns="timestamp"))


def test_a_model_that_tells_partitions_apart_refuses_others(tmp_path, trained_on, bars):
    from dataclasses import replace

    partitions = {"AAA": simulate_bars(700, seed=5, gaps=0), "BBBUSDT": trained_on}
    run = make_run(tmp_path / "run", partitions, replace(MODEL, symbol_embedding=2))
    forecaster = Forecaster.load(run)
    by_name = forecaster.predict(bars)["return"]
    bars = bars.copy()
    bars.attrs["symbol"] = "aaa"
    assert not np.allclose(forecaster.predict(bars)["return"], by_name)
    bars.attrs["symbol"] = "CCC"
    with pytest.raises(BitcornError, match="not trained on CCC: it forecasts AAA, BBBUSDT"):
        forecaster.predict(bars)


def changed_metadata(folder, to, **changes):
    """A copy of a run with other metadata."""
    import shutil

    shutil.copytree(folder, to)
    path = to / "metadata.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return to


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"feature_system": None}, "does not name its feature system"),
        ({"feature_system": "v9"}, "unknown feature system 'v9'"),
        ({"feature_version": 99}, "version: 99 became 1"),
        ({"feature_cols": ["other"] * 14}, "features other"),
    ],
)
def test_other_features_than_those_trained_on_are_refused(folder, tmp_path, change, message):
    with pytest.raises(BitcornError, match=message):
        Forecaster.load(changed_metadata(folder, tmp_path / "run", **change))


def test_changed_code_is_refused_with_its_module_unless_it_is_allowed(folder, tmp_path, bars):
    features = json.loads((folder / "metadata.json").read_text())["features"]
    features["code"]["modules"]["bitcorn_ray.features.systems.v2"] = "0" * 64
    changed = changed_metadata(folder, tmp_path / "run", features=features)
    with pytest.raises(BitcornError, match=r"bitcorn_ray\.features\.systems\.v2 changed"):
        Forecaster.load(changed)
    allowed = Forecaster.load(changed, allow_changed_code=True)
    assert "code of bitcorn_ray.features.systems.v2 changed" in allowed.notes
    pd.testing.assert_frame_equal(allowed.predict(bars), Forecaster.load(folder).predict(bars))


def test_a_library_of_another_version_is_noted(folder, tmp_path):
    features = json.loads((folder / "metadata.json").read_text())["features"]
    features["code"]["libraries"]["talib"] = "0.0.1"
    forecaster = Forecaster.load(changed_metadata(folder, tmp_path / "run", features=features))
    assert forecaster.notes[0].startswith("library talib: 0.0.1 became ")
    assert Forecaster.load(folder).notes == ()


def test_other_parameters_are_refused_with_what_differs(folder, tmp_path):
    features = json.loads((folder / "metadata.json").read_text())["features"]
    with pytest.raises(BitcornError, match="parameter window: 20 became nothing"):
        Forecaster.load(changed_metadata(folder, tmp_path / "run", features={**features, "parameters": {"window": 20}}))


def test_a_system_whose_name_leads_nowhere_is_passed(tmp_path, random_bars):
    run = make_run(tmp_path / "run", {"X": random_bars(400)}, system=momentum)
    with pytest.raises(BitcornError, match="unknown feature system 'momentum'"):
        Forecaster.load(run)
    assert len(Forecaster.load(run, system=momentum).predict(random_bars(450).to_frame())) == 2
    with pytest.raises(BitcornError, match="parameter window: 10 became 20"):
        Forecaster.load(run, system=momentum.with_parameters(window=20))
    with pytest.raises(BitcornError, match="trained on other features than v4 has here"):
        Forecaster.load(run, system=find_system("v4"))
