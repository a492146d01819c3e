"""Processes of one host that load what they need, and are killed meanwhile."""

from __future__ import annotations

import itertools
import os
import resource
import signal
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.db import connections

from s3cache.db.base import DatabaseWrapper
from s3cache.keeper.rounds import KeeperOptions
from s3cache.keeper.run import keep_now
from s3cache.replica import absent, packs
from s3cache.stores.base import Answer, Request, observe
from tests.db.hosts import FaultyStore, MakeProcess, faulty, on
from tests.engine import Bucket, Host, MakeHost
from tests.forks import in_child
from tests.library.models import Author, Member

__all__ = ["faulty"]

pytestmark = pytest.mark.parametrize("bucket", ["directory"], indirect=True)


@pytest.fixture
def full(host: Host) -> Host:
    """A host with rows in a dozen packs."""
    Author.objects.bulk_create(Author(name=f"{n:03} {'x' * 150}") for n in range(150))
    Member.objects.bulk_create(Member(name="x" * 40) for _ in range(600))
    keep_now(host.connection.replica, KeeperOptions(pack_after=1, target=8 * 1024))
    Member.objects.filter(pk__lte=100).update(name="y")
    return host


def catch_up() -> None:
    connection = connections["default"]
    assert isinstance(connection, DatabaseWrapper)
    connection.catch_up()


def count() -> tuple[int, int]:
    return Member.objects.filter(name="y").count(), Author.objects.count()


def get_each(first: int) -> list[str]:
    """Ask for every 20th row by its key, and for a table in the middle."""
    found = [Member.objects.get(pk=pk).name for pk in range(first, first + 300, 20)]
    Author.objects.count()
    return found


def load_and_weigh(pk: int) -> tuple[int, int]:
    """The rows of a large table, and by how many bytes this process grew."""
    catch_up()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    Member.objects.get(pk=pk)
    found = Member.objects.count()
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return found, grown * (1 if sys.platform == "darwin" else 1024)


def packs_that_are_read(job: Any, *args: Any) -> tuple[Any, list[str]]:
    seen: list[str] = []

    def tell(request: Request) -> None:
        if request.key.startswith("_packs/"):
            seen.append(request.key)

    with observe(tell):
        return job(*args), seen


def count_and_be_killed(before: str, number: int) -> None:
    """Be killed before the transaction of a pack ends, or one is read."""
    calls = itertools.count(1)

    def die() -> None:
        if next(calls) == number:
            os.kill(os.getpid(), signal.SIGKILL)

    def then_die(function: Any) -> Any:
        def run(*args: Any) -> Any:
            result = function(*args)
            die()
            return result

        return run

    def tell(_request: Request) -> None:
        if before == "request":
            die()

    if before == "commit":
        absent.leave = then_die(absent.leave)
    elif before == "rows":
        packs.decompress = then_die(packs.decompress)
    with observe(tell):
        count()


@pytest.mark.parametrize(
    ("before", "number"),
    [("commit", 1), ("commit", 4), ("rows", 2), ("request", 1), ("request", 7)],
)
def test_what_was_not_loaded_yet_is_loaded_by_the_next(
    full: Host,
    hosts: MakeHost,
    processes: MakeProcess,
    bucket: Bucket,
    before: str,
    number: int,
) -> None:
    killed = processes("cold", load_at_once=0)
    killed.call(catch_up)
    killed.start(count_and_be_killed, before, number)
    with pytest.raises(EOFError):
        killed.result()
    next_one = hosts("cold", load_at_once=0)
    with next_one:
        assert count() == (100, 150)
    next_one.connection.replica.load()
    assert next_one.dump() == full.dump()


def test_processes_load_each_pack_once(
    full: Host, processes: MakeProcess, bucket: Bucket
) -> None:
    first = Member.objects.earliest("pk").pk
    both = [processes("cold", load_at_once=0) for _ in range(2)]
    both[0].call(catch_up)
    for process, start in zip(both, (first, first + 200), strict=True):
        process.start(packs_that_are_read, get_each, start)
    found, seen = zip(*(process.result() for process in both), strict=True)
    assert found[0] == ["y"] * 5 + ["x" * 40] * 10
    assert found[1] == ["x" * 40] * 15
    read = [*seen[0], *seen[1]]
    assert len(read) == len(set(read))


def test_one_process_sees_what_another_has_loaded(
    full: Host, processes: MakeProcess, bucket: Bucket
) -> None:
    one, two = (processes("cold", load_at_once=0) for _ in range(2))
    one.call(count)
    told, seen = two.call(packs_that_are_read, count)
    assert (told, seen) == ((100, 150), [])


def test_a_fork_while_rows_are_loaded(
    full: Host, hosts: MakeHost, faulty: FaultyStore
) -> None:
    cold = hosts("forked", load_at_once=0, storage="faulty")
    cold.catch_up()
    forked, tell = os.pipe()
    is_loading = threading.Event()

    def wait(send: Callable[[], Answer]) -> Answer:
        is_loading.set()
        os.read(forked, 1)
        return send()

    def count_in_child() -> bool:
        os.write(tell, b"!")
        with cold:
            return count() == (100, 150)

    def count_here() -> tuple[int, int]:
        with on(cold):
            return count()

    faulty.on("GET", "_packs/", wait, times=1)
    with ThreadPoolExecutor(1) as pool:
        here = pool.submit(count_here)
        is_loading.wait()
        assert in_child(count_in_child)
        assert here.result() == (100, 150)
    os.close(forked)
    os.close(tell)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_table(
    host: Host, processes: MakeProcess, bucket: Bucket
) -> None:
    """Packs are read a few at a time: 60 MB of rows, in packs of 1 MB."""
    host.sql(
        "INSERT INTO library_member (id, name) "
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n "
        "WHERE i < 60000) SELECT i, hex(randomblob(500)) FROM n"
    )
    keep_now(host.connection.replica, KeeperOptions(pack_after=1, target=1024 * 1024))
    assert len(bucket.store.list("_packs/").keys) > 40
    found, grown = processes("cold", load_at_once=0).call(load_and_weigh, 30_000)
    assert found == 60_000
    assert grown < 30 * 1024 * 1024
