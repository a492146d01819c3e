"""The last commits: from the replica, or with their times from the log."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final, cast

from django.core.exceptions import ImproperlyConfigured
from django.db import Error, connections
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from s3cache import conf
from s3cache.dashboard import numbers
from s3cache.db.base import DatabaseWrapper
from s3cache.keeper.past import Past
from s3cache.log.catch_up import AT_ONCE
from s3cache.log.history import Logged, summary
from s3cache.replica import meta

logger = logging.getLogger("s3cache.dashboard")

__all__ = ["UNUSABLE", "Commit", "last_commits"]

#: What a database raises that cannot be opened, or not be read.
UNUSABLE: Final = (Error, sqlite3.Error, ImproperlyConfigured, OSError)

#: Commits that are shown of one database, from its replica.
SHOWN: Final = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """
    One entry of the log; ``changes`` say which rows, in words.

    ``at`` (the store's clock, epoch seconds) and ``transactions`` are in the
    log alone.
    """

    number: int
    host: str
    changes: Sequence[str]
    is_schema: bool = False
    at: float | None = None
    transactions: int | None = None


def last_commits(
    database: str | None, *, with_times: bool
) -> Iterator[tuple[str, list[Commit], str]]:
    """
    Of each database its last commits, the newest first, or why there are none.

    Without times they are read from the replica, and the store is asked for
    nothing; with them each is one GET, ``AT_ONCE`` of them at the same time,
    and ``_head`` one more.
    """
    for alias in conf.bucket_aliases():
        if database not in (None, alias):
            continue
        try:
            connection = cast(DatabaseWrapper, connections[alias])
            read = _from_log if with_times else _from_replica
            yield alias, read(connection), ""
        except UNUSABLE as error:
            # What it says may name a bucket: that is for the log.
            logger.warning("The commits of %s cannot be read: %s", alias, error)
            yield alias, [], type(error).__name__


def _from_replica(connection: DatabaseWrapper) -> list[Commit]:
    connection.refresh()
    replica = connection.replica
    reader = replica.new_reader()
    try:
        with reader.held() as held:
            found = meta.read_newest(held, SHOWN)
    finally:
        replica.give_back(reader)
    return [
        Commit(
            number=one.number,
            host=one.host,
            changes=[
                _("%(table)s: all rows") % {"table": table}
                if keys is None
                else _of(table, len(keys))
                for table, keys in sorted(one.touched.keys.items())
            ],
            is_schema=one.touched.schema,
        )
        for one in found
    ]


def _from_log(connection: DatabaseWrapper) -> list[Commit]:
    connection.refresh()
    return [_logged(one) for one in islice(Past(connection.replica).entries(), AT_ONCE)]


def _logged(one: Logged) -> Commit:
    told = summary(one.entry)
    return Commit(
        number=one.entry.number,
        host=one.entry.host,
        changes=[
            _of(table, told.rows[table] + told.deleted[table])
            for table in sorted(told.rows)
        ],
        is_schema=bool(told.statements),
        at=one.at,
        transactions=one.entry.transactions,
    )


def _of(table: str, count: int) -> str:
    return ngettext(
        "%(table)s: %(number)s row", "%(table)s: %(number)s rows", count
    ) % {
        "table": table,
        "number": numbers.number(count),
    }
