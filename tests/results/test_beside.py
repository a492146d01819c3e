"""What is read beside the position is what is read alone, types and all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from sqlite3 import Connection
from typing import Any

import pytest

# Which has the converters of Django's.
from django.db.backends.sqlite3 import base as _base  # noqa: F401
from hypothesis import given, settings
from hypothesis import strategies as st

from s3cache.replica.connections import connect
from s3cache.results.versions import POSITION_COLUMNS, beside_position

POSITION = ("generation", "database", 7, "token-of")

#: Names that SQLite, its module or the statement around give a meaning to.
NAMES = (
    *("x", "X2", "x:1", "1", "p", "r", "s", "number", "token", "generation"),
    *("x [date]", "x [bool]", "[y]", "a]b", 'a"b', "'q'", "100%", "?", "é"),
    "_s3cache_meta",
)

TYPES = (
    *("bool", "date", "datetime", "timestamp", "TIMESTAMP(3)", "time", "real"),
    *("decimal", "numeric", "integer", "integer unsigned", "bigint", "text"),
    *("varchar(10)", "char(32)", "blob", "JSON", "", "text COLLATE nocase"),
)

VALUES = (
    *(None, 0, 1, -1, 2**63 - 1, -(2**63), 2**53 + 1, 1.0, 1.5, -0.0, 1e15),
    *(1e300, float("inf"), "", "a", "007", "1.0", "1e3", "true", "é\0x"),
    *("2020-01-01", "2020-01-01 10:00:00", b"", b"2020-01-01", b"\xff"),
)

KEYS = ("integer PRIMARY KEY", "text PRIMARY KEY", "PRIMARY KEY")

columns = st.lists(
    st.tuples(st.sampled_from(NAMES), st.sampled_from(TYPES), st.sampled_from(VALUES)),
    min_size=1,
    max_size=5,
    unique_by=lambda column: column[0].lower(),
)

generated = st.sampled_from(
    [
        "",
        "made text AS (key || 'x') VIRTUAL",
        "made numeric AS ('12') VIRTUAL",
        "made date AS ('2020-01-01') STORED",
        "made real AS (1) STORED",
    ]
)

#: Like a model, a child of multi-table inheritance, and one without parent.
FROM = (
    '"t"',
    '"u" INNER JOIN "t" ON ("u"."of" = "t"."key")',
    '"t" LEFT OUTER JOIN "u" ON ("u"."of" = "t"."key" AND 0)',
)

WHERE = ("", 'WHERE "t"."key" = 1', 'WHERE "t"."key" IS NULL', "WHERE 0")


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


@pytest.fixture(scope="module")
def sqlite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Connection]:
    path: Path = tmp_path_factory.mktemp("beside") / "replica.sqlite3"
    with closing(connect(path)) as connection:
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("PRAGMA journal_mode = MEMORY")
        connection.execute(
            "CREATE TABLE _s3cache_meta (generation text, database text, "
            "number integer, token text)"
        )
        connection.execute(
            "INSERT INTO _s3cache_meta VALUES (?, ?, ?, ?)",
            (*POSITION[:3], f"{POSITION[3]}-its-entry"),
        )
        yield connection


def outcome(connection: Connection, sql: str) -> Any:
    """The rows with their types, or the error."""
    try:
        return connection.execute(sql).fetchall()
    except Exception as error:
        return repr(error)


def told(rows: Any) -> Any:
    # Equal is not enough: 1, 1.0 and True are, and no NaN is.
    return repr(rows)


def beside(connection: Connection, sql: str) -> Any:
    """The same, by the statement that has the position beside it."""
    found = outcome(connection, beside_position(sql))
    if isinstance(found, str):
        return found
    assert all(row[:POSITION_COLUMNS] == POSITION for row in found)
    if found[0][POSITION_COLUMNS] is None:
        assert len(found) == 1
        return []
    return [row[POSITION_COLUMNS + 1 :] for row in found]


@settings(max_examples=300)
@given(
    one=columns,
    other=columns,
    key=st.sampled_from(KEYS),
    its_value=st.sampled_from([1, "1", None]),
    made=generated,
    tables=st.sampled_from(FROM),
    where=st.sampled_from(WHERE),
    limit=st.sampled_from(["", "LIMIT 21"]),
)
def test_any_columns(
    sqlite: Connection,
    one: list[tuple[str, str, Any]],
    other: list[tuple[str, str, Any]],
    key: str,
    its_value: Any,
    made: str,
    tables: str,
    where: str,
    limit: str,
) -> None:
    selected = ['"t"."key"', *[f'"t".{quoted(name)}' for name, _, _ in one]]
    if made:
        selected.append('"t"."made"')
    if '"u"' in tables:
        selected += [f'"u".{quoted(name)}' for name, _, _ in other]
    described = [f"{quoted(name)} {kind}" for name, kind, _ in one]
    sqlite.execute("DROP TABLE IF EXISTS t")
    sqlite.execute("DROP TABLE IF EXISTS u")
    sqlite.execute(
        f"CREATE TABLE t (key {key}, {', '.join(filter(None, [*described, made]))})"
    )
    described = [f"{quoted(name)} {kind}" for name, kind, _ in other]
    sqlite.execute(f"CREATE TABLE u (of, {', '.join(described)})")
    for table, first, some in (("t", "key", one), ("u", "of", other)):
        names = ", ".join([first, *[quoted(name) for name, _, _ in some]])
        marks = ", ".join("?" * (1 + len(some)))
        sqlite.execute(
            f"INSERT INTO {table} ({names}) VALUES ({marks})",  # noqa: S608
            (its_value, *[value for _, _, value in some]),
        )
    sql = f"SELECT {', '.join(selected)} FROM {tables} {where} {limit}"  # noqa: S608
    assert told(beside(sqlite, sql)) == told(outcome(sqlite, sql))
