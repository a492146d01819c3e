"""What a replica knows about itself."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3cache.log.entry import Change, Rows, Sequences, Statement
from s3cache.replica import meta
from s3cache.replica.meta import MANY_KEYS, Touched, touched_by
from tests.replica.hosts import Host


def rows(*ids: Any, gone: tuple[Any, ...] = (), table: str = "t") -> Rows:
    return Rows(
        table, ["id"], ["x", "id"], [[0, one] for one in ids], [[one] for one in gone]
    )


def test_touched_are_the_keys_of_new_and_of_deleted_rows() -> None:
    touched = touched_by([rows(1, 2, gone=(3,)), rows("a", table="Other")])
    assert touched == Touched(
        {"t": frozenset({(1,), (2,), (3,)}), "other": frozenset({("a",)})}
    )


def test_parts_of_one_table_add_up() -> None:
    assert touched_by([rows(1), rows(2, table="T")]).keys == {
        "t": frozenset({(1,), (2,)})
    }


@pytest.mark.parametrize(
    "changes",
    [
        [rows(*range(MANY_KEYS + 1))],
        [rows(*range(MANY_KEYS), gone=(-1,))],
        [rows(*range(MANY_KEYS)), rows(-1)],
        [rows(*range(MANY_KEYS + 1)), rows(1)],
    ],
)
def test_many_keys_are_all(changes: list[Change]) -> None:
    assert touched_by(changes).keys == {"t": None}


def test_as_many_as_may_be_are_kept() -> None:
    keys = touched_by([rows(*range(MANY_KEYS))]).keys["t"]
    assert keys is not None
    assert len(keys) == MANY_KEYS


def test_a_statement_touches_the_schema_and_sequences_nothing() -> None:
    assert touched_by([Statement("DROP TABLE t")]) == Touched({}, schema=True)
    assert touched_by([Sequences({"t": 1})]) == Touched({})


raw = st.one_of(
    st.none(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    st.text(),
    st.binary(),
)
keys = st.frozensets(st.tuples(raw) | st.tuples(raw, raw), max_size=4)


@given(st.dictionaries(st.text(), st.none() | keys, max_size=3), st.booleans())
def test_any_key_survives_in_the_file(some: dict[str, Any], schema: bool) -> None:
    touched = Touched(some, schema)
    assert meta._decode(meta._encode(touched)) == touched


def test_an_entry_moves_the_position(host: Host) -> None:
    entry = host.create("CREATE TABLE t (id INTEGER PRIMARY KEY)")
    position = meta.read_position(host.file.connection)
    assert (position.number, position.token) == (1, entry.token)
    assert (position.etag, position.proved_at) == ("etag", 1.0)
    assert meta.read_generation(host.file.connection)[1] == 1
    assert meta.read_token(host.file.connection, 1) == entry.token


def test_recent_entries_are_told_in_order(host: Host) -> None:
    host.create("CREATE TABLE t (id INTEGER PRIMARY KEY)")
    host.commit("INSERT INTO t VALUES (1)")
    host.commit("DELETE FROM t")
    recent = meta.read_recent(host.file.connection, 1, 3)
    assert recent is not None
    assert [(one.number, one.host, one.touched.keys) for one in recent] == [
        (2, "here", {"t": frozenset({(1,)})}),
        (3, "here", {"t": frozenset({(1,)})}),
    ]
    assert meta.read_recent(host.file.connection, 3, 3) == []


def test_entries_that_are_not_kept_are_not_passed_over(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(meta, "RECENT", 2)
    for n in range(5):
        host.create(f"CREATE TABLE t{n} (id)")
    assert meta.read_token(host.file.connection, 3) is None
    assert meta.read_recent(host.file.connection, 2, 5) is None
    assert meta.read_recent(host.file.connection, 3, 6) is None
    recent = meta.read_recent(host.file.connection, 3, 5)
    assert recent is not None
    assert [one.number for one in recent] == [4, 5]


def test_a_pending_commit_learns_what_became_of_it(host: Host) -> None:
    host.file.keep_pending(1, "mine")
    host.file.keep_pending(2, "also mine")
    assert host.file.outcome_of("mine") == ""
    host.apply(host.entry([], token="mine"))
    host.apply(host.entry([], token="somebody's"))
    assert host.file.outcome_of("mine") == "committed"
    assert host.file.outcome_of("also mine") == "lost"
    assert host.file.outcome_of("nobody's") == ""


def versions(host: Host) -> dict[str, int]:
    """The numbers of the versions, without their tokens."""
    found = meta.read_versions(host.file.connection)
    return {scope: number for scope, (number, _token) in found.items()}


def test_a_table_has_the_version_of_the_entry_that_changed_it_last(host: Host) -> None:
    host.create("CREATE TABLE t (id INTEGER PRIMARY KEY)")
    host.create("CREATE TABLE U (id INTEGER PRIMARY KEY)")
    host.commit("INSERT INTO t VALUES (1)")
    entry = host.commit("INSERT INTO u VALUES (1)")
    host.commit("DELETE FROM t")
    assert versions(host) == {"": 2, "u": 4, "t": 5}
    assert meta.read_versions(host.file.connection)["u"] == (4, entry.token[:8])


def test_a_change_of_the_schema_gives_every_table_a_new_version(host: Host) -> None:
    host.create("CREATE TABLE t (id INTEGER PRIMARY KEY)")
    host.commit("INSERT INTO t VALUES (1)")
    host.create("CREATE INDEX i ON t (id)")
    assert versions(host) == {"": 3}


def test_an_entry_without_rows_gives_no_table_a_new_version(host: Host) -> None:
    host.create("CREATE TABLE t (id INTEGER PRIMARY KEY)")
    host.apply(host.entry([Sequences({})]))
    assert versions(host) == {"": 1}


def test_a_recent_entry_tells_the_version_that_it_gave(host: Host) -> None:
    host.create("CREATE TABLE t (id INTEGER PRIMARY KEY)")
    host.commit("INSERT INTO t VALUES (1)")
    recent = meta.read_recent(host.file.connection, 1, 2)
    assert recent is not None
    assert recent[0].version == meta.read_versions(host.file.connection)["t"]


def parts(host: Host) -> dict[str, int]:
    return {one: n for one, n in versions(host).items() if one.startswith("[")}


def test_parts_have_versions_once_somebody_has_asked(host: Host) -> None:
    """Of the values before and after; also where no statement names them."""
    host.create("CREATE TABLE T (id INTEGER PRIMARY KEY, region TEXT, x)")
    host.commit("INSERT INTO t VALUES (1, 'EU', 0), (2, 'US', 0)")
    assert parts(host) == {}
    meta.add_partition(host.file.connection, "t", ["region"])
    assert parts(host) == {'["t",["region"]]': 2}
    host.commit("UPDATE t SET x = 1 WHERE id = 1")
    assert parts(host) == {'["t",["region"]]': 2, '["t",["region"],["EU"]]': 3}
    host.commit("UPDATE t SET region = NULL WHERE id = 2")
    host.commit("DELETE FROM t WHERE id = 1")
    assert parts(host) == {
        '["t",["region"]]': 2,
        '["t",["region"],["EU"]]': 5,
        '["t",["region"],["US"]]': 4,
        '["t",["region"],[null]]': 4,
    }
    meta.add_partition(host.file.connection, "t", ["region"])
    assert parts(host)['["t",["region"]]'] == 2


def test_a_change_of_many_rows_is_one_of_all_parts(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(meta, "MANY_KEYS", 1)
    host.create("CREATE TABLE t (id INTEGER PRIMARY KEY, region TEXT)")
    meta.add_partition(host.file.connection, "t", ["region"])
    host.commit("INSERT INTO t VALUES (1, 'EU'), (2, 'US')")
    assert parts(host) == {'["t",["region"]]': 2}


def test_a_change_of_the_schema_ends_the_versions_of_parts(host: Host) -> None:
    host.create("CREATE TABLE t (id INTEGER PRIMARY KEY, region TEXT)")
    meta.add_partition(host.file.connection, "t", ["region"])
    host.commit("INSERT INTO t VALUES (1, 'EU')")
    host.create("ALTER TABLE t RENAME COLUMN region TO r")
    host.commit("UPDATE t SET r = 'US'")
    assert versions(host) == {"": 3, "t": 4}
    assert meta.read_partitions(host.file.connection) == {}
