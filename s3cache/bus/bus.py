"""
Sending and hearing messages, by two threads of each process.

Who publishes puts a message on a queue and goes on: what Redis does, or does
not, is the sending thread's business, which ends when there has been nothing
to send for a while. The hearing thread is begun with the first subscription
and lives as long as there are any. Neither survives a fork: in a child the
threads begin with its own first message and its own first look at what it has
subscribed to (``Subscription.hears``).

Why threads, and not ordinary operations that look now and then: a host that
only reads from its caches does nothing now and then, and a message that waits
for the next operation comes too late for it.
"""

from __future__ import annotations

import atexit
import logging
import os
import secrets
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed

from s3cache.bus.connecting import SILENCE, client_for

__all__ = ["Bus", "Subscription", "bus_for"]

logger = logging.getLogger("s3cache.bus")

MOST_WAITING: Final = 10_000
"""Messages that wait to be sent; beyond, they count as lost."""

AT_ONCE: Final = 500
"""Messages that are sent in one go."""

IDLE: Final = 5.0
"""Seconds without a message after which the sending thread ends."""

PAUSES: Final = (0.05, 0.1, 0.2, 0.5, 1.0)
"""Seconds between attempts to reach Redis; the last repeats."""

PING_EVERY: Final = 2.0
"""Seconds of silence after which the hearing thread asks for an answer."""

AT_EXIT: Final = 0.25
"""Seconds that the end of a process waits for the last messages."""

Command = tuple[Any, ...]


class Subscription:
    """
    What one part of this process wants to hear.

    ``heard`` is called with each message, and ``missed`` whenever some may
    have been missed: before the first one, when the connection is lost, and
    in the child of a fork. Both in the hearing thread (``missed`` also in
    the thread that forks), so neither may wait.
    """

    def __init__(
        self,
        bus: Bus,
        topic: str,
        heard: Callable[[bytes], None],
        missed: Callable[[], None],
    ) -> None:
        self.bus = bus
        self.topic = topic
        self.heard = heard
        self.missed = missed
        self.confirmed = False

    @property
    def hears(self) -> bool:
        """Whether nothing that is sent from here on can be missed unnoticed.

        Begins to listen where nobody does, as in the child of a fork.
        """
        if self.bus.pid != os.getpid():
            forked()  # a server has gone past Python's hooks
        if not self.confirmed:
            self.bus.listen()
            return False
        return True

    def end(self) -> None:
        """Hear nothing more."""
        self.bus.leave(self)


