"""A replica that lacks packs holds a part of the truth, and nothing else.

Random statements run on a host. Another one begins with a catalog of its
state, and gets the entries, the packs and newer catalogs in any order. What
it holds is never wrong; what it says it lacks for a key is all that it lacks
for it; and with the last pack both are equal.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from s3cache.log.catalog import Catalog, Pack, Segment
from s3cache.log.effects import Absent, Apply, Lacking, Load
from s3cache.log.entry import Change, Entry, Sequences, Statement
from s3cache.log.head import Head
from s3cache.replica import absent, packs
from s3cache.replica.absent import is_whole, packs_of_page, packs_with
from s3cache.replica.applying import read_sequences
from s3cache.replica.file import ReplicaFile
from s3cache.replica.packs import compress, make_pack, read_statements
from s3cache.replica.tables import Table, read_schema
from tests.replica.hosts import DATABASE, Host
from tests.replica.test_equivalence import Step, content, on_host, steps, tables


class Packer:
    """Makes catalogs of a host's state, with packs of very few rows."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self.bodies: dict[str, bytes] = {}

    def pack(self) -> Catalog:
        host = self._host
        connection, position = host.file.connection, host.file.position()
        made: list[Pack] = []
        rest: Sequence[Segment] = [Segment(table.name) for table in host.schema]
        while rest:
            with patch.object(packs, "_FIRST_ROWS", 2):
                packed = make_pack(connection, host.schema, rest, limit=1)
            rest = packed.rest
            key = f"_packs/{position.number}-{len(self.bodies):03}"
            self.bodies[key] = compress(packed.raw)
            size, bounds = len(packed.raw), dict(packed.bounds)
            segments = list(packed.segments)
            made.append(
                Pack(key, "", 1, segments, packed.rows, 0, "", size, "", bounds)
            )
        return Catalog(
            database=DATABASE,
            number=position.number,
            token=position.token,
            etag="",
            modified=0.0,
            schema=read_statements(connection),
            sequences=read_sequences(connection),
            packs=made,
        )


class LackingHost:
    """A replica that begins with a catalog, and none of its packs."""

    def __init__(self, path: Path, catalog: Catalog, bodies: dict[str, bytes]) -> None:
        self._bodies = bodies
        self.file = ReplicaFile.open(path, store="nowhere", registrations=())
        self.file.begin_at(Head(database=DATABASE), catalog)
        self.file.complete(catalog)

    def close(self) -> None:
        self.file.close()

    def apply(self, entry: Entry) -> None:
        assert self.file.apply(Apply(entry, etag="", modified=1.0)) is True

    def rows(self, sql: str) -> list[Any]:
        return self.file.execute(sql, ()).rows

    def absent(self) -> Sequence[Pack]:
        return self.file.lacking(Absent(None, 1000)).packs

    def load(self, pack: Pack) -> None:
        self.file.load(Load(pack, self._bodies[pack.key]))

    def load_all(self, keys: frozenset[str]) -> None:
        for pack in self.absent():
            if pack.key in keys:
                self.load(pack)

    def packs_with(self, key: Any) -> frozenset[str]:
        return packs_with(self.file.connection, self._table(), [key])

    def packs_of_page(self, count: int, from_end: bool) -> frozenset[str]:
        return packs_of_page(self.file.connection, self._table(), count, from_end)

    def _table(self) -> Table:
        table = read_schema(self.file.connection, 0).get("t")
        assert table is not None
        return table


@contextmanager
def hosts(*ddl: str) -> Iterator[tuple[Host, Packer, Path]]:
    with TemporaryDirectory() as folder:
        host = Host(Path(folder) / "host")
        try:
            host.create(*ddl)
            yield host, Packer(host), Path(folder)
        finally:
            host.close()


def run(host: Host, commit: Sequence[Step]) -> list[Change]:
    """What statements, each of which may fail, would change."""
    host.writer.begin(commit, ["t"])
    try:
        for step in commit:
            on_host(host, step)
        return host.writer.changes()
    finally:
        host.writer.rollback()


def rows(host: Host | LackingHost, table: Table) -> set[str]:
    columns = ", ".join(f"{column}, typeof({column})" for column in table.columns)
    return set(map(repr, host.rows(f"SELECT {columns} FROM t")))  # noqa: S608


commits = st.lists(steps(), min_size=1, max_size=6)
many = st.lists(commits, max_size=4)
actions = st.one_of(
    commits, st.integers(0, 9), st.just("repack"), st.just("wait"), st.just("go on")
)


