"""Plain SQLite is the oracle: both replicas have to come to the same.

Random statements run on an ordinary database, and on a host that captures
what they change. The entries go, as bytes, to another host. In the end all
three have the same rows in the same natural order, and the same sequences.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from s3cache.log.entry import seal, unseal
from s3cache.replica.connections import connect
from s3cache.replica.delta import Delta
from tests.replica.hosts import Host

#: Tables with the columns id, u and v.
TABLES = [
    "(id INTEGER PRIMARY KEY, u UNIQUE, v)",
    "(id INTEGER PRIMARY KEY AUTOINCREMENT, u UNIQUE, v)",
    "(id INTEGER PRIMARY KEY DESC, u UNIQUE, v)",
    "(id INT PRIMARY KEY, u UNIQUE, v)",
    "(id TEXT PRIMARY KEY, u UNIQUE, v)",
    "(id TEXT COLLATE NOCASE PRIMARY KEY, u TEXT UNIQUE, v REAL)",
    "(id, u, v, PRIMARY KEY (u, id))",
    "(id, u UNIQUE, v)",
    "(id INTEGER PRIMARY KEY, u UNIQUE, v, g AS (coalesce(u, v)) STORED)",
    "(id TEXT PRIMARY KEY, u UNIQUE, v, rowid TEXT DEFAULT 'x')",
    "(id INTEGER PRIMARY KEY, u UNIQUE, v) WITHOUT ROWID",
    "(id, u, v, PRIMARY KEY (u, id)) WITHOUT ROWID",
    "(id TEXT COLLATE NOCASE PRIMARY KEY, u UNIQUE, v) WITHOUT ROWID",
]

ids = st.one_of(st.none(), st.integers(-1, 4), st.sampled_from([1.5, "a", "A"]))
values = st.one_of(
    st.none(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    st.sampled_from(["", "a", "A", "1", "\0", "é"]),
    st.binary(max_size=3),
)
clashes = st.sampled_from(["OR ABORT", "OR IGNORE", "OR REPLACE", "OR FAIL"])
tables = st.sampled_from(TABLES)

Step = tuple[str, tuple[Any, ...]]


@st.composite
def steps(draw: st.DrawFn) -> Step:
    a, b, u, v = draw(ids), draw(ids), draw(ids), draw(values)
    statements: list[Step] = [
        ("INSERT OR ABORT INTO t (id, u, v) VALUES (?, ?, ?)", (a, u, v)),
        ("INSERT OR ABORT INTO t (u, v) VALUES (?, ?), (?, ?)", (u, v, b, v)),
        ("INSERT OR ABORT INTO t (u, v) SELECT v, u FROM t ORDER BY id LIMIT 2", ()),
        ("UPDATE OR ABORT t SET v = ?, u = ? WHERE id IS ?", (v, u, a)),
        ("UPDATE OR ABORT t SET id = ? WHERE id IS ?", (b, a)),
        ("UPDATE t SET u = CASE id WHEN ? THEN ? ELSE u END", (a, b)),
        ("UPDATE t SET v = id, u = v WHERE u IS ?", (u,)),
        ("INSERT INTO t (id, u, v) VALUES (?, ?, ?) ON CONFLICT DO NOTHING", (a, u, v)),
        ("DELETE FROM t WHERE id IS ?", (a,)),
        ("DELETE FROM t WHERE u > ?", (u,)),
        ("DELETE FROM t", ()),
    ]
    sql, params = draw(st.sampled_from(statements))
    return sql.replace("OR ABORT", draw(clashes)), params


@contextmanager
def hosts(definition: str) -> Iterator[tuple[sqlite3.Connection, Host, Host]]:
    """An ordinary database and two hosts, with the table."""
    with TemporaryDirectory() as folder:
        plain = connect(Path(folder) / "plain.sqlite3")
        host, other = (Host(Path(folder) / name) for name in ("host", "other"))
        try:
            ddl = f"CREATE TABLE t {definition}"
            plain.execute(ddl)
            other.apply(host.create(ddl))
            yield plain, host, other
        finally:
            host.close()
            other.close()
            plain.close()


def tried(connection: sqlite3.Connection, run: Callable[[], Any]) -> Any:
    """How many rows it changed, or its error, which leaves nothing behind."""
    connection.execute("SAVEPOINT statement")
    try:
        return run().rowcount
    except sqlite3.IntegrityError as error:
        connection.execute("ROLLBACK TO statement")
        return str(error)
    finally:
        connection.execute("RELEASE statement")


def in_plain(connection: sqlite3.Connection, step: Step) -> Any:
    return tried(connection, lambda: connection.execute(*step))


def on_host(host: Host, step: Step) -> Any:
    writer = host.writer
    return tried(writer.connection, lambda: writer.execute(*step))


def content(connection: sqlite3.Connection) -> list[Any]:
    # The natural order, and 1 is not 1.0 here.
    rows = connection.execute("SELECT * FROM t NOT INDEXED").fetchall()
    sequence = "SELECT seq FROM sqlite_sequence WHERE name = 't'"
    try:
        last = connection.execute(sequence).fetchall()
    except sqlite3.OperationalError:  # no AUTOINCREMENT in a plain database
        last = []
    return [repr(rows), last]


@settings(max_examples=50)
@given(definition=tables, commits=st.lists(st.lists(steps(), max_size=6), max_size=5))
def test_entries_carry_what_statements_did(
    definition: str, commits: list[list[Step]]
) -> None:
    with hosts(definition) as (plain, host, other):
        for commit in commits:
            writer = host.writer
            writer.begin(commit, ["t"])
            for step in commit:
                assert on_host(host, step) == in_plain(plain, step)
            changes = writer.changes()
            writer.rollback()
            sealed = seal(host.apply(host.entry(changes)), key="k", blob_key="b")
            other.apply(unseal(sealed.body, key="k"))
            assert content(host.file.connection) == content(plain)
            assert content(other.file.connection) == content(plain)


@settings(max_examples=30)
@given(
    definition=tables,
    before=st.lists(steps(), max_size=5),
    block=st.lists(steps(), max_size=6),
)
def test_a_delta_is_what_a_transaction_did(
    definition: str, before: list[Step], block: list[Step]
) -> None:
    with hosts(definition) as (plain, host, _other):
        delta = Delta()
        writer = host.writer
        for step in before:
            in_plain(plain, step)
            in_plain(host.file.connection, step)
        for step in block:
            writer.begin([step], ["t"])
            delta.lay(writer.connection)
            writer.capture.clear([host.table("t")])
            assert on_host(host, step) == in_plain(plain, step)
            rows = writer.capture.read(host.table("t"))
            if rows is not None:
                delta.merge(host.table("t"), rows)
            writer.rollback()
        delta.lay(host.file.connection)
        assert content(host.file.connection)[0] == content(plain)[0]
