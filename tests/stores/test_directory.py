"""What is particular to a directory."""

from __future__ import annotations

import errno
import os
import stat
import time
from pathlib import Path

import pytest

from s3cache.stores import Answer, DirectoryStore


def files(store: DirectoryStore) -> list[str]:
    return sorted(
        str(path.relative_to(store.root))
        for path in store.root.rglob("*")
        if path.is_file() and not path.name.startswith(".")
    )


def test_keys_become_readable_paths(directory_store: DirectoryStore) -> None:
    for key in ("_log/000000000001", "shop_product/rows/1.json", "Case/.x"):
        directory_store.put(key, b"")
    assert files(directory_store) == [
        "_log/000000000001",
        "shop_product/rows/1.json",
        "~43ase/~2ex",
    ]


def test_long_segments_continue_in_a_directory(
    directory_store: DirectoryStore,
) -> None:
    directory_store.put("x" * 100, b"")
    assert files(directory_store) == ["x" * 80 + "~/" + "x" * 20]


def test_nothing_is_left_in_the_spool(directory_store: DirectoryStore) -> None:
    directory_store.put("key", b"", if_none_match=True)
    directory_store.put("key", b"", if_none_match=True)
    directory_store.put("key", b"")
    assert list((directory_store.root / ".spool").iterdir()) == []


def test_what_killed_writers_left_is_removed_after_a_day(
    directory_store: DirectoryStore,
) -> None:
    spool = directory_store.root / ".spool"
    spool.mkdir(parents=True)
    (spool / "old").write_bytes(b"")
    (spool / "new").write_bytes(b"")
    yesterday = time.time() - 25 * 3600
    os.utime(spool / "old", (yesterday, yesterday))
    directory_store.put("key", b"")
    assert [path.name for path in spool.iterdir()] == ["new"]


def test_files_of_others_are_not_objects(directory_store: DirectoryStore) -> None:
    directory_store.put("ours", b"")
    for name in (".DS_Store", "README", "ours~", "~61", "~ff", "Dir/x", "a~~/x"):
        path = directory_store.root / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"")
    (directory_store.root / "ours-too").write_bytes(b"")
    listed = [found.key for found in directory_store.list("").keys]
    assert listed == ["ours", "ours-too"]


def test_an_object_next_to_those_below_it_is_refused(
    directory_store: DirectoryStore,
) -> None:
    directory_store.put("a/b", b"")
    directory_store.put("file", b"")
    for condition in (True, False):
        above = directory_store.put("a", b"", if_none_match=condition)
        below = directory_store.put("file/x", b"", if_none_match=condition)
        assert (above.status, below.status) == (400, 400)
        assert "a directory cannot hold 'a' next to objects" in above.message
    assert directory_store.get("a").status == 404
    assert directory_store.get("file/x").status == 404
    assert directory_store.put("a", b"", if_match='"etag"').status == 404
    assert directory_store.delete("a").status == 200
    assert directory_store.delete("file/x").status == 200
    assert directory_store.delete_many(["a", "file/x"]).status == 200
    assert len(directory_store.list("").keys) == 2


def test_a_new_store_is_empty_and_not_yet_there(
    directory_store: DirectoryStore,
) -> None:
    assert directory_store.get("key").status == 404
    assert directory_store.list("").status == 200
    assert directory_store.delete("key").status == 200
    assert directory_store.delete("key", if_match='"etag"').status == 404
    assert directory_store.delete_many(["key"]).status == 200
    assert not directory_store.root.exists()


def test_a_root_that_vanished_says_nothing_about_its_objects(
    directory_store: DirectoryStore,
) -> None:
    directory_store.put("key", b"")
    elsewhere = directory_store.root.rename(directory_store.root.with_name("away"))
    answers = [
        directory_store.get("key"),
        directory_store.put("key", b"", if_none_match=True),
        directory_store.delete("key"),
        directory_store.delete_many(["key"]),
        directory_store.list(""),
    ]
    assert [answer.status for answer in answers] == [410] * 5
    assert (
        answers[0].message == f"Gone: the directory {directory_store.root} has vanished"
    )
    elsewhere.rename(directory_store.root)
    assert directory_store.get("key").status == 200


