"""The rows that a block changed, in memory."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3cache.log.entry import Rows
from s3cache.replica.delta import Delta
from s3cache.replica.file import transaction
from s3cache.replica.meta import Key, Touched
from s3cache.replica.tables import Table
from tests.replica.hosts import Host

TABLE = Table("T", ("id", "n"), ("id",), "id", True, False, ())


def merge(delta: Delta, rows: Iterable[tuple[int, Any]], gone: Iterable[int]) -> None:
    delta.merge(
        TABLE,
        Rows("T", ["id"], ["id", "n"], list(map(list, rows)), [[n] for n in gone]),
    )


def content(delta: Delta) -> dict[Key, Any]:
    return {k: row for one in delta.changed_tables() for k, row in one.rows.items()}


def test_an_empty_delta_is_false() -> None:
    delta = Delta()
    assert not delta
    merge(delta, [], [])
    assert not delta
    merge(delta, [(1, "a")], [])
    assert delta


def test_the_last_change_of_a_row_counts() -> None:
    delta = Delta()
    merge(delta, [(1, "a"), (2, "a")], [3])
    merge(delta, [(3, "b"), (1, "b")], [2])
    assert content(delta) == {(1,): [1, "b"], (2,): None, (3,): [3, "b"]}
    assert delta.names() == ["t"]


def test_undo_goes_back_to_the_mark() -> None:
    delta = Delta()
    merge(delta, [(1, "a")], [])
    mark = delta.mark()
    merge(delta, [(1, "b"), (2, "b")], [])
    merge(delta, [], [1])
    delta.undo_to(mark)
    assert content(delta) == {(1,): [1, "a"]}
    delta.undo_to(0)
    assert not delta
    assert delta.names() == []


@given(
    st.lists(
        st.tuples(
            st.dictionaries(st.integers(0, 4), st.integers()),
            st.sets(st.integers(5, 8)),
        ),
        max_size=6,
    ),
    st.data(),
)
def test_undo_brings_back_any_state(
    steps: list[tuple[dict[int, int], set[int]]], data: st.DataObject
) -> None:
    delta = Delta()
    states = [(delta.mark(), content(delta))]
    for rows, gone in steps:
        merge(delta, rows.items(), gone)
        states.append((delta.mark(), content(delta)))
    while states:
        del states[data.draw(st.integers(0, len(states) - 1)) + 1 :]
        mark, expected = states.pop()
        delta.undo_to(mark)
        assert content(delta) == expected


# Whether another commit met these rows.


@pytest.mark.parametrize(
    ("touched", "meets"),
    [
        (Touched({"t": frozenset({(1,)})}), True),
        (Touched({"t": frozenset({(2,), (9,)})}), True),
        (Touched({"t": frozenset({(9,)})}), False),
        (Touched({"u": frozenset({(1,)})}), False),
        (Touched({"u": None}), False),
        (Touched({}), False),
        (Touched({"t": None}), True),
        (Touched({}, schema=True), True),
    ],
)
def test_meeting_others(touched: Touched, meets: bool) -> None:
    delta = Delta()
    merge(delta, [(1, "a")], [2])
    assert delta.meets(touched) is meets


def test_what_was_undone_meets_nobody() -> None:
    delta = Delta()
    merge(delta, [(1, "a")], [])
    delta.undo_to(0)
    assert not delta.meets(Touched({"t": None}))


# Laying it.


@pytest.fixture
def block(host: Host) -> Callable[..., Delta]:
    """A function that runs statements and returns what they changed."""

    def run(*statements: str) -> Delta:
        delta = Delta()
        for sql in statements:
            writer = host.writer
            writer.begin([(sql, ())], delta.names())
            delta.lay(writer.connection)
            writer.capture.clear(writer.capture.tables.values())
            writer.execute(sql, ())
            for table in writer.touched_tables():
                rows = writer.capture.read(table)
                if rows is not None:
                    delta.merge(table, rows)
            writer.rollback()
        return delta

    return run


def laid(host: Host, delta: Delta) -> list[Any]:
    with transaction(host.file.connection):
        delta.lay(host.file.connection)
    return host.rows("SELECT * FROM t")


def test_statements_see_what_was_laid(host: Host, block: Callable[..., Delta]) -> None:
    host.create("CREATE TABLE t (id INTEGER PRIMARY KEY, n UNIQUE)")
    host.commit("INSERT INTO t VALUES (1, 10), (2, 20)")
    delta = block(
        "UPDATE t SET n = n + 1",
        "INSERT INTO t (n) SELECT max(n) + 1 FROM t",
        "DELETE FROM t WHERE n = 11",
        "UPDATE t SET id = id + 10 WHERE id = 3",
    )
    assert laid(host, delta) == [(2, 21), (13, 22)]


def test_it_is_laid_over_rows_that_others_added(
    host: Host, block: Callable[..., Delta]
) -> None:
    host.create("CREATE TABLE t (id TEXT NOT NULL PRIMARY KEY, n)")
    delta = block("INSERT INTO t VALUES ('ours', 1)")
    host.commit("INSERT INTO t VALUES ('theirs', 2)")
    assert laid(host, delta) == [("theirs", 2), ("ours", 1)]


def test_a_clash_with_others_is_an_integrity_error(
    host: Host, block: Callable[..., Delta]
) -> None:
    host.create("CREATE TABLE t (id INTEGER PRIMARY KEY, n UNIQUE)")
    delta = block("INSERT INTO t VALUES (1, 1)")
    host.commit("INSERT INTO t VALUES (2, 1)")
    with pytest.raises(sqlite3.IntegrityError, match="UNIQUE"):
        laid(host, delta)
    assert host.rows("SELECT * FROM t") == [(2, 1)]
