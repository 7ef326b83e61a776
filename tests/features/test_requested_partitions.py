import pytest

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.features.plan import FeatureJob, requested_of, requested_partitions, require_found
from bitcorn_ray.market.partition import Partition, is_requested
from bitcorn_ray.sources.source import open_source


@pytest.mark.parametrize(
    ("symbols", "timeframes", "expected"),
    [
        (None, None, True),
        (["X", "btc-usdt"], None, True),
        (["X", "Y"], None, False),
        (["BTCUSDT"], ["4h", "60m"], True),
        (["BTCUSDT"], ["4h"], False),
    ],
)
def test_a_partition_is_asked_for_by_any_of_the_names(symbols, timeframes, expected):
    assert is_requested(Partition("BTC/USDT", "1h"), symbols, timeframes) is expected


def test_a_database_gives_its_partitions_with_sizes(market_db):
    ((file, wanted),) = requested_partitions(open_source(market_db), {}, None, None)
    assert file.location.path == market_db
    sizes = dict(wanted)
    assert list(sizes) == [Partition("AAAUSDT", "1h"), Partition("BBBUSDT", "1h")]
    assert sizes[Partition("BBBUSDT", "1h")] == 900
    with pytest.raises(BitcornError, match="unknown symbol C"):
        list(requested_partitions(open_source(market_db), {}, ["C"], None))


def test_requested_partitions_of_unread_files_are_checked_after_reading():
    unread, named = (FeatureJob(path="/x", partition=p, size=1) for p in (None, Partition("A", "1h")))
    require_found([named], [], ["B"], None)
    require_found([unread], [Partition("B", "1h")], ["b"], ["1h"])
    with pytest.raises(BitcornError, match="no bars of timeframe 4h"):
        require_found([unread], [Partition("B", "1h")], ["b"], ["4h"])


@pytest.mark.parametrize(
    ("path", "expected"),
    [("/d/BTC_1h.parquet", ("BTC", "1h")), ("/d/all.csv", ("all.csv", "")), ("/d/X_1M.csv", ("X_1M.csv", ""))],
)
def test_a_job_has_a_label_before_its_file_is_read(path, expected):
    label = FeatureJob(path=path, partition=None, size=1).label()
    assert (label.symbol, label.timeframe) == expected


def test_resampled_partitions_are_requested_with_their_base(market_db):
    ((_, wanted),) = requested_partitions(open_source(market_db), {}, ["bbbusdt"], ["4h", "1h"])
    assert [(p.timeframe, p.base, size) for p, size in wanted] == [("1h", None, 900), ("4h", "1h", 900)]
    stored = [Partition("A", "1h"), Partition("B", "4h")]
    assert [(p.symbol, p.base) for p in requested_of(stored, None, ["4h"])] == [("B", None), ("A", "1h")]
    assert requested_of(stored, None, None) == stored
    assert requested_of(stored, ["a"], ["1h"]) == stored[:1]
