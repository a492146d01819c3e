"""
``get_or_set`` with one computing caller, and everything around expiry.

Of all callers that miss a key, one computes: in this process the others wait
for its result, or its error; those of other processes look again now and then
until the value is there or its lease is free. A lease belongs to whoever took
it and is freed by nobody else; when its owner dies it ends by itself.

An entry has a soft and a hard expiry. Until the soft one it is fresh. After it
``get`` says that there is nothing, and ``get_or_set`` may still serve it:
while it is computed anew (``stale_while_revalidate``), or when that fails
(``stale_if_error``).
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import math
import os
import random
import threading
import time
from abc import abstractmethod
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from enum import Enum, auto
from typing import Any, Final, NamedTuple, TypeAlias, cast

from django.core.cache.backends.base import DEFAULT_TIMEOUT

from s3cache.caches.base import Cache, Timeout, share
from s3cache.caches.statistics import Statistics
from s3cache.caches.times import Times
from s3cache.conf import seconds

__all__ = ["Found", "GettingCache", "Lease", "Metadata", "in_thread"]

logger = logging.getLogger("s3cache.caches")

POLL: Final = 0.02
"""Seconds between two looks at what another process computes."""

Found: TypeAlias = tuple[Any, Times]
"""A value, and until when it serves."""

Lease: TypeAlias = Callable[[], None]
"""Frees what was taken; only its owner has it."""


class Metadata(NamedTuple):
    """A value and its times, in epoch seconds."""

    value: Any
    created: float
    expires: float | None
    """None: never."""
    ttl: float | None
    """Seconds that are left; None: it does not expire."""
    cost: float
    """Seconds that computing it took; 0.0 where nobody measured."""


class _State(Enum):
    """What ``get_or_set`` does with an entry."""

    FRESH = auto()
    """Serves it."""
    AGAIN = auto()
    """Serves it, and has it computed again meanwhile."""
    MISS = auto()
    """Waits for its value to be computed."""


class _Flight(Future[Any]):
    """A value that somebody in this process computes."""

    def __init__(self) -> None:
        super().__init__()
        self.owner = _caller()


class _Abandoned(Exception):
    """Whoever computed was cancelled: somebody else has to."""


class Flights:
    """What this process computes, by cache and key."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._flights: dict[object, _Flight] = {}
        self._not_before: dict[object, float] = {}

    def join(self, key: object) -> tuple[_Flight, bool]:
        """Return the flight of `key`, and whether the caller leads it."""
        with self._lock:
            flight = self._flights.get(key)
            if flight is not None:
                return flight, False
            flight = self._flights[key] = _Flight()
            return flight, True

    def land(self, key: object, flight: _Flight) -> None:
        """End a flight; a later miss begins another."""
        with self._lock:
            if self._flights.get(key) is flight:
                del self._flights[key]

    def hold_off(self, key: object, interval: float) -> None:
        """Do not compute `key` again for so many seconds: it has failed."""
        with self._lock:
            if len(self._not_before) > 10_000:
                self._not_before.clear()
            self._not_before[key] = time.monotonic() + interval

    def held_off(self, key: object) -> bool:
        return self._not_before.get(key, 0.0) > time.monotonic()

    def forked(self) -> None:
        # The threads that computed are not in this process.
        self.__init__()  # type: ignore[misc]


_flights = Flights()
os.register_at_fork(after_in_child=_flights.forked)
_tasks: set[asyncio.Task[Any]] = set()


