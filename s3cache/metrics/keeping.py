"""Adding what this process counts to its host's book, by ordinary operations.

Every few seconds, when a request ends or a database is used, what was counted
since the last time goes into the book, in one transaction of a few
milliseconds; and once more when the process ends. A process that is killed
takes with it what it counted since the last time: `INTERVAL` seconds, or what
the operation under way has done since.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import multiprocessing
import multiprocessing.util
import os
import secrets
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from django.core.signals import request_finished
from django.db import connections

from s3cache import conf
from s3cache.db.creation import STORE_DIRECTORY
from s3cache.metrics import fleet
from s3cache.metrics.advice import warn
from s3cache.metrics.book import (
    LAST_PATIENCE,
    MODEL_WIDTHS,
    WIDTHS,
    Book,
    Page,
    Writer,
    book_at,
)
from s3cache.metrics.processes import ProcessPage, encode, gone, page_of
from s3cache.metrics.series import by_model, by_series
from s3cache.metrics.tally import (
    Tally,
    difference,
    replicas,
    take_tally,
    watch_connections,
)
from s3cache.results.queries import Statement, queries
from s3cache.upkeep import every, upkeep

__all__ = ["INTERVAL", "book", "flush", "own_name", "own_process", "pending", "start"]

logger = logging.getLogger("s3cache.metrics")

INTERVAL: Final = 5.0
"""Seconds between two times that a process adds to the book."""


@dataclass(frozen=True, slots=True)
class _Counted:
    """What a process has counted at one moment."""

    tally: Tally = field(default_factory=dict)
    statements: Mapping[tuple[str, str], Statement] = field(default_factory=dict)
    slow: int = 0
    """How many slow reads it has noted."""


class _Kept:
    """What this process has added already."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.lock = threading.Lock()
        self.added = _Counted()
        self.started = time.time()
        self.token = secrets.token_hex(4)
        #: Whether it runs a project's tests, which are nobody's numbers; to
        #: its end, when its databases have their own names again.
        self.is_testing = False

    @property
    def name(self) -> str:
        """What the process is called in the book."""
        return f"{self.pid}-{self.token}"


_kept = _Kept()


def _here() -> _Kept:
    """That of this process: a child of a fork has added nothing."""
    global _kept
    if _kept.pid != os.getpid():
        _kept = _Kept()
        if multiprocessing.parent_process() is not None:
            # It ends without running what is registered with atexit.
            multiprocessing.util.Finalize(None, _finish, exitpriority=0)
    return _kept


def start() -> None:
    """Begin to keep the book; the process has its settings."""
    watch_connections()
    every(INTERVAL, flush)
    every(INTERVAL, _warn)
    request_finished.connect(_request_finished, dispatch_uid="s3cache.metrics")
    atexit.register(_finish)


def _request_finished(**kwargs: Any) -> None:
    upkeep()


def book() -> Book | None:
    """The book of this host, beside the replica of the first database.

    None without such a database, if ``S3CACHE["METRICS"]`` is False, if there
    is no directory for it, and in a process that runs a project's tests.
    """
    kept = _here()
    if not conf.settings().metrics or kept.is_testing:
        return None
    for alias in conf.bucket_aliases()[:1]:
        # Not connections[alias]: a thread that has no connection gets none.
        database = connections.settings[alias]
        if STORE_DIRECTORY in database:
            kept.is_testing = True
            return None
        path = Path(database["NAME"])
        if path.parent.is_dir():
            return book_at(path.resolve().with_name(f"{path.name}-metrics"))
    return None


def _warn() -> None:
    """Look at the hit rates, once a minute on a host."""
    to = book()
    if to is not None:
        warn(to)


def pending() -> Tally:
    """What this process has counted and not added yet."""
    kept = _here()
    with kept.lock:
        return difference(take_tally(), kept.added.tally)


def flush() -> bool:
    """Add what this process has counted; False if that cannot be done now.

    Nothing is lost then: it is added later. Another thread that is at it is
    not waited for.
    """
    try:
        kept, to = _here(), book()
        return to is not None and _add(kept, to)
    except (OSError, sqlite3.Error) as error:
        logger.warning("What was counted cannot be kept now: %s", error)
        return False


def _add(kept: _Kept, to: Book, *, at_the_end: bool = False) -> bool:
    if not kept.lock.acquire(blocking=at_the_end):
        return False
    try:
        now, before = time.time(), kept.added
        number, slow = queries.slow(before.slow)
        counted = _Counted(take_tally(), queries.statements(), number)
        with to.writing(now, LAST_PATIENCE if at_the_end else None) as writer:
            _write(writer, now, difference(counted.tally, before.tally))
            writer.add_statements(_read_since(before.statements, counted.statements))
            writer.add_slow(slow)
            is_turn = not at_the_end and fleet.take_turn(writer, now)
            _write_process(writer, kept, now, None if at_the_end else counted.tally)
        kept.added = counted
    finally:
        kept.lock.release()
    if is_turn:
        fleet.exchange(to)
    return True


def _write(writer: Writer, now: float, change: Tally) -> None:
    """Add what was counted."""
    writer.add("host", change)
    for of, numbers in by_series(change).items():
        for width in WIDTHS:
            writer.add_bucket("host", width, of, now, numbers)
    for alias, models in by_model(change).items():
        for width in MODEL_WIDTHS:
            writer.add_models("host", width, alias, now, models)
    for alias, replica in replicas().items():
        for name, number in replica.reached.items():
            writer.mark(f"{name} {alias}", number)


def _read_since(
    before: Mapping[tuple[str, str], Statement],
    now: Mapping[tuple[str, str], Statement],
) -> Iterator[Statement]:
    for key, one in now.items():
        change = one.since(before.get(key))
        if change.number:
            yield change


def _write_process(
    writer: Writer, kept: _Kept, now: float, tally: Tally | None
) -> None:
    """What this process says of itself, None: it ends."""
    marks = writer.marks()
    since = marks.get("since", min(kept.started, now))
    for name in ("began", "since"):  # the second one, until somebody resets it
        if name not in marks:
            writer.mark(name, since)
    pages = writer.pages("process")
    writer.delete_pages("process", gone(pages, now))
    if tally is None:
        writer.delete_pages("process", [kept.name])
    else:
        page = page_of(kept.pid, kept.started, tally)
        writer.write_page("process", kept.name, encode(page))


def own_name() -> str:
    """What this process is called in the book."""
    return _here().name


def own_process() -> tuple[Page, ProcessPage]:
    """This one, as it is now."""
    kept = _here()
    page = page_of(kept.pid, kept.started, take_tally())
    return Page(kept.name, time.time(), b""), page


def _finish() -> None:
    """Add the rest, at the end of the process."""
    # Whatever this comes too late for, it must not disturb the end.
    with contextlib.suppress(Exception):
        kept, to = _here(), book()
        if to is not None and (to.path.exists() or pending()):
            _add(kept, to, at_the_end=True)
