"""Results, and what makes two of them the same."""

from __future__ import annotations

import sqlite3

import pytest

from s3cache.replica.results import Result, Seen
from tests.replica.hosts import result_of

INSERT = "INSERT INTO t VALUES (?, 'a')"
NUMBERS = "WITH n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < ?) "


def test_rows_come_in_portions() -> None:
    result = result_of("SELECT 1 UNION SELECT 2 UNION SELECT 3 UNION SELECT 4")
    assert result.fetchone() == (1,)
    assert result.fetchmany(2) == [(2,), (3,)]
    assert result.fetchall() == [(4,)]
    assert (result.fetchone(), result.fetchmany(2), result.fetchall()) == (None, [], [])


def test_a_result_outlives_its_connection() -> None:
    result = result_of("SELECT 1 AS one")
    assert result.description is not None
    assert result.description[0][0] == "one"


def test_there_is_a_result_of_nothing() -> None:
    result = Result()
    assert (result.fetchall(), result.rowcount, result.lastrowid) == ([], -1, None)
    assert result.description is None


def test_finding_nothing_is_known_without_a_look() -> None:
    result = result_of("DELETE FROM t")
    assert result.found_nothing
    assert not result.rowcount_seen


@pytest.mark.parametrize("sql", ["SELECT 1 WHERE 0", INSERT.replace("?", "1")])
def test_what_is_no_row_count_of_zero_found_something(sql: str) -> None:
    assert not result_of(sql).found_nothing


# What a replay compares.


def same(first: Result, second: Result) -> bool:
    return Seen(first).matches(Seen(second))


def test_equal_rows_are_the_same() -> None:
    assert same(result_of("SELECT 1, 'a'"), result_of("SELECT 1, 'a'"))


def repeated(value: str, rows: int) -> Result:
    return result_of(f"{NUMBERS} SELECT {value} FROM n", [rows])  # noqa: S608


@pytest.mark.parametrize(
    ("one", "other"),
    [("-1", "-2"), ("1", "'1'"), ("NULL", "0"), ("x'61'", "'a'"), ("1", "1, 1")],
)
@pytest.mark.parametrize("rows", [1, 200])
def test_different_rows_are_not(one: str, other: str, rows: int) -> None:
    assert not same(repeated(one, rows), repeated(other, rows))


@pytest.mark.parametrize("rows", [1, 200])
def test_more_rows_are_not_the_same(rows: int) -> None:
    assert not same(repeated("1", rows), repeated("1", rows + 1))


def test_the_last_of_many_rows_counts() -> None:
    last = "CASE WHEN x = 200 THEN %d END"
    assert same(repeated(last % -1, 200), repeated(last % -1, 200))
    assert not same(repeated(last % -1, 200), repeated(last % -2, 200))


def test_what_python_cannot_encode_is_compared() -> None:
    seen = result_of("SELECT 1")
    seen.rows = ["\ud800"] * 200
    assert same(seen, seen)


def test_lastrowid_counts_only_if_somebody_looked() -> None:
    first, second = result_of(INSERT, [1]), result_of(INSERT, [2])
    assert same(first, second)
    assert first.lastrowid == 1
    assert not same(first, second)


def test_rowcount_counts_only_if_somebody_looked() -> None:
    first = result_of("INSERT INTO t VALUES (1, 'a')")
    second = result_of("INSERT INTO t VALUES (1, 'a'), (2, 'b')")
    assert same(first, second)
    assert first.rowcount == 1
    assert not same(first, second)


def test_looking_after_the_statement_counts_too() -> None:
    first, second = result_of(INSERT, [1]), result_of(INSERT, [2])
    seen = Seen(first)
    assert first.lastrowid == 1
    assert not seen.matches(Seen(second))


def test_what_takes_the_place_is_looked_at_as_well() -> None:
    first, second, third = (result_of(INSERT, [n]) for n in (1, 1, 2))
    assert first.lastrowid == 1
    seen, replayed = Seen(first), Seen(second)
    seen.hand_over(replayed)
    assert not replayed.matches(Seen(third))


def test_an_error_is_the_same_as_one_of_its_class() -> None:
    unique, check = sqlite3.IntegrityError("unique"), sqlite3.IntegrityError("check")
    assert Seen(None, unique).matches(Seen(None, check))
    assert not Seen(None, unique).matches(Seen(None, sqlite3.OperationalError("busy")))


def test_an_error_is_no_result() -> None:
    error, result = Seen(None, sqlite3.IntegrityError()), Seen(result_of("SELECT 1"))
    assert not error.matches(result)
    assert not result.matches(error)
