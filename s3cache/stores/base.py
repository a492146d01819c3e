"""
What a store is: the small interface that the rest of s3cache sees.

A store answers every request with an ``Answer`` and raises for none of them:
the protocols decide what a 412, a 503 or silence means, and an exception would
only hide which of them it was. One call is one attempt; nothing is retried
here. Every call is counted, timed, and shown to the observers of the context.
"""

from __future__ import annotations

import logging
import os
import re
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, Generic, Literal, TypeVar

from s3cache.metrics.histogram import Histogram, bucket_of

__all__ = [
    "DELETE_MANY_LIMIT",
    "KINDS",
    "LIST_LIMIT",
    "Answer",
    "Kind",
    "Listed",
    "Request",
    "RequestCounts",
    "Store",
    "Traffic",
    "observe",
]

logger = logging.getLogger("s3cache.stores")

Kind = Literal["GET", "PUT", "DELETE", "LIST"]
KINDS: Final[tuple[Kind, ...]] = ("GET", "PUT", "DELETE", "LIST")

LIST_LIMIT: Final = 1000
"""The most keys that one LIST returns, on S3 and here."""

DELETE_MANY_LIMIT: Final = 1000
"""The most keys that one ``delete_many`` takes, on S3 and here."""

MAX_KEY_BYTES: Final = 1024
"""S3's limit for a key in UTF-8, the location included."""

_NO_METADATA: Final[Mapping[str, str]] = MappingProxyType({})

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Listed:
    """One object of a list page. ``modified`` is in epoch seconds."""

    key: str
    etag: str
    size: int
    modified: float


@dataclass(frozen=True, slots=True)
class Answer:
    """
    What a store said to one request; never raised, always returned.

    ``status`` is HTTP's, with three words made precise:

    * 0: no answer (a timeout, a lost connection). Whether the request had its
      effect is unknown.
    * 404: the store itself says that there is no such object. A 404 page of a
      proxy is a 502, and a bucket that is missing is a 410, since neither says
      anything about the object.
    * 200: any success, also where S3 says 204.
    """

    status: int
    body: bytes = b""
    etag: str = ""
    """Opaque; compared and sent back, never interpreted."""
    date: float | None = None
    """The store's clock at the answer, in epoch seconds."""
    modified: float | None = None
    """The object's Last-Modified, in epoch seconds."""
    keys: tuple[Listed, ...] = ()
    """The objects of a list page, in the order of their keys' UTF-8 bytes."""
    more: bool = False
    """The list page was not the last."""
    message: str = ""
    """Error code and text, for people."""

    @property
    def ok(self) -> bool:
        """Whether the request succeeded."""
        return self.status == 200

    @property
    def unclear(self) -> bool:
        """
        Whether the request may have had its effect without saying so.

        True for silence, 408 and 5xx, except 501: what a store does not know
        how to do it has not done.
        """
        return self.status in {0, 408} or (self.status >= 500 and self.status != 501)


@dataclass(frozen=True, slots=True)
class Request:
    """One request that a store has answered, as observers see it."""

    store: str
    kind: Kind
    key: str
    status: int
    seconds: float
    sent: int = 0
    """Bytes of the body that was sent."""
    received: int = 0
    """Bytes of the body that came back."""

    def __str__(self) -> str:
        return f"{self.kind} {self.store}/{self.key} -> {self.status or 'no answer'}"


@dataclass(frozen=True, slots=True)
class RequestCounts:
    """
    How many requests of each kind this process sent, and how long they took.

    A snapshot: subtract an earlier one to see what happened in between.
    ``delete`` counts requests, so one ``delete_many`` is one.
    """

    get: int = 0
    put: int = 0
    delete: int = 0
    list: int = 0
    get_seconds: float = 0.0
    put_seconds: float = 0.0
    delete_seconds: float = 0.0
    list_seconds: float = 0.0

    @property
    def total(self) -> int:
        return self.get + self.put + self.delete + self.list

    @property
    def seconds(self) -> float:
        return (
            self.get_seconds
            + self.put_seconds
            + self.delete_seconds
            + self.list_seconds
        )

    def __sub__(self, earlier: RequestCounts) -> RequestCounts:
        return RequestCounts(
            self.get - earlier.get,
            self.put - earlier.put,
            self.delete - earlier.delete,
            self.list - earlier.list,
            self.get_seconds - earlier.get_seconds,
            self.put_seconds - earlier.put_seconds,
            self.delete_seconds - earlier.delete_seconds,
            self.list_seconds - earlier.list_seconds,
        )


Observer = Callable[[Request], object]

_observers: ContextVar[tuple[Observer, ...]] = ContextVar(
    "s3cache_store_observers", default=()
)


