"""Commits that return when this host has them, and are sent a little later."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import NotSupportedError, OperationalError, connection, transaction
from django.db.models import F, Value
from django.db.models.functions import Concat

from s3cache.db import base, behind
from s3cache.db.behind import Behind
from s3cache.replica.outbox import Outbox
from s3cache.transactions import write_behind
from tests.db import hosts as db_hosts
from tests.db.hosts import (
    FaultyStore,
    MakeProcess,
    in_child,
    lost_after,
    lost_before,
)
from tests.engine import Bucket, Host, MakeHost
from tests.library.models import Author
from tests.testapp.models import Category

pytestmark = pytest.mark.parametrize("bucket", ["directory"], indirect=True)

#: As an increment, of a text.
ONE_MORE = Concat("name", Value("x"))

TABLE = Category._meta.db_table


@pytest.fixture(autouse=True)
def by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is sent before a test says so."""
    monkeypatch.setattr(Behind, "send_soon", lambda self: None)


@pytest.fixture
def of_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if S3Meta of Category said write_behind = True."""
    monkeypatch.setattr(base, "_write_behind_tables", lambda: frozenset({TABLE}))


def outbox_of(host: Host) -> Behind:
    return host.connection.behind


def make_marks(host: Host) -> None:
    """Have the database say what was sent, which it else does at the first."""
    outbox_of(host).make_marks(host.connection.replica.position().database)


def names() -> list[str]:
    return list(Category.objects.order_by("name").values_list("name", flat=True))


def committed(host: Host) -> list[str]:
    """The names that are in the bucket, as another host reads them."""
    host.catch_up()
    with host:
        return names()


# What is promised


def test_it_returns_without_a_request_and_is_sent_in_one_entry(
    host: Host, hosts: MakeHost, bucket: Bucket
) -> None:
    with bucket.requests() as requests:
        for number in range(5):
            with write_behind():
                Category.objects.create(name=f"{number}")
    assert requests == []
    assert outbox_of(host).outbox.statistics().waiting == 5
    outbox_of(host).send()  # and makes the table that says what was sent
    with write_behind():
        Category.objects.create(name="5")
    with write_behind():
        Category.objects.create(name="6")
    with bucket.requests() as requests:
        sent = outbox_of(host).send()
    assert (sent.commits, sent.entries, sent.parked) == (2, 1, 0)
    assert requests == ["PUT log"]
    assert committed(hosts()) == list("0123456")
    assert outbox_of(host).outbox.statistics().waiting == 0


def test_a_block_is_sent_whole_and_one_that_fails_not_at_all(
    host: Host, hosts: MakeHost
) -> None:
    with write_behind():
        Category.objects.create(name="kept")
        with pytest.raises(ZeroDivisionError), transaction.atomic():
            Category.objects.create(name="undone")
            raise ZeroDivisionError
        Category.objects.filter(name="kept").update(name="changed")
    with pytest.raises(ZeroDivisionError), write_behind():
        Category.objects.create(name="never")
        raise ZeroDivisionError
    outbox_of(host).send()
    assert committed(hosts()) == ["changed"]


def test_a_read_on_this_host_sends_it_first(host: Host, bucket: Bucket) -> None:
    for number in range(3):
        with write_behind():
            Category.objects.create(name=f"{number}")
        for _ in range(3):  # hot, too
            assert len(names()) == Category.objects.count() == number + 1
    with write_behind():
        Category.objects.update(name=F("name"))
    with bucket.requests() as requests:
        Author.objects.count()  # of another table, it does not
    assert "PUT log" not in requests


def test_what_many_hosts_add_adds_up(host: Host, hosts: MakeHost) -> None:
    made = Category.objects.create(name="")
    other = hosts()
    other.catch_up()
    for _ in range(3):
        for one in (host, other):
            with one, write_behind():
                Category.objects.filter(pk=made.pk).update(name=ONE_MORE)
    outbox_of(host).send()
    outbox_of(other).send()
    assert committed(host) == ["xxxxxx"]


def test_of_two_that_write_a_row_the_last_one_wins(host: Host, hosts: MakeHost) -> None:
    other = hosts()
    made = Category(name="here")
    with write_behind():
        made.save(force_insert=True)
    with other, write_behind():
        Category(pk=made.pk, name="there").save(force_insert=True)
    outbox_of(host).send()
    outbox_of(other).send()
    assert committed(host) == ["there"]


def test_a_write_that_does_not_wait_comes_after_those_that_do(
    host: Host, hosts: MakeHost
) -> None:
    made = Category.objects.create(name="first")
    with write_behind():
        Category.objects.filter(pk=made.pk).update(name="second")
    Category.objects.filter(pk=made.pk).update(name="third")
    with write_behind():
        Category.objects.filter(pk=made.pk).update(name="fourth")
    with transaction.atomic():
        Category.objects.filter(pk=made.pk).update(name="fifth")
    outbox_of(host).send()
    assert committed(hosts()) == ["fifth"]


# Of a model


@pytest.mark.usefixtures("of_model")
def test_statements_of_a_model_are_written_behind(
    host: Host, hosts: MakeHost, bucket: Bucket
) -> None:
    outbox_of(host).send()
    made = Category(name="new")
    with bucket.requests() as requests:
        made.save()
        made.name = "newer"
        made.save()
        Category.objects.filter(pk=made.pk).update(name="newest")
    assert requests == []
    assert outbox_of(host).outbox.statistics().waiting >= 3
    outbox_of(host).send()
    assert committed(hosts()) == ["newest"]


# Where things go wrong


def test_while_the_store_is_down_commits_are_taken_and_reads_go_on(
    hosts: MakeHost, faulty: FaultyStore
) -> None:
    host = hosts(storage="faulty", commit_timeout=0.1)
    host.catch_up()
    with host:
        make_marks(host)
        faulty.on("", "", lost_before)
        with write_behind():
            Category.objects.create(name="taken")
        assert names() == []  # what it knows
        with pytest.raises(OperationalError):
            Category.objects.create(name="at once")
        assert outbox_of(host).outbox.statistics().waiting == 1
        faulty.heal()
        outbox_of(host)._retry_at = 0.0
        assert names() == ["taken"]


@pytest.mark.parametrize("fault", [lost_before, lost_after])
def test_a_lost_answer_sends_nothing_twice(
    hosts: MakeHost, faulty: FaultyStore, fault: Callable[..., Any]
) -> None:
    host = hosts(storage="faulty", commit_timeout=0.1)
    host.catch_up()
    with host:
        made = Category.objects.create(name="")
        make_marks(host)
        for _ in range(3):
            with write_behind():
                Category.objects.filter(pk=made.pk).update(name=ONE_MORE)
        faulty.on("PUT", "_log", fault)
        faulty.on("GET", "_log", lost_before)
        with pytest.raises(OperationalError):
            outbox_of(host).send()
        assert outbox_of(host).outbox.statistics().waiting == 3
        faulty.heal()
        outbox_of(host).send()
        outbox_of(host).send()
    assert committed(hosts()) == ["xxx"]


def test_what_was_sent_before_it_could_be_removed_is_not_sent_again(
    host: Host, hosts: MakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    outbox = outbox_of(host)
    with write_behind():
        Category.objects.create(name="once")
    with write_behind():
        outbox.outbox.append(
            host.connection.replica.position().database,
            [TABLE],
            [("INSERT INTO nowhere VALUES (1)", (), False)],
        )
    with monkeypatch.context() as patch:
        patch.setattr(outbox.outbox, "settle", _dies)
        with pytest.raises(sqlite3.OperationalError):
            outbox.send()
    position = host.position
    sent = outbox.send()
    assert host.position == position  # there is nothing to commit
    assert sent.parked == 1  # which is known from what was committed
    assert committed(hosts()) == ["once"]


def as_in_a_new_process() -> None:
    for one in behind._all.values():
        one.outbox.close()
    behind._all.clear()


@pytest.mark.parametrize("attempts", [1, 2])
def test_what_was_parked_before_it_could_be_settled_stays_parked(
    host: Host, hosts: MakeHost, monkeypatch: pytest.MonkeyPatch, attempts: int
) -> None:
    """Though more has come meanwhile, which moves the mark on."""
    outbox = outbox_of(host)
    database = host.connection.replica.position().database
    nowhere = [("INSERT INTO nowhere VALUES (1)", (), False)]
    outbox.outbox.append(database, [TABLE], nowhere)
    with monkeypatch.context() as patch:
        patch.setattr(outbox.outbox, "settle", _dies)
        for number in range(attempts):
            with pytest.raises(sqlite3.OperationalError):
                outbox.send()
            write_one(f"{number}")
    sent = outbox.send()
    assert (sent.commits, sent.parked) == (attempts, 1)
    [parked] = outbox.outbox.parked()
    assert parked.error == "OperationalError: no such table: nowhere"
    assert committed(hosts()) == [f"{number}" for number in range(attempts)]


def _dies(*args: Any) -> None:
    raise sqlite3.OperationalError("disk I/O error")


def test_what_cannot_be_committed_is_parked_and_the_rest_is_sent(
    host: Host, hosts: MakeHost, caplog: pytest.LogCaptureFixture
) -> None:
    outbox = outbox_of(host)
    database = host.connection.replica.position().database
    with write_behind():
        Category.objects.create(name="before")
    outbox.outbox.append(
        database,
        [TABLE],
        [
            (f"UPDATE {TABLE} SET nowhere = 1", (), False)  # noqa: S608
        ],
    )
    with write_behind():
        Category.objects.create(name="after")
    sent = outbox.send()
    assert (sent.commits, sent.parked) == (2, 1)
    assert committed(hosts()) == ["after", "before"]
    [parked] = outbox.outbox.parked()
    assert parked.error == "OperationalError: no such column: nowhere"
    assert "no such column" in caplog.text
    # A later release may have it.
    host.sql(f"ALTER TABLE {TABLE} ADD COLUMN nowhere integer")
    assert outbox.outbox.retry() == 1
    assert outbox.send().commits == 1
    assert outbox.outbox.statistics().parked == 0


def test_commits_of_another_database_are_not_sent_to_this_one(host: Host) -> None:
    outbox = outbox_of(host)
    outbox.outbox.append("another", [TABLE], [(f"DELETE FROM {TABLE}", (), False)])  # noqa: S608
    assert outbox.send().parked == 1
    [parked] = outbox.outbox.parked()
    assert parked.error == "it belongs to another database, another"


def put_back(outbox: Outbox, copy: bytes) -> None:
    """Have the file of an outbox be what it was when it was copied."""
    outbox.close()
    outbox.path.write_bytes(copy)


@pytest.mark.parametrize("taken_since", [1, 3])
def test_an_old_copy_that_is_put_back_loses_nothing_silently(
    host: Host, hosts: MakeHost, caplog: pytest.LogCaptureFixture, taken_since: int
) -> None:
    """Its numbers are those of commits that are sent."""
    behind = outbox_of(host)
    write_one("first")
    behind.send()
    behind.outbox.close()
    copy = behind.outbox.path.read_bytes()
    write_one("second")
    write_one("third")
    behind.send()
    put_back(behind.outbox, copy)
    for number in range(taken_since):
        write_one(f"since {number}")
    sent = behind.send()
    assert (sent.commits, sent.parked) == (0, taken_since)
    assert "has got later commits of this outbox" in caplog.text
    # It is somebody else now, and people may say that all is to be sent.
    assert behind.outbox.retry() == taken_since
    assert behind.send().commits == taken_since
    since = [f"since {number}" for number in range(taken_since)]
    assert committed(hosts()) == ["first", "second", *since, "third"]


def test_the_copy_of_another_hosts_is_noticed(host: Host, hosts: MakeHost) -> None:
    """As of a machine that was made from the image of another one."""
    write_one("before")
    outbox_of(host).send()
    outbox_of(host).outbox.close()
    copy = outbox_of(host).outbox.path.read_bytes()
    other = hosts()
    with other:
        other.catch_up()
        put_back(outbox_of(other).outbox, copy)
        write_one("there")
        assert outbox_of(other).send().commits == 1
    write_one("here")
    assert outbox_of(host).send().parked == 1


def test_a_database_that_was_put_back_gets_what_waits(
    host: Host, hosts: MakeHost
) -> None:
    """Its mark is behind, and that is no copy of the outbox."""
    write_one("first")
    outbox_of(host).send()
    write_one("second")
    outbox_of(host).send()
    host.sql("UPDATE s3cache_outbox SET last = 1, token = ''")
    write_one("third")
    assert outbox_of(host).send().commits == 1
    assert "third" in committed(hosts())


def test_who_waits_for_another_process_that_sends_waits_while_it_gets_on(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long that takes: nothing is locked for ever."""
    behind = outbox_of(host)
    for number in range(3):
        write_one(f"{number}")
    flushing = host.connection.replica.side.flushing
    original, done_by_the_other = flushing.acquire, iter([1, 2])

    def acquire(timeout: float) -> None:
        if (number := next(done_by_the_other, 0)) == 0:
            original(timeout)
            return
        behind.outbox.park(number, "as if it had sent it")
        raise OperationalError("database is locked")

    monkeypatch.setattr(flushing, "acquire", acquire)
    assert behind.send().commits == 1

    def never(timeout: float) -> None:
        raise OperationalError("database is locked")

    monkeypatch.setattr(flushing, "acquire", never)
    with pytest.raises(OperationalError, match="database is locked"):
        behind.send()


