"""Packs of which a few rows come first, and what becomes of the rest."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from django.db import transaction

from s3cache.keeper.compare import verify_replica
from s3cache.keeper.rounds import KeeperOptions
from s3cache.keeper.run import keep_now
from s3cache.replica import cut, packs
from s3cache.replica.replica import forget_replica
from s3cache.replica.rest import Rest
from tests.db.hosts import MakeProcess, all_closed_after, on
from tests.engine import Bucket, Host, MakeHost
from tests.forks import in_child
from tests.keeper.test_on_demand import BEGIN, absent, requests_of
from tests.library.models import Author, Member, Tag

on_directory = pytest.mark.parametrize("bucket", ["directory"], indirect=True)

#: Packs of some hundred rows.
SMALL = KeeperOptions(pack_after=1, target=16 * 1024)

ROWS = 1200


def cut_small() -> None:
    cut.MANY_ROWS, cut.FEW_ROWS = 20, 5


@pytest.fixture(autouse=True)
def _a_few_rows_first() -> Iterator[None]:
    with patch.multiple(cut, MANY_ROWS=20, FEW_ROWS=5):
        yield


@pytest.fixture
def full(host: Host) -> Host:
    """A host with rows in several packs."""
    Member.objects.bulk_create(Member(name="x" * 40) for _ in range(ROWS))
    Tag.objects.bulk_create(Tag(name=f"{n:04}") for n in range(ROWS))
    Author.objects.bulk_create(Author(name=f"{n:03}") for n in range(5))
    keep_now(host.connection.replica, SMALL)
    return host


@pytest.fixture
def cold(full: Host, hosts: MakeHost) -> Host:
    """A host that loads nothing before it is needed."""
    return hosts("cold", load_at_once=0)


@pytest.fixture
def no_thread() -> Iterator[None]:
    """Nobody loads the rest before it is needed."""
    with patch.object(Rest, "load_soon"):
        yield


def rows_of(host: Host) -> int:
    """How many members the replica holds."""
    connection = host.connection.replica.file.connection
    found: int = connection.execute("SELECT count(*) FROM library_member").fetchone()[0]
    return found


def middle() -> int:
    return Member.objects.earliest("pk").pk + ROWS // 2


# Waiting


def test_who_waits_for_a_row_waits_for_a_few(
    bucket: Bucket, full: Host, cold: Host, no_thread: None
) -> None:
    pk = middle()
    seen = requests_of(bucket, cold, lambda: Member.objects.get(pk=pk))
    assert seen == {**BEGIN, "GET packs": 1}
    assert rows_of(cold) == 5


@pytest.mark.parametrize("order", ["pk", "-pk"])
def test_so_does_who_waits_for_a_page(
    bucket: Bucket, full: Host, cold: Host, no_thread: None, order: str
) -> None:
    pages = Member.objects.order_by(order)
    expected = list(pages[:8])
    seen = requests_of(bucket, cold, lambda: list(pages[:4]))
    assert seen == {**BEGIN, "GET packs": 1}
    assert rows_of(cold) == 5
    with cold:
        assert list(pages[1:4]) == expected[1:4]
        assert rows_of(cold) == 5
        assert list(pages[:8]) == expected


def test_the_rest_of_the_pack_follows(bucket: Bucket, full: Host, cold: Host) -> None:
    pk = middle()
    cold.catch_up()
    before = absent(cold)

    def read() -> None:
        Member.objects.get(pk=pk)
        cold.connection.replica.rest.wait()

    assert requests_of(bucket, cold, read) == {"GET packs": 1}
    assert absent(cold) == before - 1
    assert rows_of(cold) > 100


def test_who_needs_more_of_it_does_not_read_it_again(
    bucket: Bucket, full: Host, cold: Host, no_thread: None
) -> None:
    pk = middle()
    tag = Tag.objects.order_by("name")[ROWS // 2].pk
    cold.catch_up()

    def read() -> None:
        Member.objects.get(pk=pk)
        Tag.objects.get(pk=tag)

    seen = requests_of(bucket, cold, read)
    before = absent(cold)

    def read_more() -> None:
        assert Member.objects.get(pk=pk + 7).pk == pk + 7
        assert len(Tag.objects.in_bulk([tag, f"{int(tag) + 9:04}"])) == 2

    assert requests_of(bucket, cold, read_more) == {}
    assert absent(cold) == before
    packs = requests_of(bucket, cold, cold.connection.replica.load)["GET packs"]
    assert packs == before - seen["GET packs"]
    assert cold.dump() == full.dump()


@on_directory
def test_who_needs_more_while_it_is_loaded_waits_for_that(
    bucket: Bucket, full: Host, cold: Host
) -> None:
    pk, load = middle(), packs.load
    begun, goes_on = threading.Event(), threading.Event()

    def load_slowly(connection: Any, pack: Any, body: bytes, first: Any) -> bool:
        if first is None:
            begun.set()
            goes_on.wait()
        return load(connection, pack, body, first)

    def read_more() -> int:
        with on(cold):
            return Member.objects.get(pk=pk + 7).pk

    with patch.object(packs, "load", load_slowly), bucket.requests() as seen:
        with cold:
            Member.objects.get(pk=pk)
            begun.wait()
            assert Member.objects.get(pk=pk + 1).pk == pk + 1
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(read_more)
            goes_on.set()
            assert waiting.result() == pk + 7
    assert seen.count("GET packs") == 1


@on_directory
def test_a_block_reads_on_in_what_follows(full: Host, cold: Host) -> None:
    pk = middle()
    with cold, transaction.atomic():
        assert Member.objects.get(pk=pk).pk == pk
        cold.connection.replica.rest.wait()
        assert Member.objects.get(pk=pk + 7).pk == pk + 7
        Member.objects.filter(pk=pk + 9).update(name="!")
        assert Member.objects.get(pk=pk + 9).name == "!"
        assert Member.objects.get(pk=pk + 8).name == "x" * 40


# Between the two


@on_directory
def test_entries_come_between(full: Host, cold: Host, no_thread: None) -> None:
    pk = middle()
    tag = Tag.objects.order_by("name")[ROWS // 2].pk
    with cold:
        Member.objects.get(pk=pk)
        Tag.objects.get(pk=tag)
    with full:
        Member.objects.filter(pk__range=(pk - 3, pk + 10)).update(name="new")
        Member.objects.filter(pk__in=[pk + 1, pk + 6, pk - 1]).delete()
        Tag.objects.filter(pk__gte=tag).update(note="new")
        Tag.objects.filter(pk__in=[tag, f"{int(tag) + 8:04}"]).delete()
    cold.catch_up()
    with cold:
        found = Member.objects.in_bulk(list(range(pk - 5, pk + 12)))
        assert set(range(pk - 5, pk + 12)) - set(found) == {pk - 1, pk + 1, pk + 6}
        assert [found[pk - 4].name, found[pk + 3].name] == ["x" * 40, "new"]
        assert not Tag.objects.filter(pk=tag).exists()
        assert Tag.objects.get(pk=f"{int(tag) + 1:04}").note == "new"
    cold.connection.replica.load()
    assert cold.dump() == full.dump()
    assert verify_replica(cold.connection.replica) == []


@on_directory
def test_a_keeper_packs_all_rows_anew_between(
    full: Host, cold: Host, no_thread: None
) -> None:
    pk = middle()
    tag = Tag.objects.order_by("name")[ROWS // 2].pk
    with cold:
        Member.objects.get(pk=pk)
        Tag.objects.get(pk=tag)
    with full:
        Member.objects.filter(pk__range=(pk - 3, pk + 10)).update(name="new")
    cold.catch_up()
    with full:
        keep_now(
            full.connection.replica,
            KeeperOptions(
                pack_after=1, target=12 * 1024, retain=0, grace=0, everything=True
            ),
        )
    with cold:
        assert Member.objects.get(pk=pk + 9).name == "new"
        assert len(Member.objects.in_bulk([pk - 20, pk + 20, pk + 1])) == 3
        assert Tag.objects.filter(pk__gt=tag).count() == ROWS // 2 - 1
    cold.connection.replica.load()
    assert cold.dump() == full.dump()


@on_directory
def test_the_rest_that_cannot_be_loaded_is_loaded_when_it_is_needed(
    bucket: Bucket, full: Host, cold: Host, caplog: pytest.LogCaptureFixture
) -> None:
    pk, load = middle(), packs.load

    def fail(connection: Any, pack: Any, body: bytes, first: Any) -> bool:
        if first is None:
            raise OSError("the disk is gone")
        return load(connection, pack, body, first)

    with cold, patch.object(packs, "load", fail):
        assert Member.objects.get(pk=pk).pk == pk
        cold.connection.replica.rest.wait()
    assert "could not be loaded" in caplog.text
    assert rows_of(cold) == 5
    seen = requests_of(bucket, cold, lambda: Member.objects.get(pk=pk + 7))
    assert seen["GET packs"] == 1


@on_directory
def test_who_closes_the_replica_waits(
    full: Host, hosts: MakeHost, tmp_path: Path
) -> None:
    pk = middle()
    with all_closed_after(tmp_path / "cold.sqlite3"):
        cold = hosts("cold", load_at_once=0)
        with cold:
            Member.objects.get(pk=pk)
        cold.close()
        forget_replica(cold.connection.replica.path)
    assert not [t for t in threading.enumerate() if t.name == "s3cache-load"]


# Processes


def get_and_be_killed(pk: int) -> None:
    def die(_rest: Rest) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    with patch.object(Rest, "load_soon", die):
        cut_small()
        Member.objects.get(pk=pk)


def get_and_be_killed_later(pk: int, function: str) -> None:
    """Be killed in the transaction of the rest."""
    cut_small()
    inner, calls = getattr(packs, function), []

    def then_die(*args: Any) -> Any:
        found = inner(*args)
        calls.append(args)
        if len(calls) == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return found

    with patch.object(packs, function, then_die):
        Member.objects.get(pk=pk)
        threading.Event().wait()


def get_each(first: int) -> list[int]:
    cut_small()
    return [Member.objects.get(pk=pk).pk for pk in range(first, first + 1000, 13)]


@on_directory
@pytest.mark.parametrize("when", ["before", "decompress", "_load_parts", "_load"])
def test_what_a_process_that_is_killed_has_not_loaded_the_next_one_loads(
    full: Host, hosts: MakeHost, processes: MakeProcess, when: str
) -> None:
    pk = middle()
    killed = processes("cold", load_at_once=0)
    if when == "before":
        killed.start(get_and_be_killed, pk)
    else:
        killed.start(get_and_be_killed_later, pk, when)
    with pytest.raises(EOFError):
        killed.result()
    cold = hosts("cold", load_at_once=0)
    assert rows_of(cold) == 5
    with cold:
        assert Member.objects.get(pk=pk + 1).pk == pk + 1
        assert rows_of(cold) == 5
        assert Member.objects.get(pk=pk + 7).pk == pk + 7
        assert Member.objects.count() == ROWS
    cold.connection.replica.load()
    assert cold.dump() == full.dump()


@on_directory
def test_processes_of_one_host_get_each_their_rows(
    full: Host, hosts: MakeHost, processes: MakeProcess
) -> None:
    first = Member.objects.earliest("pk").pk
    both = [processes("cold", load_at_once=0) for _ in range(2)]
    for process, start in zip(both, (first, first + 200), strict=True):
        process.start(get_each, start)
    for process, start in zip(both, (first, first + 200), strict=True):
        assert process.result() == list(range(start, start + 1000, 13))
    cold = hosts("cold", load_at_once=0)
    cold.connection.replica.load()
    assert cold.dump() == full.dump()


@on_directory
def test_a_fork_between(full: Host, cold: Host) -> None:
    pk, load = middle(), packs.load
    goes_on = threading.Event()

    def load_slowly(connection: Any, pack: Any, body: bytes, first: Any) -> bool:
        if first is None:
            goes_on.wait(1.0)
        return load(connection, pack, body, first)

    def read_in_child() -> bool:
        with cold:
            return Member.objects.get(pk=pk + 7).pk == pk + 7

    with patch.object(packs, "load", load_slowly):
        with cold:
            Member.objects.get(pk=pk)
        threading.Timer(0.2, goes_on.set).start()
        assert in_child(read_in_child)
        cold.connection.replica.rest.wait()
    assert rows_of(cold) > 100
