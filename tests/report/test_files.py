import errno

import pytest

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.report.files import write_whole


def test_a_file_is_replaced_whole(tmp_path):
    path = tmp_path / "deep" / "page.html"
    for text in ("old", "new"):
        write_whole(path, "page", lambda temporary, text=text: temporary.write_text(text))
        assert path.read_text() == text
    assert [each.name for each in path.parent.iterdir()] == ["page.html"]


def test_a_disk_that_is_full_leaves_the_older_file(tmp_path):
    def full(temporary):
        temporary.write_text("ha")
        raise OSError(errno.ENOSPC, "No space left on device")

    (tmp_path / "page.html").write_text("old")
    with pytest.raises(BitcornError, match=r"the page cannot be written to .*page.html: No space left on device"):
        write_whole(tmp_path / "page.html", "page", full)
    assert {each.name: each.read_text() for each in tmp_path.iterdir()} == {"page.html": "old"}


def test_a_place_that_cannot_be_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BitcornError, match="cannot be written"):
        write_whole(tmp_path / "file" / "page.html", "page", lambda temporary: temporary.write_text("x"))
