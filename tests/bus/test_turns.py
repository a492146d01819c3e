"""Turns among hosts that write at the same time."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from s3cache.bus import turns as module
from s3cache.bus.bus import Bus
from s3cache.bus.turns import Turns
from tests.bus.conftest import until
from tests.redis_server import RedisServer

PATIENCE = 20.0

Make = Callable[[str], Turns]


@pytest.fixture
def make(alias: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """Make the turns of one database for a host of that name."""
    monkeypatch.setattr(module, "ANSWER", 20.0)
    buses = []

    def made(host: str) -> Turns:
        bus = Bus(alias)
        buses.append(bus)
        turns = Turns(bus, "db", host, lambda: others.update([host]))
        until(lambda: turns._subscription.hears)
        return turns

    others: Counter[str] = Counter()
    made.others = others  # type: ignore[attr-defined]
    yield made
    for bus in buses:
        bus.end()


def test_one_has_the_turn_and_the_next_gets_it_with_where_the_log_is(
    make: Make,
) -> None:
    first, second = make("A"), make("B")
    ticket = first.take(PATIENCE)
    assert ticket is not None
    assert ticket.number == 0
    found = []
    waiting = threading.Thread(target=lambda: found.append(second.take(PATIENCE)))
    waiting.start()
    until(lambda: second._ticket is not None and second._ticket.is_known)
    assert not found
    first.pass_on(ticket, 7)
    waiting.join()
    assert found[0] is not None
    assert found[0].number == 7


def test_a_turn_that_nobody_passes_on_lapses(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LEASE", 0.2)
    first, second = make("A"), make("B")
    assert first.take(PATIENCE) is not None
    assert second.take(PATIENCE) is not None


def test_who_dies_in_the_queue_is_passed_over(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LEASE", 0.2)
    first, dead, last = make("A"), make("B"), make("C")
    ticket = first.take(PATIENCE)
    assert ticket is not None
    dead._eval(module._TAKE, module.Ticket("B"))
    assert dead._bus.flush(20)
    threading.Timer(0.05, first.pass_on, [ticket, 1]).start()
    assert last.take(PATIENCE) is not None


def test_who_has_waited_for_long_enough_goes_on_without(make: Make) -> None:
    first, second = make("A"), make("B")
    ticket = first.take(PATIENCE)
    assert ticket is not None
    assert second.take(0.01) is None
    first.pass_on(ticket, 1)
    again = first.take(PATIENCE)  # the other one does not wait any more
    assert again is not None


def test_without_redis_nobody_waits(make: Make, redis_server: RedisServer) -> None:
    turns = make("A")
    redis_server.kill()
    until(lambda: not turns._subscription.hears)
    assert turns.take(PATIENCE) is None
    assert turns._ticket is None  # nobody was asked
    redis_server.start()
    until(lambda: turns._subscription.hears)
    assert turns.take(PATIENCE) is not None


def test_hosts_hear_of_each_other_before_they_meet(make: Make) -> None:
    make("A")
    second = make("B")
    assert second.take(PATIENCE) is not None
    others = make.others  # type: ignore[attr-defined]
    until(lambda: others["A"])
    assert not others["B"]


def test_ten_hosts_get_the_same_number_of_turns(make: Make) -> None:
    hosts = [make(f"host-{number}") for number in range(10)]
    order: list[int] = []
    total = 100

    def work(number: int) -> None:
        turns = hosts[number]
        while len(order) < total:
            ticket = turns.take(PATIENCE)
            if ticket is None:
                return
            order.append(number)
            turns.pass_on(ticket, len(order))

    threads = [threading.Thread(target=work, args=[n]) for n in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    counts = Counter(order[:total])
    assert len(counts) == 10
    assert min(counts.values()) > 0.3 * total / 10
