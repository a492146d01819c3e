"""Everything that can be found out about the store of a database."""

from __future__ import annotations

import secrets
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from s3cache.conf import DatabaseOptions
from s3cache.doctor.bucket import examine_bucket
from s3cache.doctor.findings import Finding, Level
from s3cache.doctor.prices import month
from s3cache.exceptions import EntryFormatError, LogDiverged, StoreError
from s3cache.log.head import decode_head
from s3cache.log.keys import HEAD, LOG, entry_number
from s3cache.metrics.prices import Prices
from s3cache.stores.base import Answer, Listed, Store
from s3cache.stores.failures import failure
from s3cache.stores.probe import PREFIX, probe
from s3cache.stores.s3 import S3Store

#: Requests of each kind whose times are measured.
_SAMPLES = 5

#: Seconds of a PUT above which it is worth a word: within a region it takes
#: 20 to 50 ms.
_SLOW = 0.15

#: Seconds by which the clocks of host and store may differ. S3 refuses
#: requests that are signed 900 s too early or late.
_SKEW = 60.0

#: Pages of the location that are listed at most, 1,000 objects each.
_PAGES = 20


#: Advice where the store had answered just before.
_AGAIN = "Run this again: what the store said a moment before was all right."


@dataclass(frozen=True, slots=True)
class _Contents:
    """What lies in a location, as far as it was listed."""

    objects: int
    size: int
    entries: list[Listed]
    is_complete: bool


def examine(
    store: Store, options: DatabaseOptions, *, hosts: int = 1
) -> Iterator[Finding]:
    """Look the store of a database over; nothing of it is changed.

    About forty requests, and one for each 1,000 objects of up to 20,000. A
    few objects are written below ``_probe/`` and removed. ``hosts`` is how
    many share the database, for what it costs.
    """
    suitable = _suitable(store)
    yield from suitable
    if any(finding.level is Level.ERROR for finding in suitable):
        return
    yield from _latency(store)
    before = time.time()
    answer = store.get(HEAD)
    yield from _clock(answer, before, time.time())
    yield from _database(store, answer)
    yield from _bill(store, options, hosts)
    if isinstance(store, S3Store):
        yield from examine_bucket(store)


def _suitable(store: Store) -> list[Finding]:
    try:
        found = probe(store)
    except StoreError as error:
        return [
            Finding(
                "store",
                Level.ERROR,
                str(error),
                "No database can be here before this is mended. --policy prints the "
                "permissions that suffice for a bucket.",
            )
        ]
    findings = [
        Finding(
            "store",
            Level.OK,
            f"{store.name} keeps the promises that a database needs: conditional "
            "writes, lists in order, reads of what was just written.",
        )
    ]
    if not found.conditional_delete:
        findings.append(
            Finding(
                "conditional-delete",
                Level.NOTE,
                "It does not honour DELETE with If-Match.",
                "Nothing is to be done: records that were changed from outside are "
                "left alone rather than removed.",
            )
        )
    if not found.bulk_delete:
        findings.append(
            Finding(
                "bulk-delete",
                Level.NOTE,
                "It does not delete several objects with one request.",
                "Nothing is to be done: trimming takes a request for each object.",
            )
        )
    return findings


def _latency(store: Store) -> Iterator[Finding]:
    key = f"{PREFIX}{secrets.token_hex(8)}"
    try:
        put = _median(lambda: store.put(key, b"x" * 1000))
        get = _median(lambda: store.get(key))
    except StoreError as error:
        yield Finding("latency", Level.ERROR, str(error), _AGAIN)
        return
    finally:
        store.delete(key)
    message = (
        f"A PUT takes {put * 1000:.0f} ms, a GET {get * 1000:.0f} ms "
        f"(medians of {_SAMPLES}): about {1 / put:.0f} commits a second, each of "
        "which may be of many callers."
    )
    figures = {"put_seconds": put, "get_seconds": get}
    if put > _SLOW:
        yield Finding(
            "latency",
            Level.WARNING,
            message,
            "Each write waits for a PUT: have the bucket in the region of the hosts, "
            "and no proxy or VPN on the way.",
            figures,
        )
    else:
        yield Finding("latency", Level.OK, message, figures=figures)


def _median(send: Callable[[], Answer]) -> float:
    times = []
    for _ in range(_SAMPLES):
        began = time.perf_counter()
        answer = send()
        times.append(time.perf_counter() - began)
        if not answer.ok:
            raise failure(answer, "measure its latency")
    return statistics.median(times)


