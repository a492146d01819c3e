"""What hosts tell each other, through a cache that they share.

Now and then one process of each host puts its host's page, the totals and
where its replicas are, into the cache, and reads those of the others. What
they have counted since it last did goes into its own book, so whoever shows
the numbers of the fleet reads one local file. A host that tells nothing more
is shown for as long as the cache keeps its page.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import socket
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec
from django.conf import settings
from django.core.cache import BaseCache, caches
from django.core.cache.backends.memcached import BaseMemcachedCache
from django.core.cache.backends.redis import RedisCache

from s3cache import conf
from s3cache.caches import redis
from s3cache.metrics.book import MODEL_WIDTHS, MONTH, WIDTHS, Book, Page, Writer
from s3cache.metrics.processes import ProcessPage, caches_of, read_processes
from s3cache.metrics.series import by_model, by_series, sums_of
from s3cache.metrics.tally import (
    CacheState,
    Groups,
    Tally,
    add_groups,
    difference,
    flat,
    replicas,
)

__all__ = [
    "EVERY",
    "KEPT",
    "HostPage",
    "exchange",
    "host_name",
    "host_page",
    "read_hosts",
    "shared_cache",
    "take_turn",
]

logger = logging.getLogger("s3cache.metrics")

EVERY: Final = 30.0
"""Seconds between two times that a host tells the others."""

#: Seconds that the cache keeps what a host said.
KEPT: Final = 150

#: What a host missed for longer than this is spread evenly over the time.
_LUMP: Final = 300

#: Seconds for which a host that is not heard of is remembered, so that what
#: it goes on to tell is not counted twice.
_REMEMBERED: Final = MONTH

#: More hosts than this are not told of.
_MOST_HOSTS: Final = 500

#: Not one of those of results: who clears them keeps the figures.
_PREFIX: Final = "s3cache.metrics"


class HostPage(msgspec.Struct, frozen=True):
    """What a host says of itself."""

    host: str
    #: When its book was begun: another one has other totals
    began: float
    processes: int
    positions: dict[str, int]
    replica_bytes: int
    memory: int | None
    reads: dict[str, int]
    requests: int
    #: MessagePack of its own, so that who only shows the rest need not read it
    totals: bytes
    caches: list[CacheState]


_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(HostPage).decode
_decode_names: Final = msgspec.msgpack.Decoder(list[str]).decode
_decode_totals: Final = msgspec.msgpack.Decoder(
    list[tuple[tuple[str, str, str], dict[str, float]]]
).decode


def read_hosts(pages: Iterable[Page], now: float) -> list[tuple[Page, HostPage]]:
    """The other hosts that have told something lately."""
    found = []
    for one in pages:
        if abs(now - one.seen) <= KEPT:
            with contextlib.suppress(msgspec.MsgspecError):  # of another release
                found.append((one, _decode(one.content)))
    return found


def _totals(page: HostPage) -> Groups:
    return dict(_decode_totals(page.totals))


def shared_cache() -> BaseCache | None:
    """The cache through which hosts tell each other, if there is one.

    That of ``S3CACHE["METRICS_CACHE"]``, or else that of results if it is a
    Redis or memcached. Nothing is put into others without being told to: a
    cache in a bucket would cost requests, one in files reaches no other host.
    """
    named = conf.settings().metrics_cache
    if named is not None:
        return caches[named]
    alias = conf.settings().cache
    if alias is None or alias not in settings.CACHES:
        return None
    cache = caches[alias]
    if redis.is_redis(cache) or isinstance(cache, RedisCache | BaseMemcachedCache):
        return cache
    return None


def host_name(book: Book) -> str:
    """What this host is called: two projects on a machine are two."""
    digest = hashlib.blake2b(str(book.path).encode(), digest_size=3).hexdigest()
    return f"{socket.gethostname()}-{digest}"


def take_turn(writer: Writer, now: float) -> bool:
    """Whether it is time to tell other hosts; then it is the caller's turn."""
    turns = {page.name: page.seen for page in writer.pages("turn")}
    if abs(now - turns.get("exchange", 0.0)) < EVERY:
        return False
    writer.write_page("turn", "exchange", b"")
    return True


def exchange(book: Book) -> None:
    """Tell the other hosts, and add to the book what they told.

    What goes wrong is logged: the numbers of this host are in its book.
    """
    try:
        cache = shared_cache()
        if cache is None:
            return
        name = host_name(book)
        _tell(cache, name, _encode(_own_page(book)))
        heard = _hear(cache, name)
    except Exception as error:
        # Any cache serves, so any error is possible.
        logger.warning("Hosts cannot tell each other what they counted: %s", error)
        return
    now = time.time()
    with book.writing(now) as writer:
        _add(writer, heard, now)


def _own_page(book: Book) -> HostPage:
    """What this host tells the others."""
    with book.reading() as reader:
        totals = reader.totals("host")
        marks = reader.marks()
        processes = read_processes(reader.pages("process"), time.time())
    page = host_page(book, marks, totals, processes)
    return msgspec.structs.replace(page, totals=_encode(list(totals.items())))


