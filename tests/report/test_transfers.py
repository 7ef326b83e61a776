from rich.console import Console

from bitcorn_ray.report.transfers import counter, download_table, export_table, ingest_table


def printed(table):
    console = Console(width=200, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(table)
    return console.export_text()


def test_an_ingested_file_shows_what_was_rejected_and_why():
    row = {"symbol": "BTC", "timeframe": "1h", "rows": 1_204, "inserted": 1_200, "updated": 1, "unchanged": 0}
    rejected = {"rejected": {"have no time": 2, "have no price": 1}, "source": "folder/[bold]a.csv"}
    text = printed(ingest_table([row | rejected, row | {"symbol": "", "rejected": {}, "source": "a.csv"}]))
    for part in ("BTC 1h", "1,204", "1,200", "[bold]a.csv", "2 have no time; 1 have no price"):
        assert part in text
    assert "folder" not in text
    assert text.rstrip().splitlines()[-1].split()[0] == "-"


def test_downloaded_and_exported_partitions_are_rows():
    text = printed(
        download_table(
            [
                {"symbol": "A", "timeframe": "1h", "rows": 5_000, "inserted": 4_999, "updated": 0, "last_timestamp": at}
                for at in ("2024-01-01T05:00:00Z", None)
            ]
        )
    )
    assert "2024-01-01 05:00" in text
    assert "4,999" in text
    text = printed(
        export_table([{"symbol": "A", "timeframe": "1h", "rows": 7, "bytes": 4_483_948, "file": "s3://b/x"}])
    )
    assert "4.5 MB" in text
    assert "s3://b/x" in text


def test_a_quiet_counter_shows_nothing(capsys):
    with counter("rows", quiet=True) as (count, say):
        count(5)
        say("reading")
    assert capsys.readouterr() == ("", "")
