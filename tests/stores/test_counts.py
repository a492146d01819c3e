"""Every request is counted, timed and shown to observers."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from s3cache.stores import (
    Answer,
    DirectoryStore,
    Request,
    RequestCounts,
    Store,
    observe,
)
from s3cache.stores.base import KINDS


class Scripted(DirectoryStore):
    """Answers with these statuses, one after the other."""

    def __init__(self, directory: Path, statuses: Sequence[int]) -> None:
        super().__init__(directory)
        self._statuses = iter(statuses)

    def _get(self, key: str) -> Answer:
        return Answer(next(self._statuses))


def test_counts_by_kind(store: Store) -> None:
    assert store.requests == RequestCounts()
    store.get("a")
    store.get("a")
    store.put("a", b"")
    store.delete("a")
    store.delete_many(["a", "b"])
    store.list("")
    counts = store.requests
    assert (counts.get, counts.put, counts.delete, counts.list) == (2, 1, 2, 1)
    assert counts.total == 6


def test_times_by_kind(store: Store) -> None:
    store.get("a")
    counts = store.requests
    assert counts.get_seconds > 0
    assert counts.put_seconds == 0
    assert counts.seconds == counts.get_seconds


def test_difference_of_two_snapshots(store: Store) -> None:
    store.put("a", b"")
    before = store.requests
    store.get("a")
    spent = store.requests - before
    assert (spent.get, spent.put, spent.total) == (1, 0, 1)
    assert spent.seconds == pytest.approx(spent.get_seconds)


def test_traffic_has_what_was_sent_and_how_long_it_took(store: Store) -> None:
    store.put("a", b"four")
    store.get("a")
    store.get("missing")
    traffic = store.traffic
    assert (traffic["PUT"].number, traffic["PUT"].sent) == (1, 4)
    assert (traffic["GET"].number, traffic["GET"].received) == (2, 4)
    assert traffic["GET"].latency.number == 2
    assert traffic["GET"].seconds == store.requests.get_seconds
    assert {traffic[kind].failed for kind in KINDS} == {0}


def test_no_answer_and_troubles_of_the_store_count_as_failed(tmp_path: Path) -> None:
    store = Scripted(tmp_path, [0, 200, 404, 503, 501])
    for _ in range(5):
        store.get("a")
    assert (store.traffic["GET"].number, store.traffic["GET"].failed) == (5, 2)


def test_exact_under_threads(directory_store: Store) -> None:
    def work() -> None:
        for _ in range(200):
            directory_store.get("missing")

    with ThreadPoolExecutor(16) as pool:
        for future in [pool.submit(work) for _ in range(16)]:
            future.result()
    assert directory_store.requests.get == 3200


def test_observers_see_requests(store: Store) -> None:
    seen: list[Request] = []
    with observe(seen.append):
        store.put("a", b"body")
        store.get("a")
        store.get("missing")
        store.delete_many(["a", "b", "c"])
    store.get("a")
    assert [(each.kind, each.key, each.status) for each in seen] == [
        ("PUT", "a", 200),
        ("GET", "a", 200),
        ("GET", "missing", 404),
        ("DELETE", "a and 2 more", 200),
    ]
    assert [(each.sent, each.received) for each in seen[:2]] == [(4, 0), (0, 4)]
    assert all(each.seconds > 0 and each.store == store.name for each in seen)
    assert str(seen[0]) == f"PUT {store.name}/a -> 200"


def test_observers_nest(directory_store: Store) -> None:
    outer: list[Request] = []
    inner: list[Request] = []
    with observe(outer.append):
        with observe(inner.append):
            directory_store.get("a")
        directory_store.get("b")
    assert [each.key for each in outer] == ["a", "b"]
    assert [each.key for each in inner] == ["a"]


def test_observers_follow_the_context(directory_store: Store) -> None:
    seen: list[Request] = []
    with observe(seen.append):
        context = contextvars.copy_context()
        copied = threading.Thread(
            target=context.run, args=(directory_store.get, "copied")
        )
        foreign = threading.Thread(target=directory_store.get, args=("foreign",))
        for thread in (copied, foreign):
            thread.start()
            thread.join()
    assert [each.key for each in seen] == ["copied"]


def test_a_failing_observer_changes_no_outcome(
    directory_store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(request: Request) -> None:
        raise RuntimeError("broken")

    with observe(fail):
        assert directory_store.put("a", b"").status == 200
    assert "An observer of store requests failed" in caplog.text