@contextmanager
def observe(callback: Observer) -> Iterator[None]:
    """
    Call ``callback`` after every store request of this context.

    It follows the context, not the thread: whoever hands requests to other
    threads runs them in ``contextvars.copy_context()``. An exception of the
    callback is logged and goes no further, since the request has happened.
    """
    token = _observers.set((*_observers.get(), callback))
    try:
        yield
    finally:
        _observers.reset(token)


class PerProcess(Generic[_T]):
    """
    A value that is made anew in every process, and so survives a fork.

    A pid check rather than ``os.register_at_fork``: uWSGI forks without
    running Python's hooks. It takes no lock, because a lock may have been held
    by another thread at the fork, and would then never be released.
    """

    def __init__(self, make: Callable[[], _T]) -> None:
        self._make = make
        self._values: dict[int, _T] = {}

    def get(self) -> _T:
        pid = os.getpid()
        try:
            return self._values[pid]
        except KeyError:
            # Threads may race to here: one value wins, so making is cheap.
            value = self._values.setdefault(pid, self._make())
            for ancestor in [other for other in self._values if other != pid]:
                self._values.pop(ancestor, None)
            return value


@dataclass(frozen=True, slots=True)
class Traffic:
    """The requests of one kind that this process sent, and what came back.

    ``failed`` are those without an answer, and with one of the store's own
    trouble (5xx). ``sent`` and ``received`` are bytes of bodies, ``latency``
    says how many took how long.
    """

    number: int = 0
    failed: int = 0
    seconds: float = 0.0
    sent: int = 0
    received: int = 0
    latency: Histogram = field(default_factory=Histogram)


class _OfKind:
    """What ``Traffic`` says, as it grows."""

    __slots__ = ("buckets", "failed", "number", "received", "seconds", "sent")

    def __init__(self) -> None:
        self.number = self.failed = self.sent = self.received = 0
        self.seconds = 0.0
        self.buckets: dict[int, int] = {}


