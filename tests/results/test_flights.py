"""Identical reads at once are one query."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.core.cache import caches

from s3cache.replica.side_file import SideFile
from s3cache.results import flights
from s3cache.results.counters import counters
from s3cache.results.flights import Flights
from s3cache.results.statements import Statements
from tests.db.hosts import (
    HANGS_AFTER,
    MakeProcess,
    Turns,
    each_on,
    outcomes,
    send,
    together,
)
from tests.engine import Bucket, Host, MakeHost
from tests.forks import in_child
from tests.library.models import Author
from tests.results.seen import directory, on_loop, totals

# What processes are told to do


def count_in(folder: str) -> tuple[int, dict[str, int]]:
    """What is counted, in a process that shares a cache with others."""
    share(folder)
    return count(), totals()


def hang_in(folder: str) -> int:
    """Begin to compute the same, and never end."""
    share(folder)

    def hang(statements: Statements, *args: Any) -> Any:
        send("computing")
        threading.Event().wait(HANGS_AFTER)

    hooks: Any = Statements
    hooks.compute = hang
    return count()


def wait_then_count_in(folder: str) -> int:
    """Compute the same once the test says so, by a file."""
    share(folder)
    hold_computing(Path(folder) / "go on")
    return count()


def hold_computing(go_on: Path) -> None:
    """Say that something is computed, and wait for a file before it is."""
    compute = Statements.compute

    def computed(statements: Statements, *args: Any) -> Any:
        send("computing")
        until = time.monotonic() + HANGS_AFTER
        while not go_on.exists() and time.monotonic() < until:
            time.sleep(0.005)
        return compute(statements, *args)

    hooks: Any = Statements
    hooks.compute = computed


def count_by_threads(folder: str, threads: int) -> tuple[set[int], dict[str, int]]:
    """What many threads count at once, in such a process."""
    share(folder)
    return set(together([count] * threads)), totals()


def wait_then_count_by_threads(
    folder: str, threads: int
) -> tuple[set[int], dict[str, int]]:
    """The same; the one that computes does so once the test says so."""
    hold_computing(Path(folder) / "go on")
    return count_by_threads(folder, threads)


def share(folder: str) -> None:
    """Use a cache in files, and say when another one's work is waited for."""
    settings.CACHES = {
        "default": {
            "BACKEND": "django.core.cache.backends.filebased.FileBasedCache",
            "LOCATION": folder,
        }
    }
    try_flight = SideFile.try_flight

    def tried(side: SideFile, key: str) -> int | None:
        found = try_flight(side, key)
        if found is None and not waits:
            waits.append(key)
            send("waiting")
        return found

    hooks: Any = SideFile
    hooks.try_flight = tried


waits: list[str] = []


s3 = pytest.mark.parametrize("bucket", ["s3"], indirect=True)


def count() -> int:
    return Author.objects.filter(born__gte=1).count()