def test_an_outbox_that_is_deleted_under_a_process_is_made_anew(
    host: Host, hosts: MakeHost
) -> None:
    outbox = outbox_of(host).outbox
    write_one("lost with its file")
    for path in outbox.path.parent.glob(f"{outbox.path.name}*"):
        path.unlink()
    write_one("safe")
    assert outbox.path.exists()
    assert outbox.statistics().waiting == 1
    outbox_of(host).send()
    assert committed(hosts()) == ["safe"]


def test_an_outbox_that_cannot_be_read_is_in_no_readers_way(
    host: Host, caplog: pytest.LogCaptureFixture
) -> None:
    outbox = outbox_of(host).outbox
    write_one("waits")
    outbox.close()
    before = outbox.path.read_bytes()
    outbox.path.write_bytes(b"not a database" * 100)
    as_in_a_new_process()
    host.connection.close()
    assert names() == []
    assert "file is not a database" in caplog.text
    outbox_of(host).outbox.close()
    outbox.path.write_bytes(before)
    outbox_of(host)._retry_at = 0.0
    assert names() == ["waits"]


def test_an_outbox_that_a_full_disk_left_empty_is_none(
    host: Host, caplog: pytest.LogCaptureFixture
) -> None:
    host.connection.close()
    as_in_a_new_process()
    path = Path(f"{host.connection.settings_dict['NAME']}-outbox")
    path.unlink(missing_ok=True)
    path.touch()
    with host.connection.cursor():
        assert not path.stat().st_size
    assert str(path) not in caplog.text


