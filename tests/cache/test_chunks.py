import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bitcorn_ray.cache.chunks import decode_bars, decode_chunk, encode_chunk, fingerprint_bars
from bitcorn_ray.errors import BitcornError
from bitcorn_ray.market.bars import Bars

NAMES = ("a", "b", "c")


@pytest.fixture
def chunk(random_bars):
    bars = random_bars(300)
    matrix = np.random.default_rng(0).standard_normal((3, 300)).astype(np.float32)
    matrix[0, :5] = np.nan
    return matrix, bars, encode_chunk("k" * 32, NAMES, matrix, bars)


def read(content, key="k" * 32, names=NAMES, rows=300):
    out = np.zeros((len(names), rows), np.float32)
    decode_chunk(pa.py_buffer(content), key, names, out)
    return out


def test_a_chunk_comes_back_to_the_bit(chunk):
    matrix, bars, content = chunk
    assert read(content).tobytes() == matrix.tobytes()
    assert read(content, names=("c", "a")).tobytes() == matrix[[2, 0]].tobytes()
    times, prints = decode_bars(pa.py_buffer(content), "k" * 32, timed=True)
    np.testing.assert_array_equal(times, bars.timestamp)
    np.testing.assert_array_equal(prints, fingerprint_bars(bars))


def test_other_tools_read_it_as_plain_parquet(chunk):
    matrix, _, content = chunk
    frame = pq.read_table(pa.BufferReader(content)).to_pandas()
    assert list(frame.columns) == ["timestamp", "bar", *NAMES]
    assert str(frame["timestamp"].dtype) == "datetime64[ms, UTC]"
    np.testing.assert_array_equal(frame["b"].to_numpy(), matrix[1])


def test_bars_without_times_have_none(random_bars):
    bars = Bars(**{**random_bars(300).columns(), "timestamp": None})
    content = encode_chunk("k" * 32, NAMES, np.zeros((3, 300), np.float32), bars)
    assert decode_bars(pa.py_buffer(content), "k" * 32, timed=False)[0] is None


@pytest.mark.parametrize("wanted", [{"key": "l" * 32}, {"names": ("a", "x")}, {"rows": 299}])
def test_another_file_under_this_name_is_told(chunk, wanted):
    with pytest.raises(BitcornError):
        read(chunk[2], **wanted)


def test_no_flipped_bit_and_no_cut_gives_other_features(chunk):
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


@pytest.mark.parametrize("column", ["open", "high", "low", "close", "volume"])
def test_a_bar_has_another_fingerprint_when_any_of_its_bits_changes(random_bars, column):
    bars = random_bars(300)
    columns = {name: array.copy() for name, array in bars.columns().items()}
    columns[column][17] = np.nextafter(columns[column][17], np.inf)
    changed = np.flatnonzero(fingerprint_bars(Bars(**columns)) != fingerprint_bars(bars))
    assert changed.tolist() == [17]
