"""What is read while somebody watches: within a request, for example.

    with watch(Watch()) as seen:
        ...
    seen.reads

A watch follows the context, not the thread: asyncio's tasks and asgiref's
threads have it too, other threads only if they run in a copy of the context.
While nobody in this process watches, a read pays for a look at an empty set.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Final, TypeVar

from s3cache.stores.base import Request, observe

__all__ = [
    "Read",
    "Watch",
    "Why",
    "read_of",
    "statement",
    "tell",
    "watch",
    "watch_always",
    "watchers",
    "watching",
]


class Why(StrEnum):
    """Why a read was a hit, a miss or neither; in words for people."""

    HOT = "known to the hot path"
    KEPT = "its result was in the cache"
    WAITED = "another caller was computing it"
    ABSENT = "its result was not in the cache"
    FIRST = "nobody has repeated such a read yet"
    FRESH = "fresh() was asked for"
    SKIPPED = "skip_cache() was asked for"
    BLOCK = "inside a transaction"
    NOT_KEPT = "select_for_update() was asked for"
    IMPURE = "the same rows may give another result"
    EXCLUDED = "the settings exclude it from the cache"
    NO_CACHE = "the cache keeps no results"
    RESPONSE = "the whole response was in the cache"
    CURRENT = "what the client has is current"
    NO_KEY = "its parameters fit in no key"
    REPLACED = "the replica was being replaced"


@dataclass(frozen=True, slots=True, eq=False)
class Read:
    """A kind of read, and what became of it; the same object each time.

    ``label``, ``action`` and ``event`` are those that are counted; ``beside``
    are the events that happened beside it (``stale``, ``broken``, ``failed``).
    ``tables`` are in lower case, and none if SQLite could not name them.
    """

    alias: str
    label: str
    action: str
    event: str
    why: Why
    tables: tuple[str, ...]
    beside: frozenset[str] = frozenset()


#: Reads are kept, so that a set of those of a request remains small.
read_of: Final = lru_cache(maxsize=4096)(Read)


class Watch:
    """The kinds of reads in a context, each once.

    Threads and tasks of the context may add to it at once.
    """

    def __init__(self) -> None:
        self.reads: set[Read] = set()
        #: Called for each hit of the hot path, which takes not much longer
        #: than this: the set's own method.
        self.add: Callable[[Read], object] = self.reads.add

    def measured(self, read: Read, seconds: float, requests: Sequence[Request]) -> None:
        """Take a statement's read, which took so long and these requests.

        The requests are those that the caller waited for.
        """
        self.add(read)


class _Several(Watch):
    """What is told to several watches."""

    def __init__(self, *watches: Watch) -> None:
        self.set(*watches)

    def set(self, *watches: Watch) -> None:
        """Tell these from now on."""
        self.watches = watches
        self.add = self._add if watches else bool

    def _add(self, read: Read) -> None:
        for one in self.watches:
            one.add(read)

    def measured(self, read: Read, seconds: float, requests: Sequence[Request]) -> None:
        for one in self.watches:
            one.measured(read, seconds, requests)


#: Those that watch all contexts; changed in place.
_everywhere: Final = _Several()

#: Whoever watches now, in whatever context; empty: nothing has to be told.
watchers: Final[set[Watch]] = set()

_current: ContextVar[Watch] = ContextVar("s3cache_watch", default=_everywhere)
_W = TypeVar("_W", bound=Watch)

#: Returns whoever is to be told of a read in this context.
watching: Final = _current.get


@contextmanager
def watch(one: _W) -> Iterator[_W]:
    """Have ``one`` told of all that is read inside; so is what is around."""
    outer = watching()
    alone = outer is _everywhere and not _everywhere.watches
    token = _current.set(one if alone else _Several(outer, one))
    watchers.add(one)
    try:
        yield one
    finally:
        watchers.discard(one)
        _current.reset(token)


def watch_always(one: Watch, *, on: bool) -> None:
    """Have ``one`` told of whatever is read in this process, or no more."""
    others = [other for other in _everywhere.watches if other is not one]
    if on:
        _everywhere.set(*others, one)
        watchers.add(one)
    else:
        _everywhere.set(*others)
        watchers.discard(one)


# Statements, of which more is known than of hits of the hot path


class _Statement:
    """What is said of the statement that is being executed."""

    __slots__ = ("beside", "what")

    def __init__(self) -> None:
        self.what: tuple[str, str, str, Why, tuple[str, ...]] | None = None
        self.beside: set[str] = set()


_statement: ContextVar[_Statement | None] = ContextVar(
    "s3cache_statement", default=None
)

#: Events that happen beside another one.
_BESIDE: Final = frozenset(["stale", "broken", "failed"])


@contextmanager
def statement(alias: str) -> Iterator[None]:
    """Tell who watches of the read of the context, if it is one."""
    watch = watching()
    if watch is _everywhere and not _everywhere.watches:
        yield
        return
    told = _Statement()
    token = _statement.set(told)
    requests: list[Request] = []
    start = time.perf_counter()
    try:
        with observe(requests.append):
            yield
    finally:
        seconds = time.perf_counter() - start
        _statement.reset(token)
        if told.what is not None:
            read = read_of(alias, *told.what, frozenset(told.beside))
            watch.measured(read, seconds, requests)


def tell(
    label: str, action: str, event: str, why: Why, tables: tuple[str, ...]
) -> None:
    """Say what becomes of the statement that is being executed."""
    told = _statement.get()
    if told is None:
        return
    if event in _BESIDE:
        told.beside.add(event)
    else:
        told.what = label, action, event, why, tables
