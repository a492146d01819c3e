# ruff: noqa: S608 (the SQL is made up here)
"""Random SQL over ten tables depends on exactly those that it reads.

A statement is put together with the set of its tables: of joins, subqueries,
common table expressions, views and compounds, one within another. What the
result cache finds out has to be that set; a write to a table of it is seen,
and a write to any other leaves the result valid.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

import pytest
from django.db import connection, transaction

from tests.engine import Host
from tests.results.seen import HIT, directory, events

pytestmark = directory

TABLES = [f"t{number}" for number in range(10)]

#: How often joins and subqueries may be within others.
DEPTH = 2


@dataclass
class Writer:
    """Writes statements; ``views`` have the tables that each stands for."""

    chance: random.Random
    views: dict[str, set[str]] = field(default_factory=dict)
    names: int = 0

    def name(self) -> str:
        """A name that nothing else has."""
        self.names += 1
        return f"x{self.names}"

    def source(self, depth: int, ctes: dict[str, set[str]]) -> tuple[str, set[str]]:
        """What rows with id, n and other come from."""
        kind = self.chance.random()
        if depth and kind < 0.3:
            sql, tables = self.select(depth - 1, ctes)
            return f"({sql})", tables
        if kind < 0.45 and self.views:
            name = self.chance.choice([*self.views])
            return name, {name, *self.views[name]}
        if kind < 0.65 and ctes:
            name = self.chance.choice([*ctes])
            return name, ctes[name]
        table = self.chance.choice(TABLES)
        return self.chance.choice([table, f'"{table.upper()}"', f"main.{table}"]), {
            table
        }

    def select(self, depth: int, ctes: dict[str, set[str]]) -> tuple[str, set[str]]:
        """A SELECT of id, n and other."""
        if depth and self.chance.random() < 0.2:
            return self.compound(depth, ctes)
        sql, tables = self.source(depth, ctes)
        first = self.name()
        sql = f"FROM {sql} AS {first}"
        for _ in range(self.chance.randrange(3)):
            joined, more = self.source(depth, ctes)
            alias = self.name()
            sql += self.chance.choice(
                [
                    f" JOIN {joined} AS {alias} ON {alias}.id = {first}.other",
                    f" LEFT JOIN {joined} AS {alias} ON {alias}.n = {first}.n",
                    f" CROSS JOIN (SELECT n FROM {joined} LIMIT 1) AS {alias}",
                ]
            )
            tables = tables | more
        if self.chance.random() < 0.6:
            condition, more = self.condition(first, depth, ctes)
            sql += f" WHERE {condition}"
            tables = tables | more
        if self.chance.random() < 0.2:
            sql += f" GROUP BY {first}.id HAVING count(*) > 0"
        return (
            f"SELECT {first}.id AS id, {first}.n AS n, {first}.other AS other {sql}",
            (tables),
        )

    def compound(self, depth: int, ctes: dict[str, set[str]]) -> tuple[str, set[str]]:
        """Two of them, as one."""
        words = self.chance.choice(["UNION", "UNION ALL", "EXCEPT", "INTERSECT"])
        left, right = (self.select(depth - 1, ctes) for _ in range(2))
        sql = f"SELECT * FROM ({left[0]}) {words} SELECT * FROM ({right[0]})"
        return sql, left[1] | right[1]

    def condition(
        self, alias: str, depth: int, ctes: dict[str, set[str]]
    ) -> tuple[str, set[str]]:
        """What a WHERE may say of a row."""
        if not depth or self.chance.random() < 0.3:
            return f"{alias}.n < {self.chance.randrange(9)}", set()
        sql, tables = self.select(depth - 1, ctes)
        inner = self.name()
        return self.chance.choice(
            [
                f"{alias}.n IN (SELECT n FROM ({sql}))",
                f"EXISTS (SELECT 1 FROM ({sql}) {inner} WHERE {inner}.n = {alias}.n)",
                f"{alias}.n > (SELECT coalesce(min(n), 0) FROM ({sql}))",
            ]
        ), tables

    def statement(self) -> tuple[str, set[str]]:
        """A whole statement, and its tables."""
        ctes: dict[str, set[str]] = {}
        written = []
        for _ in range(self.chance.randrange(3)):
            sql, tables = self.select(1, dict(ctes))
            name = self.name()
            ctes[name] = tables
            written.append(f"{name} AS ({sql})")
        sql, tables = self.select(DEPTH, ctes)
        for name, of in ctes.items():
            # SQLite does not read what nobody asks for.
            sql = f"{sql} UNION ALL SELECT * FROM {name} WHERE n = -1"
            tables = tables | of
        if written:
            sql = f"WITH {', '.join(written)} {sql}"
        return f"SELECT count(*), sum(n) FROM ({sql})", tables


def run(sql: str) -> list[Any]:
    with connection.cursor() as cursor:
        cursor.execute(sql)
        return list(cursor.fetchall()) if cursor.description else []


def write(chance: random.Random, table: str) -> None:
    number = chance.randrange(1, 5)
    run(
        chance.choice(
            [
                f"INSERT INTO {table} (n, other) VALUES ({number}, {number + 1})",
                f"UPDATE {table} SET n = n + 1, other = {number}",
                f"UPDATE {table} SET n = n - 1 WHERE id >= 1",
            ]
        )
    )


@pytest.mark.parametrize("seed", range(4))
def test_a_statement_depends_on_exactly_the_tables_that_it_reads(
    host: Host, settings: Any, seed: int
) -> None:
    chance = random.Random(seed)
    writer = Writer(chance)
    with transaction.atomic():
        for table in TABLES:
            run(
                f"CREATE TABLE {table} (id integer PRIMARY KEY, n integer NOT NULL, "
                "other integer NOT NULL)"
            )
            run(f"INSERT INTO {table} (n, other) VALUES (1, 2), (2, 1), (3, 3)")
        for number in range(3):
            sql, tables = writer.select(2, {})
            run(f"CREATE VIEW v{number} AS {sql}")
            writer.views[f"v{number}"] = tables
    statements = connection.statements  # type: ignore[attr-defined]
    written = [writer.statement() for _ in range(40)]
    for sql, tables in written:
        plan = statements.plan(sql, ())
        assert plan.cacheable, sql
        assert set(plan.tables) == tables, sql
    assert len({len(tables) for _sql, tables in written}) >= 5
    for _ in range(6):
        for sql, _tables in written:
            run(sql)
        table = chance.choice(TABLES)
        write(chance, table)
        with transaction.atomic():
            truth = [run(sql) for sql, _tables in written]
        for (sql, tables), expected in zip(written, truth, strict=True):
            found: list[Any] = []
            counted = events(lambda sql=sql, found=found: found.extend(run(sql)))  # type: ignore[misc]
            assert found == expected, sql
            assert (counted == HIT) == (table not in tables), sql
