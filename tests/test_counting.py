"""Numbers that all threads count up."""

from __future__ import annotations

import threading

import pytest

from s3cache.counting import Counters
from tests.forks import in_child


@pytest.fixture
def counters() -> Counters[str]:
    return Counters()


def test_eight_threads_lose_nothing_while_somebody_looks(
    counters: Counters[str],
) -> None:
    ready = threading.Barrier(8)
    hit = counters.ticker("hit")

    def run() -> None:
        ready.wait()
        for _ in range(2_000):
            hit()
            counters.count("miss")
            counters.add("bytes", 3)

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        counters.read()
    assert counters.read() == {"hit": 16_000, "miss": 16_000, "bytes": 48_000}


def test_what_did_not_happen_is_not_there(counters: Counters[str]) -> None:
    counters.ticker("hit")
    counters.add("bytes", 0)
    assert counters.read() == {}


def test_looking_changes_nothing(counters: Counters[str]) -> None:
    counters.count("hit")
    assert [counters.read() for _ in range(3)] == [{"hit": 1}] * 3


def test_a_ticker_counts_on_after_all_was_cleared(counters: Counters[str]) -> None:
    hit = counters.ticker("hit")
    hit()
    counters.add("bytes", 1)
    counters.clear()
    assert counters.read() == {}
    assert counters.read() == {}
    hit()
    assert counters.read() == {"hit": 1}
    assert counters.ticker("hit") == hit


def test_both_ways_of_counting_add_up(counters: Counters[str]) -> None:
    counters.count("hit")
    counters.add("hit", 5)
    assert counters.read() == {"hit": 6}


def test_a_child_counts_for_itself_though_a_thread_of_its_parent_held_the_lock(
    counters: Counters[str],
) -> None:
    hit = counters.ticker("hit")
    hit()

    def count() -> bool:
        hit()
        hit()
        return counters.read() == {"hit": 2}

    with counters._lock:
        assert in_child(count)
    assert counters.read() == {"hit": 1}
