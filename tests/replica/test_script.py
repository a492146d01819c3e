"""Running the statements of a block again."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import Any

import pytest
from django.db import OperationalError

from s3cache.exceptions import TransactionConflict
from s3cache.replica.results import Result, Seen
from s3cache.replica.script import Script


class Recorder:
    """A database whose statements are noted in a script."""

    def __init__(self) -> None:
        self.script = Script()
        self.connection = sqlite3.connect(":memory:", isolation_level=None)
        self.connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, n UNIQUE)")

    def run(self, sql: str, params: Any = (), *, many: bool = False) -> Result | None:
        result, error = None, None
        try:
            result = self.execute(sql, params, many)
        except sqlite3.Error as raised:
            error = raised
        self.script.note(sql, params, many, Seen(result, error))
        return result

    def execute(self, sql: str, params: Any, many: bool) -> Result:
        if many:
            return Result(self.connection.executemany(sql, params))
        return Result(self.connection.execute(sql, params))

    def replay(self, *, after: str = "") -> list[Any]:
        """Replay on an empty table, ``after`` somebody else's statement."""
        self.connection.execute("DELETE FROM t")
        if after:
            self.connection.execute(after)
        self.script.replay(self.execute)
        return self.connection.execute("SELECT * FROM t ORDER BY id").fetchall()


@pytest.fixture
def block() -> Iterator[Recorder]:
    """A block that has done nothing yet."""
    recorder = Recorder()
    yield recorder
    recorder.connection.close()


def test_the_same_is_done_again_in_order(block: Recorder) -> None:
    block.run("INSERT INTO t VALUES (?, ?)", [(1, 10), (2, 20)], many=True)
    block.run("UPDATE t SET n = n + 1")
    block.run("DELETE FROM t WHERE n = ?", [21])
    assert block.replay() == [(1, 11)]


def test_what_the_block_did_not_see_may_differ(block: Recorder) -> None:
    block.run("SELECT n FROM t WHERE id = 1")
    block.run("INSERT INTO t (n) VALUES (1)")
    assert block.replay(after="INSERT INTO t VALUES (5, 50)") == [(5, 50), (6, 1)]


def test_another_row_is_a_conflict(block: Recorder) -> None:
    block.run("SELECT n FROM t WHERE id = 1")
    with pytest.raises(TransactionConflict, match="SELECT n FROM t WHERE id = 1"):
        block.replay(after="INSERT INTO t VALUES (1, 1)")


def test_another_rowcount_is_a_conflict_if_it_was_looked_at(block: Recorder) -> None:
    result = block.run("DELETE FROM t WHERE id = 1")
    assert result is not None
    assert block.replay(after="INSERT INTO t VALUES (1, 1)") == []
    assert result.rowcount == 1  # what the statement came to in the end
    with pytest.raises(TransactionConflict):
        block.replay()


def test_another_id_is_a_conflict_if_it_was_looked_at(block: Recorder) -> None:
    result = block.run("INSERT INTO t (n) VALUES (1)")
    assert result is not None
    assert result.lastrowid == 1
    with pytest.raises(TransactionConflict):
        block.replay(after="INSERT INTO t VALUES (5, 50)")


def test_a_new_clash_is_an_integrity_error(block: Recorder) -> None:
    block.run("INSERT INTO t VALUES (1, 1)")
    with pytest.raises(sqlite3.IntegrityError, match="UNIQUE constraint failed: t.n"):
        block.replay(after="INSERT INTO t VALUES (2, 1)")


def test_a_clash_that_was_there_before_may_be_there_again(block: Recorder) -> None:
    block.run("INSERT INTO t VALUES (1, 1)")
    block.run("INSERT INTO t VALUES (2, 1)")
    assert block.replay() == [(1, 1)]


def test_a_clash_that_is_gone_is_a_conflict(block: Recorder) -> None:
    block.connection.execute("INSERT INTO t VALUES (1, 1)")
    block.run("INSERT INTO t VALUES (2, 1)")
    with pytest.raises(TransactionConflict):
        block.replay()


def test_any_other_new_error_is_a_conflict(block: Recorder) -> None:
    block.run("INSERT INTO t VALUES (1, 1)")
    block.connection.execute("DROP TABLE t")
    with pytest.raises(TransactionConflict):
        block.script.replay(block.execute)


def test_a_conflict_is_what_django_calls_an_operational_error() -> None:
    assert issubclass(TransactionConflict, OperationalError)


def test_a_second_replay_compares_with_what_was_looked_at(block: Recorder) -> None:
    result = block.run("INSERT INTO t (n) VALUES (1)")
    assert result is not None
    assert result.lastrowid == 1
    again = Script()

    def execute(sql: str, params: Any, many: bool) -> Result:
        replayed = block.execute(sql, params, many)
        again.note(sql, params, many, Seen(replayed))
        return replayed

    block.connection.execute("DELETE FROM t")
    block.script.replay(execute)
    block.connection.execute("DELETE FROM t")
    block.connection.execute("INSERT INTO t VALUES (5, 50)")
    with pytest.raises(TransactionConflict):
        again.replay(block.execute)