class Bus:
    """One Redis, as one process uses it; made by ``bus_for``."""

    def __init__(self, alias: str) -> None:
        self.alias = alias
        #: Numbers since the process began, for statistics.
        self.sent = 0
        self.received = 0
        self.lost = 0
        self.failures = 0
        self.connects = 0
        self._begin_anew()

    def _begin_anew(self) -> None:
        self.pid = os.getpid()
        self.token = secrets.token_hex(8)
        self._lock = threading.Lock()
        self._work = threading.Condition(self._lock)
        self._waiting: list[tuple[Command, str, bytes | None]] = []
        self._owed: dict[str, bytes] = {}
        self._sending: threading.Thread | None = None
        self._is_sending = False
        self._is_ended = False
        self._subscriptions: list[Subscription] = []
        self._hearing: threading.Thread | None = None

    @property
    def is_heard(self) -> bool:
        """Whether there is a connection on which messages come in."""
        return any(one.confirmed for one in self._subscriptions)

    @property
    def is_current(self) -> bool:
        """Whether CACHES is what it was when this was made."""
        return _buses.get(self.alias) is self

    @property
    def _wake_topic(self) -> str:
        return f"s3cache:wake:{self.token}"

    # Sending

    def publish(
        self, topic: str, message: bytes, *, instead: bytes | None = None
    ) -> None:
        """
        Send a message to all who have subscribed to the topic; never waits.

        Messages that cannot be sent are lost. With `instead`, that one is
        sent in their place as soon as Redis can be reached again.
        """
        self.send(("PUBLISH", topic, message), topic, instead)

    def send(
        self, command: Command, topic: str = "", instead: bytes | None = None
    ) -> None:
        """Have Redis do something, whenever that is possible; never waits."""
        if self.pid != os.getpid():
            forked()
        with self._lock:
            if len(self._waiting) >= MOST_WAITING:
                self._lose([(command, topic, instead)])
            else:
                self._waiting.append((command, topic, instead))
            self._work.notify()
            if self._sending is None:
                self._sending = _started(self._send, "s3cache-bus-send")

    def flush(self, seconds: float) -> bool:
        """Wait until all is sent, so long at most; return whether it is."""
        deadline = time.monotonic() + seconds
        while self._waiting or self._owed or self._is_sending:
            if time.monotonic() >= deadline or self._sending is None:
                return False
            time.sleep(0.002)
        return True

    def _lose(self, messages: Sequence[tuple[Command, str, bytes | None]]) -> None:
        self.lost += len(messages)
        for _command, topic, instead in messages:
            if instead is not None and not self._is_ended:
                self._owed[topic] = instead

    def _send(self) -> None:
        client: Any = None
        failed = 0
        while True:
            with self._lock:
                if not (self._waiting or self._owed):
                    self._work.wait(IDLE)
                if not (self._waiting or self._owed):
                    self._sending = None
                    break
                batch, self._waiting = (
                    self._waiting[:AT_ONCE],
                    self._waiting[AT_ONCE:],
                )
                owed, self._owed = self._owed, {}
                self._is_sending = True
            try:
                client = client or client_for(self.alias)
                pipeline = client.pipeline(transaction=False)
                for topic, message in owed.items():
                    pipeline.execute_command("PUBLISH", topic, message)
                for command, _topic, _instead in batch:
                    pipeline.execute_command(*command)
                pipeline.execute(raise_on_error=True)
                self.sent += len(batch)
                failed = 0
            except Exception as error:
                # Whatever it is: who has published went on long ago.
                self._note("cannot be told anything", error, failed)
                with self._lock:
                    self._lose(batch)
                    if not self._is_ended:
                        self._owed = {**owed, **self._owed}
                client = None
                time.sleep(_pause(failed))
                failed += 1
            finally:
                self._is_sending = False
        if client is not None:
            client.connection_pool.disconnect()

    def _note(self, what: str, error: Exception, failed: int) -> None:
        self.failures += 1
        level = logging.INFO if failed else logging.WARNING
        if isinstance(error, ImproperlyConfigured) and not failed:
            level = logging.ERROR
        logger.log(level, "The Redis of CACHES[%r] %s: %s", self.alias, what, error)

    # Hearing

    def subscribe(
        self, topic: str, heard: Callable[[bytes], None], missed: Callable[[], None]
    ) -> Subscription:
        """Hear all messages of a topic, from some moment soon."""
        if self.pid != os.getpid():
            forked()
        subscription = Subscription(self, topic, heard, missed)
        with self._lock:
            self._subscriptions.append(subscription)
        self.listen()
        self._wake()
        return subscription

    def leave(self, subscription: Subscription) -> None:
        """End a subscription; the last one ends the thread."""
        with self._lock:
            if subscription in self._subscriptions:
                self._subscriptions.remove(subscription)
        if subscription.confirmed:
            subscription.confirmed = False
            self.publish(self._wake_topic, b"")

    def listen(self) -> None:
        """See to it that the hearing thread runs, as after a fork."""
        if self.pid != os.getpid():
            forked()
        with self._lock:
            if self._hearing is None and self._subscriptions:
                self._hearing = _started(self._hear, "s3cache-bus-hear")

    def end(self) -> None:
        """Have nobody hear anything more, and forget what is not sent yet."""
        with self._lock:
            subscriptions, self._subscriptions = self._subscriptions, []
            self._waiting, self._owed = [], {}
            self._is_ended = True
        if any(one.confirmed for one in subscriptions):
            self.publish(self._wake_topic, b"")
        for one in subscriptions:
            one.confirmed = False

    def _wake(self) -> None:
        """Have the hearing thread look at what it is to hear."""
        if self.is_heard:
            self.publish(self._wake_topic, b"")

    def _hear(self) -> None:
        failed = 0
        while self._listeners():
            connected = self.connects
            try:
                self._hear_until_it_fails()
                return
            except Exception as error:
                if self.connects != connected:
                    failed = 0
                self._note("is not heard", error, failed)
            self._all_missed()
            time.sleep(_pause(failed))
            failed += 1

    def _listeners(self) -> list[Subscription]:
        """Who listens; if nobody does any more, the thread is to end."""
        with self._lock:
            if not self._subscriptions:
                self._hearing = None
            return list(self._subscriptions)

    def _hear_until_it_fails(self) -> None:
        client = client_for(self.alias)
        try:
            with client.pubsub() as pubsub:
                self._hear_on(pubsub)
        finally:
            client.connection_pool.disconnect()

    def _hear_on(self, pubsub: Any) -> None:
        asked: set[str] = {self._wake_topic}
        pubsub.subscribe(self._wake_topic)
        confirmed: set[str] = set()
        heard_at = time.monotonic()
        pinged = False
        while subscriptions := self._listeners():
            topics = {one.topic for one in subscriptions} | {self._wake_topic}
            if new := topics - asked:
                pubsub.subscribe(*new)
            if old := asked - topics:
                pubsub.unsubscribe(*old)
                confirmed -= old
            asked = topics
            for one in subscriptions:
                if one.topic in confirmed and not one.confirmed:
                    one.missed()
                    one.confirmed = True
            said = pubsub.get_message(timeout=SILENCE if pinged else PING_EVERY)
            moment = time.monotonic()
            if said is None:
                if pinged and moment - heard_at >= PING_EVERY + SILENCE:
                    raise TimeoutError("it does not answer")
                if moment - heard_at >= PING_EVERY:
                    pubsub.ping()
                    pinged = True
                continue
            heard_at, pinged = moment, False
            topic = said["channel"].decode() if said["channel"] else ""
            if said["type"] == "subscribe":
                if topic in confirmed:
                    raise ConnectionError("it was reconnected")
                if not confirmed:
                    self.connects += 1
                confirmed.add(topic)
            elif said["type"] == "message":
                self._tell(subscriptions, topic, said["data"])

    def _tell(
        self, subscriptions: Sequence[Subscription], topic: str, message: bytes
    ) -> None:
        self.received += 1
        for one in subscriptions:
            if one.topic == topic and one.confirmed:
                try:
                    one.heard(message)
                except Exception:
                    # One who listens keeps nobody else from hearing.
                    logger.exception("A message on %r was not understood", topic)

    def _all_missed(self) -> None:
        with self._lock:
            subscriptions = list(self._subscriptions)
        for one in subscriptions:
            if one.confirmed:
                one.confirmed = False
                one.missed()

    def stats(self) -> Mapping[str, int | bool]:
        """What happened since the process began."""
        return {
            "heard": self.is_heard,
            "sent": self.sent,
            "received": self.received,
            "lost": self.lost,
            "failures": self.failures,
            "connects": self.connects,
        }

    def after_fork_in_child(self) -> None:
        """Have no threads, send nothing of the parent's, and trust nothing."""
        subscriptions = self._subscriptions
        self._begin_anew()
        self._subscriptions = subscriptions
        for one in subscriptions:
            one.confirmed = False
            one.missed()