def host_page(
    book: Book,
    marks: Mapping[str, float],
    totals: Groups,
    processes: Sequence[tuple[Page, ProcessPage]],
) -> HostPage:
    """What this host says of itself, by its numbers, without those."""
    opened = replicas()
    reads, requests = sums_of(totals)
    memory = [one.memory for _, one in processes if one.memory is not None]
    return HostPage(
        host=host_name(book),
        began=marks.get("began", 0.0),
        processes=len(processes),
        positions={alias: one.side.number for alias, one in opened.items()},
        replica_bytes=sum(one.size() for one in opened.values()),
        memory=sum(memory) if memory else None,
        reads=reads,
        requests=requests,
        totals=b"",
        caches=caches_of(processes),
    )


def _key(*words: str) -> str:
    """A key that other projects on the same cache do not use."""
    databases: Any = settings.DATABASES
    stores = sorted(
        str(databases[alias].get("OPTIONS", {}).get("storage"))
        for alias in conf.bucket_aliases()
        if alias in databases
    )
    digest = hashlib.blake2b(repr(stores).encode(), digest_size=8).hexdigest()
    return ":".join([_PREFIX, digest, *words])


def _tell(cache: BaseCache, name: str, content: bytes) -> None:
    cache.set(_key("host", name), content, KEPT)
    names = _names(cache)
    if name not in names:
        # Whoever is lost because two do this at once does it again.
        cache.set(_key("hosts"), _encode([*names, name][-_MOST_HOSTS:]), None)


def _names(cache: BaseCache) -> list[str]:
    found = cache.get(_key("hosts"))
    try:
        return _decode_names(found) if isinstance(found, bytes) else []
    except msgspec.MsgspecError:
        return []


def _hear(cache: BaseCache, own: str) -> dict[str, bytes]:
    """What the others said, by their names; who is gone is forgotten."""
    names = _names(cache)
    others = {_key("host", name): name for name in names if name != own}
    found = cache.get_many(others)
    heard = {
        others[key]: content
        for key, content in found.items()
        if isinstance(content, bytes)
    }
    if len(heard) < len(others):
        known = [name for name in names if name in (own, *heard)]
        cache.set(_key("hosts"), _encode(known), None)
    return heard


def _add(writer: Writer, heard: dict[str, bytes], now: float) -> None:
    """Add what others have counted since they were last heard."""
    lately: Groups = {}
    heard_last = {page.name: page for page in writer.pages("told")}
    for name, content in heard.items():
        last = heard_last.get(name)
        if last is not None and last.content == content:
            continue
        try:
            page = _decode(content)
            change = _since(page, last)
        except msgspec.MsgspecError as error:
            logger.warning("What the host %s told cannot be read: %s", name, error)
            continue
        writer.write_page("told", name, content)
        # What is shown of it, without numbers that may be many.
        shown = msgspec.structs.replace(page, totals=b"")
        writer.write_page("host", name, _encode(shown))
        if last is not None and now - last.seen <= _LUMP:
            add_groups(lately, change)  # all of them at once
            continue
        writer.add("others", flat(change))
        if last is not None:
            # Of a new one nobody knows when it counted what it has.
            _add_to_history(writer, flat(change), last.seen, now)
    writer.add("others", flat(lately))
    _add_to_history(writer, flat(lately), now, now)
    forgotten = _forgotten(writer.pages("host"), now)
    for kind in ("told", "host"):
        writer.delete_pages(kind, forgotten)


def _since(page: HostPage, last: Page | None) -> Groups:
    """What a host has counted since it told that, None: ever."""
    totals, known = _totals(page), {}
    if last is not None:
        try:
            before = _decode(last.content)
            # What was counted in another book is added already.
            known = _totals(before) if before.began == page.began else {}
        except msgspec.MsgspecError:  # of another release: begin with this one
            known = totals
    return {
        key: difference(numbers, known.get(key, {}))
        for key, numbers in totals.items()
        if numbers != known.get(key)
    }


def _forgotten(pages: Iterable[Page], now: float) -> list[str]:
    """Those not heard of for long, and the first to go of too many."""
    newest = sorted(pages, key=lambda page: abs(now - page.seen))
    return [
        page.name
        for number, page in enumerate(newest)
        if number >= _MOST_HOSTS or abs(now - page.seen) > _REMEMBERED
    ]


def _add_to_history(writer: Writer, change: Tally, since: float, now: float) -> None:
    series, models = by_series(change), by_model(change)
    for width, kept in WIDTHS.items():
        moments, number = _spread(since, now, width, kept)
        for of, numbers in series.items():
            share = _share(numbers, number)
            for at in moments:
                writer.add_bucket("others", width, of, at, share)
    for width, kept in MODEL_WIDTHS.items():
        moments, number = _spread(since, now, width, kept)
        for alias, by_label in models.items():
            shares = {one: _share(its, number) for one, its in by_label.items()}
            for at in moments:
                writer.add_models("others", width, alias, at, shares)


def _spread(since: float, now: float, width: int, kept: int) -> tuple[list[float], int]:
    """One moment in each bucket that is kept, and among how many to share it.

    Of what was long ago nothing is left in narrow buckets.
    """
    if now - since <= _LUMP:
        return [now], 1
    number = 1 + int((now - since) // width)
    return [now - step * width for step in range(min(number, kept // width))], number


def _share(numbers: Mapping[str, float], number: int) -> Mapping[str, float]:
    return {name: one / number for name, one in numbers.items()}
