"""Packs: whatever rows a table has, they come back as they were."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3cache.exceptions import EntryFormatError
from s3cache.log.catalog import Catalog, Pack, Segment
from s3cache.replica import meta
from s3cache.replica.absent import is_whole
from s3cache.replica.packs import (
    begin,
    compress,
    load,
    make_pack,
    read_statements,
)
from s3cache.replica.tables import read_schema

SCHEMA = (
    "CREATE TABLE whole (id INTEGER PRIMARY KEY, value, text VARCHAR(10))",
    "CREATE TABLE hidden (a TEXT, b REAL, PRIMARY KEY (a, b))",
    "CREATE TABLE taken (rowid TEXT, value NUMERIC)",
    'CREATE TABLE "od""d" (k TEXT PRIMARY KEY NOT NULL, v BLOB) WITHOUT ROWID',
    "CREATE TABLE made (id INTEGER PRIMARY KEY, n INTEGER, "
    "twice INTEGER GENERATED ALWAYS AS (n * 2) STORED)",
)

integers = st.integers(-(2**63), 2**63 - 1)
values = (
    st.none()
    | integers
    | st.floats(allow_nan=False)
    | st.text("aÄ\0 1.e5")
    | st.binary()
)
rowids = integers | st.integers(-5, 5)


@st.composite
def databases(draw: st.DrawFn) -> list[tuple[str, Sequence[Any]]]:
    """Statements that fill the tables of ``SCHEMA``."""
    found: list[tuple[str, Sequence[Any]]] = []
    for row in draw(st.lists(st.tuples(rowids, values, values), max_size=9)):
        found.append(("INSERT OR REPLACE INTO whole VALUES (?, ?, ?)", row))
    for row in draw(st.lists(st.tuples(rowids, values, values), max_size=9)):
        found.append(
            ("INSERT OR REPLACE INTO hidden (rowid, a, b) VALUES (?,?,?)", row)
        )
    for row in draw(st.lists(st.tuples(rowids, values, values), max_size=9)):
        found.append(
            ("INSERT OR REPLACE INTO taken (_rowid_, rowid, value) VALUES (?,?,?)", row)
        )
    for pair in draw(st.lists(st.tuples(st.text(), st.binary()), max_size=9)):
        found.append(('INSERT OR REPLACE INTO "od""d" VALUES (?, ?)', pair))
    for few in draw(st.lists(st.tuples(rowids, st.integers(-9, 9)), max_size=9)):
        found.append(("INSERT OR REPLACE INTO made (id, n) VALUES (?, ?)", few))
    return found


def opened(statements: Sequence[tuple[str, Sequence[Any]]]) -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    for sql in SCHEMA:
        connection.execute(sql)
    for sql, params in statements:
        connection.execute(sql, params)
    return connection


def dump(connection: sqlite3.Connection) -> dict[str, list[Any]]:
    """Values with their types, rowids included, in natural order."""
    tables = {
        "whole": "id, value, text",
        "hidden": "rowid, a, b",
        "taken": "_rowid_, rowid, value",
        'od"d': "k, v",
        "made": "id, n, twice",
    }
    found = {}
    for name in ("whole", "hidden", "taken", 'od"d', "made"):
        quoted = '"' + name.replace('"', '""') + '"'
        columns = tables[name].split(", ")
        typed = ", ".join(f"{c}, typeof({c})" for c in columns)
        found[name] = connection.execute(
            f"SELECT {typed} FROM {quoted}"  # noqa: S608
        ).fetchall()
    return found


def packs_of(
    connection: sqlite3.Connection, limit: int
) -> Iterator[tuple[Pack, bytes]]:
    """All rows, in as many packs as ``limit`` makes of them."""
    schema = read_schema(connection, 1)
    rest: Sequence[Segment] = [Segment(table.name) for table in schema]
    while rest:
        packed = make_pack(connection, schema, rest, limit)
        rest = packed.rest
        body = compress(packed.raw)
        segments = list(packed.segments)
        size = len(packed.raw)
        key = f"_packs/{len(rest)}-{segments[-1].upto}"
        yield (
            Pack(
                key, "", 1, segments, packed.rows, 0, "", size, "", dict(packed.bounds)
            ),
            body,
        )


@given(databases(), st.sampled_from([1, 10_000, 10**9]))
def test_all_rows_come_back(
    statements: list[tuple[str, Sequence[Any]]], limit: int
) -> None:
    with contextlib.closing(opened(statements)) as source:
        packs = list(packs_of(source, limit))
        with contextlib.closing(lacking(pack for pack, _body in packs)) as target:
            for pack, body in packs:
                load(target, pack, body)
            assert dump(target) == dump(source)
            assert is_whole(target)


def lacking(packs: Iterable[Pack]) -> sqlite3.Connection:
    """A replica that has the schema, and lacks ``packs``."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    meta.create(connection, generation="g", store="s")
    begin(connection, Catalog("d", 1, "t", "", 0.0, list(SCHEMA), {}, list(packs)))
    connection.execute("UPDATE _s3cache_meta SET database = 'd'")
    return connection


def packed(statements: Sequence[tuple[str, Sequence[Any]]], limit: int) -> list[Any]:
    """The packs of a database that is made, and gone again."""
    with contextlib.closing(opened(statements)) as connection:
        return list(packs_of(connection, limit))


def test_the_same_rows_make_the_same_bytes() -> None:
    some = [("INSERT INTO whole VALUES (?, ?, ?)", [n, n, "x"]) for n in range(100)]
    ((_pack, one),) = packed(some, 10**9)
    ((_pack, two),) = packed(some[::-1], 10**9)
    assert one == two


def test_a_large_table_is_cut() -> None:
    row = "INSERT INTO whole VALUES (?, ?, ?)"
    made = [
        pack
        for pack, _body in packed(
            [(row, [n, "x" * 500, ""]) for n in range(999)], 65536
        )
    ]
    assert len(made) > 5
    assert max(pack.raw_size for pack in made) < 128 * 1024
    limits = [
        (segment.after, segment.upto)
        for pack in made
        for segment in pack.segments
        if segment.table == "whole"
    ]
    assert [after for after, _ in limits[1:]] == [upto for _, upto in limits[:-1]]
    assert (limits[0][0], limits[-1][1]) == (None, None)


@pytest.mark.parametrize("raw", [bytes(4096), b"no database at all" * 300])
def test_what_is_no_database_is_refused(raw: bytes) -> None:
    pack = Pack("_packs/1", "", 1, [Segment("whole")], 0, 0, "", len(raw), "")
    with contextlib.closing(lacking([pack])) as target:
        with pytest.raises(EntryFormatError, match="_packs/1 is damaged"):
            load(target, pack, compress(raw))
        assert not target.in_transaction
        target.execute("ATTACH ':memory:' AS pack")  # it was detached


def test_a_pack_that_would_grow_too_large_is_refused() -> None:
    pack = Pack("_packs/1", "", 1, [Segment("whole")], 0, 0, "", 10, "")
    with (
        contextlib.closing(lacking([pack])) as target,
        pytest.raises(EntryFormatError, match="_packs/1 is damaged"),
    ):
        load(target, pack, compress(bytes(10**6)))


def test_the_schema_is_read_in_the_order_of_its_making() -> None:
    with contextlib.closing(opened([])) as source:
        source.execute("CREATE INDEX one ON whole (value)")
        source.execute("CREATE VIEW two AS SELECT * FROM whole")
        statements = read_statements(source)
    assert statements[:-2] == list(SCHEMA)
    assert [sql.split()[1] for sql in statements[-2:]] == ["INDEX", "VIEW"]
