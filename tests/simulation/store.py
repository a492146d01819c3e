"""A bucket in memory, and the network before it."""

from __future__ import annotations

import hashlib
from bisect import bisect_right, insort
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from s3cache.log.keys import HEAD, LOG
from s3cache.stores.base import Answer, Listed

from .world import World

EPOCH = 1_700_000_000.0
DAY = 86400.0


@dataclass(frozen=True, slots=True)
class Object:
    """One object; ``origin`` is the write whose request created it."""

    body: bytes
    etag: str
    modified: float
    origin: object


@dataclass(frozen=True, slots=True)
class Request:
    """One request: GET, LIST, CREATE, REPLACE, REMOVE or DELETE."""

    kind: str
    key: str
    body: bytes = b""
    etag: str = ""
    keys: Sequence[str] = ()
    origin: object = None

    def __str__(self) -> str:
        return f"{self.kind} {self.key or ' '.join(self.keys)}"


@dataclass(frozen=True, slots=True)
class Faults:
    """How often what goes wrong, from 0 to 1, and how long things take.

    Times are in seconds. ``stale`` requests land hours or days later, and the
    machines that the store consists of differ by up to ``skew``.
    """

    lost_request: float = 0.0
    lost_answer: float = 0.0
    late: float = 0.0
    stale: float = 0.0
    error_before: float = 0.0
    error_after: float = 0.0
    conflict: float = 0.0
    duplicate: float = 0.0
    refused: float = 0.0
    no_date: float = 0.0
    skew: float = 0.0
    timeout: float = 4.0


NO_FAULTS = Faults()


class Store:
    """Strongly consistent, atomic for each object, like S3."""

    def __init__(self, world: World, *, whole_seconds: bool, page_size: int) -> None:
        self.world = world
        self.objects: dict[str, Object] = {}
        self.on_created: Callable[[str, Object], None] = lambda key, made: None
        self.on_changed: Callable[[str, Object | None, Object | None], None] = (
            lambda key, before, after: None
        )
        self._keys: list[str] = []
        self._whole_seconds = whole_seconds
        self._page_size = page_size

    def clock(self) -> float:
        """The store's time, as HTTP tells it."""
        now = EPOCH + self.world.now
        return float(int(now)) if self._whole_seconds else now

    def perform(self, request: Request) -> Answer:
        """Let ``request`` have its effect, now and at once."""
        kind, key = request.kind, request.key
        date = self.clock()
        found = self.objects.get(key)
        if kind == "GET":
            if found is None:
                return Answer(404, date=date)
            return Answer(200, found.body, found.etag, date, found.modified)
        if kind == "LIST":
            return self._list(key, request.etag)
        if kind == "DELETE":
            for doomed in request.keys:
                self.remove(doomed)
            return Answer(200, date=date)
        if kind == "CREATE" and found is not None:
            return Answer(412, date=date)
        if kind in ("REPLACE", "REMOVE"):
            if found is None:
                return Answer(404, date=date)
            if found.etag != request.etag:
                return Answer(412, date=date)
        if kind == "REMOVE":
            self.on_changed(key, found, None)
            self.remove(key)
            return Answer(200, date=date)
        self.on_changed(key, found, Object(request.body, "", date, None))
        made = self.put(key, request.body, request.origin)
        return Answer(200, etag=made.etag, date=date)

    def put(self, key: str, body: bytes, origin: object = None) -> Object:
        """Store an object, whatever was there."""
        etag = f'"{hashlib.md5(body, usedforsecurity=False).hexdigest()}"'
        made = Object(body, etag, self.clock(), origin)
        if key not in self.objects:
            insort(self._keys, key)
        self.objects[key] = made
        if key == HEAD or key.startswith(LOG):
            self.on_created(key, made)
        return made

    def snapshot(self) -> dict[str, Object]:
        """All objects as they are."""
        return dict(self.objects)

    def restore(self, objects: dict[str, Object], *, copied: bool) -> None:
        """Make the bucket what it once was.

        A copy of an object is a new one: its ETag and time are its own.
        """
        now = self.clock()
        self.objects = {
            key: replace(one, etag=f'{one.etag[:-1]}-{now}"', modified=now)
            if copied
            else one
            for key, one in objects.items()
        }
        self._keys = sorted(self.objects)

    def remove(self, key: str) -> None:
        """Delete an object, if there is one."""
        if self.objects.pop(key, None) is not None:
            self._keys.remove(key)

    def _list(self, prefix: str, start_after: str) -> Answer:
        start = bisect_right(self._keys, max(start_after, prefix))
        keys = []
        for key in self._keys[start : start + self._page_size + 1]:
            if not key.startswith(prefix):
                break
            keys.append(key)
        page = keys[: self._page_size]
        return Answer(
            200,
            date=self.clock(),
            keys=tuple(
                Listed(k, o.etag, len(o.body), o.modified)
                for k in page
                for o in [self.objects[k]]
            ),
            more=len(keys) > len(page),
        )