@settings(max_examples=75)
@given(definition=tables, before=many, then=st.lists(actions, max_size=9))
def test_whatever_comes_first_it_comes_to_the_same(
    definition: str, before: list[list[Step]], then: list[Any]
) -> None:
    with hosts(f"CREATE TABLE t {definition}") as (host, packer, folder):
        for commit in before:
            host.apply(host.entry(run(host, commit)))
        other = LackingHost(folder / "other", packer.pack(), packer.bodies)
        waiting: list[Any] | None = None
        for action in then:
            if isinstance(action, list):
                entry = host.apply(host.entry(run(host, action)))
                if waiting is None:
                    other.apply(entry)
                else:
                    waiting.append(entry)
            elif isinstance(action, int):
                if absent_packs := other.absent():
                    other.load(absent_packs[action % len(absent_packs)])
            elif action == "repack":
                is_newer = bool(waiting) and bool(other.absent())
                assert other.file.repack(packer.pack()) is not is_newer
            elif action == "wait":
                waiting = waiting or []
            else:
                for entry in waiting or ():
                    other.apply(entry)
                waiting = None
            if waiting is None:
                assert rows(other, host.table("t")) <= rows(host, host.table("t"))
        for entry in waiting or ():
            other.apply(entry)
        for pack in other.absent():
            other.load(pack)
        assert not other.file.may_lack()
        assert content(other.file.connection) == content(host.file.connection)
        assert not other.rows("SELECT * FROM _s3cache_touched")
        other.close()


keyed = st.sampled_from(
    [
        "(id INTEGER PRIMARY KEY, u UNIQUE, v)",
        "(id TEXT NOT NULL PRIMARY KEY, u UNIQUE, v)",
        "(id TEXT PRIMARY KEY, u, v) WITHOUT ROWID",
    ]
)


@contextmanager
def lacking(
    definition: str, before: list[list[Step]], after: list[list[Step]]
) -> Iterator[tuple[Host, LackingHost]]:
    """A host, and one that began between its commits, and lacks all packs."""
    with hosts(f"CREATE TABLE t {definition}") as (host, packer, folder):
        for commit in before:
            host.apply(host.entry(run(host, commit)))
        made = LackingHost(folder / "other", packer.pack(), packer.bodies)
        with closing(made) as other:
            for commit in after:
                other.apply(host.apply(host.entry(run(host, commit))))
            yield host, other


@settings(max_examples=40)
@given(definition=keyed, before=many, after=many, asked=st.data())
def test_the_packs_of_a_key_have_its_row(
    definition: str, before: list[list[Step]], after: list[list[Step]], asked: Any
) -> None:
    with lacking(definition, before, after) as (host, other):
        is_whole_number = host.table("t").integer_key
        keys = st.integers(-1, 6) if is_whole_number else st.sampled_from("aA12é")
        for key in asked.draw(st.lists(keys, max_size=4)):
            wanted = other.packs_with(key)
            other.load_all(wanted)
            query = f"SELECT * FROM t WHERE id = {key!r}"  # noqa: S608
            assert other.rows(query) == host.rows(query)


@settings(max_examples=40)
@given(
    definition=keyed,
    before=many,
    after=many,
    pages=st.lists(st.tuples(st.integers(0, 5), st.booleans()), max_size=3),
)
def test_the_packs_of_a_page_have_its_rows(
    definition: str,
    before: list[list[Step]],
    after: list[list[Step]],
    pages: list[tuple[int, bool]],
) -> None:
    with lacking(definition, before, after) as (host, other):
        for count, from_end in pages:
            while wanted := other.packs_of_page(count, from_end):
                other.load_all(wanted)
            order = "DESC" if from_end else "ASC"
            query = f"SELECT * FROM t ORDER BY id {order} LIMIT {count}"  # noqa: S608
            assert other.rows(query) == host.rows(query)


# One by one


def filled(host: Host, count: int = 10) -> None:
    host.commit(
        *(f"INSERT INTO t VALUES ({n}, 'u{n}', {n})" for n in range(1, count + 1))  # noqa: S608
    )


@pytest.fixture
def packed(tmp_path: Path) -> Iterator[tuple[Host, Packer, LackingHost]]:
    """A host with ten rows in five packs, and one that lacks them."""
    with hosts("CREATE TABLE t (id INTEGER PRIMARY KEY, u UNIQUE, v)") as made:
        host, packer, folder = made
        filled(host)
        other = LackingHost(folder / "other", packer.pack(), packer.bodies)
        yield host, packer, other
        other.close()


Packed = tuple[Host, Packer, LackingHost]


def test_a_key_is_in_one_pack(packed: Packed) -> None:
    _host, _packer, other = packed
    assert len(other.absent()) >= 5
    (key,) = other.packs_with(7)
    other.load(next(pack for pack in other.absent() if pack.key == key))
    assert (7, "u7", 7) in other.rows("SELECT * FROM t")
    assert other.packs_with(7) == frozenset()
    assert len(other.packs_with(1)) == 1


