"""Faults: killed writers, full and read-only disks, damaged and foreign files, many writers, pruning, a lost server."""

import hashlib
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from comparing import assert_same_bytes
from reading import read_bars

from bitcorn_ray.cache.pruning import prune, verify
from bitcorn_ray.cache.store import FeatureCache, chunk_name, manifest_name
from bitcorn_ray.errors import BitcornError
from bitcorn_ray.features import identity
from bitcorn_ray.features.compute import Origin, compute_jobs, finish_features, prepare, read_chunks, update
from bitcorn_ray.features.plan import plan_features
from bitcorn_ray.features.registry import SYSTEMS
from bitcorn_ray.fingerprint import code as fingerprint
from bitcorn_ray.market.bars import drop_duplicates
from bitcorn_ray.market.partition import Partition
from bitcorn_ray.market.simulate import simulate_bars
from bitcorn_ray.storage.publish import TEMPORARY

V2, V4 = SYSTEMS["v2"], SYSTEMS["v4"]
MISSING = "it is missing"
AS_OTHER_USER = 65534
STORE_LOG = "bitcorn_ray.cache.store"


def content(cache):
    """Return every file of a cache folder with its bytes."""
    root = Path(cache.storage.address)
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def temporaries(cache):
    return [name for name in content(cache) if TEMPORARY in name]


def age(cache, key, when):
    """Set the times at which an entry was made and last used."""
    manifest, root = cache.manifest(key), Path(cache.storage.address)
    manifest["created"] = datetime.fromtimestamp(when, UTC).isoformat(timespec="seconds")
    cache.storage.publish_json(manifest_name(key), manifest)
    for path in (root / manifest_name(key), root / "uses" / key):
        if path.exists():
            os.utime(path, (when, when))


def whole_db(tmp_path):
    return Origin(tmp_path / "a.db", Partition("A", "1h"), complete=True)


@pytest.fixture
def many_chunks(monkeypatch):
    """Chunks of 512 bars."""
    monkeypatch.setattr(identity, "CHUNK_BARS", 512)


def process(script, *arguments):
    """Start a Python process; its imports are as after a spawn."""
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, "-c", script, *map(str, arguments)], stdin=pipe, stdout=pipe, text=True)


def send_line(process, line):
    process.stdin.write(f"{line}\n")
    process.stdin.flush()


def start(process):
    send_line(process, "go")


# A writer that is killed

_WRITER = """
import sys
from pathlib import Path
from bitcorn_ray.features import identity
from bitcorn_ray.features.compute import Origin, prepare
from bitcorn_ray.cache.store import FeatureCache
from bitcorn_ray.cache.pruning import prune
from bitcorn_ray.features.registry import SYSTEMS
from bitcorn_ray.market.partition import Partition
from bitcorn_ray.market.simulate import simulate_bars
folder, identity.CHUNK_BARS = Path(sys.argv[1]), 512
cache = FeatureCache(folder, grace=0.0)
all_bars = [simulate_bars(n, seed=s) for s in range(2) for n in (2_000, 2_001)]
sys.stdin.readline()
print("ready", flush=True)
while True:
    for number, bars in enumerate(all_bars):
        for system in ("v2", "v4"):
            source = Origin(folder / f"{number // 2}.db", Partition("A", "1h"), True)
            done = prepare(bars, SYSTEMS[system], cache, source)
            cache.forget(done.superseded)
            cache.refresh_index()
    prune(cache, max_bytes=500_000)
    cache.invalidate(folder / "0.db")
    cache.invalidate()
"""


def test_a_writer_killed_at_any_instant_leaves_the_cache_readable_and_true(tmp_path, many_chunks):
    _kill_in_a_loop(tmp_path, kills=12)


@pytest.mark.slow
def test_a_writer_killed_at_any_instant_many_times(tmp_path, many_chunks):
    _kill_in_a_loop(tmp_path, kills=150)


