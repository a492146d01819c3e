"""
Caching what comes from any source: an API, a file, another database.

    ReadThrough    a loader computes what the cache lacks
    WriteThrough   saving writes to the source, then to the cache
    WriteBehind    saving writes to the cache now, and to the source soon

A source is an object with ``load(key)``, ``save(key, value)`` and
``delete(key)``; ``save_many({key: value})`` is used where it exists. Reading
loads once for all callers, and refreshes ahead or serves stale, as the options
of the cache say; with backends of other packages it just loads.
"""

from __future__ import annotations

import atexit
import copy
import inspect
import logging
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterable
from multiprocessing.util import Finalize
from typing import Any, Final, Protocol, TypedDict

from django.core.cache import caches
from django.core.cache.backends.base import DEFAULT_TIMEOUT, BaseCache

from s3cache.caches.base import Timeout
from s3cache.caches.changes import Changes
from s3cache.caches.errors import QueueFull
from s3cache.caches.getting import in_thread
from s3cache.caches.statistics import Counters

__all__ = [
    "ReadThrough",
    "Source",
    "WriteBehind",
    "WriteBehindStatistics",
    "WriteThrough",
]

logger = logging.getLogger("s3cache.caches")

_STRIPES: Final = 64


class Source(Protocol):
    """What is cached."""

    def load(self, key: Any) -> Any:
        """Return the value of a key; an error is raised to the reader."""
        ...

    def save(self, key: Any, value: Any) -> None:
        """Write a value."""
        ...

    def delete(self, key: Any) -> None:
        """Remove a key, if it is there."""
        ...


class _Overtaken(Exception):
    """A value was saved while an older one was being loaded."""


class ReadThrough:
    """
    What `load` returns, kept in a cache; `load` may be a coroutine function.

    `cache` is a ``CACHES`` alias. None is a value; an error of `load` is
    raised by all who wait for it, and not kept.
    """

    def __init__(
        self,
        load: Callable[[Any], Any],
        *,
        cache: str = "default",
        timeout: Timeout = DEFAULT_TIMEOUT,
        version: int | None = None,
    ) -> None:
        self._load = load
        self._alias = cache
        self._timeout = timeout
        self._version = version
        self._changes = Changes()

    @property
    def cache(self) -> BaseCache:
        """The cache that the values are in."""
        return caches[self._alias]

    def get(self, key: Any) -> Any:
        """Return a value from the cache, or from the source."""
        loading = _Loading(self, key)
        cache = self.cache
        value = cache.get_or_set(key, loading, self._timeout, self._version)
        if loading.is_overtaken():
            cache.delete(key, self._version)
        return value

    async def aget(self, key: Any) -> Any:
        """As ``get``, without holding up the event loop."""
        loading = _Loading(self, key)
        cache = self.cache
        value = await cache.aget_or_set(
            key,
            loading.in_task if inspect.iscoroutinefunction(self._load) else loading,
            self._timeout,
            self._version,
        )
        if loading.is_overtaken():
            await cache.adelete(key, self._version)
        return value

    def get_many(self, keys: Iterable[Any]) -> dict[Any, Any]:
        """Return the values; what the cache lacks is loaded one by one."""
        wanted = list(keys)
        found: dict[Any, Any] = self.cache.get_many(wanted, self._version)
        return {key: found[key] if key in found else self.get(key) for key in wanted}

    def forget(self, key: Any) -> None:
        """Remove a value from the cache: the source has changed."""
        with self._changes.changing(str(key)):
            self.cache.delete(key, self._version)


