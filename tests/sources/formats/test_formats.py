import gzip
import io
import json
import zipfile

import pandas as pd
import pyarrow as pa
import pyarrow.feather as feather
import pytest

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.sources.formats.formats import opened_rows
from bitcorn_ray.storage.location import Location

FRAME = pd.DataFrame(
    {
        "ts": [1_700_000_000_000, 1_700_003_600_000],
        "open": [1.0, 2],
        "high": [3.0, 4],
        "low": [0.5, 1],
        "close": [2.0, 3],
    }
).assign(volume=[7.0, 0.25])
CSV = FRAME.to_csv(index=False).encode()
ROWS = FRAME.to_dict("records")


def zipped(content, name):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
    return packed.getvalue()


def packed_feather():
    packed = io.BytesIO()
    feather.write_feather(FRAME, packed, compression="lz4")
    return packed.getvalue()


def parquet():
    packed = io.BytesIO()
    FRAME.to_parquet(packed)
    return packed.getvalue()


def rows_of(path):
    with opened_rows(Location.of(path)) as rows:
        texts = [name for name in rows.names if name in ("ts", "timestamp", "open_time")]
        read = rows.read(["open", "high", "low", "close", "volume"], texts)
        frame = pd.concat([batch.to_pandas() for batch in read], ignore_index=True).rename(
            columns=dict.fromkeys(texts, "ts")
        )
    return frame[list(FRAME)].astype(float).to_dict("records")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", CSV),
        ("a.csv.gz", gzip.compress(CSV)),
        ("two_members.csv.gz", gzip.compress(CSV[:40]) + gzip.compress(CSV[40:])),
        ("packed_but_not_said.csv", gzip.compress(CSV)),
        ("a.csv.zip", zipped(CSV, "a.csv")),
        ("a.zip", zipped(json.dumps(ROWS).encode(), "a.json")),
        ("a.tsv", FRAME.to_csv(index=False, sep="\t").encode()),
        ("a.json", json.dumps(ROWS).encode()),
        ("a.json.gz", gzip.compress(json.dumps(ROWS).encode())),
        ("a.jsonl", "\n".join(map(json.dumps, ROWS)).encode()),
        ("freqtrade.json", json.dumps(FRAME.to_numpy().tolist()).encode()),
        (
            "bitfinex.json",
            json.dumps(FRAME[["ts", "open", "close", "high", "low", "volume"]].to_numpy().tolist()).encode(),
        ),
        (
            "bitfinex.csv",
            FRAME[["ts", "open", "close", "high", "low", "volume"]].to_csv(index=False, header=False).encode(),
        ),
        (
            "binance.csv",
            FRAME.assign(a=FRAME["ts"] + 3_599_999, b=FRAME["volume"] * FRAME["close"], c=3, d=4, e=5, f=6)
            .to_csv(index=False, header=False)
            .encode(),
        ),
        ("a.parquet", parquet()),
        ("parquet.csv", parquet()),
        ("a.feather", packed_feather()),
    ],
)
def test_every_format_gives_the_same_rows(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    assert rows_of(tmp_path / name) == [{key: float(value) for key, value in row.items()} for row in ROWS]


def test_a_large_parquet_file_comes_in_batches(tmp_path):
    pa.parquet.write_table(pa.table({"ts": range(600_000)}), tmp_path / "a.parquet")
    with opened_rows(Location.of(tmp_path / "a.parquet")) as rows:
        sizes = [batch.num_rows for batch in rows.read([], ["ts"])]
    assert sum(sizes) == 600_000
    assert max(sizes) < 300_000


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"\0\1" + CSV, "unknown format: give text, or one of .csv, .tsv"),
        ("a.csv.gz", gzip.compress(CSV * 999)[:-20], "cannot be read"),
        ("a.csv.gz", b"no gzip", "cannot be read"),
        ("a.zip", zipped(CSV, "a.csv")[:-5], "cannot be read"),
        ("a.zip", zipped(b"", "folder/"), "holds no file"),
        ("a.zip", b"PK\x05\x06" + b"\0" * 18, "cannot be read"),
        ("a.feather", b"", "cannot be read"),
        ("a.feather", packed_feather()[:-9], "cannot be read"),
        ("a.parquet", parquet()[:-9], "cannot be read"),
    ],
)
def test_a_damaged_file_is_one_clear_line(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BitcornError, match=message) as error:
        rows_of(tmp_path / name)
    assert name in str(error.value)
    assert "\n" not in str(error.value)


def test_a_damaged_zip_is_noticed_by_its_checksum(tmp_path):
    content = bytearray(zipped(CSV * 50, "a.csv"))
    content[content.index(b"a.csv") + 5 + 60] ^= 0xFF
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(BitcornError, match="cannot be read"):
        rows_of(tmp_path / "a.zip")