def _kill_in_a_loop(tmp_path, kills):
    cases = [(simulate_bars(2_000 + n % 2, seed=n // 2), system) for n in range(4) for system in (V2, V4)]
    expected = [prepare(bars, system, None, None) for bars, system in cases]
    folder, rng, found = tmp_path / "cache", np.random.default_rng(0), 0
    cache, following = FeatureCache(folder, grace=0.0), process(_WRITER, folder)
    for _ in range(kills):
        # The next one starts up meanwhile.
        writer, following = following, process(_WRITER, folder)
        start(writer)
        assert writer.stdout.readline() == "ready\n"
        time.sleep(rng.uniform(0.0, 0.5))
        writer.kill()
        writer.communicate()
        assert writer.returncode == -signal.SIGKILL, "the writer ended by itself"
        # What a killed one leaves may be incomplete, as a manifest without a chunk; it is never torn.
        assert {damage.problem for damage in verify(cache)} <= {MISSING}
        for (bars, system), right in zip(cases, expected, strict=True):
            found += cache.manifest(right.plan.key) is not None
            out = np.full((len(system.features), len(bars)), np.float32(-7))
            missing = read_chunks(cache, right.plan, out)
            for chunk in right.plan.chunks:
                if chunk not in missing and chunk.stop > system.warmup_bars:
                    first = max(chunk.start, system.warmup_bars)
                    for row, name in zip(out, system.features, strict=True):
                        of_chunk = right.columns[name][first - system.warmup_bars : chunk.stop - system.warmup_bars]
                        assert row[first : chunk.stop].tobytes() == of_chunk.tobytes()
        for (bars, system), right in zip(cases, expected, strict=True):
            assert_same_bytes(prepare(bars, system, cache, None), right)
        assert verify(cache) == []
        assert all(prepare(bars, system, cache, None).hit for bars, system in cases)
        if rng.random() < 0.5:
            cache.invalidate()  # so that the next one starts from nothing, and else from a whole cache
    following.kill()
    following.communicate()
    assert found, "no writer got as far as an entry"
    cache.invalidate(folder / "1.db")
    cache.invalidate()
    assert set(content(cache)) <= {"index.json"}


def test_leftovers_of_a_killed_writer_are_pruned(tmp_path, random_bars):
    cache = FeatureCache(tmp_path / "cache")
    source = whole_db(tmp_path)
    done = prepare(random_bars(300), V2, cache, source)
    link = next(name for name in content(cache) if name.startswith("links/"))
    halves = [
        f"features/{TEMPORARY}a",
        f"{link.rpartition('/')[0]}/{TEMPORARY}b",
        f"uses/{TEMPORARY}c",
        f"{TEMPORARY}d",
    ]
    (tmp_path / "cache" / "uses").mkdir(exist_ok=True)
    for name in halves:
        (tmp_path / "cache" / name).write_bytes(b"half")
    # A writer beside this one may be about to rename them: they are no links that a new entry supersedes.
    again = prepare(random_bars(301), V2, cache, source)
    assert again.superseded == [link]
    assert len(cache.links_of(source.path)) == 2
    prune(cache)
    assert set(temporaries(cache)) == set(halves)  # within the grace period
    prune(FeatureCache(tmp_path / "cache", grace=0.0))
    assert temporaries(cache) == []
    for name in halves:
        (tmp_path / "cache" / name).write_bytes(b"half")
    assert cache.invalidate(source.path) == 2
    assert cache.manifest(done.plan.key) is None
    cache.invalidate()
    assert set(content(cache)) == {"index.json"}


# A full disk


@contextmanager
def tmpfs(folder, size):
    """Mount a file system of so many bytes; skip if this process may not mount one."""
    folder.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], capture_output=True)
    if done.returncode:
        pytest.skip(f"needs a mount: {done.stderr.decode().strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def fill(disk, leave):
    """Fill a disk up to ``leave`` bytes, which are whole pages."""
    path = disk / "filler"
    path.unlink(missing_ok=True)
    with open(path, "wb", buffering=0) as file:
        free = os.statvfs(disk)
        file.write(bytes(free.f_bavail * free.f_frsize - leave))
    return path


def fully_prepared(bars, cache, source):
    """Prepare features and record the entry, as `prepare_features` does."""
    done = prepare(bars, V2, cache, source)
    cache.refresh_index()
    return done


def refusal(work):
    """Return the message of a BitcornError, or None."""
    try:
        work()
    except BitcornError as error:
        return str(error)
    return None


def test_a_full_disk_is_a_clear_error_at_any_instant_and_nothing_torn_is_seen(tmp_path, random_bars):
    first, bars = random_bars(300, seed=1), random_bars(700, seed=2)
    expected = {id(each): prepare(each, V2, None, None) for each in (first, bars)}
    with tmpfs(tmp_path / "disk", 2 << 20) as disk:
        page = os.statvfs(disk).f_frsize
        for first_time in (True, False):  # the folders are there the second time
            failed_at = set()
            for pages in range(200):
                shutil.rmtree(disk / "cache", ignore_errors=True)
                cache, source = FeatureCache(disk / "cache"), Origin(disk / "a.db", Partition("A", "1h"), True)
                if not first_time:
                    prepare(first, V2, cache, source)
                before = content(cache)
                filler = fill(disk, pages * page)
                error = refusal(lambda cache=cache, source=source: fully_prepared(bars, cache, source))
                assert temporaries(cache) == []
                assert {name: content(cache)[name] for name in before if name != "index.json"} == {
                    name: each for name, each in before.items() if name != "index.json"
                }
                if error is None:
                    break
                assert "cannot be written" in error
                assert "No space left" in error
                failed_at.add(len(content(cache)) - len(before))
                assert verify(cache) == []
                if not first_time:
                    assert_same_bytes(prepare(first, V2, cache, source), expected[id(first)])
                filler.unlink()
                assert_same_bytes(prepare(bars, V2, cache, source), expected[id(bars)])
                assert prepare(bars, V2, cache, source).hit
                assert verify(cache) == []
            else:
                pytest.fail("it never succeeded")
            # It struck at several files: the code's memo, the chunk, the manifest, the link, ...
            assert len(failed_at) > 3


def test_a_full_disk_still_serves_hits(tmp_path, random_bars):
    bars = random_bars(700)
    with tmpfs(tmp_path / "disk", "1m,nr_inodes=60") as disk:
        cache, source = FeatureCache(disk / "cache"), Origin(disk / "a.db", None, True)
        first = prepare(bars, V2, cache, source)
        age(cache, first.plan.key, time.time() - 1_000)  # so that its use would be noted
        for number in range(os.statvfs(disk).f_ffree):  # no room for an empty file either
            (disk / f"filler_{number}").touch()
        again = prepare(bars, V2, cache, source)
        assert again.hit
        assert_same_bytes(again, first)
        assert not list((disk / "cache").rglob("uses/*"))


def test_a_use_is_dated_on_a_full_disk_though_it_cannot_be_counted(tmp_path, random_bars):
    bars = random_bars(700)
    with tmpfs(tmp_path / "disk", "1m") as disk:
        cache = FeatureCache(disk / "cache")
        key = prepare(bars, V2, cache, None).plan.key
        age(cache, key, time.time() - 40 * 86_400)
        fill(disk, leave=0)
        assert prepare(bars, V2, cache, None).hit
        assert prune(cache, older_than=86_400.0).in_use == []
        assert [(each["key"], each["hits"]) for each in cache.entries()] == [(key, 0)]


class _FullAfter:
    """A stream with room for so many bytes, on a disk that stores them only when it is closed."""

    def __init__(self, stream, room):
        self._stream, self._room = stream, room

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._stream.close()

    def write(self, content):
        kept = bytes(content)[: self._room[0]]
        self._room[0] -= len(kept)
        self._stream.write(kept)
        if len(kept) < len(content):
            raise OSError(28, "No space left on device")


class _FullFileSystem:
    """A local file system with limited room."""

    def __init__(self, inner, room):
        self._inner, self.room = inner, [room]

    def __getattr__(self, name):
        return getattr(self._inner, name)

    def open_output_stream(self, path):
        return _FullAfter(self._inner.open_output_stream(path), self.room)


def test_room_that_ends_within_any_file_is_a_clear_error(tmp_path, random_bars):
    # To the byte, and without the right to mount.
    bars, source = random_bars(120), whole_db(tmp_path)
    right = prepare(bars, V2, None, None)
    needed = FeatureCache(tmp_path / "whole")
    prepare(bars, V2, needed, source)
    total = sum(len(each) for name, each in content(needed).items())
    refused = 0
    for room in [*range(0, total, max(1, total // 60)), total - 1]:
        cache = FeatureCache(tmp_path / f"room_{room}")
        real = cache.storage._fs
        cache.storage._fs = _FullFileSystem(real, room)
        error = refusal(lambda cache=cache: assert_same_bytes(prepare(bars, V2, cache, source), right))
        if error is not None:
            assert "No space left on device" in error
        refused += error is not None
        assert temporaries(cache) == []
        assert all(content(needed)[name] == each for name, each in content(cache).items() if name.endswith(".parquet"))
        cache.storage._fs = real
        assert verify(cache) == []
        assert_same_bytes(prepare(bars, V2, cache, source), right)
        assert prepare(bars, V2, cache, source).hit
    assert refused > 50


# A folder that cannot be written


@contextmanager
def read_only(folder):
    """Mount a folder that even root cannot write."""
    bound = subprocess.run(["mount", "--bind", folder, folder], capture_output=True)
    if bound.returncode:
        pytest.skip(f"needs a mount: {bound.stderr.decode().strip()}")
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", folder], check=True)
        yield
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def test_a_read_only_folder_serves_hits_and_refuses_misses(tmp_path, random_bars):
    bars, other = random_bars(500), random_bars(500, seed=9)
    cache, source = FeatureCache(tmp_path / "cache"), whole_db(tmp_path)
    right = prepare(bars, V2, cache, source)
    before = content(cache)
    with read_only(tmp_path / "cache"):
        _serves_hits_and_refuses_misses(cache, source, bars, other, right)
    assert content(cache) == before
    assert not prepare(other, V2, cache, source).hit


def _serves_hits_and_refuses_misses(cache, source, bars, other, right):
    hit = prepare(bars, V2, cache, source)
    assert hit.hit
    assert_same_bytes(hit, right)
    assert hit.quality == right.quality
    assert verify(cache) == []
    for fails in (
        lambda: prepare(other, V2, cache, source),
        lambda: update(other, V2, cache, source),
        cache.invalidate,
        lambda: cache.invalidate(source.path),
        lambda: prune(FeatureCache(cache.storage.address, grace=0.0), max_bytes=0),
        cache.refresh_index,
    ):
        with pytest.raises(BitcornError, match=r"the cache at .* cannot be written: .*turn the cache off"):
            fails()


def test_a_folder_of_another_user_serves_hits_and_refuses_misses(tmp_path, random_bars):
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    for parent in [tmp_path, *tmp_path.parents]:
        if parent.stat().st_mode & 0o005 != 0o005 and parent.stat().st_uid == 0 and parent != Path("/"):
            parent.chmod(parent.stat().st_mode | 0o055)
    bars, other = random_bars(500), random_bars(500, seed=9)
    cache, source = FeatureCache(tmp_path / "cache"), whole_db(tmp_path)
    right = prepare(bars, V2, cache, source)
    before = content(cache)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.setuid(AS_OTHER_USER)
            _serves_hits_and_refuses_misses(cache, source, bars, other, right)
            status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert content(cache) == before


# Damaged and foreign files


def computed_in_process(source, cache):
    """Return the statuses of a source's partitions as `compute_features` does, without Ray."""
    plan = plan_features(source, V2, cache)
    return plan, finish_features(plan, compute_jobs(plan.jobs, plan.work), cache)


def as_a_new_process():
    """Forget the sources that this process has parsed, so that the cache's memo is read again."""
    fingerprint._loaded.clear()


@pytest.fixture
def filled(tmp_path, market_db):
    """A cache with every kind of file, its database, and the bars and features of each symbol."""
    settled = time.time() - 60
    os.utime(market_db, (settled, settled))
    cache = FeatureCache(tmp_path / "cache")
    as_a_new_process()
    computed_in_process(market_db, cache)
    known = {}
    for symbol in ("AAAUSDT", "BBBUSDT"):
        bars = drop_duplicates(read_bars(str(market_db), symbol, "1h", None)[0])
        known[symbol] = bars, prepare(bars, V2, None, None)
        age(cache, known[symbol][1].plan.key, time.time() - 1_000)  # so that its use is noted
        prepare(bars, V2, cache, Origin(market_db, Partition(symbol, "1h"), complete=True))
    cache.refresh_index()
    kinds = {name.partition("/")[0] for name in content(cache)}
    assert kinds == {"features", "data_quality", "links", "sources", "uses", "code", "index.json"}
    return cache, market_db, known


def requires_right_results(filled):
    """Assert that results are right and the cache becomes whole, whatever was done to its files."""
    cache, source, known = filled
    if any(cache.storage.read_json(name) is None for name in content(cache) if name.startswith("code/")):
        as_a_new_process()
    for symbol, (bars, right) in known.items():
        done = prepare(bars, V2, cache, Origin(source, Partition(symbol, "1h"), complete=True))
        assert_same_bytes(done, right)
        assert done.quality == right.quality
    _, statuses = computed_in_process(source, cache)
    assert [(status.symbol, status.error) for status in statuses] == [("AAAUSDT", None), ("BBBUSDT", None)]
    assert [status.key for status in statuses] == [right.plan.key for _, right in known.values()]
    assert {entry["key"] for entry in cache.entries()} == {right.plan.key for _, right in known.values()}
    cache.refresh_index()
    if verify(cache):
        # No one has read what is damaged: the times or fingerprints of bars in a chunk, or the code of another version.
        verify(cache, repair=True)
        for symbol, (bars, right) in known.items():
            assert_same_bytes(prepare(bars, V2, cache, Origin(source, Partition(symbol, "1h"), complete=True)), right)
    assert verify(cache) == []
    plan, statuses = computed_in_process(source, cache)
    assert plan.jobs == []
    assert all(status.unread for status in statuses)


def one_of_each_kind(cache):
    """Return a non-empty file of each kind."""
    kinds = {}
    for name, each in sorted(content(cache).items()):
        kinds.setdefault((name.partition("/")[0], name.rpartition(".")[2]), (name, each))
    return [(name, each) for name, each in kinds.values() if each]


def test_flipped_bits_in_any_file_never_change_a_result(filled):
    cache, rng = filled[0], np.random.default_rng(1)
    for name, whole in one_of_each_kind(cache):
        for place in rng.integers(0, len(whole), 12):
            damaged = bytearray(whole)
            damaged[place] ^= 1 << rng.integers(0, 8)
            (Path(cache.storage.address) / name).write_bytes(damaged)
            requires_right_results(filled)


def test_truncated_files_never_change_a_result(filled):
    cache, rng = filled[0], np.random.default_rng(2)
    for name, whole in one_of_each_kind(cache):
        for length in [0, 1, 8, len(whole) - 1, *rng.integers(0, len(whole), 3)]:
            (Path(cache.storage.address) / name).write_bytes(whole[:length])
            requires_right_results(filled)


def test_a_damaged_chunk_is_reported_and_heals(tmp_path, random_bars, caplog):
    _damage_a_chunk(tmp_path, random_bars, caplog, V2, flips=100)


@pytest.mark.slow
@pytest.mark.parametrize("system", [V2, V4], ids=["v2", "v4"])
def test_a_chunk_damaged_anywhere_is_reported_and_heals(tmp_path, random_bars, caplog, system):
    _damage_a_chunk(tmp_path, random_bars, caplog, system, flips=3_000)


def _damage_a_chunk(tmp_path, random_bars, caplog, system, flips):
    bars, cache = random_bars(400), FeatureCache(tmp_path / "cache")
    right = prepare(bars, system, cache, None)
    name = chunk_name(right.plan.chunks[0].key)
    path, rng = tmp_path / "cache" / name, np.random.default_rng(3)
    whole = path.read_bytes()
    footer = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
    places = [*range(8), *rng.integers(8, footer, flips // 2), *rng.integers(footer, len(whole), flips)]
    places += range(len(whole) - 12, len(whole))
    damages = [whole[:p] + bytes([whole[p] ^ (1 << rng.integers(0, 8))]) + whole[p + 1 :] for p in places]
    damages += [whole[:length] for length in [*range(0, 16), *rng.integers(16, len(whole), flips // 4)]]
    healed = 0
    for damaged in damages:
        path.write_bytes(damaged)
        caplog.clear()
        with caplog.at_level(logging.WARNING, STORE_LOG):
            done = prepare(bars, system, cache, None)
        assert_same_bytes(done, right)
        reports = [record.getMessage() for record in caplog.records if record.name == STORE_LOG]
        assert done.computed == len(reports)
        if done.computed:
            healed += 1
            assert "is damaged, computing it again" in reports[0]
            assert right.plan.chunks[0].key in reports[0]
            assert path.read_bytes() == whole
            assert prepare(bars, system, cache, None).hit
        assert verify(cache, repair=True) == [] or not done.computed
    assert healed > len(damages) / 2


def test_a_flipped_byte_in_any_feature_is_found(tmp_path, random_bars):
    bars, cache = random_bars(300), FeatureCache(tmp_path / "cache")
    right = prepare(bars, V2, cache, None)
    path = tmp_path / "cache" / chunk_name(right.plan.chunks[0].key)
    whole = path.read_bytes()
    for name in V2.features:
        values = right.columns[name].tobytes()
        assert whole.count(values) == 1
        place = whole.index(values) + len(values) // 2
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert [damage.problem for damage in verify(cache)] == [f"the checksum of column {name} differs"]
        assert prepare(bars, V2, cache, None).computed == 1
        assert path.read_bytes() == whole


def test_the_chunk_of_other_bars_of_equal_length_is_reported_and_heals(tmp_path, random_bars, caplog):
    cache, bars = FeatureCache(tmp_path / "cache"), random_bars(400, seed=1)
    right, other = prepare(bars, V2, cache, None), prepare(random_bars(400, seed=2), V2, cache, None)
    mine, others = (tmp_path / "cache" / chunk_name(each.plan.chunks[0].key) for each in (right, other))
    whole = mine.read_bytes()
    shutil.copy(others, mine)
    with caplog.at_level(logging.WARNING, STORE_LOG):
        assert_same_bytes(prepare(bars, V2, cache, None), right)
    assert "it is another file under this name" in caplog.text
    assert mine.read_bytes() == whole


def test_a_damaged_manifest_is_rewritten(filled):
    cache, _, known = filled
    bars, right = known["AAAUSDT"]
    path = Path(cache.storage.address) / manifest_name(right.plan.key)
    path.write_bytes(path.read_bytes().replace(b"v2", b"v3"))
    assert [damage.file for damage in verify(cache)] == [manifest_name(right.plan.key)]
    prepare(bars, V2, cache, None)
    assert verify(cache) == []


def test_files_of_other_keys_are_not_taken_for_ones_own(filled):
    cache = filled[0]
    files = content(cache)
    kinds = {}
    for name in files:
        kinds.setdefault((name.partition("/")[0], name.rpartition(".")[2]), []).append(name)
    swapped = 0
    for names in kinds.values():
        for name in names:
            for other in names:
                if files[name] != files[other]:
                    swapped += 1
                    (Path(cache.storage.address) / name).write_bytes(files[other])
                    requires_right_results(filled)
    # A record of one kind under the name of another kind.
    for kind, names in kinds.items():
        for other_kind, others in kinds.items():
            if kind != other_kind and kind[1] == other_kind[1]:
                (Path(cache.storage.address) / names[0]).write_bytes(files[others[0]])
                requires_right_results(filled)
    assert swapped >= 8


def parquet(columns, metadata):
    sink = pa.BufferOutputStream()
    table = pa.table(columns).replace_schema_metadata(metadata)
    pq.write_table(table, sink)
    return sink.getvalue().to_pybytes()


def test_garbage_of_another_program_is_never_taken_for_a_file_of_ours(filled):
    cache, _, known = filled
    _, right = known["AAAUSDT"]
    ours = {"key": right.plan.chunks[0].key, "crc32": {}}
    ones = {name: np.ones(1_500, np.float32) for name in V2.features}
    garbage = [
        b"\0" * 5_000,
        b"PAR1" + b"\0" * 100 + b"PAR1",
        b"[" * 200_000,
        b"null",
        b"[]",
        b'"text"',
        b'{"crc32": null, "files": 3}',
        b'{"key": 1e999, "crc32": 12}',
        "{".encode("utf-16"),
        b"\xff\xfe\xfd",
        np.random.default_rng(0).bytes(3_000),
        parquet({"x": [1, 2]}, None),
        *(parquet(ones, {b"bitcorn_chunk": text}) for text in (b"[]", b"null", b"{", b"\xff", b"7", b"[" * 100_000)),
        parquet(ones, {b"bitcorn_chunk": json.dumps(ours).encode()}),
        parquet(ones, {b"bitcorn_chunk": json.dumps({**ours, "crc32": None}).encode()}),
        parquet({name: ["a"] for name in ones}, {b"bitcorn_chunk": json.dumps(ours).encode()}),
        parquet({name: [None] for name in ones}, {b"bitcorn_chunk": json.dumps(ours).encode()}),
        parquet({"close": [1.0]}, {b"bitcorn_chunk": json.dumps(ours).encode()}),
    ]
    for name, _ in one_of_each_kind(cache):
        for each in garbage[:8]:
            (Path(cache.storage.address) / name).write_bytes(each)
            requires_right_results(filled)
    mine = [name for name in content(cache) if right.plan.chunks[0].key in name]
    for each in garbage:
        (Path(cache.storage.address) / mine[0]).write_bytes(each)
        requires_right_results(filled)


def test_a_folder_where_a_file_should_be_gives_features_or_a_clear_error(filled):
    cache, source, known = filled
    bars, right = known["AAAUSDT"]
    refused = 0
    for name in content(cache):
        path = Path(cache.storage.address) / name
        whole = path.read_bytes()
        path.unlink()
        path.mkdir()
        of = Origin(source, Partition("AAAUSDT", "1h"), True)
        error = refusal(lambda of=of: assert_same_bytes(prepare(bars, V2, cache, of), right))
        if error is not None:
            refused += 1
            assert "cannot be written" in error
            assert path.name in error
        path.rmdir()
        path.write_bytes(whole)
        assert temporaries(cache) == []
    assert refused >= 1  # a chunk is needed; what only notes a hit is not
    requires_right_results(filled)


# Many at once

_ONE_OF_MANY = """
import hashlib, sys
from pathlib import Path
from bitcorn_ray.features.compute import Origin, prepare
from bitcorn_ray.cache.store import FeatureCache
from bitcorn_ray.features.registry import SYSTEMS
from bitcorn_ray.market.partition import Partition
from bitcorn_ray.market.simulate import simulate_bars
bars = simulate_bars(18_000, seed=4)
print("ready", flush=True)
sys.stdin.readline()
source = Origin(Path("/a.db"), Partition("A", "1h"), True)
done = prepare(bars, SYSTEMS["v4"], FeatureCache(sys.argv[1]), source)
print(hashlib.sha256(b"".join(column.tobytes() for column in done.columns.values())).hexdigest())
"""


def digest(prepared):
    return hashlib.sha256(b"".join(column.tobytes() for column in prepared.columns.values())).hexdigest()


def requires_one_whole_entry(cache, bars, right):
    assert [entry["key"] for entry in cache.entries()] == [right.plan.key]
    assert verify(cache) == []
    assert not [file.name for file in cache.storage.files() if TEMPORARY in file.name]
    assert sum(file.name.endswith(".parquet") for file in cache.storage.files()) == len(right.plan.chunks)
    hit = prepare(bars, V4, cache, None)
    assert hit.hit
    assert_same_bytes(hit, right)


def test_eight_processes_on_one_key_get_equal_features_and_make_one_entry(tmp_path):
    cache, bars = FeatureCache(tmp_path / "cache"), simulate_bars(18_000, seed=4)
    right = prepare(bars, V4, None, None)
    workers = [process(_ONE_OF_MANY, cache.storage.address) for _ in range(8)]
    assert [worker.stdout.readline() for worker in workers] == ["ready\n"] * 8
    for worker in workers:
        start(worker)
    assert [worker.communicate()[0].strip() for worker in workers] == [digest(right)] * 8
    assert [worker.returncode for worker in workers] == [0] * 8
    requires_one_whole_entry(cache, bars, right)


def test_eight_threads_on_one_key_get_equal_features_and_make_one_entry(tmp_path):
    cache, bars, source = FeatureCache(tmp_path / "cache"), simulate_bars(18_000, seed=4), whole_db(tmp_path)
    right = prepare(bars, V4, None, None)
    with ThreadPoolExecutor(8) as pool:
        for done in pool.map(lambda _: prepare(bars, V4, cache, source), range(8)):
            assert_same_bytes(done, right)
    requires_one_whole_entry(cache, bars, right)


# Pruning beside reading

_PRUNER = """
import itertools, os, select, sys, time
from pathlib import Path
from bitcorn_ray.cache.store import FeatureCache
from bitcorn_ray.cache.pruning import prune, stats, verify
cache = FeatureCache(sys.argv[1], grace=0.0)
stdin = open(0, "rb", buffering=0)  # a buffer would hide lines from select
print("ready", flush=True)
for number in itertools.count():
    if select.select([stdin], [], [], 0.002 * (number % 5))[0]:
        said = stdin.readline().strip()
        if said not in (b"pause", b"clear"):
            break
        if said == b"clear":
            cache.invalidate()
        print("paused", flush=True)
        stdin.readline()
    removals = (
        lambda: prune(cache, max_bytes=0),
        cache.invalidate,
        lambda: cache.invalidate(Path(sys.argv[2])),
        lambda: prune(cache, older_than=0.0),
        lambda: verify(cache, repair=True),
    )
    removals[number % len(removals)]()
    stats(cache)
"""


def test_pruning_and_clearing_during_reads_change_no_result(tmp_path, many_chunks):
    _prune_beside_reading(tmp_path, rounds=20)


@pytest.mark.slow
def test_pruning_and_clearing_beside_a_reader_for_long(tmp_path, many_chunks):
    _prune_beside_reading(tmp_path, rounds=1_500)


def _prune_beside_reading(tmp_path, rounds):
    all_bars = [simulate_bars(n, seed=n) for n in (2_000, 2_001, 600)]
    right = [prepare(bars, V2, None, None) for bars in all_bars]
    cache, source = FeatureCache(tmp_path / "cache", grace=0.0), whole_db(tmp_path)
    pruner = process(_PRUNER, cache.storage.address, source.path)
    assert pruner.stdout.readline() == "ready\n"
    misses = 0
    for number in range(rounds):
        for bars, expected in zip(all_bars, right, strict=True):
            done = prepare(bars, V2, cache, source)
            assert_same_bytes(done, expected)
            cache.forget(done.superseded)
            if number % 3 == 0:
                update(bars, V2, cache, source)
            cache.refresh_index()
            assert_same_bytes(prepare(bars, V2, cache, source), expected)
        # Who gets how much of a busy machine is not ours to say, so that at times the pruner rests until it is told to
        # go on: whatever it left half removed, or took all of, what was prepared once is a hit then.
        send_line(pruner, "clear" if number % 2 else "pause")
        assert pruner.stdout.readline() == "paused\n"
        for bars, expected in zip(all_bars, right, strict=True):
            done = prepare(bars, V2, cache, source)
            assert not (done.hit and number % 2)
            misses += not done.hit
            again = prepare(bars, V2, cache, source)
            assert again.hit
            assert_same_bytes(again, expected)
        assert verify(cache) == []
        start(pruner)
    start(pruner)
    pruner.communicate()
    assert pruner.returncode == 0
    assert misses >= rounds // 2 * len(all_bars)
    for bars, expected in zip(all_bars, right, strict=True):
        assert_same_bytes(prepare(bars, V2, cache, source), expected)
    assert verify(cache) == []


def test_within_the_grace_period_nothing_in_use_is_pruned(tmp_path, random_bars):
    cache, all_bars = FeatureCache(tmp_path / "cache"), [random_bars(400, seed=seed) for seed in range(3)]
    keys = [prepare(bars, V2, cache, whole_db(tmp_path)).plan.key for bars in all_bars]
    before = content(cache)
    done = prune(cache, max_bytes=0, older_than=0.0)
    assert done.entries == []
    assert sorted(done.in_use) == sorted(keys)
    assert (done.chunks, done.bytes) == (0, 0)
    assert content(cache) == before
    # Used so long ago that no one reads them any more, but for one that was read again.
    long_ago = time.time() - 2 * cache.grace
    for key in keys:
        age(cache, key, long_ago)
    assert prepare(all_bars[1], V2, cache, None).hit
    done = prune(cache, max_bytes=0)
    assert sorted(done.entries) == sorted([keys[0], keys[2]])
    assert done.in_use == [keys[1]]
    assert done.chunks == 2
    assert [prepare(bars, V2, cache, None).hit for bars in all_bars] == [False, True, False]


def test_a_use_is_noted_often_enough_for_a_short_grace_period(tmp_path, random_bars):
    cache, bars = FeatureCache(tmp_path / "cache", grace=60.0), random_bars(400)
    key = prepare(bars, V2, cache, None).plan.key
    age(cache, key, time.time() - 500)
    assert prepare(bars, V2, cache, None).hit
    assert prune(cache, max_bytes=0).in_use == [key]


def test_chunks_of_an_unfinished_entry_are_not_pruned(tmp_path, random_bars):
    cache, bars = FeatureCache(tmp_path / "cache"), random_bars(400)
    plan = prepare(bars, V2, cache, None).plan
    (tmp_path / "cache" / manifest_name(plan.key)).unlink()  # the state before the manifest is published
    assert prune(cache, max_bytes=0).chunks == 0
    assert prepare(bars, V2, cache, None).hit
    (tmp_path / "cache" / manifest_name(plan.key)).unlink()
    long_ago = time.time() - 2 * cache.grace
    os.utime(tmp_path / "cache" / chunk_name(plan.chunks[0].key), (long_ago, long_ago))
    assert prune(cache).chunks == 1
    assert not prepare(bars, V2, cache, None).hit


# On an object store


def test_the_same_holds_on_s3(s3_uri, random_bars, caplog):
    cache, bars, source = FeatureCache(s3_uri), simulate_bars(18_000, seed=4), Origin(Path("/a.db"), None, True)
    right = prepare(bars, V2, None, None)
    with ThreadPoolExecutor(8) as pool:
        for done in pool.map(lambda _: prepare(bars, V2, cache, source), range(8)):
            assert_same_bytes(done, right)
    assert prepare(bars, V2, cache, source).hit
    assert verify(cache) == []
    names = sorted(file.name for file in cache.storage.files())
    assert not [name for name in names if TEMPORARY in name]
    rng = np.random.default_rng(0)
    for name in names:
        if name.endswith((".parquet", ".json")):
            whole = bytes(cache.storage.read(name))
            place = int(rng.integers(len(whole) // 2, len(whole) // 2 + 50))
            for damaged in (
                whole[:place] + bytes([whole[place] ^ 255]) + whole[place + 1 :],
                b"",
            ):
                cache.storage.publish(name, damaged)
                caplog.clear()
                with caplog.at_level(logging.WARNING, STORE_LOG):
                    done = prepare(bars, V2, cache, source)
                assert_same_bytes(done, right)
                assert done.quality == right.quality
                assert done.computed == len(caplog.records)
                assert done.computed == name.endswith(".parquet")
                assert verify(cache) == []
    assert "secret" not in caplog.text
    other = prepare(random_bars(300), V2, cache, source)
    assert prune(cache, max_bytes=0).in_use
    assert prepare(bars, V2, cache, None).hit
    eager = FeatureCache(s3_uri, grace=0.0)
    time.sleep(1.1)  # times of an object store, and of manifests, are whole seconds
    assert sorted(prune(eager, max_bytes=0).entries) == sorted([other.plan.key, right.plan.key])
    assert not prepare(bars, V2, cache, None).hit
    assert cache.invalidate() == 1
    assert {file.name for file in cache.storage.files()} <= {"index.json"}


def test_on_an_object_store_one_hit_in_ten_minutes_is_counted(s3_uri, random_bars, monkeypatch):
    cache, bars = FeatureCache(s3_uri), random_bars(300)
    for _ in range(3):  # it has just been made
        prepare(bars, V2, cache, None)
    assert [entry["hits"] for entry in cache.entries()] == [0]
    clock = time.time
    monkeypatch.setattr(time, "time", lambda: clock() + 660)
    assert prepare(bars, V2, cache, None).hit
    assert [entry["hits"] for entry in cache.entries()] == [1]


def test_a_lost_server_is_a_clear_error_without_the_secret(random_bars, caplog, monkeypatch):
    from moto.server import ThreadedMotoServer

    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    urllib.request.urlopen(urllib.request.Request(f"http://{host}:{port}/bucket", method="PUT")).close()
    options = f"endpoint_override={host}:{port}&scheme=http&region=us-east-1"
    cache, bars = FeatureCache(f"s3://mykey:hushhush@bucket/folder?{options}"), random_bars(300)
    source = Origin(Path("/a.db"), None, True)
    prepare(bars, V2, cache, source)
    server.stop()
    with caplog.at_level(logging.DEBUG):
        for fails in (
            lambda: prepare(bars, V2, cache, source),
            lambda: verify(cache),
        ):
            with pytest.raises(BitcornError, match=r"the cache (at )?s3://bucket/folder cannot be \w+: ") as caught:
                fails()
            assert "hushhush" not in str(caught.value)
            assert "mykey" not in str(caught.value)
    assert "hushhush" not in caplog.text


@pytest.mark.parametrize("rest", ["hush/hush@bucket/x", "hushhush@bucket/x?nonsense=1"])
@pytest.mark.parametrize("scheme", ["s3", "nosuch"])
def test_the_error_of_a_bad_location_hides_the_secret(scheme, rest):
    with pytest.raises(BitcornError, match="cannot be opened") as caught:
        FeatureCache(f"{scheme}://mykey:{rest}")
    assert "hush" not in str(caught.value)
    assert caught.value.__cause__ is None
