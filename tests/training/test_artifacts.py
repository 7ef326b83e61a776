import json

import pytest

from bitcorn_ray.storage.storage import Storage
from bitcorn_ray.training.artifacts import digest, read_checked, strict_json


def test_a_file_with_another_digest_is_refused(tmp_path):
    (tmp_path / "weights").write_bytes(b"new weights")
    assert read_checked(Storage(tmp_path), "weights", {"weights": digest(b"new weights")}) == b"new weights"
    assert read_checked(Storage(tmp_path), "weights", {}) == b"new weights"
    with pytest.raises(ValueError, match="weights is not the file"):
        read_checked(Storage(tmp_path), "weights", {"weights": digest(b"old weights")})


def test_json_has_no_value_that_readers_choke_on():
    text = strict_json({"a": [float("inf"), 1.5, None, True], 3: "x"})
    assert json.loads(text) == {"a": [None, 1.5, None, True], "3": "x"}