class GettingCache(Cache):
    """A backend that can find an entry with its times, and store one."""

    readers = {
        **Cache.readers,
        "stale_while_revalidate": seconds,
        "stale_if_error": seconds,
        "error_interval": seconds,
        "refresh_ahead": share,
        "early_refresh_beta": seconds,
        "lease_timeout": seconds,
    }
    defaults = {
        **Cache.defaults,
        "stale_while_revalidate": 0,
        "stale_if_error": 0,
        "error_interval": 5,
        "refresh_ahead": 0,
        "early_refresh_beta": 0,
        "lease_timeout": 30,
    }

    @property
    def waits(self) -> bool:
        """Whether operations may wait for a disk or a network."""
        return True

    @property
    def shares(self) -> bool:
        """Whether other processes see what is in it, and its leases."""
        return False

    @property
    def spans_hosts(self) -> bool:
        """Whether other hosts see what is in it."""
        return False

    # What a backend does, with keys that are made already

    @abstractmethod
    def _find(self, made: str, *, stale: bool = False) -> Found | None:
        """Return a value and its times; with `stale` up to its hard expiry."""

    @abstractmethod
    def _put(self, made: str, value: Any, times: Times) -> None:
        """Store a value; remove what is there if it has expired already."""

    @abstractmethod
    def _add(self, made: str, value: Any, times: Times) -> bool:
        """Store a value if there is none; return whether there was none."""

    @abstractmethod
    def _touch(self, made: str, left: float | None) -> bool:
        """Give an entry other seconds to live; False: there is none."""

    @abstractmethod
    def _incr(self, made: str, delta: int) -> int | None:
        """Add to a number, keeping its time; None: there is none."""

    @abstractmethod
    def _remove(self, made: str) -> bool:
        """Remove an entry; return whether there was one."""

    def _lease(self, made: str) -> Lease | None:
        """Take the lease of a key among processes, or None: it is taken."""
        return _nothing

    # Django's API

    def get(self, key: Any, default: Any = None, version: int | None = None) -> Any:
        found = self._find(self.make_and_validate_key(key, version))
        self._count(found is not None)
        return default if found is None else found[0]

    def set(
        self,
        key: Any,
        value: Any,
        timeout: Timeout = DEFAULT_TIMEOUT,
        version: int | None = None,
    ) -> None:
        made = self.make_and_validate_key(key, version)
        self._put(made, value, self._times(timeout))

    def add(
        self,
        key: Any,
        value: Any,
        timeout: Timeout = DEFAULT_TIMEOUT,
        version: int | None = None,
    ) -> bool:
        made = self.make_and_validate_key(key, version)
        return self._add(made, value, self._times(timeout))

    def touch(
        self, key: Any, timeout: Timeout = DEFAULT_TIMEOUT, version: int | None = None
    ) -> bool:
        made = self.make_and_validate_key(key, version)
        return self._touch(made, self._seconds(timeout))

    def delete(self, key: Any, version: int | None = None) -> bool:
        return self._remove(self.make_and_validate_key(key, version))

    def has_key(self, key: Any, version: int | None = None) -> bool:
        return self._find(self.make_and_validate_key(key, version)) is not None

    def incr(self, key: Any, delta: int = 1, version: int | None = None) -> int:
        """Add to a number, keeping its time; atomic where the backend is."""
        number = self._incr(self.make_and_validate_key(key, version), delta)
        if number is None:
            raise ValueError(f"Key '{key}' not found")
        return number

    # Beyond Django's API

    @abstractmethod
    def keys(
        self, pattern: str = "*", version: int | None = None, limit: int | None = None
    ) -> list[str]:
        """
        Return the keys that match, as callers wrote them.

        ``*`` stands for anything. With a KEY_FUNCTION the keys are those that
        it made, since nothing tells what it made them of.
        """

    @abstractmethod
    def delete_pattern(self, pattern: str, version: int | None = None) -> int:
        """Delete the keys that match, ``*`` for anything; return how many."""

    async def adelete_pattern(self, pattern: str, version: int | None = None) -> int:
        return cast("int", await self._offload(self.delete_pattern, pattern, version))

    @abstractmethod
    def stats(self) -> Statistics:
        """Return what happened since the start, and what is there now."""

    def reset_stats(self) -> None:
        """Count from 0 again."""
        self.counters.clear()

    # Reading

    def get_with_metadata(
        self, key: Any, version: int | None = None
    ) -> Metadata | None:
        """Return a value with when it was made and how long it serves."""
        found = self.look(key, version)
        self._count(found is not None)
        return found

    def look(self, key: Any, version: int | None = None) -> Metadata | None:
        """As ``get_with_metadata``, without counting a hit or a miss."""
        found = self._find(self.make_and_validate_key(key, version))
        if found is None:
            return None
        value, times = found
        until = times.fresh_until
        finite = until < math.inf
        return Metadata(
            value,
            times.created,
            until if finite else None,
            max(0.0, until - time.time()) if finite else None,
            times.cost,
        )

    async def aget_with_metadata(
        self, key: Any, version: int | None = None
    ) -> Metadata | None:
        """As ``get_with_metadata``, without holding up the event loop."""
        found = await self._offload(self.get_with_metadata, key, version)
        return cast("Metadata | None", found)

    def get_or_set(
        self,
        key: Any,
        default: Any,
        timeout: Timeout = DEFAULT_TIMEOUT,
        version: int | None = None,
    ) -> Any:
        """
        Return the value of a key; where there is none, that of `default`.

        A callable `default` is called by one of all callers that miss at the
        same time. Its error is raised by each of them, unless there is an old
        value and ``stale_if_error`` covers it.
        """
        made = self.make_and_validate_key(key, version)
        found = self._find(made, stale=True)
        state = self._state(made, found)
        self._count(state is not _State.MISS)
        if found is not None and state is not _State.MISS:
            if state is not _State.FRESH:
                self._refresh(made, default, timeout)
            return found[0]
        if not callable(default):
            return self._keep_default(made, default, timeout)
        while True:
            flight, leads = _flights.join(self._flight_key(made))
            if leads:
                return self._lead(made, flight, default, timeout, found)
            if flight.owner == _caller():  # computing it asks for itself
                return default()
            try:
                return flight.result()
            except _Abandoned:
                continue

    async def aget_or_set(
        self,
        key: Any,
        default: Any,
        timeout: Timeout = DEFAULT_TIMEOUT,
        version: int | None = None,
    ) -> Any:
        """As ``get_or_set``; `default` may be a coroutine function."""
        made = self.make_and_validate_key(key, version)
        found = await self._afind(made)
        state = self._state(made, found)
        self._count(state is not _State.MISS)
        if found is not None and state is not _State.MISS:
            if state is not _State.FRESH:
                self._arefresh(made, default, timeout)
            return found[0]
        if not callable(default):
            return await self._offload(self._keep_default, made, default, timeout)
        while True:
            flight, leads = _flights.join(self._flight_key(made))
            if leads:
                return await self._alead(made, flight, default, timeout, found)
            if flight.owner == _caller():
                return await _called(default)
            try:
                return await asyncio.wrap_future(flight)
            except _Abandoned:
                continue

    # Computing

    def _lead(
        self,
        made: str,
        flight: _Flight,
        default: Callable[[], Any],
        timeout: Timeout,
        found: Found | None,
    ) -> Any:
        with self._flying(made, flight):
            lease, value = self._wait(made)
            if lease is None:
                flight.set_result(value)
                return value
            try:
                value = self._computed(made, default, timeout, found)
            finally:
                lease()
            flight.set_result(value)
            return value

    async def _alead(
        self,
        made: str,
        flight: _Flight,
        default: Callable[[], Any],
        timeout: Timeout,
        found: Found | None,
    ) -> Any:
        with self._flying(made, flight):
            lease, value = await self._await(made)
            if lease is None:
                flight.set_result(value)
                return value
            try:
                began = time.monotonic()
                try:
                    value = await _called(default)
                except Exception as error:
                    value = self._stale_value(made, found, error)
                else:
                    cost = time.monotonic() - began
                    await self._offload(self._keep, made, value, timeout, cost)
            finally:
                lease()
            flight.set_result(value)
            return value

    @contextlib.contextmanager
    def _flying(self, made: str, flight: _Flight) -> Iterator[None]:
        """Release those who wait, whatever happens to the one who computes."""
        try:
            yield
        except Exception as error:
            flight.set_exception(error)
            raise
        finally:
            _flights.land(self._flight_key(made), flight)
            if not flight.done():  # cancelled, interrupted, or a thread's end
                flight.set_exception(_Abandoned())
            flight.exception()  # it is raised here, or by nobody

    def _wait(self, made: str) -> tuple[Lease | None, Any]:
        """Return the lease, or None and the value that another computed."""
        for pause in self._looks():
            lease, value = self._look(made)
            if lease is not None or value is not _nothing:
                return lease, value
            time.sleep(pause)
        return _nothing, None

    async def _await(self, made: str) -> tuple[Lease | None, Any]:
        for pause in self._looks():
            lease, value = await self._offload(self._look, made)
            if lease is not None or value is not _nothing:
                return lease, value
            await asyncio.sleep(pause)
        return _nothing, None

    def _looks(self) -> Iterator[float]:
        """Pauses, until whoever has the lease has had its time."""
        until = time.monotonic() + self.options["lease_timeout"]
        while time.monotonic() < until:
            yield POLL

    def _look(self, made: str) -> tuple[Lease | None, Any]:
        lease = self._lease(made)
        # Whoever led before may just have stored the value.
        found = self._find(made)
        if found is None:
            return lease, _nothing
        if lease is not None:
            lease()
        return None, found[0]

    def _computed(
        self,
        made: str,
        default: Callable[[], Any],
        timeout: Timeout,
        found: Found | None,
    ) -> Any:
        began = time.monotonic()
        try:
            value = default()
        except Exception as error:
            return self._stale_value(made, found, error)
        self._keep(made, value, timeout, time.monotonic() - began)
        return value

    def _stale_value(self, made: str, found: Found | None, error: Exception) -> Any:
        """Return the old value, or raise the error."""
        lasts = self.options["stale_if_error"]
        if found is None or time.time() >= found[1].fresh_until + lasts:
            raise error
        _flights.hold_off(self._flight_key(made), self.options["error_interval"])
        self.counters.count("stale")
        logger.warning("Computing %r failed; the old value stays", made, exc_info=error)
        return found[0]

    def _keep(self, made: str, value: Any, timeout: Timeout, cost: float) -> None:
        self._put(made, value, self._grace(self._times(timeout, cost)))

    def _keep_default(self, made: str, value: Any, timeout: Timeout) -> Any:
        self._put(made, value, self._times(timeout))
        return value

    def _times(self, timeout: Timeout, cost: float = 0.0) -> Times:
        created = time.time()
        left = self._seconds(timeout)
        return Times(created, math.inf if left is None else created + left, cost=cost)

    def _grace(self, times: Times) -> Times:
        """Keep an entry for as long as it may be served stale."""
        options = self.options
        grace = max(options["stale_while_revalidate"], options["stale_if_error"])
        if not grace or times.expires == math.inf:
            return times
        return Times(times.created, times.expires + grace, times.expires, times.cost)

    # Computing again

    def _state(self, made: str, found: Found | None) -> _State:
        if found is None:
            return _State.MISS
        times = found[1]
        options = self.options
        moment = time.time()
        left = times.fresh_until - moment
        if left > 0:
            # XFetch (Vattani, Chierichetti, Lowenstein: "Optimal Probabilistic
            # Cache Stampede Prevention", VLDB 2015).
            drawn = -math.log(1 - random.random())  # noqa: S311
            if left <= times.cost * options["early_refresh_beta"] * drawn:
                return _State.AGAIN
            if left < options["refresh_ahead"] * (times.fresh_until - times.created):
                return _State.AGAIN
            return _State.FRESH
        held_off = _flights.held_off(self._flight_key(made))
        if held_off and -left < options["stale_if_error"]:
            self.counters.count("stale")
            return _State.FRESH
        if -left < options["stale_while_revalidate"]:
            self.counters.count("stale")
            return _State.AGAIN
        return _State.MISS

    def _refresh(self, made: str, default: Any, timeout: Timeout) -> None:
        """Compute a value again while the old one is served."""
        key = self._flight_key(made)
        if not callable(default) or _flights.held_off(key):
            return
        flight, leads = _flights.join(key)
        if not leads:
            return

        def refresh() -> None:
            with self._flying(made, flight):
                self._renew(made, flight, default, timeout)

        threading.Thread(target=in_thread(refresh), daemon=True).start()

    def _renew(
        self, made: str, flight: _Flight, default: Callable[[], Any], timeout: Timeout
    ) -> None:
        lease = self._lease(made)
        if lease is None:
            return  # another process is at it
        try:
            began = time.monotonic()
            value = default()
            self._keep(made, value, timeout, time.monotonic() - began)
            flight.set_result(value)
        except Exception:
            interval = self.options["error_interval"]
            _flights.hold_off(self._flight_key(made), interval)
            self.counters.count("refresh_failed")
            logger.exception("Refreshing %r failed; the old value stays", made)
            flight.set_exception(_Abandoned())
        finally:
            lease()

    def _arefresh(self, made: str, default: Any, timeout: Timeout) -> None:
        key = self._flight_key(made)
        if not callable(default) or _flights.held_off(key):
            return
        flight, leads = _flights.join(key)
        if not leads:
            return

        async def refresh() -> None:
            with self._flying(made, flight):
                lease = await self._offload(self._lease, made)
                if lease is None:
                    return
                try:
                    began = time.monotonic()
                    value = await _called(default)
                    cost = time.monotonic() - began
                    await self._offload(self._keep, made, value, timeout, cost)
                    flight.set_result(value)
                except Exception:
                    _flights.hold_off(key, self.options["error_interval"])
                    self.counters.count("refresh_failed")
                    logger.exception("Refreshing %r failed; the old value stays", made)
                    flight.set_exception(_Abandoned())
                finally:
                    lease()

        task = asyncio.get_running_loop().create_task(refresh())
        _tasks.add(task)
        task.add_done_callback(_tasks.discard)

    # Parts

    def _flight_key(self, made: str) -> object:
        return type(self), self.location, made

    def _count(self, hit: bool) -> None:
        (self.counters.hit if hit else self.counters.miss)()

    async def _afind(self, made: str) -> Found | None:
        return cast(
            "Found | None",
            await self._offload(lambda: self._find(made, stale=True)),
        )

    async def _offload(self, work: Callable[..., Any], *args: Any) -> Any:
        """Do something that may wait, without holding up the event loop."""
        return await asyncio.to_thread(work, *args)


def _nothing() -> None:
    """A lease that needs no freeing."""


def _caller() -> tuple[int, int | None]:
    """This thread, and this task."""
    try:
        task = asyncio.current_task()
    except RuntimeError:
        task = None
    return threading.get_ident(), None if task is None else id(task)


async def _called(default: Callable[[], Any]) -> Any:
    value = default()
    return await value if inspect.isawaitable(value) else value


def in_thread(work: Callable[[], None]) -> Callable[[], None]:
    """Close what Django's connections a thread of ours has opened."""

    def run() -> None:
        from django.db import connections

        try:
            work()
        finally:
            connections.close_all()

    return run
