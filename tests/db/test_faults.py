"""Stores that lose answers, and threads that are interrupted.

No commit is lost or doubled, whatever the network does, and nobody is told
that one failed which may yet be there.
"""

from __future__ import annotations

import random
import sqlite3
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from django.db import DatabaseError, connection, transaction
from django.db.models import F

from s3cache.exceptions import (
    CommitOutcomeUnknown,
    StoreError,
    StoreRefused,
    StoreUnavailable,
    TransactionConflict,
)
from s3cache.log import effects
from s3cache.replica import file as replica_file
from s3cache.replica.performer import Performer
from s3cache.signals import rows_changed
from s3cache.stores.base import Answer
from tests.db.hosts import (
    Action,
    FaultyStore,
    MakeProcess,
    each_on,
    first,
    lost_after,
    lost_before,
    on,
    outcomes,
    says,
    then,
    together,
)
from tests.engine import Bucket, Host, MakeHost
from tests.library.models import Author, Tag

LOG = "_log/"

#: Tests that say nothing about stores run on the one that is quicker.
anywhere = pytest.mark.parametrize("bucket", ["directory"], indirect=True)


@pytest.fixture
def shaky(hosts: MakeHost, faulty: FaultyStore) -> Iterator[Host]:
    """A host in use, whose store does what ``faulty`` says."""
    made = hosts(storage="faulty")
    made.catch_up()
    with made:
        Author.objects.create(name="counter", born=0)
        yield made


@pytest.fixture
def impatient(hosts: MakeHost, shaky: Host) -> Iterator[Host]:
    """Another one, which gives up a commit after 0.3 s."""
    made = hosts(storage="faulty", commit_timeout=0.3)
    made.catch_up()
    with made:
        yield made


def increment() -> int:
    return Author.objects.filter(name="counter").update(born=F("born") + 1)


def increment_in_a_block() -> int:
    with transaction.atomic():
        Tag.objects.create(name=f"{random.random()}")
        return increment()


def value() -> int:
    return Author.objects.get(name="counter").born


def entries(bucket: Bucket) -> int:
    keys = bucket.keys()
    return sum(key.startswith(LOG) for key in keys)


def seen_by_a_new_host(hosts: MakeHost) -> int:
    with hosts() as new:
        new.catch_up()
        return value()


# One commit

FATES: dict[str, list[Any]] = {
    "lost before": [lost_before],
    "lost after": [lost_after],
    "lost twice": [lost_before, lost_before],
    "lost after, then before": [lost_after, lost_before],
    "lost before, then after": [lost_before, lost_after],
    "500": [says(500)],
    "500 after": [says(500, after=True)],
    "503, then lost after": [says(503), lost_after],
    "409": [says(409)],
    "409 after": [says(409, after=True)],
    "429": [says(429)],
}


@pytest.mark.parametrize("job", [increment, increment_in_a_block])
@pytest.mark.parametrize("fate", FATES)
def test_a_put_is_repeated_until_its_outcome_is_known(
    shaky: Host,
    hosts: MakeHost,
    bucket: Bucket,
    faulty: FaultyStore,
    fate: str,
    job: Callable[[], int],
) -> None:
    before = entries(bucket)
    for action in FATES[fate]:
        faulty.on("PUT", LOG, action, times=1)
    assert job() == 1
    assert value() == seen_by_a_new_host(hosts) == 1
    assert entries(bucket) == before + 1


@anywhere
def test_the_same_bytes_are_sent_again(shaky: Host, faulty: FaultyStore) -> None:
    sent: list[bytes] = []
    put = faulty.inner.put

    def spy(key: str, body: bytes, **how: Any) -> Answer:
        sent.append(body)
        return put(key, body, **how)

    faulty.inner.put = spy  # type: ignore[method-assign]
    faulty.on("PUT", LOG, lost_after, times=2)
    assert increment() == 1
    assert len(sent) == 3
    assert len(set(sent)) == 1


def test_another_host_wins_while_a_put_is_lost(
    shaky: Host, hosts: MakeHost, faulty: FaultyStore
) -> None:
    other = hosts()

    def other_one() -> None:
        with on(other):
            increment()

    def action(send: Callable[[], Answer]) -> Answer:
        other_one()
        return Answer(0)

    faulty.on("PUT", LOG, action, times=1)
    assert increment() == 1
    assert value() == seen_by_a_new_host(hosts) == 2


