"""Counts are exact, whatever the threads do."""

from __future__ import annotations

import threading

import pytest

from s3cache.results.counters import EVENTS, Counters, Reads
from tests.forks import in_child


@pytest.fixture
def counters() -> Counters:
    return Counters()


def test_events_are_counted_by_label_and_action(counters: Counters) -> None:
    counters.count("shop.product", "get", "hit")
    counters.count("shop.product", "get", "hit")
    counters.count("shop.product", "count", "miss")
    assert counters.read() == {
        ("shop.product", "get"): Reads(hit=2),
        ("shop.product", "count"): Reads(miss=1),
    }


def test_every_event_has_its_count() -> None:
    assert Reads.__slots__ == EVENTS


def test_threads_that_count_at_once_lose_nothing(counters: Counters) -> None:
    ready = threading.Barrier(8)

    def run() -> None:
        ready.wait()
        for _ in range(2_000):
            counters.count("a", "get", "hit")
            counters.count("a", "get", "miss")

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        counters.read()  # which disturbs nobody
    assert counters.read() == {("a", "get"): Reads(hit=16_000, miss=16_000)}


def test_what_counts_hits_goes_on_when_all_begins_at_0_again(
    counters: Counters,
) -> None:
    hit = counters.ticker(("default", "a", "get", ""), "hit")
    hit()
    counters.clear()
    assert counters.read() == {}
    hit()
    hit()
    assert counters.read() == {("a", "get"): Reads(hit=2)}


def test_databases_and_partitions_are_told_apart(counters: Counters) -> None:
    counters.count("a", "list", "hit", database="s3", partition="by_region")
    counters.count("a", "list", "miss", database="s3")
    assert counters.by_key() == {
        ("s3", "a", "list", "by_region"): Reads(hit=1),
        ("s3", "a", "list", ""): Reads(miss=1),
    }
    assert counters.read() == {("a", "list"): Reads(hit=1, miss=1)}


def test_a_child_of_a_fork_counts_for_itself() -> None:
    from s3cache.results.counters import counters

    counters.clear()
    counters.count("a", "get", "hit")
    assert in_child(lambda: counters.read() == {})
    assert counters.read() == {("a", "get"): Reads(hit=1)}
