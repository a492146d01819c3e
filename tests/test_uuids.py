from __future__ import annotations

import multiprocessing
import os
import threading
import time
import uuid
from collections.abc import Iterator

import pytest

from s3cache import uuids
from s3cache.uuids import uuid7


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The time in milliseconds, as the one item of a list to be changed."""
    now = [1_700_000_000_000]
    monkeypatch.setattr(time, "time_ns", lambda: now[0] * 1_000_000)
    monkeypatch.setattr(uuids, "_last", 0)
    yield now


def milliseconds(value: uuid.UUID) -> int:
    return value.int >> 80


def test_is_an_rfc_9562_uuid_of_version_7() -> None:
    value = uuid7()

    assert value.version == 7
    assert value.variant == uuid.RFC_4122


def test_starts_with_the_milliseconds_since_1970(clock: list[int]) -> None:
    assert milliseconds(uuid7()) == 1_700_000_000_000


def test_grows_within_a_millisecond(clock: list[int]) -> None:
    values = [uuid7() for _ in range(10_000)]

    assert values == sorted(set(values))
    assert {value.version for value in values} == {7}
    assert {value.variant for value in values} == {uuid.RFC_4122}


def test_grows_when_the_clock_is_set_back(clock: list[int]) -> None:
    before = uuid7()
    clock[0] -= 3_600_000

    assert uuid7() > before


def test_carries_into_the_time_when_a_millisecond_is_full(
    clock: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    full = clock[0] << 74 | (1 << 74) - 1
    monkeypatch.setattr(uuids, "_last", full)

    assert milliseconds(uuid7()) == clock[0] + 1


def test_does_not_reveal_the_next_one() -> None:
    steps = {uuid7().int - uuid7().int for _ in range(100)}

    assert len(steps) == 100


def test_threads_get_different_ones_each_in_order() -> None:
    found: list[list[uuid.UUID]] = []

    def collect() -> None:
        found.append([uuid7() for _ in range(2_000)])

    threads = [threading.Thread(target=collect) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert all(values == sorted(values) for values in found)
    assert len({value for values in found for value in values}) == 16_000


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_goes_its_own_way(clock: list[int]) -> None:
    # In one millisecond, from one state, while the lock is held.
    uuid7()
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()

    def report() -> None:
        queue.put(uuid7())
        os._exit(0)

    with uuids._lock:
        child = context.Process(target=report)
        child.start()
    own = uuid7()
    theirs = queue.get()
    child.join()

    assert theirs != own
    assert abs(theirs.int - own.int) > 1 << 34  # no common counter
