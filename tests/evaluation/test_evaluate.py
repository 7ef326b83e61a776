import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from small_runs import make_run

from bitcorn_ray.data_loader import compute_features
from bitcorn_ray.errors import BitcornError
from bitcorn_ray.evaluation.evaluate import evaluate, evaluated_windows
from bitcorn_ray.forecasting.forecasts import Forecasts
from bitcorn_ray.market.bars import Bars, show_time
from bitcorn_ray.market.partition import Partition
from bitcorn_ray.market.simulate import simulate_bars
from bitcorn_ray.metrics.skill import evaluate_skill

SIM = Partition("SIM", "1h")
HOUR = 3_600_000
HORIZONS = (1, 4)
TRAINED = 900


def write(bars, path):
    columns = bars.columns()
    pq.write_table(pa.table({"ts": columns.pop("timestamp"), **columns}), path)
    return path


@pytest.fixture(scope="module")
def market(tmp_path_factory):
    """A run on the first 900 bars of BBBUSDT, and a folder with 1,500 bars of it and of a symbol it never saw."""
    folder = tmp_path_factory.mktemp("market")
    bars = simulate_bars(1_500, seed=2, gaps=0)
    run = make_run(folder / "run", {"BBBUSDT": bars.take(slice(TRAINED))})
    (folder / "bars").mkdir()
    write(bars, folder / "bars" / "BBBUSDT_1h.parquet")
    write(simulate_bars(1_500, seed=3, gaps=3), folder / "bars" / "NEWUSDT_1h.parquet")
    return folder, run, bars


def garch(count, seed):
    """Bars whose true one-bar variance is known: (bars, variance)."""
    rng = np.random.default_rng(seed)
    level, alpha, beta = 1e-4, 0.1, 0.85
    variance, returns = np.empty(count), np.empty(count)
    variance[0] = level
    for t in range(count):
        if t:
            variance[t] = level * (1 - alpha - beta) + alpha * returns[t - 1] ** 2 + beta * variance[t - 1]
        returns[t] = np.sqrt(variance[t]) * rng.normal()
    close = 100 * np.exp(np.cumsum(returns))
    opened = np.concatenate(([100.0], close[:-1]))
    spread = np.exp(np.abs(rng.normal(0, np.sqrt(variance) / 2)))
    bars = Bars(
        timestamp=HOUR * np.arange(count, dtype=np.int64),
        open=opened,
        high=np.maximum(opened, close) * spread,
        low=np.minimum(opened, close) / spread,
        close=close,
        volume=np.ones(count),
    )
    # E[sum of the next h variances] by the recursion of GARCH(1,1).
    following = level * (1 - alpha - beta) + alpha * returns**2 + beta * variance
    horizon = np.column_stack(
        [sum(level + (alpha + beta) ** k * (following - level) for k in range(h)) for h in HORIZONS]
    )
    return bars, horizon


def forecasts_of(bars, variances, rows, returns=None):
    shape = (len(rows), len(HORIZONS))
    return Forecasts(
        partition=SIM,
        horizons=HORIZONS,
        coverages=(0.8,),
        cutoffs=bars.timestamp[rows],
        close=bars.close[rows],
        returns=np.zeros(shape) if returns is None else returns,
        volatilities=np.sqrt(variances[rows]),
        widths=np.full((len(rows), 1, len(HORIZONS)), 1.2816),
        sample=np.full(len(rows), "test"),
    )


def test_the_true_variance_is_judged_better_than_what_is_fitted_and_direction_a_coin():
    bars, variances = garch(12_000, seed=5)
    rows = np.arange(6_000, 11_990)
    one, remarks, kept = evaluated_windows(bars, SIM, forecasts_of(bars, variances, rows), 6_000 * HOUR, 0, None)
    assert len(kept) == len(rows)
    assert remarks == {}
    for skill in evaluate_skill(HORIZONS, [one]):
        found = {each.baseline: each for each in skill.volatility}
        assert found["constant variance"].outcome == found["EWMA"].outcome == found["log-HAR"].outcome == "better"
        # GARCH(1,1) is what made the market: fitted to it, it is as good as the truth to a thousandth of a nat or so.
        assert abs(found["GARCH(1,1)"].test.mean) < 0.005
        assert [each.outcome for each in skill.returns] == ["not distinguishable"]
        assert "direction: not forecast" in skill.verdict


def test_a_forecast_that_knows_the_sign_is_told_so():
    bars, variances = garch(3_000, seed=6)
    rows = np.arange(1_500, 2_990)
    log_close = np.log(bars.close)
    known = np.column_stack([log_close[rows + h] - log_close[rows] for h in HORIZONS])
    one, _, _ = evaluated_windows(bars, SIM, forecasts_of(bars, variances, rows, 0.1 * known), 1_500 * HOUR, 0, None)
    for skill in evaluate_skill(HORIZONS, [one]):
        assert "direction: better than a coin (100.0 % right" in skill.verdict
        assert skill.returns[0].outcome == "better"