class _Loading:
    """One call of the loader, and what was saved during it."""

    def __init__(self, through: ReadThrough, key: Any) -> None:
        self._load = through._load
        self._changes = through._changes
        self._key = key
        self._thread = threading.get_ident()
        self._number = self._changes.number(str(key))
        self._loaded = False

    def __call__(self) -> Any:
        self._loaded = True
        return self._checked(self._load(self._key))

    async def in_task(self) -> Any:
        self._loaded = True
        return self._checked(await self._load(self._key))

    def _checked(self, value: Any) -> Any:
        # Who asked looks afterwards; a refresh in the background cannot.
        if threading.get_ident() != self._thread and self.is_overtaken():
            raise _Overtaken(f"{self._key!r} was saved while it was loaded")
        return value

    def is_overtaken(self) -> bool:
        """Whether what was loaded may be older than what was saved since."""
        if not self._loaded:
            return False
        return self._number is None or (
            self._changes.number(str(self._key)) != self._number
        )


class WriteThrough(ReadThrough):
    """
    A source with a cache before it: after ``save`` the next read is a hit.

    What the source refuses is not in the cache. Threads of this process that
    save the same key do so in turn; between processes the cache may keep the
    loser's value, until its time is over.
    """

    def __init__(
        self,
        source: Source,
        *,
        cache: str = "default",
        timeout: Timeout = DEFAULT_TIMEOUT,
        version: int | None = None,
    ) -> None:
        super().__init__(source.load, cache=cache, timeout=timeout, version=version)
        self.source = source
        self._reset()
        _all.add(self)

    def _reset(self) -> None:
        self._stripes = [threading.Lock() for _ in range(_STRIPES)]

    def save(self, key: Any, value: Any) -> None:
        """Write to the source; raise what it raises."""
        with self._stripe(key), self._changes.changing(str(key)):
            try:
                self.source.save(key, value)
            except BaseException:
                # It may have been written all the same: let the source say.
                self.cache.delete(key, self._version)
                raise
            self._keep(key, value)

    def delete(self, key: Any) -> None:
        """Remove a key from the source, then from the cache."""
        with self._stripe(key), self._changes.changing(str(key)):
            try:
                self.source.delete(key)
            finally:
                self.cache.delete(key, self._version)

    def _keep(self, key: Any, value: Any) -> None:
        """Store a value; if that fails, leave no older one, and raise."""
        try:
            self.cache.set(key, value, self._timeout, self._version)
        except BaseException:
            self.cache.delete(key, self._version)
            raise

    def _stripe(self, key: Any) -> threading.Lock:
        return self._stripes[hash(str(key)) % _STRIPES]


class WriteBehindStatistics(TypedDict):
    """What ``WriteBehind.stats()`` returns."""

    pending: int
    """Keys that the source does not have yet."""
    written: int
    failed: int
    """Writes that the source refused, or did not answer; they are repeated."""


