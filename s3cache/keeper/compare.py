"""Comparing a replica with one that is made anew from the bucket."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from itertools import zip_longest

from s3cache.keeper.performer import KeeperPerformer
from s3cache.keeper.verify import Finding, Remedy
from s3cache.log.catalog import Segment
from s3cache.log.catch_up import catch_up
from s3cache.log.keys import entry_key
from s3cache.replica import meta
from s3cache.replica.applying import read_sequences
from s3cache.replica.file import beside, delete_file
from s3cache.replica.packs import make_pack, read_statements
from s3cache.replica.replica import Replica, forget_replica, replica_at
from s3cache.replica.tables import Schema, read_schema, schema_version

#: Bytes of rows that are compared at once.
AT_ONCE = 4 * 1024 * 1024

#: Seconds to wait for a keeper of this host.
WAIT = 600.0

#: How often both are brought to the newest entry until they meet there.
TRIES = 10


def verify_replica(replica: Replica) -> list[Finding]:
    """Whether ``replica`` holds what the bucket says, and no loose ends.

    Makes another replica beside it for a while. Raises ``LogDiverged`` or
    ``EntryFormatError`` if none can be made.
    """
    path = beside(replica.path, KeeperPerformer.kind)
    fresh = replica_at(path, replica.options, replica.store)
    try:
        with contextlib.ExitStack() as held:
            # A keeper would take the other one for something left behind.
            held.enter_context(replica.side.keeping.held(WAIT))
            one, two = _meet(replica, fresh, held)
            return [*_differences(replica, one, two), *_orphans(one)]
    finally:
        forget_replica(path)
        delete_file(path)


def _meet(
    replica: Replica, fresh: Replica, held: contextlib.ExitStack
) -> tuple[sqlite3.Connection, sqlite3.Connection]:
    """A transaction on each, both at the same entry."""
    for _ in range(TRIES):
        numbers, found = [], []
        with contextlib.ExitStack() as attempt:
            for one in (fresh, replica):
                one.run(catch_up(one.options.signing_keys))
                one.load()
                copy = sqlite3.connect(":memory:", isolation_level=None)
                attempt.callback(copy.close)
                one.copy_to(copy)
                numbers.append(meta.read_position(copy).number)
                found.append(copy)
            if len(set(numbers)) == 1:
                held.push(attempt.pop_all())
                return found[1], found[0]
    raise sqlite3.OperationalError("commits came too fast to compare the replica")


def _differences(
    replica: Replica, one: sqlite3.Connection, two: sqlite3.Connection
) -> Iterator[Finding]:
    def differs(what: str) -> Finding:
        message = (
            f"the replica {replica.path.name} is at this entry, and {what} not "
            f"what the bucket says."
        )
        number = meta.read_position(one).number
        return Finding(entry_key(number), message, Remedy.REBUILD)

    if sorted(read_statements(one)) != sorted(read_statements(two)):
        yield differs("its schema is")
        return
    if read_sequences(one) != read_sequences(two):
        yield differs("where its ids go on is")
    schema = read_schema(one, schema_version(one))
    for table in schema:
        pairs = zip_longest(
            _parts(one, schema, table.name), _parts(two, schema, table.name)
        )
        if any(mine != theirs for mine, theirs in pairs):
            yield differs(f"its rows of {table.name} are")


def _parts(
    connection: sqlite3.Connection, schema: Schema, table: str
) -> Iterator[bytes]:
    rest = [Segment(table)]
    while rest:
        packed = make_pack(connection, schema, rest, AT_ONCE)
        rest = list(packed.rest)
        yield packed.raw


def _orphans(connection: sqlite3.Connection) -> Iterator[Finding]:
    """Rows that refer to rows that are not there."""
    number = meta.read_position(connection).number
    for table, rowid, parent, _key in connection.execute("PRAGMA foreign_key_check"):
        message = (
            f"at this entry the row of {table} with rowid {rowid} refers to a row "
            f"of {parent} that is not there."
        )
        yield Finding(entry_key(number), message)
