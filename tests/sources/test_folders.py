import pytest

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.market.partition import Partition
from bitcorn_ray.sources.folders import files_in_folder, hive_partition, is_bar_file, names_in_path
from bitcorn_ray.storage.location import Location


def units(tmp_path, *names):
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("12")
    root = Location.of(tmp_path)
    return [[(file.relative_to(root), file.size) for file in unit] for unit in files_in_folder(root)]


def test_files_of_a_hive_partition_are_one(tmp_path):
    assert units(
        tmp_path,
        "symbol=A/timeframe=1h/year=2020/part-0.parquet",
        "symbol=A/timeframe=1h/year=2021/part-0.parquet",
        "symbol=A/timeframe=1h/_SUCCESS",
        "symbol=B%2FC/timeframe=1h/bars.parquet",
        "D_1h.csv.gz",
        "README.txt",
        ".hidden.parquet",
        "other/E_1h.parquet",
    ) == [[("D_1h.csv.gz", 2)], [("symbol=A/timeframe=1h", 4)], [("symbol=B%2FC/timeframe=1h/bars.parquet", 2)]]


def test_a_folder_without_bars_is_refused(tmp_path):
    with pytest.raises(BitcornError, match="holds no file of bars"):
        units(tmp_path, "README.txt")


def test_files_that_dates_divide_are_one_partition(tmp_path):
    assert units(
        tmp_path / "names", "BTCUSDT-1h-2024-12.csv", "BTCUSDT-1h-2025-01.csv", "ETHUSDT_1h_2023.csv", "ETHUSDT_4h.csv"
    ) == [
        [("BTCUSDT-1h-2024-12.csv", 2), ("BTCUSDT-1h-2025-01.csv", 2)],
        [("ETHUSDT_1h_2023.csv", 2)],
        [("ETHUSDT_4h.csv", 2)],
    ]
    assert units(
        tmp_path / "months",
        "symbol=A/year=2024/month=1/data_0.parquet",
        "symbol=A/year=2024/month=2/data_0.parquet",
        "symbol=B/year=2024/month=1/data_0.parquet",
    ) == [[("symbol=A", 4)], [("symbol=B/year=2024/month=1/data_0.parquet", 2)]]
    assert units(tmp_path / "spark", "part-00000-1d2h.parquet", "part-00001-5m1w.parquet", "X_1h.parquet") == [
        [("X_1h.parquet", 2)],
        [("part-00000-1d2h.parquet", 2), ("part-00001-5m1w.parquet", 2)],
    ]
    assert units(tmp_path / "days", "date=2024-01-01/A_1h.csv", "date=2024-01-02/A_1h.csv") == [
        [("date=2024-01-01/A_1h.csv", 2), ("date=2024-01-02/A_1h.csv", 2)]
    ]


def test_other_keys_than_dates_tell_markets_apart(tmp_path):
    found = units(
        tmp_path,
        "exchange=a/symbol=X/timeframe=1h/year=2023/0.parquet",
        "exchange=a/symbol=X/timeframe=1h/year=2024/0.parquet",
        "exchange=b/symbol=X/timeframe=1h/0.parquet",
        "exchange=b/Y_1h.csv",
    )
    names = [names_in_path(Location.of(tmp_path / unit[0][0])) for unit in found]
    assert sorted(names) == [("X.a", "1h"), ("X.b", "1h"), ("Y.b", "1h")]


def test_names_of_two_markets_that_say_one_partition_are_refused(tmp_path):
    with pytest.raises(BitcornError, match=r"binance_BTCUSDT_1h\.csv and in kraken_BTCUSDT_1h\.csv.*exchange="):
        units(tmp_path / "a", "binance_BTCUSDT_1h.csv", "kraken_BTCUSDT_1h.csv")
    with pytest.raises(BitcornError, match="keep one of them"):
        units(tmp_path / "b", "BTC-USDT_1h.csv", "symbol=BTC%2FUSDT/timeframe=1h/bars.parquet")


def test_names_come_from_the_folders_then_from_the_name(tmp_path):
    def said(name):
        return names_in_path(Location.of(tmp_path / name))

    assert said("symbol=A%2FB/timeframe=4h/X_1h.parquet") == ("A/B", "4h")
    assert said("symbol=A/1h/X_1h.parquet") == ("X", "1h")
    assert said("symbol=A/prices.csv") == ("A", None)
    assert names_in_path(Location.of("s3://b/symbol=A%252FB/timeframe=4h/x.parquet?region=x")) == ("A/B", "4h")
    assert hive_partition(Location("/symbol=A/x.parquet")) is None
    assert hive_partition(Location("/x/Symbol=A/Timeframe=1h/y")) == Partition("A", "1h")


def test_bar_files_are_known_by_their_ending():
    assert [name for name in ("a.PARQUET", "a.json.gz", "a.db", "a.txt", "_a.csv") if is_bar_file(name)] == [
        "a.PARQUET",
        "a.json.gz",
    ]