class WriteBehind(WriteThrough):
    """
    A source that is written to in batches, at most `interval` seconds late.

    Of several values of a key the last one is written, and never an older one
    after it. A write that fails is repeated with the next batch. When `most`
    keys wait, ``save`` writes first, and raises `QueueFull` if that fails.
    What waits is written when the process ends; a process that is killed
    loses it. ``delete`` reaches the source at once.
    """

    def __init__(
        self,
        source: Source,
        *,
        cache: str = "default",
        timeout: Timeout = DEFAULT_TIMEOUT,
        version: int | None = None,
        interval: float = 1.0,
        most: int = 10_000,
    ) -> None:
        super().__init__(source, cache=cache, timeout=timeout, version=version)
        self._interval = interval
        self._most = most
        self._counters = Counters()

    def _reset(self) -> None:
        super()._reset()
        # The order of locks: flushing, a stripe, the lock.
        self._flushing = threading.RLock()
        self._lock = threading.Lock()
        self._pending: dict[Any, list[Any]] = {}
        self._thread: threading.Thread | None = None

    def get(self, key: Any) -> Any:
        """Return a value, of this process's own if it is not written yet."""
        waiting = self._pending.get(key)
        return super().get(key) if waiting is None else copy.deepcopy(waiting[0])

    async def aget(self, key: Any) -> Any:
        waiting = self._pending.get(key)
        return await super().aget(key) if waiting is None else copy.deepcopy(waiting[0])

    def get_many(self, keys: Iterable[Any]) -> dict[Any, Any]:
        return {key: self.get(key) for key in keys}

    def save(self, key: Any, value: Any) -> None:
        """
        Write to the cache now, and to the source soon.

        What the cache raises is raised, and the value is not written then.
        """
        if self._is_full(key):
            self.flush()
            if self._is_full(key):
                raise QueueFull(
                    f"{len(self._pending)} values wait for {self.source!r}, which "
                    "fails; the next one is refused rather than lost."
                )
        with self._stripe(key), self._changes.changing(str(key)):
            box = [copy.deepcopy(value)]
            self._keep(key, value)
            with self._lock:
                # A box of its own tells this value from an equal one. A key
                # that waits keeps its place.
                self._pending[key] = box
                self._start()

    def delete(self, key: Any) -> None:
        with self._flushing:  # what is being written now must not come after
            with self._lock:
                self._pending.pop(key, None)
            super().delete(key)

    def flush(self) -> int:
        """
        Write what waits, now; return how many keys were written.

        Failures are counted and logged, and their values go on waiting.
        """
        with self._flushing:
            with self._lock:
                batch = dict(self._pending)
            many = getattr(self.source, "save_many", None)
            if many is not None and batch:
                values = {key: box[0] for key, box in batch.items()}
                done = [*batch] if self._written(many, values) else []
            else:
                done = [
                    key
                    for key, (value,) in batch.items()
                    if self._written(self.source.save, key, value)
                ]
            for key in done:
                self._settle(key, batch[key])
            self._counters.add("written", len(done))
            self._counters.add("failed", len(batch) - len(done))
            return len(done)

    def close(self) -> None:
        """Write what waits, and say what could not be written."""
        self.flush()
        if self._pending:
            logger.error(
                "%d values were not written to %r", len(self._pending), self.source
            )

    def stats(self) -> WriteBehindStatistics:
        """Return what waits, and what happened since the start."""
        total = self._counters.total()
        return {
            "pending": len(self._pending),
            "written": total["written"],
            "failed": total["failed"],
        }

    def _is_full(self, key: Any) -> bool:
        return len(self._pending) >= self._most and key not in self._pending

    def _written(self, write: Callable[..., Any], *arguments: Any) -> bool:
        try:
            write(*arguments)
        except Exception:
            logger.exception("%r refused a value; it is tried again", self.source)
            return False
        return True

    def _settle(self, key: Any, box: list[Any]) -> None:
        with self._stripe(key), self._changes.changing(str(key)):
            with self._lock:
                if self._pending.get(key) is not box:
                    return  # a newer value waits
                del self._pending[key]
            # Somebody who missed it in the cache may have stored what the
            # source had before.
            try:
                self._keep(key, box[0])
            except Exception:
                # It is written; the cache must not keep others from that.
                logger.exception("The cache does not take what %r has", self.source)

    def _start(self) -> None:
        if self._thread is None:
            _close_at_the_end()
            self._thread = threading.Thread(target=in_thread(self._work), daemon=True)
            self._thread.start()

    def _work(self) -> None:
        try:
            while True:
                time.sleep(self._interval)
                self.flush()
                with self._lock:
                    if not self._pending:
                        self._thread = None
                        return
        except BaseException:
            with self._lock:
                self._thread = None  # the next value to save starts another
            raise


_all: Final[weakref.WeakSet[WriteThrough]] = weakref.WeakSet()


def _forked() -> None:
    # The threads that held locks are not in the child; what waits is the
    # parent's to write.
    for through in list(_all):
        through._reset()


def _close_all() -> None:
    for through in list(_all):
        if isinstance(through, WriteBehind):
            through.close()


_closing_in: set[int] = set()
"""The processes, this one and its ancestors, that write before they end."""


def _close_at_the_end() -> None:
    """Children of multiprocessing end without what atexit has registered."""
    if os.getpid() not in _closing_in:
        _closing_in.add(os.getpid())
        Finalize(None, _close_all, exitpriority=10)


os.register_at_fork(after_in_child=_forked)
atexit.register(_close_all)
