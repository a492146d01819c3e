"""
Turns among the hosts that write to one database at the same time.

Without them who loses the race for the next entry of the log has to read the
winner's and try again, against all others. With them each waits until it is
its turn: for some time, and no longer. A turn lapses by itself when its host
dies, and a host that gets none goes on without: it is the log that decides
who commits, and turns only save requests.

Nobody but the bus's own threads talks to Redis here. Scripts are sent without
waiting for their results, and what they decide comes as a message.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable
from typing import Final

from s3cache.bus.bus import Bus

__all__ = ["Ticket", "Turns"]

logger = logging.getLogger("s3cache.bus")

LEASE: Final = 1.0
"""Seconds after which the turn of a host that does not pass it on is over."""

ANSWER: Final = 0.25
"""Seconds that a commit waits for Redis to say anything at all."""

REST: Final = 5.0
"""Seconds for which nobody asks a Redis that did not."""

_KEPT: Final = 60_000
"""Milliseconds after which Redis forgets those who have waited."""

# KEYS: who has the turn, who waits, how many have waited, where the log is.
# ARGV: the token, the topic, the lease and how long all is kept (ms).
_TAKE: Final = """
local function give(token)
    redis.call('SET', KEYS[1], token, 'PX', ARGV[3])
    redis.call('PUBLISH', ARGV[2],
               token .. ' 1 ' .. (redis.call('GET', KEYS[4]) or '0'))
end
local holder = redis.call('GET', KEYS[1])
if holder == ARGV[1] then
    give(ARGV[1])
    return 1
end
if not redis.call('ZSCORE', KEYS[2], ARGV[1]) then
    redis.call('ZADD', KEYS[2], redis.call('INCR', KEYS[3]), ARGV[1])
end
redis.call('PEXPIRE', KEYS[2], ARGV[4])
redis.call('PEXPIRE', KEYS[3], ARGV[4])
if not holder then
    local first = redis.call('ZPOPMIN', KEYS[2])[1]
    give(first)
    if first == ARGV[1] then
        return 1
    end
end
redis.call('PUBLISH', ARGV[2], ARGV[1] .. ' 0 0')
return 0
"""

# ARGV[5]: where the log is now.
_NEXT: Final = """
redis.call('ZREM', KEYS[2], ARGV[1])
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
    return 0
end
redis.call('DEL', KEYS[1])
redis.call('SET', KEYS[4], ARGV[5], 'PX', ARGV[4])
local first = redis.call('ZPOPMIN', KEYS[2])[1]
if first then
    redis.call('SET', KEYS[1], first, 'PX', ARGV[3])
    redis.call('PUBLISH', ARGV[2], first .. ' 1 ' .. ARGV[5])
end
return 1
"""


class Ticket:
    """A place in the queue; ``number`` is where the log is, as others say."""

    def __init__(self, host: str) -> None:
        self.token = f"{secrets.token_hex(8)}@{host}"
        self.number = 0
        self.is_granted = False
        self.is_known = False
        self.news = threading.Event()


class Turns:
    """
    The turns of one database; one commit of a process asks at a time.

    ``on_other`` is called, in the bus's thread, when another host than `host`
    asks for a turn: a host that wins every race meets no entry of those who
    lose, and would not know of them.
    """

    def __init__(
        self, bus: Bus, database: str, host: str, on_other: Callable[[], None]
    ) -> None:
        self._bus = bus
        self._host = host
        self._on_other = on_other
        prefix = f"s3cache:turns:{{{database}}}"
        self._topic = prefix
        self._keys = [f"{prefix}:{name}" for name in ("has", "wait", "count", "log")]
        self._ticket: Ticket | None = None
        self._resting_until = 0.0
        #: Numbers since the process began, for statistics.
        self.taken = 0
        self.gone_without = 0
        self._subscription = bus.subscribe(self._topic, self._heard, self._missed)

    def end(self) -> None:
        """Ask for no more turns."""
        self._subscription.end()

    def take(self, patience: float) -> Ticket | None:
        """
        Wait for a turn, so many seconds at most; None: go on without.

        At once, or nearly, if Redis cannot be reached.
        """
        if not self._subscription.hears or time.monotonic() < self._resting_until:
            self.gone_without += 1
            return None
        ticket = self._ticket = Ticket(self._host)
        deadline = time.monotonic() + patience
        wait = ANSWER
        while True:
            self._eval(_TAKE, ticket)
            asked_at = time.monotonic()
            end = min(asked_at + wait, deadline)
            while not ticket.is_granted and (left := end - time.monotonic()) > 0:
                ticket.news.wait(left)
                ticket.news.clear()
                if ticket.is_known:
                    # Somebody may hold the turn who is dead: then who asks
                    # after the lease sees to it that the next one gets it.
                    end = min(asked_at + LEASE, deadline)
            if ticket.is_granted:
                self.taken += 1
                return ticket
            if not ticket.is_known:
                self._resting_until = time.monotonic() + REST
            if time.monotonic() >= deadline or not ticket.is_known:
                self.pass_on(ticket, 0)
                self.gone_without += 1
                return None
            wait = LEASE

    def pass_on(self, ticket: Ticket, number: int) -> None:
        """Let the next one have its turn; ``number`` is where the log is."""
        self._ticket = None
        self._eval(_NEXT, ticket, max(number, ticket.number))

    def _eval(self, script: str, ticket: Ticket, *args: object) -> None:
        self._bus.send(
            (
                "EVAL",
                script,
                len(self._keys),
                *self._keys,
                ticket.token,
                self._topic,
                int(LEASE * 1000),
                _KEPT,
                *args,
            )
        )

    def _heard(self, message: bytes) -> None:
        token, granted, number = message.decode().split(" ")
        if token.partition("@")[2] != self._host:
            self._on_other()
            return
        ticket = self._ticket
        if ticket is not None and token == ticket.token:
            ticket.is_known = True
            if granted == "1":
                ticket.number = int(number)
                ticket.is_granted = True
            ticket.news.set()

    def _missed(self) -> None:
        """What was missed is asked for again, or done without."""