def _started(target: Callable[[], None], name: str) -> threading.Thread | None:
    thread = threading.Thread(target=target, name=name, daemon=True)
    try:
        thread.start()
    except RuntimeError as error:  # the interpreter is ending
        logger.info("Nothing is sent any more: %s", error)
        return None
    return thread


def _pause(failed: int) -> float:
    return PAUSES[min(failed, len(PAUSES) - 1)]


_buses: Final[dict[str, Bus]] = {}


def bus_for(alias: str) -> Bus:
    """Return the bus of that CACHES alias; one object per process."""
    try:
        return _buses[alias]
    except KeyError:
        # Without a lock, which a fork could leave held: one object wins, and
        # has no thread before it is used.
        return _buses.setdefault(alias, Bus(alias))


def forked() -> None:
    """Begin anew in the child of a fork; twice does nothing."""
    for bus in list(_buses.values()):
        if bus.pid != os.getpid():
            bus.after_fork_in_child()


def _flush_all() -> None:
    for bus in list(_buses.values()):
        if bus.pid == os.getpid():
            bus.flush(AT_EXIT)


os.register_at_fork(after_in_child=forked)


def _forget(*, setting: str, **kwargs: Any) -> None:
    if setting == "CACHES":
        for alias in list(_buses):
            _buses.pop(alias).end()


atexit.register(_flush_all)
setting_changed.connect(_forget, dispatch_uid="s3cache.bus")
