"""A bucket that is wiped or restored while commits wait on a host's disk."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.core.management import CommandError, call_command
from django.db import OperationalError, connection

from s3cache.db.behind import Behind
from s3cache.stores import Store
from s3cache.transactions import write_behind
from tests.db.hosts import MakeProcess
from tests.engine import Bucket, Host, MakeHost
from tests.testapp.models import Category

pytestmark = pytest.mark.parametrize("bucket", ["directory"], indirect=True)


@pytest.fixture(autouse=True)
def by_hand(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """In this process nothing is sent before a test says so."""
    monkeypatch.setattr(Behind, "send_soon", lambda self: None)
    yield


# In the processes


def take(*names: str) -> None:
    """Have commits wait; in a process of its own nothing sends them."""
    Behind.send_soon = lambda self: None  # type: ignore[method-assign]
    for name in names:
        with write_behind():
            Category.objects.create(name=name)


def send() -> tuple[int, int, int]:
    """How many were sent, are parked, and wait."""
    sent = behind().send()
    left = behind().outbox.statistics()
    return sent.commits, left.parked, left.waiting


def waiting() -> int:
    return behind().outbox.statistics().waiting


def errors() -> list[str]:
    return [one.error or "" for one in behind().outbox.parked()]


def behind() -> Behind:
    found: Behind = connection.behind  # type: ignore[attr-defined]
    return found


def look_at_the_log() -> None:
    """As hosts do every ten minutes."""
    connection.replica.side.remember("checked_at", 0.0)  # type: ignore[attr-defined]


def flush() -> str:
    """What ``s3cache_flush`` fails with."""
    try:
        call_command("s3cache_flush", verbosity=0)
    except CommandError as error:
        return str(error)
    return ""


# The bucket


def copy_of(store: Store) -> dict[str, bytes]:
    return {one.key: store.get(one.key).body for one in store.list("").keys}


def put_back(store: Store, objects: dict[str, bytes]) -> None:
    wipe(store)
    for key, body in objects.items():
        store.put(key, body)


def wipe(store: Store) -> None:
    store.delete_many([one.key for one in store.list("").keys])


def committed(host: Host) -> list[str]:
    """The names that are in the bucket, as a new host reads them."""
    host.catch_up()
    with host:
        return list(Category.objects.order_by("name").values_list("name", flat=True))


@pytest.mark.parametrize("dies", [False, True])
@pytest.mark.parametrize("had_marks", [False, True])
def test_what_waits_goes_into_the_log_that_was_put_back(
    host: Host,
    hosts: MakeHost,
    processes: MakeProcess,
    bucket: Bucket,
    *,
    had_marks: bool,
    dies: bool,
) -> None:
    """Also into one of before anything was written behind."""
    writer = processes("writer")
    if had_marks:
        writer.call(take, "a")
        assert writer.call(send) == (1, 0, 0)
    backup = copy_of(bucket.store)
    writer.call(take, "b")
    assert writer.call(send) == (1, 0, 0)
    writer.call(take, "c", "d")
    if dies:
        writer.kill()
    put_back(bucket.store, backup)
    sender = processes("writer") if dies else writer
    if dies:
        sender.call(take)
    sender.call(look_at_the_log)
    # What the bucket has lost, it has lost; what was still here is there.
    assert sender.call(send)[1:] == (0, 0)
    assert committed(hosts()) == [*(["a"] if had_marks else []), "c", "d"]
    assert sender.call(errors) == []


def test_what_waits_stays_while_the_bucket_is_wiped(
    host: Host, hosts: MakeHost, processes: MakeProcess, bucket: Bucket
) -> None:
    writer = processes("writer")
    writer.call(take, "a")
    writer.call(send)
    backup = copy_of(bucket.store)
    writer.call(take, "b")
    wipe(bucket.store)
    writer.call(look_at_the_log)
    with pytest.raises(OperationalError, match="_head is missing"):
        writer.call(send)
    told = writer.call(flush)
    assert "_head is missing" in told
    assert "1 commits wait, and are safe on this host" in told
    put_back(bucket.store, backup)
    assert writer.call(send) == (1, 0, 0)
    assert committed(hosts()) == ["a", "b"]


def test_another_database_in_the_bucket_gets_nothing(
    host: Host, hosts: MakeHost, processes: MakeProcess, bucket: Bucket
) -> None:
    """Neither at once nor later: people have to say so."""
    writer = processes("writer")
    writer.call(take, "a")
    writer.call(send)
    writer.call(take, "b")
    database = host.connection.replica.position().database
    wipe(bucket.store)
    anew = hosts("anew")
    with anew, connection.schema_editor() as editor:
        editor.create_model(Category)
    with anew, write_behind():
        Category.objects.create(name="of the new one")
    anew.connection.behind.send()
    writer.call(look_at_the_log)
    assert writer.call(send) == (0, 1, 0)
    assert writer.call(errors) == [f"it belongs to another database, {database}"]
    assert "Some commits are parked" in writer.call(flush)
    assert committed(hosts()) == ["of the new one"]
