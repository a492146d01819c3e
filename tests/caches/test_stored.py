"""Files and objects: what is damaged is a miss, what fails is passed over."""

from __future__ import annotations

import errno
import multiprocessing
import os
import shutil
import signal
import sqlite3
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from hypothesis import given, settings
from hypothesis import strategies as st

from s3cache.caches import FileSystemCache, S3Cache, filesystem
from s3cache.caches.errors import NotSerializable
from s3cache.caches.stored import StoredCache, strict
from s3cache.exceptions import StoreError
from s3cache.stores import Answer, Store, observe
from tests.caches.conftest import restart
from tests.forks import in_child

Make = Callable[..., Any]


@pytest.fixture
def make_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """A function that makes a cache in one directory, a file an entry."""
    monkeypatch.setattr(filesystem, "_IN_INDEX", 0)
    yield from in_directory(tmp_path)


@pytest.fixture
def make_rows(tmp_path: Path) -> Iterator[Make]:
    """The same with small entries in the index, as they usually are."""
    yield from in_directory(tmp_path)


def in_directory(tmp_path: Path) -> Iterator[Make]:
    def make(params: dict[str, Any] | None = None, **options: Any) -> FileSystemCache:
        return FileSystemCache(
            str(tmp_path / "files"), {**(params or {}), "OPTIONS": options}
        )

    yield make
    restart()
    StoredCache._all_counters.clear()


@pytest.fixture
def make_objects(store: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """A function that makes a cache in one bucket, or directory store."""
    yield from objects(store, monkeypatch)


@pytest.fixture
def make_in_directory(
    directory_store: Store, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Make]:
    """A function that makes a cache in one directory store."""
    yield from objects(directory_store, monkeypatch)


def objects(store: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    monkeypatch.setattr("s3cache.caches.s3.store_for", lambda alias: store)

    def make(
        params: dict[str, Any] | None = None, *, location: str = "", **options: Any
    ) -> S3Cache:
        return S3Cache(
            location, {**(params or {}), "OPTIONS": {"storage": "any", **options}}
        )

    yield make
    StoredCache._all_counters.clear()


@pytest.fixture(params=["make_files", "make_rows", "make_in_directory"])
def make(request: pytest.FixtureRequest) -> Make:
    """Each kind in turn."""
    made: Make = request.getfixturevalue(request.param)
    return made


def tamper(cache: Any, key: str, change: Callable[[bytes], bytes]) -> None:
    """Change the bytes of an entry behind the cache's back."""
    made = cache.make_key(key)
    data = cache._fetch(made)
    assert data is not None
    if isinstance(cache, FileSystemCache):
        cache._write(made, change(data))
    else:
        assert cache.store.put(cache._name(made), change(data)).ok


# Both


@pytest.mark.parametrize("value", [0, "", [], {}, False, None, b""], ids=repr)
def test_empty_values_are_values(make: Make, value: Any) -> None:
    cache = make()
    cache.set("key", value)
    assert cache.get("key", "absent") == value
    assert type(cache.get("key", "absent")) is type(value)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda data: data[:-1], "forged"),
        (lambda data: b"", "corrupt"),
        (lambda data: data[:-1] + b"\0", "forged"),
        (lambda data: data[:3] + b"\7" + data[4:], "foreign"),
        (lambda data: os.urandom(500), "corrupt"),
    ],
    ids=["truncated", "empty", "changed", "newer", "random"],
)
def test_a_damaged_entry_is_a_counted_miss(
    make: Make, change: Callable[[bytes], bytes], reason: str
) -> None:
    cache = make()
    cache.set("key", "value")
    tamper(cache, "key", change)
    assert cache.get("key", "absent") == "absent"
    assert not cache.has_key("key")
    assert cache.stats()["undecodable"] == 2
    assert cache.counters.total()[reason] == 2
    assert cache.add("key", "again")
    assert cache.get("key") == "again"


def test_an_entry_in_anothers_place_is_a_miss(make: Make) -> None:
    cache = make()
    cache.set("admin", True)
    cache.set("guest", False)
    stolen = cache._fetch(cache.make_key("admin"))
    tamper(cache, "guest", lambda data: stolen)
    assert cache.get("guest") is None


