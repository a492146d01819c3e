"""A replica that lacks packs holds a part of the truth, and nothing else.

Random statements run on a host. Another one begins with a catalog of its
state, and gets the entries, the packs, some rows of packs and newer catalogs
in any order. What it holds is never wrong; what it says it lacks for a key is
all that it lacks for it; and with the last pack both are equal.
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
from s3cache.replica import absent, cut, packs
from s3cache.replica.absent import is_whole
from s3cache.replica.applying import read_sequences
from s3cache.replica.cut import ByKey, Page, Wanted
from s3cache.replica.file import ReplicaFile
from s3cache.replica.packs import compress, make_pack, read_statements
from s3cache.replica.tables import Table, key_collation, read_schema
from tests.replica.hosts import DATABASE, Host
from tests.replica.test_equivalence import Step, content, on_host, steps, tables


class Packer:
    """Makes catalogs of a host's state, with packs of very few rows.

    By their keys the packs are in another order than by their rows.
    """

    def __init__(self, host: Host) -> None:
        self._host = host
        self.rows = 2
        self.bodies: dict[str, bytes] = {}

    def pack(self) -> Catalog:
        host = self._host
        connection, position = host.file.connection, host.file.position()
        made: list[Pack] = []
        rest: Sequence[Segment] = [Segment(table.name) for table in host.schema]
        while rest:
            with patch.object(packs, "_FIRST_ROWS", self.rows):
                packed = make_pack(connection, host.schema, rest, limit=1)
            rest = packed.rest
            key = f"_packs/{position.number}-{999 - len(self.bodies)}"
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

    def load(self, pack: Pack, first: Wanted | None = None) -> bool:
        return self.file.load(Load(pack, self._bodies[pack.key], 0, first))

    def load_all(self, keys: frozenset[str], first: Wanted | None = None) -> None:
        for pack in self.absent():
            if pack.key in keys:
                self.load(pack, first)

    def packs_with(self, key: Any) -> frozenset[str]:
        return self.by_key(key).packs(self.file.connection)

    def packs_of_page(self, count: int, from_end: bool) -> frozenset[str]:
        return self.page(count, from_end).packs(self.file.connection)

    def by_key(self, *keys: Any) -> ByKey:
        return ByKey(self.table(), keys)

    def page(self, count: int, from_end: bool) -> Page:
        return Page(self.table(), count, from_end)

    def knows_its_keys(self) -> bool:
        """Whether rows of the table are asked for by key one by one."""
        table = self.table()
        collation = key_collation(self.file.connection, table.name)
        return table.is_keyed_by_rowid or (table.key == ("id",) and bool(collation))

    def table(self) -> Table:
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


@pytest.fixture(autouse=True, scope="module")
def _few_rows_are_many() -> Iterator[None]:
    with patch.multiple(cut, MANY_ROWS=1, FEW_ROWS=2):
        yield


def filled(host: Host, count: int = 10) -> None:
    host.commit(
        *(
            f"INSERT INTO t (id, u, v) VALUES ('{n:02}', 'u{n}', {n})"  # noqa: S608
            for n in range(1, count + 1)
        )
    )


commits = st.lists(steps(), min_size=1, max_size=6)
many = st.lists(commits, max_size=4)
#: A key, or from which end a row is wanted first.
firsts = st.tuples(st.integers(0, 9), st.one_of(st.integers(-1, 13), st.booleans()))
actions = st.one_of(
    commits,
    st.integers(0, 9),
    firsts,
    st.just("repack"),
    st.just("wait"),
    st.just("go on"),
)
#: How many rows there are at first, and in a pack.
sizes = st.one_of(st.just((0, 2)), st.tuples(st.integers(8, 13), st.integers(4, 8)))


def load_some(other: LackingHost, number: int, which: Any) -> None:
    """Load a pack, or of a table that allows it the rows that are wanted."""
    found = other.absent()
    if not found:
        return
    pack = found[number % len(found)]
    first: Wanted
    if isinstance(which, bool):
        first = other.page(1, from_end=which)
    else:
        by_rowid = other.table().is_keyed_by_rowid
        first = other.by_key(which if by_rowid else f"{which:02}")
    if other.knows_its_keys():
        other.load(pack, first)
        assert pack.key not in first.packs(other.file.connection)


@settings(max_examples=75)
@given(
    definition=tables,
    size=sizes,
    before=many,
    then=st.lists(actions, max_size=9),
)
def test_whatever_comes_first_it_comes_to_the_same(
    definition: str, size: tuple[int, int], before: list[list[Step]], then: list[Any]
) -> None:
    with hosts(f"CREATE TABLE t {definition}") as (host, packer, folder):
        count, packer.rows = size
        filled(host, count)
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
            elif isinstance(action, tuple):
                load_some(other, *action)
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


ROWIDS = [
    "(id INTEGER PRIMARY KEY, u UNIQUE, v)",
    "(id TEXT NOT NULL PRIMARY KEY, u UNIQUE, v)",
]
keyed = st.sampled_from([*ROWIDS, "(id TEXT PRIMARY KEY, u, v) WITHOUT ROWID"])


@settings(max_examples=60)
@given(
    definition=st.sampled_from(ROWIDS),
    rows_in_pack=st.integers(5, 12),
    then=st.lists(
        st.one_of(firsts, firsts, commits, st.just("repack")), min_size=1, max_size=8
    ),
)
def test_any_rows_of_a_pack_may_come_first(
    definition: str, rows_in_pack: int, then: list[Any]
) -> None:
    with hosts(f"CREATE TABLE t {definition}") as (host, packer, folder):
        packer.rows = rows_in_pack
        filled(host, 12)
        made = LackingHost(folder / "other", packer.pack(), packer.bodies)
        with closing(made) as other:
            for action in then:
                if isinstance(action, list):
                    other.apply(host.apply(host.entry(run(host, action))))
                elif isinstance(action, tuple):
                    load_some(other, *action)
                else:
                    assert other.file.repack(packer.pack())
                assert rows(other, host.table("t")) <= rows(host, host.table("t"))
            for pack in other.absent():
                assert not other.load(pack)
            assert content(other.file.connection) == content(host.file.connection)


@contextmanager
def lacking(
    definition: str,
    size: tuple[int, int],
    before: list[list[Step]],
    after: list[list[Step]],
) -> Iterator[tuple[Host, LackingHost]]:
    """A host, and one that began between its commits, and lacks all packs."""
    with hosts(f"CREATE TABLE t {definition}") as (host, packer, folder):
        count, packer.rows = size
        filled(host, count)
        for commit in before:
            host.apply(host.entry(run(host, commit)))
        made = LackingHost(folder / "other", packer.pack(), packer.bodies)
        with closing(made) as other:
            for commit in after:
                other.apply(host.apply(host.entry(run(host, commit))))
            yield host, other


@settings(max_examples=40)
@given(definition=keyed, size=sizes, before=many, after=many, asked=st.data())
def test_the_packs_of_a_key_have_its_row(
    definition: str,
    size: tuple[int, int],
    before: list[list[Step]],
    after: list[list[Step]],
    asked: Any,
) -> None:
    with lacking(definition, size, before, after) as (host, other):
        is_whole_number = host.table("t").integer_key
        keys = st.integers(-1, 13)
        if not is_whole_number:
            keys = st.one_of(keys.map("{:02}".format), st.sampled_from("aA12é"))
        for key in asked.draw(st.lists(keys, min_size=1, max_size=4)):
            other.load_all(other.packs_with(key), other.by_key(key))
            assert other.packs_with(key) == frozenset()
            query = f"SELECT * FROM t WHERE id = {key!r}"  # noqa: S608
            assert other.rows(query) == host.rows(query)


@settings(max_examples=40)
@given(
    definition=keyed,
    size=sizes,
    before=many,
    after=many,
    pages=st.lists(
        st.tuples(st.integers(0, 5), st.booleans(), st.booleans()),
        min_size=1,
        max_size=3,
    ),
)
def test_the_packs_of_a_page_have_its_rows(
    definition: str,
    size: tuple[int, int],
    before: list[list[Step]],
    after: list[list[Step]],
    pages: list[tuple[int, bool, bool]],
) -> None:
    with lacking(definition, size, before, after) as (host, other):
        for count, from_end, is_enough in pages:
            first = other.page(count, from_end) if is_enough else None
            while wanted := other.packs_of_page(count, from_end):
                other.load_all(wanted, first)
            order = "DESC" if from_end else "ASC"
            query = f"SELECT * FROM t ORDER BY id {order} LIMIT {count}"  # noqa: S608
            assert other.rows(query) == host.rows(query)


# One by one


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
