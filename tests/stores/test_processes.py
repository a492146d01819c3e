"""Stores between processes: races, forks, and writers that are killed."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest

from s3cache.stores import DirectoryStore, Store
from s3cache.stores.s3 import S3Store

pytestmark = pytest.mark.filterwarnings(
    # Forking a process with threads is what these tests are about.
    "ignore:This process .* is multi-threaded, use of fork:DeprecationWarning"
)

context = multiprocessing.get_context("fork")


def in_children(count: int, work: Callable[[int], Any]) -> list[Any]:
    """The results of ``work(0)``, ``work(1)``, ... in forked processes."""
    with context.Manager() as manager:
        results = manager.dict()
        start = manager.Barrier(count)

        def run(number: int) -> None:
            start.wait(30)
            results[number] = work(number)

        children = [
            context.Process(target=run, args=(number,)) for number in range(count)
        ]
        for child in children:
            child.start()
        for child in children:
            child.join(60)
        assert [child.exitcode for child in children] == [0] * count
        return [results[number] for number in range(count)]


def test_one_process_creates(store: Store) -> None:
    def create(number: int) -> int:
        return store.put("log/1", b"%d" % number, if_none_match=True).status

    statuses = in_children(4, create)
    assert sorted(statuses) == [200, 412, 412, 412]
    assert store.get("log/1").body == b"%d" % statuses.index(200)


def test_a_log_has_one_order(directory_store: DirectoryStore) -> None:
    def append(number: int) -> list[int]:
        won = []
        for entry in range(50):
            body = b"%d" % number
            if directory_store.put(f"log/{entry}", body, if_none_match=True).ok:
                won.append(entry)
        return won

    won = in_children(4, append)
    assert sorted(sum(won, [])) == list(range(50))
    for number, entries in enumerate(won):
        for entry in entries:
            assert directory_store.get(f"log/{entry}").body == b"%d" % number


def test_no_update_by_etag_is_lost(directory_store: DirectoryStore) -> None:
    directory_store.put("counter", b"0")

    def increment(_: int) -> None:
        done = 0
        while done < 25:
            read = directory_store.get("counter")
            value = b"%d" % (int(read.body) + 1)
            done += directory_store.put("counter", value, if_match=read.etag).ok

    in_children(4, increment)
    assert directory_store.get("counter").body == b"100"


def test_each_version_is_replaced_or_deleted_once(
    directory_store: DirectoryStore,
) -> None:
    def work(number: int) -> list[str]:
        consumed = []
        for turn in range(100):
            body = b"%d-%d" % (number, turn)
            read = directory_store.get("key")
            if not read.ok:
                directory_store.put("key", body, if_none_match=True)
                continue
            if turn % 2:
                answer = directory_store.put("key", body, if_match=read.etag)
            else:
                answer = directory_store.delete("key", if_match=read.etag)
            if answer.ok:
                consumed.append(read.etag)
        return consumed

    consumed: list[str] = sum(in_children(3, work), [])
    assert consumed
    assert len(consumed) == len(set(consumed))


def test_a_forked_child_has_its_own_client_and_counts(s3_store: S3Store) -> None:
    s3_store.put("key", b"body")
    parent = s3_store.client

    def work(_: int) -> tuple[bool, int, int]:
        status = s3_store.get("key").status
        return s3_store.client is parent, status, s3_store.requests.total

    assert in_children(1, work) == [(False, 200, 1)]
    assert s3_store.client is parent
    assert s3_store.get("key").ok


def test_a_child_forked_under_the_lock_does_not_keep_it(
    directory_store: DirectoryStore,
) -> None:
    directory_store.put("key", b"")
    with directory_store._alone():
        child = os.fork()
        if child == 0:
            time.sleep(60)
            os._exit(0)
    try:
        started = time.monotonic()
        assert directory_store.put("key", b"again").ok
        assert time.monotonic() - started < 10
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_writers_that_are_killed_leave_whole_objects(
    directory_store: DirectoryStore,
) -> None:
    body = b"x" * 1_000_000

    def write() -> None:
        while True:
            directory_store.put("key", body)

    for _ in range(5):
        child = context.Process(target=write)
        child.start()
        time.sleep(0.05)
        child.kill()
        child.join()
        read = directory_store.get("key")
        assert read.status == 404 or read.body == body
    assert directory_store.put("key", b"free").ok
    assert [found.key for found in directory_store.list("").keys] == ["key"]
