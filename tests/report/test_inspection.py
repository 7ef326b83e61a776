from rich.console import Console

from bitcorn_ray.report.inspection import inspection_tables

PARTITION = {
    "symbol": "[b]X",
    "timeframe": "1h",
    "table": "candles",
    "rows": 77_373,
    "first": "2017-08-17T04:00:00Z",
    "last": None,
    "time": "epoch milliseconds",
    "symbol_from": "column pair",
    "timeframe_from": "the table's name",
    "problem": "also in spot",
}
TABLE = {
    "name": "candles",
    "kind": "view",
    "columns": {"open": "o", "high": "high"},
    "further": ["trades"],
    "ignored": "it is empty",
}


def test_everything_that_was_understood_is_shown():
    console = Console(width=250, record=True)
    for item in inspection_tables({"partitions": [PARTITION], "tables": [TABLE], "problems": ["no one knows"]}):
        console.print(item, markup=False)
    shown = console.export_text()
    for text in ("[b]X 1h", "77,373", "2017-08-17 04:00", "column pair", "also in spot", "open=o, high", "it is empty"):
        assert text in shown
    assert "problem: no one knows" in shown