def test_files_are_private(directory_store: DirectoryStore) -> None:
    directory_store.put("dir/key", b"")
    modes = [
        stat.S_IMODE((directory_store.root / name).stat().st_mode)
        for name in ("dir/key", "dir", ".spool")
    ]
    assert [oct(mode) for mode in modes] == ["0o600", "0o700", "0o700"]


def test_modes_can_be_given(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path / "store", file_mode=0o640, directory_mode=0o750)
    store.put("dir/key", b"")
    assert stat.S_IMODE((store.root / "dir/key").stat().st_mode) == 0o640
    assert stat.S_IMODE((store.root / "dir").stat().st_mode) == 0o750


def test_durable_writes_sync_file_and_directories(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        real(descriptor)

    store = DirectoryStore(tmp_path / "store")
    store.put("first", b"")
    monkeypatch.setattr("s3cache.stores.directory.os.fsync", fsync)
    monkeypatch.setattr("s3cache.stores.directory._F_FULLFSYNC", None)
    store.put("a/b/key", b"", if_none_match=True)
    # The body, the parents of the new directories, the object's directory.
    assert synced[0].startswith(f"{os.getpid()}-")
    assert synced[1:] == ["store", "a", "b"]
    synced.clear()
    store.delete("a/b/key")
    assert synced == ["b"]


@pytest.mark.parametrize(
    ("code", "status", "name"),
    [
        (errno.ENOSPC, 413, "ENOSPC"),
        (errno.EDQUOT, 413, "EDQUOT"),
        (errno.EROFS, 403, "EROFS"),
        (errno.EACCES, 403, "EACCES"),
        (errno.EIO, 500, "EIO"),
    ],
)
def test_a_write_that_fails_early_had_no_effect(
    directory_store: DirectoryStore,
    monkeypatch: pytest.MonkeyPatch,
    code: int,
    status: int,
    name: str,
) -> None:
    def fail(*args: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(directory_store, "_sync", fail)
    monkeypatch.setattr(directory_store, "durable", True)
    answer = directory_store.put("key", b"", if_none_match=True)
    assert (answer.status, answer.unclear) == (status, status == 500)
    assert answer.message == f"{name}: {os.strerror(code)}"
    assert files(directory_store) == []


def test_a_write_that_fails_late_is_unclear(
    directory_store: DirectoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(directory: Path) -> None:
        raise OSError(errno.ENOSPC, "full")

    directory_store.put("other", b"")
    monkeypatch.setattr(directory_store, "_sync_directory", fail)
    answers = [
        directory_store.put("key", b"", if_none_match=True),
        directory_store.delete("key"),
        directory_store.delete_many(["other"]),
    ]
    assert [(answer.status, answer.unclear) for answer in answers] == [(500, True)] * 3


def test_a_file_system_without_hard_links(
    directory_store: DirectoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hardlink_to(self: Path, target: Path) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(Path, "hardlink_to", hardlink_to)
    answer = directory_store.put("key", b"", if_none_match=True)
    assert (answer.status, answer.unclear) == (501, False)
    assert "the file system has no hard links" in answer.message


def test_a_file_that_cannot_be_read_is_not_missing(
    directory_store: DirectoryStore,
) -> None:
    directory_store.put("key", b"")
    (directory_store.root / "loop").symlink_to("loop")
    answers = [directory_store.get("loop"), directory_store.list("")]
    assert [answer.status for answer in answers] == [500, 500]
    assert answers[0].message == f"ELOOP: {os.strerror(errno.ELOOP)}"


def test_a_page_whose_objects_are_gone_is_not_the_last(
    directory_store: DirectoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "abc":
        directory_store.put(name, b"")
    real = directory_store._get

    def get(key: str) -> Answer:
        return Answer(404) if key == "a" else real(key)

    monkeypatch.setattr(directory_store, "_get", get)
    page = directory_store.list("", limit=1)
    assert ([found.key for found in page.keys], page.more) == (["b"], True)