def test_a_full_disk_takes_nothing_and_says_so(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    outbox = outbox_of(host).outbox
    with outbox._opened() as opened:
        opened.execute("PRAGMA max_page_count = 1")
    with pytest.raises(OperationalError, match="full"), write_behind():
        Category.objects.bulk_create(Category(name="x" * 40) for _ in range(1000))
    with outbox._opened() as opened:
        opened.execute("PRAGMA max_page_count = 1000000")
    assert outbox.statistics().waiting == 0


def test_a_migration_comes_after_what_waits_and_waits_for_nothing_else(
    host: Host, hosts: MakeHost
) -> None:
    """It keeps others from committing, and would keep itself from it."""
    write_one("before")
    with connection.schema_editor() as editor:
        editor.execute("CREATE TABLE other (id integer PRIMARY KEY)")
        position = host.connection.replica.position().database
        insert = f"INSERT INTO {TABLE} (id, name) VALUES ('2', 'meanwhile')"  # noqa: S608
        outbox_of(host).outbox.append(position, [TABLE], [(insert, (), False)])
        assert names() == ["before"]  # and does not wait for the other one
    assert outbox_of(host).outbox.statistics().waiting == 1
    assert committed(hosts()) == ["before"]
    assert "other" in connection.introspection.table_names()
    outbox_of(host).send()
    assert committed(hosts()) == ["before", "meanwhile"]


# What is refused


def test_a_table_with_unique_values_is_refused(host: Host) -> None:
    with (
        pytest.raises(NotSupportedError, match="cannot be written behind: whether"),
        write_behind(),
    ):
        Author.objects.create(name="Ada")
    assert outbox_of(host).outbox.statistics().waiting == 0


def test_a_change_of_the_schema_is_refused(host: Host) -> None:
    with pytest.raises(NotSupportedError, match="schema cannot"), write_behind():
        connection.cursor().execute("CREATE TABLE other (id integer)")


def test_inside_a_transaction_it_is_refused(host: Host) -> None:
    with transaction.atomic(), pytest.raises(RuntimeError), write_behind():
        pass


# The thread, and the end of processes


def test_a_thread_sends_it(
    host: Host, hosts: MakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(behind, "INTERVAL", 0.01)
    with write_behind():
        Category.objects.create(name="sent")
    deadline = time.monotonic() + 20
    while outbox_of(host).outbox.statistics().waiting:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    assert committed(hosts()) == ["sent"]


def write_many(start: int) -> None:
    """Write until killed; say each number that has returned."""
    made = Category.objects.create(name="0")
    for number in range(start, start + 100_000):
        with write_behind():
            Category.objects.filter(pk=made.pk).update(name=number)
            Category.objects.create(name=f"row {number}")
        db_hosts.send(number)


def send_all() -> int:
    sent: int = connection.behind.send().commits  # type: ignore[attr-defined]
    return sent


def test_what_has_returned_survives_kill_9(
    processes: MakeProcess, hosts: MakeHost
) -> None:
    process = processes("killed")
    process.start(write_many, 1)
    last = 0
    while last < 60:  # some are sent meanwhile, some are not
        last = process.receive()
    process.kill()
    again = processes("killed")
    again.call(send_all)
    found = {name for name in committed(hosts()) if name.startswith("row")}
    # Whatever was told, and at most one that was not; each of them once.
    assert {f"row {number}" for number in range(1, last + 1)} <= found
    numbers = sorted(int(name.removeprefix("row ")) for name in found)
    assert numbers == list(range(1, len(numbers) + 1))


def write_one(name: str) -> None:
    with write_behind():
        Category.objects.create(name=name)


def test_a_process_that_ends_sends_it(processes: MakeProcess, hosts: MakeHost) -> None:
    process = processes(records=False)
    process.call(write_one, "last words")
    process.stop()
    assert committed(hosts()) == ["last words"]


def test_a_process_that_starts_goes_on_with_what_is_left(
    host: Host, hosts: MakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    with write_behind():
        Category.objects.create(name="left")
    as_in_a_new_process()
    host.connection.replica.side.remember("pending", 0.0)  # after a reboot
    host.connection.close()
    assert names() == ["left"]


def test_a_child_of_a_fork_writes_behind_too(host: Host, hosts: MakeHost) -> None:
    write_one("parent")

    def child() -> int:
        write_one("child")
        return outbox_of(host).outbox.statistics().waiting

    assert in_child(child) == 2
    write_one("parent again")
    outbox_of(host).send()
    assert committed(hosts()) == ["child", "parent", "parent again"]


# The command


def flush(*args: str) -> dict[str, Any]:
    out = StringIO()
    call_command("s3cache_flush", "--json", *args, stdout=out)
    told: dict[str, Any] = json.loads(out.getvalue())["default"]
    return told


def test_flush(host: Host, hosts: MakeHost) -> None:
    write_one("waits")
    told = flush("--dry-run")
    assert (told["sent"], told["waiting"], told["parked"]) == (0, 1, [])
    told = flush("--database", "default")
    assert (told["sent"], told["waiting"]) == (1, 0)
    assert committed(hosts()) == ["waits"]


def test_flush_names_what_is_parked_and_fails(host: Host) -> None:
    outbox_of(host).outbox.append("another", [TABLE], [("DELETE", (), False)])
    out = StringIO()
    with pytest.raises(CommandError, match="are parked"):
        call_command("s3cache_flush", stdout=out)
    assert f"({TABLE}): it belongs to another database" in out.getvalue()


def test_flush_says_what_is_safe_when_the_store_is_down(
    hosts: MakeHost, faulty: FaultyStore
) -> None:
    host = hosts(storage="faulty", commit_timeout=0.1)
    host.catch_up()
    with host:
        make_marks(host)
        write_one("safe")
        faulty.on("", "", lost_before)
        with pytest.raises(CommandError, match="1 commits wait, and are safe"):
            call_command("s3cache_flush")
