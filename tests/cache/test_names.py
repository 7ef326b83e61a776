import pytest

from bitcorn_ray.cache.store import chunk_name, is_ours, is_understood, key_of, link_folder, manifest_name, source_id
from bitcorn_ray.storage.storage import StoredFile

KEY = "0123456789abcdef" * 2


@pytest.mark.parametrize("name", [chunk_name(KEY), manifest_name(KEY), f"links/x/{KEY}.json", f"uses/{KEY}"])
def test_a_file_tells_its_key(name):
    assert key_of(name) == KEY
    assert is_ours(StoredFile(name, 1, 0.0))


@pytest.mark.parametrize("name", ["features/a1b2c3d4e5f6g7h8.parquet", "features/mine.parquet", "index.json", "else/x"])
def test_the_files_of_others_are_told_apart(name):
    assert not is_ours(StoredFile(name, 1, 0.0))


def test_what_comes_from_outside_is_hashed(tmp_path):
    folder = link_folder(tmp_path / "../a", "../../x/y 1h v2:../z")
    assert folder.startswith(f"links/{source_id(tmp_path / '../a')}-")
    assert set(folder.removeprefix("links/")) <= set("0123456789abcdef-")
    assert link_folder(tmp_path, "v2") != link_folder(tmp_path, "v4")


def test_manifests_of_other_formats_are_not_understood():
    assert not is_understood({})
    assert not is_understood({"identity": {"format": 0}})
