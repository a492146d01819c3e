"""Identical reads at once are one query."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from s3cache.results import flights
from s3cache.results.flights import Flights
from s3cache.results.statements import Statements
from tests.db.hosts import Turns, each_on, outcomes, together
from tests.engine import Bucket, Host, MakeHost
from tests.forks import in_child
from tests.library.models import Author
from tests.results.seen import directory, on_loop, totals

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