def test_an_own_reader_applies_the_entry_whose_answer_was_lost(
    shaky: Host, hosts: MakeHost, bucket: Bucket, faulty: FaultyStore
) -> None:
    """The committer must not take it for another host's, and write again."""

    def read() -> None:
        with on(shaky) as wrapper:
            wrapper.catch_up()

    def action(send: Callable[[], Answer]) -> Answer:
        send()
        together([read])
        return Answer(0)

    before = entries(bucket)
    faulty.on("PUT", LOG, action, times=1)
    assert increment() == 1
    assert value() == seen_by_a_new_host(hosts) == 1
    assert entries(bucket) == before + 1


def test_an_own_reader_is_faster_than_the_committer(
    shaky: Host, hosts: MakeHost, faulty: FaultyStore
) -> None:
    def read() -> None:
        with on(shaky) as wrapper:
            wrapper.catch_up()

    def action(send: Callable[[], Answer]) -> Answer:
        answer = send()
        together([read])
        return answer

    faulty.on("PUT", LOG, action, times=1)
    assert increment_in_a_block() == 1
    assert value() == seen_by_a_new_host(hosts) == 1


def test_a_refusal_at_the_first_attempt_is_a_failure(
    shaky: Host, hosts: MakeHost, faulty: FaultyStore
) -> None:
    faulty.on("PUT", LOG, says(403), times=1)
    with pytest.raises(StoreRefused):
        increment()
    assert increment() == 1
    assert value() == seen_by_a_new_host(hosts) == 1


def test_a_refusal_after_an_unclear_attempt_tells_nothing(
    impatient: Host, hosts: MakeHost, faulty: FaultyStore
) -> None:
    faulty.on("PUT", LOG, lost_before, times=1)
    faulty.on("PUT", LOG, says(403))
    with pytest.raises(CommitOutcomeUnknown):
        increment()
    faulty.heal()
    assert increment() == 1
    assert value() == seen_by_a_new_host(hosts) == 1


@pytest.mark.parametrize("job", [increment, increment_in_a_block])
@pytest.mark.parametrize("arrives", [True, False])
def test_silence_until_the_timeout_is_an_unknown_outcome(
    impatient: Host,
    hosts: MakeHost,
    faulty: FaultyStore,
    arrives: bool,
    job: Callable[[], int],
) -> None:
    faulty.on("PUT", LOG, lost_after if arrives else lost_before)
    faulty.on("GET", LOG, lost_before)
    with pytest.raises(CommitOutcomeUnknown) as raised:
        job()
    assert raised.value.position == impatient.position + 1
    faulty.heal()
    assert increment() == 1
    outcome = connection.commit_outcome(raised.value.token)  # type: ignore[attr-defined]
    assert outcome == ("committed" if arrives else "lost")
    assert value() == seen_by_a_new_host(hosts) == (2 if arrives else 1)


def test_what_the_log_has_at_the_timeout_is_known(
    impatient: Host, hosts: MakeHost, faulty: FaultyStore
) -> None:
    faulty.on("PUT", LOG, lost_after)
    assert increment() == 1
    assert value() == seen_by_a_new_host(hosts) == 1


def test_a_put_that_lands_after_everybody_gave_up(
    impatient: Host, hosts: MakeHost, faulty: FaultyStore
) -> None:
    """It was reported as unknown, and comes before what is written next."""
    late: list[Callable[[], Answer]] = []

    def delay(send: Callable[[], Answer]) -> Answer:
        late.append(send)
        return Answer(0)

    faulty.on("PUT", LOG, delay)
    with pytest.raises(CommitOutcomeUnknown) as raised:
        increment()
    faulty.heal()
    assert late[0]().status == 200
    assert {send().status for send in late[1:]} <= {412}
    assert increment() == 1
    outcome = connection.commit_outcome(raised.value.token)  # type: ignore[attr-defined]
    assert outcome == "committed"
    assert value() == seen_by_a_new_host(hosts) == 2


def test_it_cannot_be_read_who_was_first(impatient: Host, faulty: FaultyStore) -> None:
    """A 412 for an entry that may be ours, and no answer about whose it is."""
    faulty.on("PUT", LOG, lost_after, times=1)
    faulty.on("GET", LOG, says(503))
    with pytest.raises(CommitOutcomeUnknown):
        increment()
    assert value() == 0  # while the store is down
    faulty.heal()
    impatient.connection.replica.asking._retry_at = 0.0  # a second later
    assert value() == 1


