import pytest
from rendered import printed

from bitcorn_ray.market.partition import Partition
from bitcorn_ray.report.sources import cleaning_line, download_table, export_table, ingest_table, inspection_tables
from bitcorn_ray.sources.exchange import DownloadedPartition
from bitcorn_ray.sources.export import ExportedPartition
from bitcorn_ray.sources.ingest import IngestedPartition
from bitcorn_ray.sources.reader import InspectedPartition, InspectedTable, Inspection


def test_an_inspection_shows_partitions_tables_and_problems():
    partition = InspectedPartition(
        symbol="[b]X",
        timeframe="1h",
        table="candles",
        rows=77_373,
        first="2017-08-17T04:00:00Z",
        last=None,
        time="epoch milliseconds",
        units={},
        symbol_from="column pair",
        timeframe_from="the table's name",
        problem="also in spot",
    )
    table = InspectedTable(
        name="candles", kind="view", columns={"open": "o", "high": "high"}, further=("trades",), ignored="it is empty"
    )
    found = Inspection(
        source="m.db", kind="database", tables=[table], partitions=[partition], problems=["no one knows"]
    )
    shown = printed(*inspection_tables(found))
    for text in ("[b]X 1h", "77,373", "2017-08-17 04:00", "column pair", "also in spot", "open=o, high", "it is empty"):
        assert text in shown
    assert "problem: no one knows" in shown


def ingested(symbol, source, rejected):
    counts = {"rows": 1_204, "inserted": 1_200, "updated": 1, "unchanged": 0}
    return IngestedPartition(source=source, partition=Partition(symbol, "1h"), rejected=rejected, **counts)


def test_an_ingested_file_shows_counts_and_reasons_of_rejection():
    rejected = {"have no time": 2, "have no price": 1}
    text = printed(ingest_table([ingested("BTC", "folder/[bold]a.csv", rejected), ingested("", "a.csv", {})]))
    for part in ("BTC 1h", "1,204", "1,200", "[bold]a.csv", "2 have no time; 1 have no price"):
        assert part in text
    assert "folder" not in text
    assert text.rstrip().splitlines()[-1].split()[0] == "-"


def test_downloaded_and_exported_partitions_are_rows():
    partition = Partition("A", "1h")
    counts = {"rows": 5_000, "inserted": 4_999, "updated": 0}
    times = ("2024-01-01T05:00:00Z", None)
    text = printed(download_table([DownloadedPartition(partition, **counts, last_timestamp=time) for time in times]))
    assert "2024-01-01 05:00" in text
    assert "4,999" in text
    text = printed(export_table([ExportedPartition(partition, rows=7, file="s3://b/x", bytes=4_483_948)]))
    assert "4.5 MB" in text
    assert "s3://b/x" in text


NONE = dict.fromkeys(
    (
        "sorted_rows",
        "duplicates_dropped",
        "off_grid_dropped",
        "off_grid_snapped",
        "bad_prints_masked",
        "gaps_filled",
        "bars_filled",
        "gaps_left",
    ),
    0,
)


@pytest.mark.parametrize(
    ("counts", "changes"),
    [
        ({}, "nothing to clean"),
        ({"duplicates_dropped": 2_649}, "2,649 dropped as duplicates"),
        ({"bars_filled": 3, "gaps_filled": 2, "gaps_left": 1}, "3 filled in 2 gaps, 1 longer gap left"),
        ({"off_grid_snapped": 1, "bad_prints_masked": 4}, "1 snapped to the grid, 4 masked as bad prints"),
    ],
)
def test_a_cleaning_line_lists_only_changes(counts, changes):
    line = cleaning_line("BTCUSDT 1h", {**NONE, "rows": 36_062, "bars": 33_413, **counts})
    assert line == f"BTCUSDT 1h: 36,062 rows became 33,413 bars ({changes})"
