import numpy as np
import pytest

from bitcorn_ray.storage.arrays import pack_arrays, unpack_arrays


@pytest.mark.parametrize("compress", [False, True])
def test_arrays_are_read_back(compress):
    arrays = {"a": np.arange(3, dtype=np.int16), "0/b": np.zeros((2, 0)), "text": np.array("x")}
    read = unpack_arrays(pack_arrays(arrays, compress=compress))
    assert list(read) == list(arrays)
    for name, values in arrays.items():
        assert read[name].dtype == values.dtype
        np.testing.assert_array_equal(read[name], values)


def test_damaged_content_is_a_value_error():
    whole = pack_arrays({"a": np.arange(1_000)})
    flipped = whole[:200] + bytes([whole[200] ^ 1]) + whole[201:]
    for content in (b"", b"no archive", whole[: len(whole) // 2], flipped):
        with pytest.raises(ValueError, match="the arrays cannot be read"):
            unpack_arrays(content)


def test_objects_are_neither_written_nor_read():
    with pytest.raises(ValueError, match="pickle"):
        pack_arrays({"a": np.array([{}], dtype=object)})
