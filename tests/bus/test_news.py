"""A commit on one host is read on another, without a poll."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.core.cache import caches
from django.db import connections

from s3cache.db.news import News, news_of
from s3cache.replica.replica import Replica, forget_replica
from s3cache.signals import rows_changed
from tests.bus.conftest import until
from tests.db.hosts import (
    FaultyStore,
    MakeProcess,
    Process,
    in_child,
    lost_before,
)
from tests.engine import Bucket, Host, MakeHost
from tests.library.models import Author
from tests.redis_server import RedisServer, redis

pytestmark = pytest.mark.parametrize("bucket", ["directory"], indirect=True)


def news(host: Host) -> News:
    """The news of a host, once it hears of others."""
    replica = host.connection.replica
    replica.position()  # opened, so it listens
    found = news_of(replica)
    assert found is not None
    until(lambda: found.hears)
    return found


@pytest.fixture
def two(hosts: MakeHost, alias: str) -> Iterator[tuple[Host, Host]]:
    """Two hosts that hear of each other, and never ask by themselves."""
    made = hosts(redis=alias), hosts(redis=alias)
    for host in made:
        host.catch_up()
        news(host)
    yield made


def names(host: Host) -> list[str]:
    with host:
        return list(Author.objects.order_by("name").values_list("name", flat=True))


def write(host: Host, name: str) -> None:
    with host:
        Author.objects.create(name=name)


def test_a_write_is_read_elsewhere_for_one_request(two: tuple[Host, Host]) -> None:
    here, there = two
    names(there)
    store = there.connection.replica.store
    asked = store.requests.total
    write(here, "Ada")
    until(lambda: there.position == here.position)
    assert names(there) == ["Ada"]
    # Nobody asks whether more follow: that is for max_age.
    until(lambda: news(there)._thread is None)
    assert store.requests.total == asked + 2  # its PUT, our GET


def test_messages_prove_nothing_about_how_fresh_a_replica_is(
    two: tuple[Host, Host],
) -> None:
    here, there = two
    there.pass_time(50)
    asked_at = there.connection.replica.side.asked_at
    write(here, "Ada")
    until(lambda: there.position == here.position)
    assert there.connection.replica.side.asked_at == asked_at


def test_a_message_about_what_is_not_there_does_no_harm(
    two: tuple[Host, Host], bucket: Bucket
) -> None:
    here, there = two
    before = there.position
    heard = news(there)
    for number in (before + 1, 10**12, 0):
        heard.bus.publish(heard.topic, b"%d" % number)
    heard.bus.publish(heard.topic, b"nonsense")
    write(here, "Ada")
    until(lambda: there.position == before + 1)
    assert names(there) == ["Ada"]


def test_the_signal_of_changes_comes_with_the_news(two: tuple[Host, Host]) -> None:
    here, there = two
    seen: list[tuple[str, bool]] = []

    def receiver(**said: Any) -> None:
        seen.append((said["table"], said["local"]))

    rows_changed.connect(receiver)
    try:
        names(there)
        write(here, "Ada")
        until(lambda: (Author._meta.db_table, False) in seen)
    finally:
        rows_changed.disconnect(receiver)
    assert (Author._meta.db_table, True) in seen


def test_while_redis_is_down_commits_go_on_and_reads_ask(
    two: tuple[Host, Host], redis_server: RedisServer
) -> None:
    here, there = two
    redis_server.kill()
    until(lambda: not news_of(there.connection.replica).hears)  # type: ignore[union-attr]
    write(here, "Ada")
    there.pass_time(2e5)
    assert names(there) == ["Ada"]
    redis_server.start()
    news(there), news(here)
    write(here, "Bob")
    until(lambda: there.position == here.position)
    assert names(there) == ["Ada", "Bob"]


def test_a_message_that_was_lost_costs_nothing_but_time(
    two: tuple[Host, Host], monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = two
    with monkeypatch.context() as patch:
        patch.setattr(news(here).bus, "publish", lambda *args: None)
        write(here, "Ada")
    assert names(there) == []
    write(here, "Bob")  # its message brings both
    until(lambda: there.position == here.position)
    assert names(there) == ["Ada", "Bob"]


def test_a_store_that_is_down_is_left_to_reads(
    hosts: MakeHost, alias: str, faulty: FaultyStore
) -> None:
    here, there = hosts(redis=alias), hosts(redis=alias, storage="faulty")
    for host in (here, there):
        host.catch_up()
    heard = news(there)
    faulty.on("GET", "_log", lost_before)
    write(here, "Ada")
    until(lambda: heard.failed)
    faulty.heal()
    there.pass_time(2e5)
    assert names(there) == ["Ada"]


def test_a_database_without_redis_knows_nothing_of_it(host: Host) -> None:
    assert news_of(host.connection.replica) is None
    assert host.connection.replica.take_turn is None


def test_a_replica_ends_when_what_was_heard_is_followed(
    two: tuple[Host, Host], monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = two
    heard, replica = news(there), there.connection.replica
    advance, begun, may_go_on = replica.advance, Event(), Event()

    def slow(number: int) -> None:
        begun.set()
        may_go_on.wait(20)
        advance(number)

    monkeypatch.setattr(replica, "advance", slow)
    write(here, "Ada")
    assert begun.wait(20)
    there.connection.close()
    with ThreadPoolExecutor(1) as pool:
        ended = pool.submit(forget_replica, replica.path)
        until(lambda: not heard.topic)
        assert not ended.done()
        may_go_on.set()
        ended.result(20)
    assert (heard.followed, heard.failed, heard._thread) == (1, 0, None)


def test_another_redis_takes_the_place_of_one(
    two: tuple[Host, Host], settings: Any, redis_server: RedisServer
) -> None:
    here, _there = two
    before = news(here)
    settings.CACHES = {**settings.CACHES, "another": redis(redis_server)}
    here.settings["OPTIONS"]["redis"] = "another"
    here.connection.close()
    after = news(here)
    assert after is not before
    assert not before.topic


# Turns


def test_a_writer_that_met_others_takes_a_turn_and_loses_no_race(
    two: tuple[Host, Host], bucket: Bucket
) -> None:
    here, there = two
    turns = news(there).turns
    assert turns is not None
    write(here, "Ada")
    until(lambda: there.position == here.position)
    with bucket.requests() as requests:
        write(there, "Bob")
    assert turns.taken == 1
    assert requests.count("PUT log") == 1


def test_a_lone_writer_asks_nobody(two: tuple[Host, Host]) -> None:
    here, _there = two
    for number in range(3):
        write(here, f"Ada {number}")
    turns = news(here).turns
    assert turns is not None
    assert not turns.taken + turns.gone_without


# Processes


def use_redis(url: str) -> None:
    django_settings.CACHES = {
        "default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"},
        "redis": {"BACKEND": "django_redis.cache.RedisCache", "LOCATION": url},
    }
    caches.settings = caches.configure_settings(None)


def listen() -> None:
    replica: Replica = connections["default"].replica  # type: ignore[attr-defined]
    replica.position()
    found = news_of(replica)
    if found is None:
        raise RuntimeError("there is no Redis")
    until(lambda: found.hears)


def author_names() -> list[str]:
    return list(Author.objects.order_by("name").values_list("name", flat=True))


def create(name: str) -> None:
    Author.objects.create(name=name)


def create_many(name: str, count: int) -> int:
    """Create rows one after the other; return for how many turns."""
    for number in range(count):
        Author.objects.create(name=f"{name} {number}")
    found = news_of(connections["default"].replica)  # type: ignore[attr-defined]
    return 0 if found is None or found.turns is None else found.turns.taken


@pytest.fixture
def make(processes: MakeProcess, redis_server: RedisServer) -> Any:
    """Make a process with a host that listens."""

    def made(name: str = "") -> Process:
        process = processes(name, redis="redis", records=False)
        process.call(use_redis, redis_server.url)
        process.call(listen)
        return process

    return made


def test_all_processes_of_a_host_read_what_one_of_them_followed(make: Any) -> None:
    first, second, writer = make("one"), make("one"), make("two")
    writer.call(create, "Ada")
    until(lambda: first.call(author_names) == ["Ada"])
    until(lambda: second.call(author_names) == ["Ada"])


def test_a_host_that_dies_with_the_turn_holds_the_others_up_for_a_moment(
    make: Any,
) -> None:
    writers = [make(f"host-{number}") for number in range(3)]
    for number, writer in enumerate(writers):
        writer.start(create_many, str(number), 20)
    writers[0].kill()
    for writer in writers[1:]:
        writer.result()
    for number in (1, 2):
        found = writers[number].call(author_names)
        assert sum(name.startswith(f"{number} ") for name in found) == 20


def listens_in_child() -> bool:
    def check() -> bool:
        listen()
        return True

    return in_child(check)


def test_a_child_of_a_fork_listens_for_itself(make: Any) -> None:
    assert make().call(listens_in_child)
