"""Requests that arrive late, or whose answers are lost; writers that die."""

from __future__ import annotations

import json
import os
import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest
from django.db import connections

from s3cache.db.base import DatabaseWrapper
from s3cache.keeper.effects import Replace
from s3cache.keeper.rounds import KeeperOptions
from s3cache.keeper.run import keep_now
from s3cache.log.effects import Create
from s3cache.records.check import Kind, RecordFinding
from s3cache.records.effects import Remove, Request
from s3cache.records.performer import RecordPerformer
from s3cache.records.run import record_now, verify_records_now
from s3cache.records.writing import RecordOptions
from s3cache.replica.replica import Replica
from s3cache.stores.base import Answer, observe
from s3cache.stores.base import Request as StoreRequest
from tests.db.hosts import killed_after
from tests.engine import Bucket, Host, MakeHost
from tests.library.models import Author, Member

#: A keeper that takes the lease at once, and leaves nothing for later.
AT_ONCE = KeeperOptions(pack_after=1, lease=0.0, retain=0.0, grace=0.0, target=999)

Land = Callable[[], Answer]


class Dead(Exception):
    """The process of the writer is no more."""


@contextmanager
def delayed(*kinds: type, dies: bool = False) -> Iterator[list[Land]]:
    """Keep the first request of these kinds under way.

    Who sent it hears nothing; with ``dies`` the sender is killed then.
    """
    held: list[Land] = []
    send = RecordPerformer._send

    def send_late(self: RecordPerformer, request: Request) -> Answer:
        if isinstance(request, kinds) and not held:
            held.append(lambda: send(self, request))
            if dies:
                raise Dead
            return Answer(0)
        return send(self, request)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(RecordPerformer, "_send", send_late)
        yield held


def record(host: Host) -> None:
    record_now(host.connection.replica)


def wrong(host: Host) -> list[tuple[str, Kind]]:
    """The records that are not what the rows are."""
    return [
        (one.key, one.kind)
        for one in verify_records_now(host.connection.replica)
        if isinstance(one, RecordFinding)
    ]


@pytest.fixture
def other(hosts: MakeHost) -> Host:
    """Another host that writes records."""
    return hosts("other", records=True)


@contextmanager
def at(host: Host) -> Iterator[None]:
    """Be on ``host``, which has caught up."""
    with host:
        host.catch_up()
        yield


@pytest.mark.parametrize("newest", ["Cid", "Ann"], ids=["another", "as-it-was"])
def test_an_old_record_does_not_replace_a_newer_one(
    host: Host, other: Host, newest: str
) -> None:
    """Ann, Bob, Ann again, too: the record of Ann is another one now."""
    Author.objects.create(name="Ann")
    record(host)
    Author.objects.update(name="Bob")
    with delayed(Replace, dies=True) as held, pytest.raises(Dead):
        record(host)
    with at(other):
        Author.objects.update(name=newest)
        record(other)
    assert held[0]().status == 412
    host.catch_up()
    assert wrong(host) == []


def test_nor_one_of_a_row_that_was_deleted_and_is_there_again(
    host: Host, other: Host
) -> None:
    record(host)
    pk = Author.objects.create(name="Ann").pk
    with delayed(Create, dies=True) as held, pytest.raises(Dead):
        record(host)
    with at(other):
        Author.objects.all().delete()
        record(other)
        Author.objects.create(pk=pk, name="Bob")
        record(other)
    assert held[0]().status == 412
    host.catch_up()
    assert wrong(host) == []


def test_nor_is_a_newer_one_deleted(host: Host, other: Host) -> None:
    pk = Author.objects.create(name="Ann").pk
    record(host)
    Author.objects.all().delete()
    with delayed(Remove, Replace, dies=True) as held, pytest.raises(Dead):
        record(host)
    with at(other):
        Author.objects.create(pk=pk, name="Ann")
        record(other)
    assert held[0]().status == 412
    host.catch_up()
    assert wrong(host) == []


@pytest.mark.parametrize("landed", [False, True])
def test_a_lost_answer_is_looked_up(host: Host, landed: bool) -> None:
    Author.objects.create(name="Ann")
    record(host)
    Author.objects.update(name="Bob")
    with delayed(Replace) as held:
        record(host)
    if landed:
        assert held[0]().status == 412
    assert wrong(host) == []


def test_a_record_that_comes_when_its_row_is_gone_is_found(
    host: Host, other: Host, bucket: Bucket
) -> None:
    """All that the rules leave: its writer is dead, and nobody expects it."""
    record(host)
    Author.objects.create(name="Ann")
    with delayed(Create, dies=True) as held, pytest.raises(Dead):
        record(host)
    with at(other):
        Author.objects.all().delete()
        record(other)
        assert held[0]().status == 200
        assert [kind for _key, kind in wrong(other)] == [Kind.WRONG]
        record_now(other.connection.replica, RecordOptions(everything=True))
        assert wrong(other) == []


