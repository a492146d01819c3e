"""Which tables a statement reads and writes, as SQLite says."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest

from s3cache.replica.analysis import Access, Analyser
from s3cache.replica.connections import connect
from tests.replica.hosts import Host


@pytest.fixture
def analyser(host: Host) -> Iterator[Analyser]:
    """An analyser of a replica with the tables a, b and c, and views."""
    host.create(
        "CREATE TABLE a (id INTEGER PRIMARY KEY, x UNIQUE)",
        "CREATE TABLE b (id INTEGER PRIMARY KEY, x)",
        "CREATE TABLE C (id INTEGER PRIMARY KEY, x)",
        'CREATE TABLE "Ä" (id INTEGER PRIMARY KEY, x COLLATE NOCASE, y AS (upper(x)))',
        "CREATE VIEW v AS SELECT a.id FROM a JOIN b USING (x)",
        "CREATE VIEW w AS SELECT id FROM v",
    )
    made = Analyser(
        partial(connect, host.file.path, read_only=True, cached_statements=0)
    )
    yield made
    made.close()


@pytest.mark.parametrize(
    ("sql", "tables"),
    [
        ("SELECT 1", ""),
        ("SELECT * FROM a", "a"),
        ("SELECT x FROM A", "a"),
        ("SELECT count(*) FROM a", "a"),
        ("SELECT 1 FROM a, b", "a b"),
        ("SELECT a.id FROM a JOIN b USING (x)", "a b"),
        ("SELECT 1 FROM b NATURAL JOIN a", "a b"),
        ('SELECT a.id FROM a JOIN "Ä" USING (x)', "a ä"),
        ("SELECT x FROM a WHERE x = 'only the index'", "a"),
        ("SELECT * FROM a LEFT JOIN b ON a.id = b.id", "a b"),
        ("SELECT (SELECT max(x) FROM c) FROM a", "a c"),
        ("SELECT 1 WHERE EXISTS (SELECT 1 FROM b)", "b"),
        ("SELECT id FROM a UNION SELECT id FROM c", "a c"),
        ("WITH q AS (SELECT x FROM b) SELECT * FROM q, a", "a b"),
        ("SELECT * FROM main.a AS b", "a"),
        ("SELECT * FROM w", "a b"),
        ("SELECT count(*) FROM v", "a b"),
        ("VALUES ((SELECT x FROM a))", "a"),
    ],
)
def test_reads(analyser: Analyser, sql: str, tables: str) -> None:
    access = analyser.access(sql, ())
    assert access.reads - {"v", "w"} == set(tables.split())
    assert not access.writes


@pytest.mark.parametrize(
    ("sql", "writes"),
    [
        ("INSERT INTO a (x) SELECT x FROM b", "a"),
        ("UPDATE C SET x = 1", "c"),
        ("DELETE FROM a", "a"),
        ("DELETE FROM a WHERE id IN (SELECT id FROM b)", "a"),
        ("REPLACE INTO a VALUES (1, 2)", "a"),
        ("WITH q AS (SELECT 1) DELETE FROM b", "b"),
        ("INSERT INTO a VALUES (1, 2) ON CONFLICT DO UPDATE SET x = 3", "a"),
        ("INSERT INTO a VALUES (1, 2) RETURNING id", "a"),
    ],
)
def test_writes(analyser: Analyser, sql: str, writes: str) -> None:
    assert analyser.access(sql, ()).writes == set(writes.split())


def test_a_write_reads_as_well(analyser: Analyser) -> None:
    access = analyser.access("INSERT INTO a (x) SELECT x FROM b", ())
    assert "b" in access.reads


def test_nothing_is_run(analyser: Analyser, host: Host) -> None:
    host.commit("INSERT INTO a VALUES (1, 1)")
    analyser.access("DELETE FROM a", ())
    assert host.rows("SELECT id FROM a") == [(1,)]


@pytest.mark.parametrize("sql", ["SELECT * FROM nowhere", "SELEC 1", "SELECT ?", ""])
def test_what_is_not_valid_has_no_access(analyser: Analyser, sql: str) -> None:
    nothing = Access(frozenset(), frozenset(), known=False)
    assert analyser.access(sql, ()) == nothing


def test_parameters_are_no_part_of_what_is_remembered(analyser: Analyser) -> None:
    sql = "SELECT x FROM a WHERE id = ?"
    assert analyser.access(sql, [1]) is analyser.access(sql, [2])


def test_a_schema_change_is_noticed(analyser: Analyser, host: Host) -> None:
    sql = "SELECT * FROM v"
    assert analyser.access(sql, ()).reads >= {"a", "b"}
    host.create("DROP VIEW v", "CREATE VIEW v AS SELECT id FROM c")
    assert analyser.access(sql, ()).reads == {"c", "v"}


@pytest.mark.parametrize(
    ("sql", "functions"),
    [
        ("SELECT x FROM a", ""),
        ("SELECT Lower(x) FROM a", "lower"),
        ("SELECT count(*) FROM a WHERE x LIKE 'b'", "count like"),
        ("SELECT x ->> '$' FROM b ORDER BY random()", "->> random"),
        ("SELECT current_timestamp FROM a", "current_timestamp"),
        ("SELECT 1 FROM a WHERE x IN (SELECT upper(x) FROM b)", "upper"),
        ('SELECT y FROM "Ä"', "upper"),
    ],
)
def test_functions(analyser: Analyser, sql: str, functions: str) -> None:
    assert analyser.access(sql, ()).functions == set(functions.split())


@pytest.mark.parametrize(
    ("sql", "by_case"),
    [
        ("SELECT x FROM b ORDER BY x", False),
        ("SELECT id FROM b WHERE x = 'NOCASE'", False),
        ("SELECT x FROM b ORDER BY x COLLATE NoCase", True),
        ("SELECT x FROM b ORDER BY x COLLATE nocase DESC NULLS LAST", True),
        ("SELECT x FROM b WHERE x COLLATE nocase < 'b'", True),
        ('SELECT id FROM "Ä" WHERE x = ?', True),
        ('SELECT min(x) FROM "Ä"', True),
        ('SELECT id FROM "Ä" GROUP BY x', True),
        ('SELECT DISTINCT x FROM "Ä"', True),
        ('SELECT x FROM "Ä" UNION SELECT x FROM b', True),
        ('SELECT rank() OVER (ORDER BY x) FROM "Ä"', True),
    ],
)
def test_collations(analyser: Analyser, sql: str, by_case: bool) -> None:
    access = analyser.access(sql, ["a"] * sql.count("?"))
    assert access.known
    assert ("nocase" in access.collations) is by_case


@pytest.mark.parametrize(
    ("sql", "virtual"),
    [
        ("SELECT x FROM a", False),
        ("SELECT value FROM a, json_each(x)", True),
        ("SELECT name FROM pragma_table_info('a')", True),
    ],
)
def test_virtual_tables(analyser: Analyser, sql: str, virtual: bool) -> None:
    assert analyser.access(sql, ()).virtual is virtual