def test_nothing_that_is_judged_reaches_the_baselines():
    bars, variances = garch(3_000, seed=7)
    rows, cut = np.arange(1_500, 2_990), 2_400
    features = np.random.default_rng(0).normal(size=(3_000, 3))
    wild = np.ones(3_000)
    wild[cut + 1 :] = np.exp(np.random.default_rng(1).normal(0, 0.3, 3_000 - cut - 1))
    moved = replace(bars, **{name: getattr(bars, name) * wild for name in ("open", "high", "low", "close")})
    calm, noisy = (
        evaluated_windows(each, SIM, forecasts_of(each, variances, rows), 1_500 * HOUR, 0, features)[0]
        for each in (bars, moved)
    )
    until = cut - 1_500 + 1
    for name, before in {**calm.baseline_variances, **calm.baseline_returns}.items():
        after = {**noisy.baseline_variances, **noisy.baseline_returns}[name]
        np.testing.assert_array_equal(before[:until], after[:until], err_msg=name)
    assert not np.array_equal(calm.baseline_variances["EWMA"][until:], noisy.baseline_variances["EWMA"][until:])


def test_outcomes_over_missing_bars_are_not_known():
    bars, variances = garch(2_000, seed=8)
    holes = bars.take(np.delete(np.arange(2_000), [1_500]))
    kept_variances = np.delete(variances, 1_500, axis=0)
    rows = np.arange(1_490, 1_510)
    one, _, _ = evaluated_windows(holes, SIM, forecasts_of(holes, kept_variances, rows), 1_400 * HOUR, 0, None)
    unknown = np.isnan(one.outcome)
    # Row 1499 is the last bar before the hole.
    assert np.flatnonzero(unknown[:, 0]).tolist() == [9]
    assert np.flatnonzero(unknown[:, 1]).tolist() == [6, 7, 8, 9]
    np.testing.assert_array_equal(unknown, np.isnan(one.realised))


def test_a_run_is_judged_on_what_came_after_it(market, tmp_path):
    folder, run, bars = market
    done = evaluate(run, folder / "bars", cache_dir=tmp_path)
    (one,) = done.partitions
    assert (one.symbol, one.sample) == ("BBBUSDT", "out of sample")
    assert one.windows == 1_500 - TRAINED
    assert np.datetime64(one.first[:-1], "ms").astype(int) == bars.timestamp[TRAINED]
    validation = json.loads((run / "metadata.json").read_text())["partitions"][0]["validation"]
    assert one.fitted_until < validation[0]
    assert [each.horizon for each in one.metrics] == [1, 4]
    assert done.skill == one.skill
    assert {each.baseline for each in done.skill[0].volatility} >= {"strong HAR", "log-HAR", "EWMA", "ridge"}
    assert json.loads(json.dumps(done.to_json()))["partitions"][0]["windows"] == one.windows


def test_a_symbol_that_was_not_trained_on_is_judged_after_the_run_and_both_together(market, tmp_path):
    folder, run, _ = market
    done = evaluate(run, folder / "bars", symbols=["bbb/usdt", "NEWUSDT"], cache_dir=tmp_path)
    assert [one.sample for one in done.partitions] == ["out of sample", "other symbol"]
    assert done.partitions[1].first >= done.partitions[0].first
    assert done.partitions[1].fitted_until == done.partitions[0].fitted_until
    assert done.skill[0].volatility[0].test.count <= 600


def test_a_symbol_of_the_training_that_the_source_lacks_is_told(market, tmp_path):
    folder, _, bars = market
    both = {"BBBUSDT": bars.take(slice(TRAINED)), "GONEUSDT": bars.take(slice(TRAINED))}
    done = evaluate(make_run(tmp_path / "run", both), folder / "bars" / "BBBUSDT_1h.parquet", cache_dir=tmp_path)
    assert [each.symbol for each in done.partitions] == ["BBBUSDT"]
    (note,) = done.notes
    assert note.startswith("the run was trained on GONEUSDT too, of which")
    named = evaluate(tmp_path / "run", folder / "bars" / "BBBUSDT_1h.parquet", symbols=["BBBUSDT"], cache_dir=tmp_path)
    assert named.notes == ()


def test_nothing_out_of_sample_is_an_error(market, tmp_path):
    _, run, bars = market
    path = write(bars.take(slice(TRAINED)), tmp_path / "BBBUSDT_1h.parquet")
    last = show_time(int(bars.timestamp[TRAINED - 1]))
    with pytest.raises(BitcornError, match=f"no window is out of sample: .* BBBUSDT 1h up to {last}, .*--test-frac"):
        evaluate(run, path, cache_dir=tmp_path)


def test_features_come_out_of_the_cache(market, tmp_path):
    folder, run, _ = market
    compute_features(folder / "bars", cache_dir=tmp_path)
    before = sorted(path.name for path in (tmp_path / "features").iterdir())
    evaluate(run, folder / "bars", cache_dir=tmp_path)
    assert sorted(path.name for path in (tmp_path / "features").iterdir()) == before