def test_other_objects_of_the_same_place_see_the_entries(make: Make) -> None:
    make().set("key", [1, (2, 3)])
    assert make().get("key") == [1, (2, 3)]


def test_keys_and_patterns(make: Make) -> None:
    cache = make()
    for key in ("a:1:x", "a:2:x", "a:1:y", "../up", "ünï.x"):
        cache.set(key, key)
    cache.set("a:1:x", 1, version=2)
    assert sorted(cache.keys()) == ["../up", "a:1:x", "a:1:y", "a:2:x", "ünï.x"]
    assert [cache.get(key) for key in cache.keys("a:*")] == cache.keys("a:*")
    assert cache.delete_pattern("a:*:x") == 2
    assert sorted(cache.keys("a*")) == ["a:1:y"]
    assert cache.keys(version=2) == ["a:1:x"]
    cache.clear()
    assert cache.keys() == []


def test_an_entry_that_is_too_large_replaces_nothing_but_the_old_one(
    make: Make,
) -> None:
    cache = make(max_entry_bytes=1000, compression=None)
    cache.set("key", "old")
    cache.set("key", "x" * 1000)
    assert cache.get("key") is None
    assert cache.stats()["rejected"] == 1


def test_what_cannot_be_serialized_leaves_the_old_value(make: Make) -> None:
    cache = make()
    cache.set("key", 1)
    with pytest.raises(NotSerializable):
        cache.set("key", object())
    assert cache.get("key") == 1


def test_lists_shrink_by_half(make: Make) -> None:
    rows = [{"name": f"product {number}", "stock": 3} for number in range(100)]
    sizes = []
    for compression in (None, "zstd"):
        cache = make(compression=compression)
        cache.set("rows", rows)
        sizes.append(len(cache._fetch(cache.make_key("rows")) or b""))
    assert sizes[1] < sizes[0] / 2


def test_touch_moves_the_time_of_an_encrypted_entry(make: Make) -> None:
    cache = make(encryption_keys=["secret"])
    cache.set("key", "value", 1)
    assert cache.touch("key", None)
    assert cache.get("key") == "value"
    assert not cache.touch("other")


def test_a_bomb_is_a_counted_miss(make: Make) -> None:
    make().set("bomb", b"\0" * 10**7)
    careful = make(max_entry_bytes=10**6)
    assert careful.get("bomb", "absent") == "absent"
    assert careful.counters.total()["too_large"] == 1


HOSTILE = [
    "../../etc/passwd",
    "/etc/passwd",
    "..",
    "~",
    "%2e%2e/%00",
    "a\0b",
    "line\nbreak\r",
    "\ud800",
    "_tmp:x",
    "..:x",
    "'; DROP TABLE entries; --",
    "x" * 5000,
    "*",
    "[a-z]?",
]


@pytest.mark.filterwarnings("ignore::django.core.cache.CacheKeyWarning")
def test_hostile_keys_are_keys_like_any_other(make: Make, tmp_path: Path) -> None:
    cache = make()
    for number, key in enumerate(HOSTILE):
        cache.set(key, number)
    for number, key in enumerate(HOSTILE):
        assert cache.get(key) == number
    for key in HOSTILE:
        assert cache.delete(key)
    assert cache.keys() == []
    assert {path.name for path in tmp_path.iterdir()} <= {"files", "store"}


# Files


def test_the_directory_is_required() -> None:
    with pytest.raises(ImproperlyConfigured, match="needs a LOCATION"):
        FileSystemCache("", {})


def test_a_missing_directory_is_an_error_where_it_may_not_be_made(
    make_files: Make,
) -> None:
    with pytest.raises(ImproperlyConfigured, match="'create_directory' is False"):
        make_files(create_directory=False)


@given(st.text(max_size=50))
def test_no_key_leaves_the_directory(tmp_path_factory: Any, key: str) -> None:
    base = tmp_path_factory.getbasetemp() / "escape"
    cache = FileSystemCache(str(base / "in"), {"KEY_FUNCTION": lambda k, p, v: k})
    directory = cache._directory
    path = directory.path_of(directory.name_of(key), cache._partition(key))
    assert Path(path).resolve().is_relative_to(base / "in")


