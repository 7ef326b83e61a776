import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bitcorn_ray.cache.chunks import decode_chunk, encode_chunk
from bitcorn_ray.errors import BitcornError

NAMES = ("a", "b", "c")


@pytest.fixture
def chunk(random_bars):
    bars = random_bars(300)
    matrix = np.random.default_rng(0).standard_normal((3, 300)).astype(np.float32)
    matrix[0, :5] = np.nan
    columns = {
        "timestamp": bars.timestamp,
        "bar": np.arange(300, dtype=np.uint32),
        **dict(zip(NAMES, matrix, strict=True)),
    }
    return matrix, bars, encode_chunk("k" * 32, columns)


def read(content, key="k" * 32, names=NAMES, rows=300):
    return np.array(decode_chunk(pa.py_buffer(content), key, names, np.float32, rows))


def test_a_chunk_is_read_back_bit_for_bit(chunk):
    matrix, bars, content = chunk
    assert read(content).tobytes() == matrix.tobytes()
    assert read(content, names=("c", "a")).tobytes() == matrix[[2, 0]].tobytes()
    (times,) = decode_chunk(pa.py_buffer(content), "k" * 32, ["timestamp"], np.int64, 300)
    np.testing.assert_array_equal(times, bars.timestamp)


def test_other_tools_read_it_as_plain_parquet(chunk):
    matrix, _, content = chunk
    frame = pq.read_table(pa.BufferReader(content)).to_pandas()
    assert list(frame.columns) == ["timestamp", "bar", *NAMES]
    assert str(frame["timestamp"].dtype) == "datetime64[ms, UTC]"
    np.testing.assert_array_equal(frame["b"].to_numpy(), matrix[1])


@pytest.mark.parametrize("wanted", [{"key": "l" * 32}, {"names": ("a", "x")}, {"rows": 299}])
def test_a_foreign_file_under_this_name_is_refused(chunk, wanted):
    with pytest.raises(BitcornError):
        read(chunk[2], **wanted)


def test_flipped_bits_and_truncation_never_change_features(chunk):
    matrix, _, content = chunk
    whole, rng, refused = bytes(content), np.random.default_rng(1), 0
    for place in [*rng.integers(0, len(whole), 400), *range(len(whole) - 200, len(whole))]:
        flipped = bytearray(whole)
        flipped[place] ^= 1 << int(rng.integers(0, 8))
        try:
            assert read(bytes(flipped)).tobytes() == matrix.tobytes()  # a place that no reader looks at
        except BitcornError:
            refused += 1
    assert refused > 300
    for cut in rng.integers(0, len(whole), 50):
        with pytest.raises(BitcornError):
            read(whole[:cut])