@anywhere
@pytest.mark.parametrize("job", [increment, increment_in_a_block])
def test_the_replica_cannot_be_written_after_the_commit(
    shaky: Host,
    hosts: MakeHost,
    monkeypatch: pytest.MonkeyPatch,
    job: Callable[[], int],
) -> None:
    def full(*args: object, **kwargs: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(replica_file, "apply_entry", full)
        with pytest.raises(CommitOutcomeUnknown, match="disk is full"):
            job()
    assert increment() == 1
    assert value() == seen_by_a_new_host(hosts) == 2


@anywhere
def test_nor_can_it_keep_that_the_outcome_is_unknown(
    shaky: Host,
    hosts: MakeHost,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    # A disk that is full is full for both. Any other error would say that
    # nothing was committed, and be the reason to write it again.
    def full(*args: object, **kwargs: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(replica_file, "apply_entry", full)
        patched.setattr(replica_file.ReplicaFile, "keep_pending", full)
        with pytest.raises(CommitOutcomeUnknown, match="disk is full") as raised:
            increment()
    assert raised.value.token in caplog.text
    assert value() == seen_by_a_new_host(hosts) == 1


@anywhere
def test_the_replica_is_made_anew_in_the_middle_of_a_commit(
    shaky: Host, hosts: MakeHost, processes: MakeProcess, faulty: FaultyStore
) -> None:
    """And another thread has opened the new one before the answer comes."""
    path = Path(shaky.settings["NAME"])
    other = processes(path.stem)
    assert other.call(value) == 0
    found = []

    def rebuild() -> None:
        other.call(rebuild_replica)
        together(each_on(shaky, lambda: found.append(value()), 1))

    faulty.on("PUT", LOG, then(rebuild), times=1)
    assert increment() == 1
    # The new replica has it, or will ask for it.
    assert found[0] in (0, 1)
    assert value() == other.call(value) == 1
    faulty.on("PUT", LOG, first(rebuild), times=1)
    assert increment() == 1
    assert value() == other.call(value) == seen_by_a_new_host(hosts) == 2
    assert path.exists()


def rebuild_replica() -> None:
    connection.rebuild_replica()  # type: ignore[attr-defined]


# Many commits


@pytest.mark.parametrize("seed", range(3))
def test_random_faults_lose_and_double_nothing(
    shaky: Host, hosts: MakeHost, faulty: FaultyStore, seed: int
) -> None:
    rng = random.Random(seed)
    lock = threading.Lock()
    actions: list[Action] = [
        lost_before,
        lost_after,
        says(500),
        says(503, after=True),
        says(409),
    ]

    def perhaps(send: Callable[[], Answer]) -> Answer:
        with lock:
            strikes, action = rng.random() < 0.25, rng.choice(actions)
        return action(send) if strikes else send()

    other = hosts(storage="faulty")
    other.catch_up()
    faulty.on("PUT", LOG, perhaps)
    faulty.on("GET", LOG, perhaps)
    jobs = [
        *each_on(shaky, increment, 6),
        *each_on(other, increment, 6),
        *each_on(shaky, increment_in_a_block, 4),
        *each_on(other, increment_in_a_block, 4),
    ]
    assert together(jobs) == [1] * 20
    faulty.heal()
    shaky.catch_up()
    other.catch_up()
    assert value() == seen_by_a_new_host(hosts) == 20
    assert shaky.dump() == other.dump()


@anywhere
def test_unknown_outcomes_are_between_both(
    impatient: Host, hosts: MakeHost, faulty: FaultyStore
) -> None:
    rng = random.Random(7)
    lock = threading.Lock()

    def perhaps(send: Callable[[], Answer]) -> Answer:
        with lock:
            chance = rng.random()
        return (
            lost_before(send)
            if chance < 0.4
            else lost_after(send)
            if chance < 0.8
            else send()
        )

    faulty.on("PUT", LOG, perhaps)
    acknowledged = unknown = 0
    for _ in range(3):
        found = outcomes(each_on(impatient, increment, 8))
        acknowledged += sum(one == 1 for one in found)
        unknown += sum(isinstance(one, CommitOutcomeUnknown) for one in found)
        others = [one for one in found if isinstance(one, Exception)]
        assert {type(one) for one in others} <= {CommitOutcomeUnknown, StoreUnavailable}
    faulty.heal()
    impatient.catch_up()
    assert acknowledged <= value() <= acknowledged + unknown
    assert value() == seen_by_a_new_host(hosts)


@anywhere
def test_each_caller_of_a_batch_gets_an_error_of_its_own(
    shaky: Host, faulty: FaultyStore
) -> None:
    faulty.on("PUT", LOG, says(403))
    found = outcomes(each_on(shaky, increment, 8))
    assert {type(one) for one in found} == {StoreRefused}
    assert len({id(one) for one in found}) == 8
    faulty.heal()
    assert value() == 0


# Reads while the store is down


def test_reads_go_on_and_writes_raise(
    shaky: Host, hosts: MakeHost, faulty: FaultyStore
) -> None:
    increment()
    impatient = hosts(storage="faulty", max_age=0.0, commit_timeout=0.1)
    impatient.catch_up()
    faulty.on("", "", says(503))
    with on(impatient):
        assert value() == 1
        with transaction.atomic():
            assert value() == 1
        with pytest.raises(StoreError), transaction.atomic():
            Tag.objects.filter(name="nobody").update(note="x")
        with pytest.raises((StoreError, CommitOutcomeUnknown)):
            increment()
        assert value() == 1
        faulty.heal()
        assert increment() == 1
        assert value() == 2


# Hooks and signals


@pytest.fixture
def told() -> Iterator[list[tuple[str, int]]]:
    """The tables and positions that ``rows_changed`` told of."""
    received: list[tuple[str, int]] = []

    def receive(*, table: str, position: int, **kwargs: Any) -> None:
        received.append((table, position))

    rows_changed.connect(receive)
    yield received
    rows_changed.disconnect(receive)


@anywhere
@pytest.mark.parametrize("fate", FATES)
def test_hooks_and_signals_run_once_for_what_was_committed(
    shaky: Host, faulty: FaultyStore, told: list[tuple[str, int]], fate: str
) -> None:
    ran: list[int] = []
    del told[:]
    for action in FATES[fate]:
        faulty.on("PUT", LOG, action, times=1)
    with transaction.atomic():
        increment()
        transaction.on_commit(lambda: ran.append(value()))
    assert ran == [1]
    assert told == [("library_author", shaky.position)]
    increment()
    assert ran == [1]
    assert len(told) == 2


@anywhere
def test_a_commit_that_was_unknown_is_told_when_it_is_found(
    impatient: Host, faulty: FaultyStore, told: list[tuple[str, int]]
) -> None:
    ran: list[str] = []
    del told[:]
    faulty.on("PUT", LOG, lost_after)
    faulty.on("GET", LOG, lost_before)
    with pytest.raises(CommitOutcomeUnknown), transaction.atomic():
        increment()
        transaction.on_commit(lambda: ran.append("unknown"))
    assert told == []
    faulty.heal()
    assert value() == 1
    assert told == [("library_author", impatient.position)]
    with transaction.atomic():
        increment()
        transaction.on_commit(lambda: ran.append("next"))
    assert ran == ["next"]
    assert len(told) == 2


@anywhere
def test_nothing_is_told_of_what_failed(
    shaky: Host, faulty: FaultyStore, told: list[tuple[str, int]]
) -> None:
    ran: list[str] = []
    del told[:]

    def block(note: str, in_between: Callable[[], object] = lambda: None) -> None:
        with transaction.atomic():
            author = Author.objects.get(name="counter")
            in_between()
            author.born += 1
            author.save()
            transaction.on_commit(lambda: ran.append(note))

    faulty.on("PUT", LOG, says(403), times=1)
    with pytest.raises(StoreRefused):
        block("refused")
    assert (ran, told) == ([], [])
    with pytest.raises(TransactionConflict):
        block("conflict", lambda: together(each_on(shaky, increment, 1)))
    assert (ran, len(told)) == ([], 1)
    with pytest.raises(ZeroDivisionError):
        block("error", lambda: 1 // 0)
    assert (ran, len(told)) == ([], 1)
    block("fine")
    assert (ran, len(told)) == (["fine"], 2)
    assert value() == 2


@anywhere
def test_threads_tell_each_entry_once(shaky: Host, told: list[tuple[str, int]]) -> None:
    ran: list[int] = []
    del told[:]
    before = shaky.position

    def block(number: int) -> None:
        with on(shaky), transaction.atomic():
            increment()
            Tag.objects.create(name=f"tag {number}")
            transaction.on_commit(lambda: ran.append(number))

    jobs: list[Callable[[], object]] = [partial(block, n) for n in range(12)]
    together([*jobs, *each_on(shaky, increment, 12)])
    assert sorted(ran) == list(range(12))
    positions = [position for table, position in told if table == "library_author"]
    assert sorted(positions) == list(range(before + 1, shaky.position + 1))
    assert len(told) == len(set(told))


# Threads that are interrupted


class Interrupted(BaseException):
    """As KeyboardInterrupt, SystemExit or a greenlet's timeout."""


class TimeLimit(Exception):
    """As Celery's, which is raised wherever the thread happens to be."""


STEPS = [
    kind.__name__
    for kind in (
        effects.HoldCommitLock,
        effects.Recall,
        effects.Stage,
        effects.Token,
        effects.Create,
        effects.Remember,
        effects.Apply,
    )
]


@anywhere
@pytest.mark.parametrize("error", [Interrupted, TimeLimit])
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", STEPS)
def test_an_interrupted_commit_leaves_nothing_held(
    shaky: Host,
    hosts: MakeHost,
    monkeypatch: pytest.MonkeyPatch,
    step: str,
    when: str,
    error: type[BaseException],
) -> None:
    perform = Performer._perform
    victim = threading.get_ident()
    ran: list[str] = []

    def interrupt(self: Performer, effect: effects.Effect) -> Any:
        if type(effect).__name__ != step or threading.get_ident() != victim:
            return perform(self, effect)
        if when == "after":
            result = perform(self, effect)
            if hasattr(result, "__exit__"):
                with result:
                    raise error
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(Performer, "_perform", interrupt)
        with pytest.raises((error, CommitOutcomeUnknown)), transaction.atomic():
            Author.objects.select_for_update().get(name="counter")
            increment()
            transaction.on_commit(lambda: ran.append("interrupted"))
    committed = seen_by_a_new_host(hosts)
    assert committed <= (step in ("Create", "Remember", "Apply"))

    def go_on() -> int:
        if value() != committed:
            raise AssertionError("what was interrupted is not looked up")
        with transaction.atomic():
            Author.objects.select_for_update(nowait=True).get(name="counter")
            return increment()

    assert together(each_on(shaky, go_on, 3)[:1]) == [1]
    with transaction.atomic():
        increment()
        transaction.on_commit(lambda: ran.append("next"))
    assert ran == ["next"]
    assert value() == seen_by_a_new_host(hosts) == committed + 2


@anywhere
@pytest.mark.parametrize("error", [Interrupted, TimeLimit])
def test_the_others_of_a_batch_whose_leader_is_interrupted(
    shaky: Host, hosts: MakeHost, faulty: FaultyStore, error: type[BaseException]
) -> None:
    """What they are told has to allow for a commit that happened."""
    leads = threading.Event()
    waits = threading.Event()

    def interrupt(send: Callable[[], Answer]) -> Answer:
        send()
        raise error

    def slow() -> None:
        leads.set()
        waits.wait(10)

    faulty.on("PUT", LOG, first(slow), times=1)
    faulty.on("PUT", LOG, interrupt, times=1)

    def opener() -> int:
        return increment()

    def member() -> int:
        leads.wait(10)
        return increment()

    def release() -> int:
        leads.wait(10)
        committer = shaky.connection.replica._committer
        while len(committer._waiting) < 6:
            pass
        waits.set()
        return 0

    jobs = [
        *each_on(shaky, opener, 1),
        *each_on(shaky, member, 6),
        *each_on(shaky, release, 1),
    ]
    found = outcomes(jobs)
    assert found[0] == 1
    told = sorted(type(one).__name__ for one in found[1:7])
    assert told == sorted(["CommitOutcomeUnknown"] * 5 + [error.__name__])
    shaky.catch_up()
    assert value() == seen_by_a_new_host(hosts) == 7
    assert increment() == 1


@anywhere
def test_an_error_in_python_code_of_a_member_is_its_own(shaky: Host) -> None:
    """A function of the project, called in a batch, that raises."""

    def fails(*args: object) -> None:
        raise ValueError("never mind")

    def call() -> None:
        with on(shaky) as wrapper:
            wrapper.ensure_connection()
            wrapper.connection.create_function("fails", 1, fails)  # type: ignore[union-attr]
            with wrapper.cursor() as cursor:
                cursor.execute("UPDATE library_author SET born = fails(born)")

    found = outcomes([call, *each_on(shaky, increment, 6)])
    assert isinstance(found[0], DatabaseError)
    assert found[1:] == [1] * 6