def test_bytes_and_entries_are_bounded(make_either: Make) -> None:
    cache = make_either(max_bytes=20_000, compression=None)
    for number in range(50):
        cache.set(f"key{number}", b"x" * 1000)
        assert cache.stats()["memory_usage_bytes"] <= 20_000
    assert cache.get("key49") == b"x" * 1000
    assert cache.get("key0") is None
    stats = cache.stats()
    assert stats["size"] + stats["evictions"] == 50


def on_disk(cache: FileSystemCache) -> int:
    index = cache._directory.index.connection
    assert index is not None
    [in_index] = index.execute("SELECT ifnull(sum(length(data)), 0) FROM entries")
    return int(in_index[0]) + sum(size for _, size in cache._directory._files())


@pytest.fixture(params=["make_files", "make_rows"])
def make_either(request: pytest.FixtureRequest) -> Make:
    made: Make = request.getfixturevalue(request.param)
    return made


def test_the_index_counts_what_is_on_the_disk(make_either: Make) -> None:
    cache = make_either()
    for number in range(30):
        cache.set(f"part{number % 3}:{number % 20}", os.urandom(number * 10))
    for number in range(5):
        cache.delete(f"part0:{number * 3}")
    assert cache.stats()["memory_usage_bytes"] == on_disk(cache)
    usage = cache.usage()
    assert set(usage) == {"part0", "part1", "part2"}
    assert sum(part.bytes for part in usage.values()) == on_disk(cache)


def test_usage_by_partition(make_either: Make) -> None:
    cache = make_either()
    cache.set("users:1", 1)
    cache.set("users:2", 2)
    cache.set("alone", 3)
    cache.get("users:1")
    cache.get("users:9")
    usage = cache.usage()
    assert usage["users"].entries == 2
    assert usage["users"].hits == 1
    assert (usage["users"].last_access or 0) > 0
    assert usage["_"].entries == 1
    assert usage["_"].hits == 0


def test_partitions_that_are_gone_are_forgotten(
    make_files: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filesystem, "_PARTITIONS_AT_ONCE", 3)
    cache = make_files()
    for number in range(10):
        cache.set(f"part{number}:key", number)
        cache.get(f"part{number}:key")
        assert len(cache._directory.usage) < 3
    cache.delete_pattern("part*")
    cache.cleanup()
    index = cache._directory.index.connection
    assert index.execute("SELECT count(*) FROM usage").fetchone() == (0,)


def test_expired_files_are_removed(make_either: Make) -> None:
    cache = make_either()
    cache.set("soon", 1, 0.001)
    cache.set("later", 1, 1000)
    while cache.get("soon") is not None:
        pass
    assert cache.cleanup() == 1
    assert cache.keys() == ["later"]
    assert cache.stats()["expired"] == 1


