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


def again(cache: Cache) -> Cache:
    """Another run with the same folder."""
    return Cache(cache.folder, cache.limit)


def filled(cache: Cache, sizes: list[int]) -> list[str]:
    """The keys of entries by an earlier run, each used later than those before."""
    keys = [key_of(str(number)) for number in range(len(sizes))]
    for age, (key, size) in enumerate(zip(keys, sizes, strict=True)):
        cache.put(key, [bytes(size)])
        os.utime(cache._path(key), (age, age))
    return keys


def found(cache: Cache, keys: list[str]) -> list[bool]:
    return [cache._path(key).exists() for key in keys]


def test_what_was_used_longest_ago_goes_first(cache):
    keys = filled(cache, [1_000] * 9)
    later = again(cache)
    assert later.get(keys[0]) is not None  # and so is as new as any
    later.put(KEY, [bytes(1_000)])
    assert sum(path.stat().st_size for path in files(cache)) <= 10_000 * module.KEPT
    assert found(cache, [*keys, KEY]) == [True, *[False] * 2, *[True] * 7]


def test_a_run_that_needs_more_than_there_is_room_for_keeps_what_it_began_with(cache):
    """So that the next one finds as much as there is room for, and not just what it is yet to come to."""
    keys = [key_of(str(number)) for number in range(12)]
    for _ in range(2):
        run = again(cache)
        for key in keys:
            if run.get(key) is None:
                run.put(key, [bytes(1_000)])
        assert found(cache, keys) == [True] * 9 + [False] * 3
    assert (run.hits, run.misses) == (9, 3)


def test_what_does_not_fit_is_left_out_and_smaller_ones_are_kept(cache):
    keys = filled(again(cache), [2_000])
    cache.put(KEY, [bytes(7_000)])
    cache.put(OTHER, [bytes(3_000)])
    assert found(cache, [*keys, KEY, OTHER]) == [True, True, False]  # nothing went for what does not fit anyway
    cache.put(OTHER, [bytes(2_000)])  # with which more than `KEPT` is this run's own
    assert found(cache, [*keys, KEY, OTHER]) == [False, True, True]


def test_what_earlier_runs_put_counts(cache):
    for number in range(9):
        again(cache).put(key_of(str(number)), [bytes(1_000)])
    again(cache).put(KEY, [bytes(1_500)])
    assert sum(path.stat().st_size for path in files(cache)) <= 10_000


def test_an_entry_that_is_larger_than_all_is_not_kept(cache):
    keys = filled(again(cache), [1_000])
    cache.put(KEY, [bytes(10_000)])
    assert found(cache, [*keys, KEY]) == [True, False]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EACCES])
def test_what_cannot_be_written_is_left_out_with_one_note(cache, monkeypatch, caplog, number):
    """A full disk may have room for another entry."""
    write_entry, tried = module.write_entry, []

    def failing(path, parts):
        tried.append(path)
        path.write_bytes(b"begun")
        raise OSError(number, os.strerror(number))

    cache.put(OTHER, [b"x"])
    monkeypatch.setattr(module, "write_entry", failing)
    for _ in range(3):
        cache.put(KEY, [b"y"])
    full = number != errno.EACCES
    assert len(tried) == (3 if full else 1)
    assert caplog.text.count(os.strerror(number)) == 1
    assert ("what does not fit is left out" in caplog.text) is full
    assert [path.name for path in files(cache)] == [OTHER]
    assert bytes(cache.get(OTHER)) == b"x"
    monkeypatch.setattr(module, "write_entry", write_entry)
    cache.put(KEY, [b"y"])
    assert found(cache, [KEY]) == [full]


def test_what_a_killed_run_began_is_removed_after_an_hour(cache):
    for name, age in (("old", 0.0), ("new", None)):
        path = cache.folder / "ab" / f"{name}{PARTIAL}"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(bytes(9_000))
        if age is not None:
            os.utime(path, (age, age))
    again(cache).put(KEY, [b"y"])
    assert {path.name for path in files(cache)} == {f"new{PARTIAL}", KEY}


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