@pytest.mark.parametrize("from_end", [False, True])
def test_a_page_is_in_the_packs_at_that_end(packed: Packed, from_end: bool) -> None:
    _host, _packer, other = packed
    keys = [pack.key for pack in other.absent()]
    at_end = keys[::-1] if from_end else keys
    assert other.packs_of_page(10**6, from_end) == set(keys)
    wanted = other.packs_of_page(1, from_end)
    assert {at_end[0]} <= wanted <= set(at_end[:2])  # the last one may be empty
    other.load_all(wanted)
    assert other.packs_of_page(1, from_end) == frozenset()
    assert other.packs_of_page(4, from_end) < set(at_end)


def test_a_row_that_has_changed_does_not_begin_a_page_before_others(
    packed: Packed,
) -> None:
    host, _packer, other = packed
    first = other.absent()[0].key
    other.apply(host.commit("UPDATE t SET v = 0 WHERE id = 2"))
    assert first in other.packs_of_page(1, from_end=False)


def test_a_key_that_is_larger_than_all_is_in_the_last_pack(packed: Packed) -> None:
    _host, _packer, other = packed
    assert other.packs_with(10**9) == {other.absent()[-1].key}


def test_a_pack_is_loaded_once(packed: Packed) -> None:
    _host, _packer, other = packed
    pack = other.absent()[0]
    other.load(pack)
    before = other.rows("SELECT * FROM t")
    other.load(pack)
    assert other.rows("SELECT * FROM t") == before


def test_a_pack_says_nothing_of_rows_that_have_changed(packed: Packed) -> None:
    host, _packer, other = packed
    other.apply(host.commit("DELETE FROM t WHERE id = 1", "UPDATE t SET v = 0"))
    other.apply(host.commit("UPDATE t SET u = 'u1' WHERE id = 2"))
    for pack in other.absent():
        other.load(pack)
    assert other.rows("SELECT * FROM t") == host.rows("SELECT * FROM t")


def test_a_change_of_the_schema_needs_all_packs(packed: Packed) -> None:
    host, _packer, other = packed
    entry = host.entry([Statement("ALTER TABLE t ADD COLUMN w")])
    lacking = other.file.apply(Apply(entry, "", 1.0))
    assert isinstance(lacking, Lacking)
    assert lacking.packs == other.absent()
    assert other.file.position().number == entry.number - 1
    for pack in lacking.packs:
        other.load(pack)
    other.apply(entry)


def test_what_is_kept_of_the_log_is_bounded(
    packed: Packed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(absent, "MOST_TOUCHED", 5)
    host, _packer, other = packed
    other.apply(host.commit("UPDATE t SET v = -1 WHERE id <= 3"))
    entry = host.commit("UPDATE t SET v = -1 WHERE id > 7")
    lacking = other.file.apply(Apply(entry, "", 1.0))
    assert isinstance(lacking, Lacking)
    assert {pack.key for pack in lacking.packs} == {p.key for p in other.absent()}


def test_rows_of_packs_that_are_there_are_not_noted(packed: Packed) -> None:
    host, _packer, other = packed
    other.load(other.absent()[0])
    ((first,),) = other.rows("SELECT min(id) FROM t")
    ((last,),) = other.rows("SELECT max(id) FROM t")
    other.apply(host.commit("UPDATE t SET v = -1"))
    noted = {key for (key,) in other.rows("SELECT key FROM _s3cache_touched")}
    assert noted == set(range(1, 11)) - set(range(first, last + 1))


def test_ids_and_other_tables_are_no_reason_to_load(packed: Packed) -> None:
    host, _packer, other = packed
    other.apply(host.entry([Sequences({})]))
    assert other.absent()


def test_a_catalog_of_another_log_is_not_taken(packed: Packed) -> None:
    host, packer, other = packed
    other.apply(host.commit("UPDATE t SET v = -1"))
    catalog = packer.pack()
    assert not other.file.repack(replace(catalog, database="x" * 16))
    assert not other.file.repack(replace(catalog, token="other"))
    assert other.file.repack(catalog)


def test_an_older_catalog_is_not_taken(packed: Packed) -> None:
    host, packer, other = packed
    old = packer.pack()
    other.apply(host.commit("UPDATE t SET v = -1"))
    assert other.file.repack(packer.pack())
    assert not other.file.repack(old)


def test_an_empty_replica_may_still_become_one_that_lacks_packs(host: Host) -> None:
    connection = host.file.connection
    assert is_whole(connection)
    connection.execute("UPDATE _s3cache_meta SET database = ''")
    assert not is_whole(connection)
