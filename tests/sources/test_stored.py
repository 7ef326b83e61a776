import gzip
import sqlite3
from contextlib import closing

import numpy as np
import pandas as pd
import pytest
from raw_files import cryptodatadownload
from reading import stored_rows

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.sources.options import SourceOptions

START = 1_672_531_200_000
HOUR = 3_600_000


def test_the_raw_file_is_read_as_it_is(data_dir):
    (stored,) = stored_rows(data_dir / "raw" / "CDD_Binance_BTCUSDT_1h.csv.gz")
    rows, units, formats = cryptodatadownload(data_dir)
    assert str(stored.partition) == "BTC/USDT 1h"
    assert (stored.units, stored.formats, stored.set_aside) == (units, formats, {})
    for name, column in rows.columns().items():
        assert np.array_equal(getattr(stored.rows, name), column), name


def write_csv(path, rows, header="symbol,date,unix,open,high,low,close,volume"):
    path.write_text("\n".join([header, *(",".join(map(str, row)) for row in rows)]) + "\n")
    return path


def row(symbol, n, unit=1, date=None):
    text = date or np.datetime64(START + n * HOUR, "ms").astype(str).replace("T", " ")[:19]
    return (symbol, text, (START + n * HOUR) // unit, 1, 2, 0.5, 1.5, 10)


def test_each_partition_of_a_file_has_its_own_units_and_formats(tmp_path):
    rows = [row("AAA", n, 1 if n < 3 else 1000) for n in range(5)]
    rows += [row(" BBB", n, 1, None if n < 2 else f"2023-01-01 0{n}-AM") for n in range(4)]
    found = {s.partition.symbol: s for s in stored_rows(write_csv(tmp_path / "many.csv", rows))}
    assert found["AAA"].units == {"ms": 3, "s": 2}
    assert found["BBB"].units == {"ms": 4}
    assert found["AAA"].formats == {"date": {"YYYY-MM-DD HH:MM:SS": 5}}
    assert found["BBB"].formats == {"date": {"YYYY-MM-DD HH:MM:SS": 2, "YYYY-MM-DD HH-AM": 2}}
    assert len(found["AAA"].rows) == 5


def test_numbers_are_not_taken_for_dates(tmp_path):
    rows = [(START + n * HOUR, 1, 2, 0.5, 1.5, 10, 20230101, "buy") for n in range(4)]
    path = write_csv(tmp_path / "AAA_1h.csv", rows, "ts,open,high,low,close,volume,trades,side")
    (stored,) = stored_rows(path)
    assert stored.formats == {}


def test_rows_that_cannot_be_bars_are_counted(tmp_path):
    rows = [row("AAA", n) for n in range(4)]
    rows[2] = (*rows[2][:2], "", *rows[2][3:])
    (stored,) = stored_rows(write_csv(tmp_path / "AAA_1h.csv", rows))
    assert stored.set_aside == {"have no time": 1}
    assert len(stored.rows) == 3


def test_partitions_of_a_database_are_read_with_their_units(market_db):
    with closing(sqlite3.connect(market_db)) as connection, connection:
        connection.execute("UPDATE ohlcv SET ts = ts / 1000 WHERE symbol = 'BBBUSDT' AND rowid % 2 = 0")
    found = {s.partition.symbol: s for s in stored_rows(market_db)}
    assert sum(found["BBBUSDT"].units.values()) == 900
    assert set(found["BBBUSDT"].units) == {"s", "ms"}
    assert found["AAAUSDT"].units == {"ms": len(found["AAAUSDT"].rows)}
    assert (np.diff(found["BBBUSDT"].rows.timestamp) == HOUR).all()
    assert "table ohlcv of" in found["AAAUSDT"].source


def test_only_what_is_asked_for_is_read(market_db, tmp_path, data_dir):
    (one,) = stored_rows(market_db, ["bbb/usdt"])
    assert one.partition.symbol == "BBBUSDT"
    (one,) = stored_rows(data_dir / "bars", ["DOGE-USDT"], ["1d"])
    assert str(one.partition) == "DOGEUSDT 1d"
    for source in (market_db, data_dir / "bars"):
        with pytest.raises(BitcornError, match="unknown symbol NOPE"):
            list(stored_rows(source, ["NOPE"]))
        with pytest.raises(BitcornError, match="no bars of timeframe 3m"):
            list(stored_rows(source, None, ["3m"]))


def test_a_symbol_is_given_to_bars_that_have_none(tmp_path):
    rows = [r[1:] for r in (row("", n) for n in range(5))]
    path = write_csv(tmp_path / "export.csv.gz", rows, "date,unix,open,high,low,close,volume")
    path.write_bytes(gzip.compress(path.read_bytes()))
    (stored,) = stored_rows(path, ["XYZ"])
    assert str(stored.partition) == "XYZ 1h"
    with pytest.raises(BitcornError, match="does not say its symbol"):
        list(stored_rows(path))


def test_columns_are_those_that_the_user_says(tmp_path):
    rows = [(START + n * HOUR, 1, 2, 0.5, 1.5, 10) for n in range(5)]
    path = write_csv(tmp_path / "AAA_1h.csv", rows, "ts,erster,high,low,close,volume")
    (stored,) = stored_rows(path, options=SourceOptions.of(None, ["open=erster"]))
    assert stored.rows.open.tolist() == [1.0] * 5


def test_the_files_of_one_partition_are_put_together(tmp_path, random_bars):
    bars = random_bars(100).to_frame()
    folder = tmp_path / "bars" / "symbol=AAA" / "timeframe=1h"
    folder.mkdir(parents=True)
    bars.iloc[:40].to_parquet(folder / "a.parquet")
    bars.iloc[40:].to_parquet(folder / "b.parquet")
    (stored,) = stored_rows(tmp_path / "bars")
    assert str(stored.partition) == "AAA 1h"
    pd.testing.assert_frame_equal(stored.rows.to_frame(), bars)
    assert sum(stored.units.values()) == 100


@pytest.mark.parametrize("markets", [("DE1", "DE2"), (256_265, 408_065)])
def test_rows_of_two_markets_are_not_diagnosed_as_duplicates(tmp_path, markets):
    rows = [(START + n * HOUR, 1, 2, 0.5, 1.5, 10, market) for n in range(5) for market in markets]
    path = write_csv(tmp_path / "AAA_1h.csv", rows, "ts,open,high,low,close,volume,token")
    with closing(sqlite3.connect(tmp_path / "AAA_1h.db")) as connection, connection:
        connection.execute("CREATE TABLE bars (ts, open, high, low, close, volume, token)")
        connection.executemany("INSERT INTO bars VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
    for source in (path, tmp_path / "AAA_1h.db"):
        with pytest.raises(BitcornError, match=r"5 of 10 rows of .* column token .* tells them apart"):
            list(stored_rows(source))
        assert len(list(stored_rows(source, options=SourceOptions.of(None, ["symbol=token"])))) == 2


def test_rows_of_several_exchanges_have_their_own_units(tmp_path):
    rows = [(*row("AAA", n, 1000 if name else 1), name) for n in range(5) for name in ("okx", "")]
    header = "symbol,date,unix,open,high,low,close,volume,exchange"
    found = {s.partition.symbol: s for s in stored_rows(write_csv(tmp_path / "x.csv", rows, header))}
    assert {name: (stored.units, len(stored.rows)) for name, stored in found.items()} == {
        "AAA.okx": ({"s": 5}, 5),
        "AAA": ({"ms": 5}, 5),
    }


def test_a_symbol_that_is_not_there_is_told_beside_one_that_is(market_db):
    rows = stored_rows(market_db, ["AAAUSDT", "NEWUSDT"])
    assert next(rows).partition.symbol == "AAAUSDT"
    with pytest.raises(BitcornError, match="unknown symbol NEWUSDT: there is AAAUSDT, BBBUSDT"):
        next(rows)
