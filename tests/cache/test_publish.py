import json

import pytest

from bitcorn_ray.cache.publish import publish, publish_json


def test_a_file_appears_whole(tmp_path):
    path = tmp_path / "new" / "value.json"
    publish_json(path, {"a": [1, None]})
    assert json.loads(path.read_text()) == {"a": [1, None]}
    assert [p.name for p in path.parent.iterdir()] == ["value.json"]


def test_a_write_that_fails_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "value"
    path.write_text("old")

    def fails(temporary):
        temporary.write_text("half of the n")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        publish(path, fails)
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["value"]


def test_what_is_not_json_leaves_nothing(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        publish_json(tmp_path / "value", {"x": float("nan")})
    assert list(tmp_path.iterdir()) == []
