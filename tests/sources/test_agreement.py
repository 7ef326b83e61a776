"""Bars that contradict what the names of their columns, files and tables say."""

import sqlite3

import pandas as pd
import pytest

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.sources.files import read_file
from bitcorn_ray.sources.loading import load_bars
from bitcorn_ray.sources.options import SourceOptions

HOUR = 3_600_000
START = 1_704_067_200_000


def some_bars(rows=12, step=HOUR):
    base = [100.0 + (row * 7) % 5 for row in range(rows)]
    return pd.DataFrame(
        {
            "timestamp": [START + step * row for row in range(rows)],
            "open": base,
            "high": [value + 3 for value in base],
            "low": [value - 3 for value in base],
            "close": [value + 1 for value in base],
            "volume": [5.0 + row for row in range(rows)],
        }
    )


def written(frame, path):
    frame.to_csv(path, index=False)
    return path


def stored(tables, path):
    with sqlite3.connect(path) as database:
        for name, frame in tables.items():
            frame.to_sql(name, database, index=False)
    return path


def only(path, mapping=None):
    [(_, bars)] = read_file(path, options=SourceOptions.of(mapping=mapping or {}))
    return bars


def test_prices_that_contradict_their_columns_are_refused_until_they_are_mapped(tmp_path):
    frame = some_bars().rename(columns={"high": "low", "low": "high"})
    path = written(frame, tmp_path / "BTCUSDT_1h.csv")
    with pytest.raises(BitcornError, match=r"12 of 12 rows.*--map open=open,high=high,low=low,close=close"):
        read_file(path)
    assert only(path, {"high": "low", "low": "high"}).high.tolist() == some_bars()["high"].tolist()
    assert only(path, {"high": "high"}).high.tolist() == frame["high"].tolist()
    funding = some_bars().assign(high=0.0, low=0.0, close=0.0)
    assert only(written(funding, tmp_path / "BTCUSDT_1h.csv")).open.tolist() == funding["open"].tolist()
    few = some_bars().assign(high=lambda made: made["high"].where(made.index > 4, 0.0))
    assert only(written(few, tmp_path / "BTCUSDT_1h.csv")).high.tolist() == few["high"].tolist()


def test_prices_of_a_table_by_other_names_are_checked_too(tmp_path):
    frame = some_bars().rename(columns={"high": "l", "low": "h", "open": "o", "close": "c"})
    path = stored({"btcusdt_1h": frame}, tmp_path / "x.db")
    with pytest.raises(BitcornError, match=r"12 of 12 rows.*--map open=o,high=h,low=l,close=c"):
        load_bars(path, "BTCUSDT", "1h")
    options = SourceOptions.of(mapping={"high": "l", "low": "h"})
    assert load_bars(path, "BTCUSDT", "1h", options=options).bars.low.tolist() == some_bars()["low"].tolist()


@pytest.mark.parametrize(("named", "minutes", "rows"), [("8m", 1, 20), ("1h", 5, 6), ("1m", 60, 48), ("1d", 1, 9)])
def test_bars_off_the_named_timeframe_are_refused(tmp_path, named, minutes, rows):
    frame = some_bars(rows, minutes * 60_000)
    true = f"{minutes}m" if minutes < 60 else "1h"
    with pytest.raises(BitcornError, match=rf"{named} bars.*--timeframe {true}"):
        read_file(written(frame, tmp_path / f"BTCUSDT_{named}.csv"))
    assert len(read_file(tmp_path / f"BTCUSDT_{named}.csv", timeframe=true)[0][1]) == rows
    with pytest.raises(BitcornError, match=rf"{named} bars.*{true} apart"):
        load_bars(stored({f"btcusdt_{named}": frame}, tmp_path / "x.db"), "BTCUSDT", named)


def test_thin_trading_and_closed_nights_are_no_other_timeframe(tmp_path):
    frame = some_bars(240)
    for kept in (frame[frame.index % 7 != 3], frame[frame.index % 24 < 7]):
        assert len(only(written(kept, tmp_path / "AAPL_1h.csv"))) == len(kept)


@pytest.mark.parametrize("base", ["volume_btc", "amount", "vol_in_coins"])
def test_a_volume_that_is_another_times_the_price_is_not_the_base(tmp_path, base):
    frame = some_bars()
    path = written(frame.assign(**{base: frame.volume, "volume": frame.volume * frame.close}), tmp_path / "BTC_1h.csv")
    assert only(path).volume.tolist() == frame.volume.tolist()
    assert only(path, {"volume": "volume"}).volume.tolist() == (frame.volume * frame.close).tolist()
    quote = written(frame.assign(turnover=frame.volume * frame.close), tmp_path / "BTC_1h.csv")
    assert only(quote).volume.tolist() == frame.volume.tolist()


def test_times_of_first_trades_give_way_to_times_on_a_grid(tmp_path):
    frame = some_bars()
    frame = frame.assign(time_open=frame["timestamp"] + 7_123 + 37 * frame.index).rename(columns={"timestamp": "date"})
    assert only(written(frame, tmp_path / "BTC_1h.csv")).timestamp.tolist() == frame["date"].tolist()


@pytest.mark.parametrize("column", ["name", "security", "stock", "contract"])
def test_a_number_under_a_vague_name_is_no_symbol(tmp_path, column):
    path = written(some_bars().assign(**{column: 2781}), tmp_path / "BTCUSD_1h.csv")
    assert read_file(path)[0][0].symbol == "BTCUSD"
    [(partition, _)] = read_file(path, options=SourceOptions.of(mapping={"symbol": column}))
    assert partition.symbol == "2781"


def test_each_table_of_the_same_columns_is_decided_by_its_own_values(tmp_path):
    frame = some_bars().rename(columns={"volume": "tick_volume"})
    path = tmp_path / "x.db"
    tables = {"eurusd_1h": frame.assign(real_volume=0), "aapl_1h": frame.assign(real_volume=7)}
    stored(tables, path)
    assert load_bars(path, "EURUSD", "1h").bars.volume.tolist() == frame["tick_volume"].tolist()
    assert load_bars(path, "AAPL", "1h").bars.volume.tolist() == [7.0] * len(frame)


def test_a_late_volume_of_a_table_counts(tmp_path):
    frame = some_bars(9_000).rename(columns={"volume": "tick_volume"})
    late = frame.assign(real_volume=[0.0 if row < 4_000 else 7.0 for row in range(len(frame))])
    path = stored({"aapl_1h": late}, tmp_path / "x.db")
    assert load_bars(path, "AAPL", "1h").bars.volume.tolist() == late["real_volume"].tolist()
