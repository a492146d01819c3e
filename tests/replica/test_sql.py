"""What kind of statement it is, and what savepoint it means."""

from __future__ import annotations

import sqlite3

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3cache.replica.sql import (
    Kind,
    kind_of,
    quote,
    savepoint_name,
    why_refused,
    words,
)

#: What SQLite skips in front of, between, and behind words.
skipped = st.lists(
    st.sampled_from([" ", "\n", "\t", "-- a note\n", "/* SELECT */", "/**/"]),
    min_size=1,
).map("".join)


def in_odd_case(text: str) -> st.SearchStrategy[str]:
    letters = [st.sampled_from([one.lower(), one.upper()]) for one in text]
    return st.tuples(*letters).map("".join)


@pytest.mark.parametrize(
    ("sql", "kind"),
    [
        ("SELECT 1", Kind.READ),
        ("VALUES (1)", Kind.READ),
        ("EXPLAIN DELETE FROM t", Kind.READ),
        ("INSERT INTO t VALUES (1)", Kind.WRITE),
        ("REPLACE INTO t VALUES (1)", Kind.WRITE),
        ("UPDATE t SET a = 1", Kind.WRITE),
        ("DELETE FROM t", Kind.WRITE),
        ("CREATE TABLE t (a)", Kind.SCHEMA),
        ("ALTER TABLE t RENAME TO u", Kind.SCHEMA),
        ("DROP TABLE t", Kind.SCHEMA),
        ("BEGIN IMMEDIATE", Kind.TRANSACTION),
        ("COMMIT", Kind.TRANSACTION),
        ("END", Kind.TRANSACTION),
        ("ROLLBACK TO a", Kind.TRANSACTION),
        ("SAVEPOINT a", Kind.TRANSACTION),
        ("RELEASE a", Kind.TRANSACTION),
        ("PRAGMA user_version", Kind.PRAGMA),
        ("ANALYZE", Kind.MAINTENANCE),
        ("REINDEX t", Kind.MAINTENANCE),
        ("VACUUM", Kind.MAINTENANCE),
        ("ATTACH 'x' AS y", Kind.REFUSED),
        ("DETACH y", Kind.REFUSED),
        ("WITH x AS (SELECT 1) DELETE FROM t", Kind.EITHER),
    ],
)
def test_the_first_word_tells(sql: str, kind: Kind) -> None:
    assert kind_of(sql) is kind


@pytest.mark.parametrize("sql", ["", " ", "-- nothing", "/* open", "1", "'x'", "\0"])
def test_what_sqlite_refuses_is_left_to_sqlite(sql: str) -> None:
    assert kind_of(sql) is Kind.READ


def test_a_bracket_may_come_first() -> None:
    assert kind_of("((SELECT 1) UNION SELECT 2)") is Kind.READ


def test_the_word_may_touch_what_follows() -> None:
    assert kind_of('delete/**/from"t"') is Kind.WRITE


@given(skipped, in_odd_case("delete"))
def test_comments_and_case_say_nothing(before: str, verb: str) -> None:
    assert kind_of(f"{before}{verb} FROM t") is Kind.WRITE


@pytest.mark.timeout(5)
@pytest.mark.parametrize("filling", [" ", "(", ";", "/**/", "--\n"])
def test_much_that_is_skipped_takes_no_time(filling: str) -> None:
    assert kind_of(filling * 5000 + "1") is Kind.READ
    assert words("SELECT" + filling * 5000, 2) == ["SELECT"]


@given(st.text())
def test_any_text_has_a_kind_and_words(sql: str) -> None:
    assert isinstance(kind_of(sql), Kind)
    assert len(words(sql, 3)) <= 3


@given(skipped, skipped, skipped)
def test_words_are_what_is_between_comments(a: str, b: str, c: str) -> None:
    assert words(f"{a}create{b}Unique{c}index i", 3) == ["CREATE", "UNIQUE", "INDEX"]


def test_a_quoted_name_is_one_word() -> None:
    assert words('RELEASE "two -- words"', 3) == ["RELEASE", '"TWO -- WORDS"']


@pytest.mark.parametrize(
    "name",
    ["a", '"a"', "`a`", "[a]", "'a'", "A", "a;", "a -- b", "a /* b */ ;", "\ta\n"],
)
@pytest.mark.parametrize(
    "verb",
    [
        "SAVEPOINT ",
        "RELEASE ",
        "release savepoint ",
        "ROLLBACK TO ",
        "rollback to savepoint ",
        "ROLLBACK TRANSACTION TO ",
        "/* RELEASE b */ ROLLBACK -- TO c\nTO ",
    ],
)
def test_a_savepoint_has_one_name_however_written(verb: str, name: str) -> None:
    assert savepoint_name(verb + name) == "a"


@pytest.mark.parametrize("sql", ["ROLLBACK", "rollback;", "ROLLBACK TRANSACTION"])
def test_a_whole_rollback_has_no_savepoint(sql: str) -> None:
    assert savepoint_name(sql) == ""


@given(st.text(st.characters(exclude_characters="\0", codec="utf-8"), min_size=1))
def test_a_quoted_name_is_the_name(name: str) -> None:
    assert savepoint_name(f"SAVEPOINT {quote(name)}") == name.lower()


@given(st.text(st.characters(exclude_characters="\0", codec="utf-8"), min_size=1))
def test_sqlite_understands_what_is_quoted(name: str) -> None:
    connection = sqlite3.connect(":memory:")
    cursor = connection.execute(f"SELECT 1 AS {quote(name)}")
    assert cursor.description[0][0] == name
    connection.close()


@pytest.mark.parametrize(
    ("sql", "word"),
    [
        ("CREATE TRIGGER a AFTER INSERT ON t BEGIN SELECT 1; END", "triggers"),
        ("CREATE TEMP TRIGGER a AFTER INSERT ON t BEGIN SELECT 1; END", "temporary"),
        ("create/**/trigger a AFTER INSERT ON t BEGIN SELECT 1; END", "triggers"),
        ("CREATE VIRTUAL TABLE t USING fts5(a)", "virtual"),
        ("CREATE TEMPORARY TABLE t (a)", "temporary"),
    ],
)
def test_what_cannot_be_followed_is_refused(sql: str, word: str) -> None:
    assert word in why_refused(sql)


@pytest.mark.parametrize(
    "sql",
    [
        "CREATE TABLE trigger_log (a)",
        "CREATE UNIQUE INDEX virtual ON t (a)",
        'CREATE TABLE "temp" (a)',
        "DROP TRIGGER a",
        "SELECT 'CREATE TRIGGER'",
    ],
)
def test_other_statements_are_not(sql: str) -> None:
    assert why_refused(sql) == ""
