"""A folder of results: what is damaged, missing or too much is never more than slower."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from threading import Thread

import pytest

from compiler.diagnostics import UserError
from driver import cache as module
from driver.cache import HASH_BYTES, PARTIAL, Cache, key_of

KEY, OTHER = key_of("a"), key_of("b")


@pytest.fixture
def cache(tmp_path) -> Cache:
    return Cache(tmp_path / "cache", 10_000)


def files(cache: Cache) -> list[Path]:
    return sorted(path for path in cache.folder.rglob("*") if path.is_file())


def test_what_was_put_is_found_again_also_by_another_run(cache):
    assert cache.get(KEY) is None
    cache.put(KEY, [b"one", memoryview(b"two")])
    for each in (cache, Cache(cache.folder, 10_000)):
        assert bytes(each.get(KEY)) == b"onetwo"
        assert each.get(OTHER) is None
    assert (cache.hits, cache.misses) == (1, 2)


@pytest.mark.parametrize("place", [0, HASH_BYTES, -1])
def test_a_damaged_entry_is_removed_with_a_note(cache, caplog, place):
    cache.put(KEY, [b"some bytes"])
    (path,) = files(cache)
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)
    assert cache.get(KEY) is None
    assert "is damaged: it is made again" in caplog.text
    assert files(cache) == []


@pytest.mark.parametrize("size", [0, 5, HASH_BYTES, HASH_BYTES + 3])
def test_an_entry_that_was_cut_short_is_none(cache, size):
    cache.put(KEY, [b"some bytes"])
    (path,) = files(cache)
    path.write_bytes(path.read_bytes()[:size])
    assert cache.get(KEY) is None


def test_what_was_used_longest_ago_goes_first(cache):
    keys = [key_of(str(number)) for number in range(10)]
    for age, key in enumerate(keys[:9]):
        cache.put(key, [bytes(1_000)])
        os.utime(cache._path(key), (age, age))
    assert cache.get(keys[0]) is not None  # and so is as new as any
    cache.put(keys[9], [bytes(1_000)])
    assert sum(path.stat().st_size for path in files(cache)) <= 10_000 * module.KEPT
    assert [cache.get(key) is not None for key in keys] == [True, *[False] * 2, *[True] * 7]


def test_what_earlier_runs_put_counts(cache):
    for number in range(9):
        Cache(cache.folder, 10_000).put(key_of(str(number)), [bytes(1_000)])
    Cache(cache.folder, 10_000).put(KEY, [bytes(1_500)])
    assert sum(path.stat().st_size for path in files(cache)) <= 10_000


def test_an_entry_that_is_larger_than_all_is_not_kept(cache):
    cache.put(KEY, [bytes(10_000)])
    assert files(cache) == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.EDQUOT])
def test_a_full_disk_ends_the_keeping_and_nothing_else(cache, monkeypatch, caplog, number):
    def write_entry(path, parts):
        path.write_bytes(b"begun")
        raise OSError(number, os.strerror(number))

    cache.put(OTHER, [b"x"])
    monkeypatch.setattr(module, "write_entry", write_entry)
    for _ in range(3):
        cache.put(KEY, [b"y"])
    assert caplog.text.count(os.strerror(number)) == 1
    assert [path.name for path in files(cache)] == [OTHER]
    assert bytes(cache.get(OTHER)) == b"x"


def test_what_a_killed_run_began_is_removed_after_an_hour(cache):
    for name, age in (("old", 0.0), ("new", None)):
        path = cache.folder / "ab" / f"{name}{PARTIAL}"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(bytes(9_000))
        if age is not None:
            os.utime(path, (age, age))
    Cache(cache.folder, 10_000).put(KEY, [b"y"])
    assert [path.name for path in files(cache)] == [f"new{PARTIAL}"]


def test_runs_may_put_and_read_the_same_at_once(cache):
    """None ever sees a part of an entry."""
    seen = set()

    def run():
        mine = Cache(cache.folder, 10_000)
        for _ in range(50):
            mine.put(KEY, [bytes([7]) * 1_000] * 2)
            found = mine.get(KEY)
            seen.add(None if found is None else bytes(found))

    threads = [Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == {bytes([7]) * 2_000}


def test_a_folder_that_cannot_be_made_is_an_error_at_once(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"--cache .*file/cache: Not a directory"):
        Cache(tmp_path / "file" / "cache", 1)


def test_keys_tell_where_a_part_ends():
    assert key_of("ab", "c") != key_of("a", "bc") != key_of("abc")