def test_children_of_a_busy_process_can_use_the_directory(make_rows: Make) -> None:
    cache = make_rows()
    stop = threading.Event()

    def write(name: str) -> None:
        while not stop.is_set():
            cache.set(name, "x")
            stop.wait(0.0002)  # locks are not fair: the fork waits for them

    def use_it() -> bool:
        signal.alarm(30)
        cache.set("child", 1)
        return bool(cache.get("child") == 1)

    threads = [threading.Thread(target=write, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    try:
        assert all(in_child(use_it) for _ in range(20))
    finally:
        stop.set()
        for thread in threads:
            thread.join()


# What a process remembers


def test_a_hit_that_was_one_before_asks_no_database(
    make_rows: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = make_rows()
    cache.set("key", [1])
    assert cache.get("key") == [1]
    monkeypatch.setattr(cache._directory.index, "find", None)
    cache.get("key").append(2)
    assert cache.get("key") == [1]
    assert cache.usage()[filesystem._DEFAULT_PARTITION].hits == 3


@pytest.mark.parametrize("change", ["set", "delete", "clear", "touch", "evict"])
def test_what_another_process_changes_is_not_remembered(
    make_either: Make, change: str
) -> None:
    cache = make_either(MAX_ENTRIES=2)
    cache.set("key", "old")
    cache.set("other", 1)
    assert cache.get("key") == "old"

    def elsewhere() -> bool:
        if change == "set":
            cache.set("key", "new")
        elif change == "touch":
            cache.touch("key", 0)
        elif change == "evict":
            cache.set("third", 1)
        else:
            getattr(cache, change)(*["key"] * (change == "delete"))
        return True

    assert in_child(elsewhere)
    assert cache.get("key") == ("new" if change == "set" else None)


def test_entries_expire_while_they_are_remembered(make_rows: Make) -> None:
    cache = make_rows()
    cache.set("key", 1, 0.05)
    while cache.get("key") is not None:
        pass
    assert cache.get("key") is None


def test_after_a_death_in_the_middle_nothing_is_remembered(make_rows: Make) -> None:
    cache = make_rows()
    cache.set("key", "old")
    assert cache.get("key") == "old"

    def die() -> bool:
        name = cache._directory.name_of(cache.make_key("key"))
        cache._directory.ready()
        with cache._directory.locked(name):
            os.kill(os.getpid(), signal.SIGKILL)
        return True

    in_child(die)
    asked: list[str] = []
    find = cache._directory.index.find

    def finding(name: str) -> Any:
        asked.append(name)
        return find(name)

    cache._directory.index.find = finding
    for number in range(1, 4):
        assert cache.get("key") == "old"
        assert len(asked) == number
    cache.set("key", "new")  # all is well again
    assert [cache.get("key"), cache.get("key")] == ["new", "new"]
    assert len(asked) == 4


def test_what_one_has_verified_another_with_other_keys_has_not(make_rows: Make) -> None:
    one, other = make_rows(), make_rows(signing_keys=["other"])
    one.set("key", 1)
    assert one.get("key") == 1
    assert other.get("key") is None
    assert other.stats()["undecodable"] == 1


def test_what_is_remembered_is_bounded(
    make_rows: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filesystem, "_REMEMBERED", 5)
    cache = make_rows(compression=None)
    for number in range(20):
        cache.set(f"key{number}", number)
        assert cache.get(f"key{number}") == number
        assert len(cache._directory.remembered) <= 5
    cache.set("large", os.urandom(5000))
    cache.get("large")
    assert "large" not in str(cache._directory.remembered)


def crashing(path: str, where: str) -> None:
    """Overwrite an entry, and die in the middle."""
    cache = FileSystemCache(path, {"OPTIONS": {"compression": None}})
    cache.get("warm")
    cache._directory.ready()

    def die(*args: Any, **kwargs: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    if where == "before the index":
        cache._directory.index.record = die  # type: ignore[method-assign]
    elif where == "before the rename":
        filesystem.os.replace = die  # type: ignore[attr-defined]
    else:
        cache._directory.index.forget = die  # type: ignore[assignment]
        cache.delete("key")
    cache.set("key", b"y" * 5000)


@pytest.mark.parametrize(
    "where", ["before the index", "before the rename", "while deleting"]
)
def test_the_byte_count_is_right_after_a_crash(
    make_files: Make, tmp_path: Path, where: str
) -> None:
    cache = make_files(compression=None)
    cache.set("key", b"x" * 100)
    cache.set("other", b"x" * 100)
    context = multiprocessing.get_context("fork")
    child = context.Process(target=crashing, args=(str(tmp_path / "files"), where))
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    restart()
    after = make_files(compression=None)
    assert after.stats()["memory_usage_bytes"] == on_disk(after)
    assert after.get("key") is None
    assert after.get("other") == b"x" * 100
    assert list((tmp_path / "files/_tmp").iterdir()) == []


def test_after_a_loss_of_power_the_index_and_the_files_are_compared(
    make_files: Make, tmp_path: Path
) -> None:
    cache = make_files()
    for number in range(4):
        cache.set(f"key{number}", number)
    files = sorted(path for path, _ in cache._directory._files())
    files[0].unlink()
    files[1].write_bytes(b"torn")
    with sqlite3.connect(tmp_path / "files/_index.sqlite3") as db:
        db.execute("UPDATE state SET value = 'another boot'")
    db.close()
    restart()
    after = make_files()
    assert after.stats()["size"] == 2
    assert after.stats()["memory_usage_bytes"] == on_disk(after)
    assert len(after.get_many([f"key{number}" for number in range(4)])) == 2


def test_a_damaged_index_empties_the_cache(make_either: Make, tmp_path: Path) -> None:
    cache = make_either()
    cache.set("key", 1)
    cache._directory.index.close()
    for path in (tmp_path / "files").glob("_index*"):
        path.write_bytes(b"not a database, but some bytes" * 100)
    restart()
    after = make_either()
    assert after.stats()["size"] == 0
    after.set("key", 2)
    assert after.get("key") == 2


def test_an_entry_may_grow_into_a_file_and_shrink_again(make_rows: Make) -> None:
    cache = make_rows(compression=None)
    for size in (10, 50_000, 60_000, 20, 50_000):
        cache.set("key", os.urandom(size))
        assert len(cache.get("key")) == size
        assert len(list(cache._directory._files())) == (size > 16 * 2**10)
        assert cache.stats()["memory_usage_bytes"] == on_disk(cache)
    assert cache.delete("key")
    assert on_disk(cache) == cache.stats()["memory_usage_bytes"] == 0


def test_replacing_a_small_entry_is_one_statement(make_rows: Make) -> None:
    cache = make_rows()
    traced: list[str] = []

    def statements() -> list[str]:
        # A statement is traced again for each trigger that it starts.
        distinct = [text.split()[0] for text in dict.fromkeys(traced)]
        traced.clear()
        return distinct

    cache.set("key", "old")
    cache._directory.index.connection.set_trace_callback(traced.append)
    cache.set("key", "new")
    assert statements() == ["UPDATE"]
    cache.set("other", "first")
    assert statements() == ["UPDATE", "INSERT"]


SETS = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 30_000)), max_size=8)


@settings(max_examples=30)
@given(SETS)
def test_bytes_and_order_are_right_whatever_replaces_what(
    sets: list[tuple[str, int]],
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        cache = FileSystemCache(directory, {"OPTIONS": {"compression": None}})
        try:
            sizes: dict[str, int] = {}
            for key, size in sets:
                cache.set(key, "x" * size)
                sizes[key] = len(cache._fetch(cache.make_key(key)) or b"")
            assert cache._usage() == (len(sizes), sum(sizes.values()))
            newest_first = dict.fromkeys(key for key, _ in reversed(sets))
            assert cache.keys() == list(newest_first)[::-1]
        finally:
            restart()


def test_a_crash_while_an_entry_becomes_a_row(make_rows: Make, tmp_path: Path) -> None:
    cache = make_rows(compression=None)
    cache.set("key", b"x" * 50_000)

    def crash() -> None:
        index = make_rows(compression=None)._directory.index
        index.record = lambda *args: os.kill(os.getpid(), signal.SIGKILL)
        make_rows(compression=None).set("key", b"y")

    child = multiprocessing.get_context("fork").Process(target=crash)
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    restart()
    after = make_rows(compression=None)
    assert after.get("key") is None
    assert after.stats()["memory_usage_bytes"] == on_disk(after) == 0


def test_a_full_disk_keeps_nothing_old_in_the_index(make_rows: Make) -> None:
    cache = make_rows(compression=None)
    cache.set("key", "old")
    index = cache._directory.index.connection
    pages = index.execute("PRAGMA page_count").fetchone()[0]
    index.execute(f"PRAGMA max_page_count = {pages}")
    cache.set("key", os.urandom(15_000))  # "database or disk is full"
    assert cache.get("key") is None
    assert cache.stats()["errors"] == 1
    index.execute("PRAGMA max_page_count = 1000000")
    cache.set("key", "new")
    assert cache.get("key") == "new"
    assert cache.stats()["memory_usage_bytes"] == on_disk(cache)


def test_a_directory_that_is_read_only(make_files: Make, tmp_path: Path) -> None:
    (tmp_path / "files").mkdir(mode=0o500)

    def as_somebody() -> bool:
        if os.getuid() == 0:  # who may write anywhere
            os.setuid(65534)
        cache = make_files()
        cache.set("key", 1)
        return bool(
            cache.get("key", "absent") == "absent"
            and cache.get_or_set("key", lambda: "source") == "source"
            and cache.stats()["errors"] >= 3
        )

    assert in_child(as_somebody)


def test_a_directory_that_cannot_be_one(make_files: Make, tmp_path: Path) -> None:
    (tmp_path / "files").write_text("a file")
    cache = make_files()
    cache.set("key", 1)
    assert cache.get("key", "absent") == "absent"
    assert not cache.add("key", 1)
    assert cache.get_or_set("key", lambda: "source") == "source"
    assert cache.stats()["errors"] >= 3


def test_nobody_else_may_read_the_directory(make_files: Make, tmp_path: Path) -> None:
    make_files().set("key", 1)
    assert (tmp_path / "files").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("size", [10, 50_000])
def test_a_directory_that_is_removed_is_made_anew(
    make_rows: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(filesystem, "_LOOK_INTERVAL", 0.0)
    cache = make_rows(compression=None)
    cache.set("old", b"x" * size)
    assert cache.get("old") == b"x" * size
    shutil.rmtree(tmp_path / "files")
    assert cache.get("old") is None
    cache.set("new", b"y" * size)
    cache.set("gone", 1)

    def child() -> bool:
        restart()
        other = make_rows(compression=None)
        return other.get("new") == b"y" * size and bool(other.delete("gone"))

    assert in_child(child)
    assert cache.get("gone") is None
    assert cache.stats()["size"] == 1


def test_files_without_an_index_do_not_stay(make_files: Make, tmp_path: Path) -> None:
    cache = make_files()
    cache.set("key", 1)
    restart()
    for path in (tmp_path / "files").glob("_index*"):
        path.unlink()
    after = make_files()
    assert after.get("key") is None
    assert not list(after._directory._files())


def test_threads_go_on_while_the_directory_is_removed(
    make_rows: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filesystem, "_LOOK_INTERVAL", 0.0)
    cache = make_rows(compression=None)
    wrong: list[object] = []
    done = threading.Event()

    def work(key: str) -> None:
        try:
            while not done.is_set():
                cache.set(key, key)
                if cache.get(key, key) != key:
                    wrong.append(key)
        except BaseException as error:
            wrong.append(error)
            raise

    threads = [threading.Thread(target=work, args=(f"key{n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(5):
        cache.set("key", 1)
        shutil.rmtree(tmp_path / "files", ignore_errors=True)
    done.set()
    for thread in threads:
        thread.join(timeout=30)
        assert not thread.is_alive()
    assert not wrong
    shutil.rmtree(tmp_path / "files", ignore_errors=True)  # it may be gone
    cache.set("key", 2)
    assert cache.get("key") == 2


def test_a_symbolic_link_is_not_followed(make_files: Make, tmp_path: Path) -> None:
    cache = make_files()
    cache.set("key", 1)
    [(path, _)] = cache._directory._files()
    elsewhere = tmp_path / "elsewhere"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)
    assert cache.get("key") is None
    assert cache.stats()["errors"] == 1
    cache.set("key", 2)
    assert cache.get("key") == 2
    assert not path.is_symlink()


def test_the_bytes_of_many_entries_are_counted_right_after_a_crash(
    make_rows: Make,
) -> None:
    """
    A child is killed, having written more rows than anybody would count.

    How fast such a cache opens is measured by ``benchmarks.caches``.
    """

    def fill() -> None:
        cache = make_rows(compression=None)
        index = cache._directory.index
        cache.set("first", 1)
        data = cache._fetch(cache.make_key("first"))
        index.connection.execute("BEGIN")
        for number in range(5000):
            name = cache._directory.name_of(str(number))
            index.record(name, f":1:key{number}", "_", len(data), None, data)
        index.connection.execute("COMMIT")
        for number in range(20):
            cache.set(f"file{number}", os.urandom(20_000))
        os.kill(os.getpid(), signal.SIGKILL)

    child = multiprocessing.get_context("fork").Process(target=fill)
    child.start()
    child.join()
    restart()
    after = make_rows(compression=None)
    assert after.stats()["size"] == 5021
    assert after.stats()["memory_usage_bytes"] == on_disk(after)


def test_a_full_disk_loses_the_entry_and_nothing_else(
    make_files: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = make_files()
    cache.set("key", "old")
    cache.set("other", 1)

    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr("builtins.open", full)
        cache.set("key", "new")
        assert cache.get("other", "absent") == "absent"
        with strict(), pytest.raises(OSError, match="No space"):
            cache.get("other")
    assert cache.get("key") is None  # rather than the old value
    assert cache.get("other") == 1
    assert cache.stats()["errors"] == 3


def add_many(path: str, start: int) -> None:
    cache = FileSystemCache(path, {"OPTIONS": {}})
    for _ in range(50):
        cache.incr("counter")
    for number in range(30):
        cache.set(f"key{number}", os.urandom(100 + start * 7 + number))


def test_processes_and_threads_lose_no_increment(
    make_either: Make, tmp_path: Path
) -> None:
    cache = make_either()
    cache.set("counter", 0)
    context = multiprocessing.get_context("fork")
    path = str(tmp_path / "files")
    workers: list[Any] = [
        context.Process(target=add_many, args=(path, number)) for number in range(2)
    ]
    workers += [threading.Thread(target=add_many, args=(path, 5)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert cache.get("counter") == 200
    assert cache.stats()["memory_usage_bytes"] == on_disk(cache)


# Objects


def requests_of(work: Callable[[], Any]) -> list[str]:
    seen: list[str] = []
    with observe(lambda request: seen.append(request.kind)):
        work()
    return seen


def test_requests(make_objects: Make) -> None:
    cache = make_objects()
    assert requests_of(lambda: cache.set("key", 1)) == ["PUT"]
    assert requests_of(lambda: cache.get("key")) == ["GET"]
    assert requests_of(lambda: cache.get("other")) == ["GET"]
    assert requests_of(lambda: cache.incr("key")) == ["GET", "PUT"]
    assert requests_of(lambda: cache.add("key", 1)) == ["GET"]
    assert requests_of(lambda: cache.delete("key")) == ["GET", "DELETE"]
    cache.set_many({str(number): number for number in range(5)})
    assert requests_of(lambda: cache.keys("1*")) == ["LIST"]
    assert requests_of(cache.clear) == ["LIST", "DELETE"]


def test_a_prefix_with_and_without_a_slash_is_the_same_place(
    make_objects: Make, store: Store
) -> None:
    make_objects(location="app-cache").set("key", 1)
    assert make_objects(location="/app-cache/").get("key") == 1
    assert make_objects(location="app").get("key") is None
    assert {found.key for found in store.list("").keys} == {"app-cache/:1:key.zst"}


@given(st.text(max_size=300))
def test_no_key_leaves_the_prefix(key: str) -> None:
    cache = S3Cache("in", {"OPTIONS": {"storage": "any"}})
    name = cache._name(key)
    assert name.startswith("in/")
    assert name.count("/") == 1
    assert "." not in name.removesuffix(".zst")
    assert name.isascii()


def test_incr_is_right_between_hosts(make_objects: Make) -> None:
    cache = make_objects()
    cache.set("counter", 0)

    def work() -> None:
        for _ in range(5):
            cache.incr("counter")

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert cache.get("counter") == 15


@pytest.mark.parametrize("status", [500, 503, 0, 403])
def test_a_store_that_is_down_is_a_miss_and_counted(
    make_objects: Make, store: Store, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    cache = make_objects()
    cache.set("key", 1)
    with monkeypatch.context() as patched:
        for name in ("_get", "_put", "_delete"):
            patched.setattr(store, name, lambda *args: Answer(status))
        assert cache.get("key", "absent") == "absent"
        cache.set("key", 2)
        assert not cache.add("key", 2)
        assert cache.stats()["errors"] == 3
        # That a stale value may live on is not hidden.
        with pytest.raises(StoreError):
            cache.delete("key")
        with strict(), pytest.raises(StoreError):
            cache.get("key")
    assert cache.get("key") == 1