class Network:
    """What lies between a host and the store."""

    def __init__(self, world: World, store: Store, faults: Faults) -> None:
        self.world = world
        self.store = store
        self.faults = faults
        #: Told of each request with an effect, and how it came if not usually.
        self.on_landing: Callable[[object, Request, str], None] = (
            lambda who, request, how: None
        )

    def send(
        self, who: object, request: Request, latency: float, reply: Callable[..., None]
    ) -> None:
        """Bring ``request`` to the store, and an answer to ``reply``.

        ``latency`` is half of a usual round trip. What goes wrong is decided
        here, once; the rest follows.
        """
        world, random, faults = self.world, self.world.random, self.faults
        there = latency * (0.5 + random.random())
        back = latency * (0.5 + random.random())
        if faults is NO_FAULTS:
            world.after(there, self._land, who, request, reply, back)
            return
        fate = random.random()

        def happens(share: float) -> bool:
            nonlocal fate
            fate -= share
            return fate < 0

        silent = random.choice([there + back, faults.timeout])
        if happens(faults.lost_request):
            world.after(silent, self._answer, who, request, reply, Answer(0))
        elif happens(faults.lost_answer):
            world.after(there, self._land, who, request, None, 0.0)
            world.after(silent, self._answer, who, request, reply, Answer(0))
        elif happens(faults.late):
            late = random.choice([2 * faults.timeout, 10 * faults.timeout, 600.0])
            world.after(
                late * random.random(), self._land, who, request, None, 0.0, "late "
            )
            world.after(silent, self._answer, who, request, reply, Answer(0))
        elif happens(faults.stale):
            days = random.choice([0.04, 0.5, 1.0, 1.01, 2.0, 3.0])
            late = days * DAY * (0.9 + 0.2 * random.random())
            world.after(late, self._land, who, request, None, 0.0, "stale ")
            if random.random() < 0.5:
                world.after(silent, self._answer, who, request, reply, Answer(0))
            else:  # a copy, of which nobody knows
                world.after(there, self._land, who, request, reply, back)
        elif happens(faults.error_before):
            status = random.choice([500, 503, 503, 429])
            world.after(there + back, self._answer, who, request, reply, Answer(status))
        elif happens(faults.error_after):
            status = random.choice([500, 502, 504])
            world.after(there, self._land, who, request, None, 0.0)
            world.after(there + back, self._answer, who, request, reply, Answer(status))
        elif happens(faults.conflict) and request.kind in ("CREATE", "REPLACE"):
            # Another request for the key is under way; it may be our own copy.
            if random.random() < 0.5:
                copy = (there + back) * random.choice([0.5, 2.0])
                world.after(copy, self._land, who, request, None, 0.0, "copy of ")
            world.after(there + back, self._answer, who, request, reply, Answer(409))
        elif happens(faults.duplicate):
            # A proxy repeats what it sends; either answer may be the one.
            again = there * (1 + 3 * random.random())
            first, second = (reply, None) if random.random() < 0.5 else (None, reply)
            world.after(there, self._land, who, request, first, back)
            world.after(again, self._land, who, request, second, back, "copy of ")
        elif happens(faults.refused):
            world.after(there + back, self._answer, who, request, reply, Answer(403))
        else:
            world.after(there, self._land, who, request, reply, back)

    def _land(
        self,
        who: object,
        request: Request,
        reply: Callable[..., None] | None,
        back: float,
        how: str = "",
    ) -> None:
        self.on_landing(who, request, how)
        answer = self.store.perform(request)
        if self.world.tracing:
            unheard = "" if reply else ", and nobody hears it"
            self.world.note(
                who, f"  the store: {how}{request} -> {answer.status}{unheard}"
            )
        if reply is None:
            return
        if self.world.chance(self.faults.no_date):
            answer = Answer(
                answer.status,
                answer.body,
                answer.etag,
                None,
                None,
                answer.keys,
                answer.more,
            )
        elif self.faults.skew and answer.date is not None:
            skew = self.faults.skew * (2 * self.world.random.random() - 1)
            answer = replace(answer, date=answer.date + skew)
        self.world.after(back, reply, answer)

    def _answer(
        self, who: object, request: Request, reply: Callable[..., None], answer: Answer
    ) -> None:
        reply(answer)