class _Tally:
    """Counts under a lock: exact, at about half a microsecond."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kinds: dict[Kind, _OfKind] = {kind: _OfKind() for kind in KINDS}

    def add(self, kind: Kind, seconds: float, sent: int, answer: Answer) -> None:
        bucket = bucket_of(seconds)
        with self._lock:
            one = self._kinds[kind]
            one.number += 1
            one.seconds += seconds
            one.sent += sent
            one.buckets[bucket] = one.buckets.get(bucket, 0) + 1
            one.received += len(answer.body)
            one.failed += answer.unclear

    def snapshot(self) -> RequestCounts:
        with self._lock:
            kinds = [self._kinds[kind] for kind in KINDS]
            return RequestCounts(
                *(one.number for one in kinds), *(one.seconds for one in kinds)
            )

    def traffic(self) -> dict[Kind, Traffic]:
        with self._lock:
            return {
                kind: Traffic(
                    one.number,
                    one.failed,
                    one.seconds,
                    one.sent,
                    one.received,
                    Histogram(one.buckets.copy()),
                )
                for kind, one in self._kinds.items()
            }


class Store(ABC):
    """
    A place where objects live: a bucket, or a directory.

    Keys are relative to the store's location, at most 1,024 bytes in all, with
    ``/`` between segments. Keys that S3, XML, or what stands before a bucket
    may refuse or rewrite (``.`` and ``..`` segments, a leading ``/``, control
    characters, lone surrogates) are answered with 400 by every store, and no
    request is made.

    Safe to use from many threads, and after a fork. Subclasses implement the
    underscored methods, which may return any ``Answer`` and raise nothing that
    a store's answer or its silence can cause.
    """

    name: str
    """For people: ``s3://bucket/location``, or the directory."""

    def __init__(self, name: str, location: str = "") -> None:
        self.name = name
        self._prefix = f"{location}/" if location else ""
        self._tally = PerProcess(_Tally)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"

    def at(self, location: str) -> Store:
        """A store like this one, at another location of the same bucket."""
        raise NotImplementedError

    @property
    def requests(self) -> RequestCounts:
        """What this process has asked of this store since it started."""
        return self._tally.get().snapshot()

    @property
    def traffic(self) -> Mapping[Kind, Traffic]:
        """The same in more detail, by kind."""
        return self._tally.get().traffic()

    def get(self, key: str) -> Answer:
        """Read an object: 200 with its body, or 404."""
        return self._checked("GET", key) or self._timed(
            "GET", key, lambda: self._get(key)
        )

    def put(
        self,
        key: str,
        body: bytes,
        *,
        if_none_match: bool = False,
        if_match: str = "",
        content_type: str = "application/json",
        metadata: Mapping[str, str] = _NO_METADATA,
    ) -> Answer:
        """
        Write an object, whole or not at all: 200 with its new ETag.

        With ``if_none_match`` only where no object has that key, with
        ``if_match`` only where the object has that ETag; else 412, and 404
        where ``if_match`` finds no object. 409 means that a racing write was
        under way: ask again. ``metadata`` is for people and other tools; a
        directory keeps neither it nor the content type.
        """
        if if_none_match and if_match:
            raise ValueError("put() takes if_none_match or if_match, not both")
        return self._checked("PUT", key) or self._timed(
            "PUT",
            key,
            lambda: self._put(
                key, body, if_none_match, if_match, content_type, metadata
            ),
            sent=len(body),
        )

    def delete(self, key: str, *, if_match: str = "") -> Answer:
        """
        Remove an object: 200, whether or not there was one.

        With ``if_match`` only the object with that ETag: else 412, or 404
        where there is none. Not every S3-compatible store has conditional
        deletes; ``probe`` tells.
        """
        return self._checked("DELETE", key) or self._timed(
            "DELETE", key, lambda: self._delete(key, if_match)
        )

    def list(
        self, prefix: str, *, start_after: str = "", limit: int = LIST_LIMIT
    ) -> Answer:
        """
        One page of the objects whose keys start with ``prefix``.

        In the order of their UTF-8 bytes, from the first key after
        ``start_after``, at most ``limit`` (1,000). To go on, pass the last key
        of a page that has ``more``.
        """
        if not 1 <= limit <= LIST_LIMIT:
            raise ValueError(f"limit must be between 1 and {LIST_LIMIT}, not {limit}")
        return (
            self._checked("LIST", prefix)
            or self._checked("LIST", start_after)
            or self._timed(
                "LIST", prefix, lambda: self._list(prefix, start_after, limit)
            )
        )

    def delete_many(self, keys: Sequence[str]) -> Answer:
        """
        Remove up to 1,000 objects in one request, whether or not they exist.

        Anything but 200 means that some of them may still be there.
        """
        if len(keys) > DELETE_MANY_LIMIT:
            raise ValueError(
                f"delete_many() takes at most {DELETE_MANY_LIMIT} keys, not {len(keys)}"
            )
        if not keys:
            return Answer(200)
        for key in keys:
            if refused := self._checked("DELETE", key):
                return refused
        label = keys[0] if len(keys) == 1 else f"{keys[0]} and {len(keys) - 1} more"
        return self._timed("DELETE", label, lambda: self._delete_many(keys))

    @abstractmethod
    def _get(self, key: str) -> Answer: ...

    @abstractmethod
    def _put(
        self,
        key: str,
        body: bytes,
        if_none_match: bool,
        if_match: str,
        content_type: str,
        metadata: Mapping[str, str],
    ) -> Answer: ...

    @abstractmethod
    def _delete(self, key: str, if_match: str) -> Answer: ...

    @abstractmethod
    def _list(self, prefix: str, start_after: str, limit: int) -> Answer: ...

    @abstractmethod
    def _delete_many(self, keys: Sequence[str]) -> Answer: ...

    def _checked(self, kind: Kind, key: str) -> Answer | None:
        """The answer to a key that must not be sent, or None."""
        if not key and kind != "LIST":
            return Answer(400, message="InvalidKey: a key must not be empty")
        try:
            size = len((self._prefix + key).encode())
        except UnicodeEncodeError:
            return Answer(400, message=f"InvalidKey: {key!r} is not valid Unicode")
        if size > MAX_KEY_BYTES:
            return Answer(
                400,
                message=f"KeyTooLongError: {size} bytes, S3 allows {MAX_KEY_BYTES}",
            )
        if _CONTROL.search(key):
            return Answer(400, message=f"InvalidKey: {key!r} has control characters")
        if key.startswith("/") or not _DOTS.isdisjoint(key.split("/")):
            return Answer(
                400,
                message=f"InvalidKey: {key!r} has a leading slash or a segment of dots",
            )
        return None

    def _timed(
        self, kind: Kind, key: str, send: Callable[[], Answer], *, sent: int = 0
    ) -> Answer:
        started = time.perf_counter()
        answer = send()
        seconds = time.perf_counter() - started
        self._tally.get().add(kind, seconds, sent, answer)
        if observers := _observers.get():
            request = Request(
                self.name,
                kind,
                key,
                answer.status,
                seconds,
                sent=sent,
                received=len(answer.body),
            )
            for observer in observers:
                try:
                    observer(request)
                except Exception:
                    logger.exception("An observer of store requests failed")
        return answer


_DOTS: Final = frozenset({".", ".."})
_CONTROL: Final = re.compile("[\\x00-\\x1f\\x7f\\ufffe\\uffff]")