class Queries:
    """Counts what is computed; the first one waits until it may go on."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.turns = Turns()
        self.number = 0
        self.error: Exception | None = None
        original = Flights.join
        compute = Statements.compute
        waiting = threading.Semaphore(0)
        self._waiting = waiting

        def join(flights: Any, key: str) -> Any:
            found = original(flights, key)
            waiting.release()
            return found

        def computed(statements: Any, *args: Any) -> Any:
            self.number += 1
            if self.number == 1:
                self.turns.wait("go on")
                if self.error is not None:
                    raise self.error
            return compute(statements, *args)

        patch.setattr(Flights, "join", join)
        patch.setattr(Statements, "compute", computed)

    def go_on_after(self, callers: int) -> None:
        """Let the first go on once so many have asked for the same."""
        for _ in range(callers):
            assert self._waiting.acquire(timeout=60)
        self.turns.say("go on")


@pytest.fixture
def queries(monkeypatch: pytest.MonkeyPatch) -> Queries:
    return Queries(monkeypatch)


@directory
def test_threads_that_ask_at_once_make_one_query(host: Host, queries: Queries) -> None:
    Author.objects.create(name="Ann")
    threads = 20
    helper = threading.Thread(target=queries.go_on_after, args=(threads,))
    helper.start()
    assert together(each_on(host, count, threads)) == [1] * threads
    helper.join()
    assert queries.number == 1
    assert totals() == {"miss": 1, "wait": threads - 1}


@s3
def test_a_cold_host_asks_the_store_once_for_all_threads(
    hosts: MakeHost, bucket: Bucket
) -> None:
    with hosts():
        Author.objects.create(name="Ann")
    alone, host = hosts(), hosts()
    with bucket.requests() as of_one, alone:
        count()
    with bucket.requests() as of_all:
        assert together(each_on(host, count, 20)) == [1] * 20
    assert sorted(of_all) == sorted(of_one)


@directory
def test_a_leader_that_fails_frees_the_others(host: Host, queries: Queries) -> None:
    Author.objects.create(name="Ann")
    queries.error = RuntimeError("the leader's")
    helper = threading.Thread(target=queries.go_on_after, args=(5,))
    helper.start()
    found = outcomes(each_on(host, count, 5))
    helper.join()
    failed = [one for one in found if isinstance(one, BaseException)]
    assert [str(error) for error in failed] == ["the leader's"]
    assert found.count(1) == 4


@directory
def test_whoever_waits_too_long_computes_it_too(
    host: Host, queries: Queries, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flights, "PATIENCE", 0.01)
    Author.objects.create(name="Ann")

    def last() -> int:
        # The first one flies; this one does not wait for it for ever.
        assert queries._waiting.acquire(timeout=60)
        found = count()
        queries.turns.say("go on")
        return found

    assert together([*each_on(host, count, 1), *each_on(host, last, 1)]) == [1, 1]
    assert queries.number == 2


@directory
def test_callers_share_no_row_and_no_position(host: Host, queries: Queries) -> None:
    Author.objects.bulk_create([Author(name=str(n)) for n in range(3)])

    def names() -> list[str]:
        found = list(Author.objects.order_by("name"))
        found[0].name += " was changed"
        return [author.name for author in found]

    helper = threading.Thread(target=queries.go_on_after, args=(3,))
    helper.start()
    assert together(each_on(host, names, 3)) == [["0 was changed", "1", "2"]] * 3
    helper.join()


@directory
def test_tasks_that_ask_at_once_make_one_query(hosts: MakeHost) -> None:
    host = hosts()
    with host:
        Author.objects.create(name="Ann")

        async def ask() -> list[int]:
            query = Author.objects.filter(born__gte=1)
            return await asyncio.gather(*[query.all().acount() for _ in range(20)])

        assert on_loop(ask) == [1] * 20
    assert totals("library.author", "count")["miss"] == 1


@directory
def test_a_child_of_a_fork_waits_for_nobody(host: Host) -> None:
    some: Flights[int] = Flights()
    some.join("key")
    assert in_child(lambda: some.join("key")[1])


@directory
def test_processes_that_share_a_cache_make_one_query(
    host: Host, processes: MakeProcess, tmp_path: Path
) -> None:
    Author.objects.create(name="Ann")
    folder = str(tmp_path)
    leader, *others = (processes("shared") for _ in range(3))
    leader.start(wait_then_count_in, folder)
    assert leader.receive() == "computing"
    for other in others:
        other.start(count_in, folder)
        assert other.receive() == "waiting"
    (tmp_path / "go on").touch()
    assert leader.result() == 1
    for other in others:
        assert other.result() == (1, {"wait": 1})


@directory
def test_a_process_that_is_killed_frees_the_others(
    host: Host, processes: MakeProcess, tmp_path: Path
) -> None:
    Author.objects.create(name="Ann")
    leader, other = processes("shared"), processes("shared")
    leader.start(hang_in, str(tmp_path))
    assert leader.receive() == "computing"
    other.start(count_in, str(tmp_path))
    assert other.receive() == "waiting"
    leader.kill()
    assert other.result() == (1, {"miss": 1})


def cold(hosts: MakeHost, bucket: Bucket) -> tuple[Host, list[str]]:
    """A host that has read nothing, and what one that reads alone asks for."""
    with hosts():
        Author.objects.create(name="Ann")
    alone, host = hosts(), hosts()
    with bucket.requests() as of_one, alone:
        count()
    caches["default"].clear()  # which hosts share
    counters.clear()
    return host, of_one


@directory
def test_a_thousand_tasks_make_one_query(hosts: MakeHost, bucket: Bucket) -> None:
    host, of_one = cold(hosts, bucket)

    async def ask() -> list[int]:
        query = Author.objects.filter(born__gte=1)
        return await asyncio.gather(*[query.all().acount() for _ in range(1_000)])

    with bucket.requests() as of_all, host:
        assert on_loop(ask) == [1] * 1_000
    assert totals()["miss"] == 1
    assert sorted(of_all) == sorted(of_one)


@s3
def test_a_thousand_threads_make_one_query(hosts: MakeHost, bucket: Bucket) -> None:
    host, of_one = cold(hosts, bucket)
    with bucket.requests() as of_all:
        assert together(each_on(host, count, 1_000)) == [1] * 1_000
    found = totals()
    assert found["miss"] == 1
    assert sum(found.values()) == 1_000
    assert sorted(of_all) == sorted(of_one)


@s3
def test_twenty_processes_of_fifty_threads_make_one_query(
    hosts: MakeHost, bucket: Bucket, processes: MakeProcess, tmp_path: Path
) -> None:
    with hosts():
        Author.objects.create(name="Ann")
    with bucket.requests() as of_one:
        processes("alone").call(count_in, str(tmp_path / "of its own"))
    folder = tmp_path / "shared"
    folder.mkdir()
    with bucket.requests() as of_all:
        leader, *others = (processes("host") for _ in range(20))
        leader.start(wait_then_count_by_threads, str(folder), 50)
        assert leader.receive() == "computing"
        for other in others:
            other.start(count_by_threads, str(folder), 50)
        for other in others:
            assert other.receive() == "waiting"
        (folder / "go on").touch()
        found = [process.result() for process in (leader, *others)]
    assert [counted for counted, _events in found] == [{1}] * 20
    events = Counter[str]()
    for _counted, its_events in found:
        events.update(its_events)
    assert events["miss"] == 1
    assert events.total() == 1_000
    assert sorted(of_all) == sorted(of_one)


@directory
def test_who_has_missed_before_another_one_stored_looks_again(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other flight is over, and there is no other one to join."""
    Author.objects.create(name="Ann")
    join = Flights.join

    def join_late(flights: Any, key: str) -> Any:
        monkeypatch.setattr(Flights, "join", join)
        assert together(each_on(host, count, 1)) == [1]
        return join(flights, key)

    monkeypatch.setattr(Flights, "join", join_late)
    assert count() == 1
    assert totals() == {"miss": 1, "wait": 1}