def test_a_writer_that_lives_does_it_again(host: Host, other: Host) -> None:
    """Its record comes when the row is gone, and others have been there."""
    record(host)
    Author.objects.create(name="Ann")
    send = RecordPerformer._send

    def send_late(self: RecordPerformer, request: Request) -> Answer:
        if isinstance(request, Create) and "author" in request.key:
            with pytest.MonkeyPatch.context() as patched, at(other):
                patched.setattr(RecordPerformer, "_send", send)
                Author.objects.all().delete()
                record(other)
        return send(self, request)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(RecordPerformer, "_send", send_late)
        record(host)
    assert wrong(host) == []


# A bucket that was put back


def put_back(bucket: Bucket, kept: dict[str, bytes], *, state: bool) -> None:
    """Restore all but records, and ``_records`` only if ``state``."""
    there = bucket.keys()
    for key in there:
        if "/rows/" in key or (key == "_records" and not state):
            continue
        bucket.store.delete(key)
        if key in kept:
            bucket.store.put(key, kept[key])


@pytest.mark.parametrize("state", [True, False])
def test_records_of_a_future_that_was_not(
    host: Host, hosts: MakeHost, bucket: Bucket, state: bool
) -> None:
    """The log is restored, and the records are of what came afterwards."""
    Author.objects.create(name="Ann")
    record(host)
    before = bucket.keys()
    kept = {key: bucket.store.get(key).body for key in before}
    for name in ("Bob", "Cid", "Dan"):
        Author.objects.update(name=name)
        record(host)
    put_back(bucket, kept, state=state)
    with at(hosts("new", records=True)):
        new = connections["default"]
        assert isinstance(new, DatabaseWrapper)
        assert Author.objects.get().name == "Ann"
        if state:
            # Who has restored ``_records``, too, has to say so.
            found = verify_records_now(new.replica)
            assert "which the log does not have" in found[0].message
            record_now(new.replica, RecordOptions(everything=True))
        else:
            record_now(new.replica)
        assert verify_records_now(new.replica) == []
        Author.objects.update(name="Eve")
        record_now(new.replica)
        (key,) = bucket.records()
        assert b"Eve" in bucket.store.get(key).body


# kill -9


def keep_and_record(replica: Replica, last: int = 0, seconds: float = 0.0) -> list[str]:
    """Do both in a process that is killed so long after its ``last`` request.

    Returns what it has asked for.
    """
    told, tells = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            replica.catch_up()
            with observe(partial(tell, tells)), killed_after(last, seconds):
                keep_now(replica, AT_ONCE)
                record_now(replica, RecordOptions(lease=0.0))
        finally:
            os._exit(0)
    os.close(tells)
    with os.fdopen(told) as lines:
        asked = lines.read().split()
    os.waitpid(child, 0)
    return asked


def tell(told: int, request: StoreRequest) -> None:
    place = request.key.split("/")[0]
    os.write(told, f"{request.kind}:{place}\n".encode())


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("bucket", ["directory"], indirect=True)
def test_kill_9_at_200_random_moments(
    host: Host, hosts: MakeHost, bucket: Bucket, tmp_path: Any
) -> None:
    """Of whoever packs, trims and writes records, while rows change."""
    dice = random.Random(4)
    replica = host.connection.replica
    keep_and_record(replica)
    Member.objects.create(name="m")
    steps = set(keep_and_record(replica))
    last: Counter[str] = Counter()
    for number in range(200):
        Member.objects.create(name=f"m{number}")
        Member.objects.filter(pk__lt=number - 20).delete()
        Member.objects.filter(pk=number - 3).update(name="changed")
        seconds = dice.choice((0.0, dice.uniform(0.0, 0.005)))
        asked = keep_and_record(replica, dice.randint(1, 28), seconds)
        last[asked[-1]] += 1
        if number % 40 == 0:
            assert hosts(f"new-{number}").dump() == host.dump()
    # It was killed after everything that it does.
    assert last.keys() >= steps, last
    host.catch_up()
    keep_and_record(replica)
    assert hosts("new").dump() == host.dump()
    left = {kind for _key, kind in wrong(host)}
    assert left <= {Kind.WRONG}  # requests under way when their sender died
    head = json.loads(bucket.store.get("_head").body)
    assert head["keeper"] == ""
    assert not list(tmp_path.glob("*-keeper-*"))