def _clock(answer: Answer, before: float, after: float) -> Iterator[Finding]:
    date = answer.date
    if date is None:
        return  # the probe refuses such a store
    # Date has whole seconds, and is of a moment between the two.
    skew = max(before - date - 1.0, date - after, 0.0)
    if skew > _SKEW:
        yield Finding(
            "clock",
            Level.WARNING,
            f"The clocks of this host and of the store differ by {skew:.0f} s.",
            "Have the host's clock set by NTP: S3 refuses requests that are 900 s "
            "off. The database itself compares no clocks.",
            {"skew_seconds": skew},
        )
    else:
        yield Finding(
            "clock",
            Level.OK,
            "The clocks of this host and of the store agree.",
            figures={"skew_seconds": skew},
        )


def _database(store: Store, answer: Answer) -> Iterator[Finding]:
    if answer.status == 404 and store.list(LOG, limit=1).keys:
        yield Finding(
            "database",
            Level.ERROR,
            f"There is a log in {store.name}, but no {HEAD}: somebody deleted it, "
            "or a copy is not complete.",
            f"Bring {HEAD} back, from an older version of the object or from where "
            "the copy was made. Hosts refuse the location without it.",
        )
        return
    if answer.status == 404:
        yield Finding(
            "database",
            Level.NOTE,
            f"There is no database in {store.name} yet.",
            "'manage.py migrate' makes one.",
        )
        return
    try:
        if not answer.ok:
            raise failure(answer, f"read {HEAD}", store=store.name)
        head = decode_head(answer.body)
    except (StoreError, EntryFormatError, LogDiverged) as error:
        yield Finding(
            "database",
            Level.ERROR,
            str(error),
            f"If {HEAD} is damaged, bring back an older version of the object. "
            f"{_AGAIN}",
        )
        return
    yield Finding(
        "database",
        Level.OK,
        f"The database {head.database} was made at {head.created or '?'}. The log is "
        f"trimmed up to entry {head.trimmed}.",
        figures={"trimmed": head.trimmed},
    )


def _contents(store: Store) -> _Contents:
    objects = size = 0
    entries: list[Listed] = []
    after = ""
    for _ in range(_PAGES):
        page = store.list("", start_after=after)
        if not page.ok:
            raise failure(page, "list its keys", store=store.name)
        objects += len(page.keys)
        size += sum(listed.size for listed in page.keys)
        entries += [
            listed for listed in page.keys if entry_number(listed.key) is not None
        ]
        if not page.more:
            return _Contents(objects, size, entries, is_complete=True)
        after = page.keys[-1].key
    return _Contents(objects, size, entries, is_complete=False)


def _bill(store: Store, options: DatabaseOptions, hosts: int) -> Iterator[Finding]:
    try:
        contents = _contents(store)
    except StoreError as error:
        yield Finding("cost", Level.ERROR, str(error), _AGAIN)
        return
    rate = _commits_per_second(contents.entries)
    bill = month(
        Prices(),
        commits_per_second=rate,
        stored_bytes=contents.size,
        hosts=hosts,
        max_age=options.max_age,
    )
    yield Finding(
        "cost",
        Level.OK,
        f"At most ${bill.total:.2f} a month for {hosts} "
        f"{'host that is' if hosts == 1 else 'hosts that are'} busy all day, at list "
        f"prices of S3 Standard: ${bill.commits:.2f} for {rate * 86_400:,.0f} commits "
        f"a day, ${bill.asking:.2f} for asking for news every {options.max_age:g} s, "
        f"${bill.storage:.2f} for "
        f"{'' if contents.is_complete else 'more than '}{contents.size / 1e6:,.1f} MB "
        f"in {contents.objects:,} objects.",
        figures={
            "commits_per_day": rate * 86_400,
            "objects": contents.objects,
            "stored_bytes": contents.size,
            "commits_dollars": bill.commits,
            "asking_dollars": bill.asking,
            "storage_dollars": bill.storage,
            "month_dollars": bill.total,
        },
    )


def _commits_per_second(entries: list[Listed]) -> float:
    """The rate of the log's entries that were listed.

    Of less than an hour nothing can be said, and is taken for an hour.
    """
    if len(entries) < 2:
        return 0.0
    span = max(e.modified for e in entries) - min(e.modified for e in entries)
    return (len(entries) - 1) / max(span, 3600.0)
