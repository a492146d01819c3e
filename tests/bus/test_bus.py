"""Messages between processes: lost now and then, and never in the way."""

from __future__ import annotations

import logging
import os
import signal
from typing import Any

import pytest

from s3cache.bus import bus as module
from s3cache.bus.bus import Bus
from s3cache.bus.connecting import client_for
from tests.bus.conftest import until
from tests.forks import in_child
from tests.redis_server import RedisServer


class Ear:
    """Hears a topic, and notes what it hears and misses."""

    def __init__(self, bus: Bus, topic: str) -> None:
        self.heard: list[bytes] = []
        self.missed = 0
        self.subscription = bus.subscribe(topic, self.heard.append, self._missed)

    def _missed(self) -> None:
        self.missed += 1

    def is_on(self) -> bool:
        return self.subscription.hears


def ear(bus: Bus, topic: str) -> Ear:
    made = Ear(bus, topic)
    until(made.is_on)
    return made


def test_who_has_subscribed_hears_and_nobody_else(one: Bus, other: Bus) -> None:
    here, there, elsewhere = ear(one, "a"), ear(other, "a"), ear(other, "b")
    one.publish("a", b"1")
    one.publish("a", b"2")
    until(lambda: len(here.heard) == len(there.heard) == 2)
    assert here.heard == there.heard == [b"1", b"2"]
    assert elsewhere.heard == []


def test_a_later_subscription_is_heard_without_a_pause(one: Bus) -> None:
    ear(one, "a")
    ear(one, "b")  # would hang for PING_EVERY, or fail, if nobody was woken


def test_who_may_have_missed_something_is_told_before_it_hears(
    one: Bus, redis_server: RedisServer
) -> None:
    listener = ear(one, "a")
    assert listener.missed == 1
    redis_server.kill()
    until(lambda: not listener.is_on())
    assert listener.missed == 2
    redis_server.start()
    until(listener.is_on)
    assert listener.missed == 3
    one.publish("a", b"back")
    until(lambda: listener.heard == [b"back"])


def test_what_cannot_be_sent_is_lost_and_nobody_waits_for_it(
    one: Bus, other: Bus, redis_server: RedisServer
) -> None:
    listener = ear(other, "a")
    redis_server.kill()
    for number in range(100):
        one.publish("a", b"%d" % number)
    until(lambda: one.lost == 100)
    redis_server.start()
    until(listener.is_on)
    one.publish("a", b"now")
    until(lambda: listener.heard == [b"now"])


def test_in_the_place_of_what_must_not_be_lost_comes_another_message(
    one: Bus, other: Bus, redis_server: RedisServer
) -> None:
    redis_server.kill()
    for number in range(100):
        one.publish("a", b"%d" % number, instead=b"everything")
    until(lambda: one.lost == 100)
    listener = Ear(other, "a")
    redis_server.start()
    until(listener.is_on)
    # It may have been sent before there was anybody to hear it: then this one
    # was told that it may have missed something.
    assert one.flush(20)
    assert listener.missed
    assert set(listener.heard) <= {b"everything"}


def test_a_redis_that_hangs_holds_up_no_one(
    one: Bus, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SILENCE", 0.2)
    monkeypatch.setattr(module, "PING_EVERY", 0.2)
    listener = ear(one, "a")
    assert redis_server.pid is not None
    os.kill(redis_server.pid, signal.SIGSTOP)
    try:
        one.publish("a", b"1")
        until(lambda: not listener.is_on())
    finally:
        os.kill(redis_server.pid, signal.SIGCONT)
    until(listener.is_on)


def test_more_messages_than_may_wait_are_lost(
    one: Bus, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_WAITING", 3)
    redis_server.kill()
    for number in range(50):
        one.publish("a", b"%d" % number)
    assert len(one._waiting) <= 3
    assert one.lost


def test_a_child_listens_for_itself(one: Bus, alias: str) -> None:
    listener = ear(one, "a")

    def check() -> bool:
        # It trusts nothing that the parent heard, until it hears itself.
        before = listener.missed == 2 and not listener.is_on()
        until(listener.is_on)
        client_for(alias).publish("a", b"to both")
        until(lambda: listener.heard == [b"to both"])
        return before

    assert in_child(check)
    until(lambda: listener.heard == [b"to both"])
    assert listener.missed == 1


def test_the_last_subscription_that_ends_ends_the_thread(one: Bus) -> None:
    listeners = [ear(one, "a"), ear(one, "b")]
    thread = one._hearing
    assert thread is not None
    for listener in listeners:
        listener.subscription.end()
    thread.join(20)
    assert not thread.is_alive()


def test_so_it_does_when_redis_cannot_be_reached(
    one: Bus, redis_server: RedisServer
) -> None:
    listener = ear(one, "a")
    thread = one._hearing
    assert thread is not None
    redis_server.kill()
    until(lambda: not listener.is_on())
    listener.subscription.end()
    thread.join(20)
    assert not thread.is_alive()


def test_the_sending_thread_ends_when_there_is_nothing_to_send(
    one: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "IDLE", 0.01)
    one.publish("a", b"1")
    until(lambda: one._sending is None)
    one.publish("a", b"2")
    until(lambda: one.sent == 2)


def test_what_a_listener_fails_with_is_logged(
    one: Bus, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(message: bytes) -> None:
        raise ValueError(message)

    one.subscribe("bad", fail, lambda: None)
    good = ear(one, "good")
    with caplog.at_level(logging.ERROR, "s3cache.bus"):
        one.publish("bad", b"1")
        one.publish("good", b"2")
        until(lambda: good.heard == [b"2"])
    assert "A message on 'bad' was not understood" in caplog.text


def test_a_cache_that_is_no_redis_is_said(
    settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    settings.CACHES = {
        "wrong": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}
    }
    bus = Bus("wrong")
    with caplog.at_level(logging.ERROR, "s3cache.bus"):
        bus.publish("a", b"1")
        until(lambda: bus.lost == 1)
    assert "CACHES['wrong'] is not django-redis" in caplog.text
