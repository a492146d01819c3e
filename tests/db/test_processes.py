"""Processes: on one replica or on several, killed and started again."""

from __future__ import annotations

import os
import random
import sqlite3
import time
from collections import Counter
from pathlib import Path

import pytest
from django.db import (
    DatabaseError,
    IntegrityError,
    connection,
    transaction,
)
from django.db.models import F

from s3cache.replica.replica import OPEN_TIMEOUT
from s3cache.transactions import retry_on_conflict
from tests.db.hosts import MakeProcess, Process, each_on, send, together
from tests.engine import Host, MakeHost
from tests.library.models import Author, Book, Tag

# What the processes are told to do


def increment(times: int = 1) -> int:
    return sum(
        Author.objects.filter(name="counter").update(born=F("born") + 1)
        for _ in range(times)
    )


def increment_in_threads(threads: int, times: int) -> int:
    """As a busy server does: several connections of one process."""
    settings = connection.settings_dict
    host = Host(Path(settings["NAME"]), dict(settings["OPTIONS"]))
    return sum(together(each_on(host, lambda: increment(times), threads)))


def value() -> int:
    return Author.objects.get(name="counter").born


def create(name: str) -> int:
    return Author.objects.create(name=name).pk


def get_or_create(name: str) -> tuple[int, bool]:
    author, created = Author.objects.get_or_create(name=name)
    return author.pk, created


def catch_up() -> int:
    connection.catch_up()  # type: ignore[attr-defined]
    return connection.position  # type: ignore[attr-defined,no-any-return]


def rebuild() -> int:
    connection.rebuild_replica()  # type: ignore[attr-defined]
    return Author.objects.count()


def sit_in_a_block(name: str) -> int:
    """Write in a block, tell the test, and wait in Python for a file."""
    with transaction.atomic():
        Tag.objects.create(name=name)
        send("in the block")
        waits_for = Path(connection.settings_dict["NAME"]).parent / name
        while not waits_for.exists():
            time.sleep(0.01)
        return Tag.objects.count()


class Refused(Exception):
    """There is not enough to take."""


@retry_on_conflict(attempts=30, using="default")
def transfer(token: str, source: str, target: str, amount: int) -> None:
    """Move copies from one book to another, as Django code would."""
    there = Book.objects.get(title=source)
    if there.stock < amount:
        raise Refused
    there.stock -= amount
    there.save()
    Book.objects.filter(title=target).update(stock=F("stock") + amount)
    Tag.objects.create(name=token, note=f"{source} to {target}: {amount}")


def keep_transferring(seed: int, titles: list[str]) -> None:
    """Until it is killed. Tells the test of each that was acknowledged."""
    rng = random.Random(seed)
    number = 0
    while True:
        number += 1
        token = f"{seed}-{number}"
        source, target = rng.sample(titles, 2)
        try:
            transfer(token, source, target, rng.randint(1, 5))
        except Refused:
            continue
        send(token)


# Counting


def test_processes_on_two_replicas_increment_one_row(
    host: Host, hosts: MakeHost, processes: MakeProcess
) -> None:
    """400 increments by 50 threads and 8 processes, two of them threaded."""
    Author.objects.create(name="counter", born=0)
    threaded = [processes("a"), processes("b")]
    others = [processes(name) for name in "aaabbb"]
    for process in threaded:
        process.start(increment_in_threads, 25, 5)
    for process in others:
        process.start(increment, 25)
    done = [process.result() for process in threaded + others]
    assert sum(done) == 400
    host.catch_up()
    assert value() == 400
    for process in threaded + others:
        process.stop()
    replicas = [hosts("a"), hosts("b"), hosts("new")]
    for replica in replicas:
        replica.catch_up()
    assert host.dump() == replicas[0].dump() == replicas[1].dump() == replicas[2].dump()


def test_own_writes_are_seen_by_all_processes_on_a_replica(
    host: Host, processes: MakeProcess
) -> None:
    Author.objects.create(name="counter", born=0)
    one, two = processes("shared"), processes("shared")
    for number in range(1, 6):
        assert one.call(increment) == 1
        assert (one.call(value), two.call(value)) == (2 * number - 1,) * 2
        assert two.call(increment) == 1
        assert (one.call(value), two.call(value)) == (2 * number,) * 2


def test_of_processes_that_insert_one_unique_value_one_wins(
    host: Host, processes: MakeProcess
) -> None:
    made = [processes(name) for name in "aabb"]
    for process in made:
        process.call(catch_up)
    for process in made:
        process.start(create, "the one")
    found: list[type] = []
    for process in made:
        _succeeded, outcome = process.receive()
        found.append(type(outcome))
    assert Counter(found) == {int: 1, IntegrityError: 3}
    for process in made:
        process.start(get_or_create, "another one")
    results = [process.result() for process in made]
    assert len({pk for pk, _created in results}) == 1
    assert sum(created for _pk, created in results) == 1


# Opening


def test_processes_that_open_a_cold_replica_at_once(
    host: Host, processes: MakeProcess
) -> None:
    for number in range(5):
        Author.objects.create(name=f"author {number}")
    made = [processes("cold") for _ in range(4)]
    for process in made:
        process.start(Author.objects.count)
    assert [process.result() for process in made] == [5] * 4
    assert OPEN_TIMEOUT > 0


def test_processes_that_make_the_database_at_once(
    bucket: object, processes: MakeProcess, hosts: MakeHost
) -> None:
    bucket.store.delete_many(bucket.keys())  # type: ignore[attr-defined]
    made = [processes(name) for name in "abab"]
    for process in made:
        process.start(catch_up)
    assert [process.result() for process in made] == [0] * 4


def test_threads_that_open_a_cold_replica_at_once(host: Host, hosts: MakeHost) -> None:
    Author.objects.create(name="counter", born=0)
    cold = hosts()
    assert together(each_on(cold, value, 12)) == [0] * 12


def test_a_process_that_joins_while_another_sits_in_a_block(
    host: Host, processes: MakeProcess, tmp_path: Path
) -> None:
    """A block of a lone process may keep SQLite's write lock; not for ever."""
    first = processes("shared", commit_timeout=5.0)
    first.call(catch_up)
    first.start(sit_in_a_block, "wait")
    assert first.receive() == "in the block"
    second = processes("shared", commit_timeout=5.0)
    second.start(create, "from the second")
    try:
        pk = second.result()
    finally:
        (tmp_path / "wait").touch()
    assert first.result() == 1
    host.catch_up()
    assert Author.objects.get(name="from the second").pk == pk
    assert Tag.objects.count() == 1


# Replicas that are gone, foreign or damaged


@pytest.mark.parametrize("leave", [(), ("-wal", "-shm")], ids=["all", "main"])
def test_a_replica_file_that_is_deleted_under_a_process(
    host: Host, processes: MakeProcess, tmp_path: Path, leave: tuple[str, ...]
) -> None:
    Author.objects.create(name="counter", born=0)
    running = processes("shared")
    assert running.call(increment) == 1
    for suffix in {"", "-wal", "-shm"} - {*leave}:
        (tmp_path / f"shared.sqlite3{suffix}").unlink(missing_ok=True)
    assert running.call(increment) == 1
    assert running.call(value) == 2
    started = processes("shared")
    assert started.call(value) == 2
    assert started.call(increment) == 1
    assert running.call(increment) == 1
    assert (started.call(value), running.call(value)) == (4, 4)
    assert running.call(increment) == 1
    assert (started.call(value), running.call(value)) == (5, 5)
    host.catch_up()
    assert value() == 5


def test_a_process_that_rebuilds_the_replica_of_another(
    host: Host, processes: MakeProcess
) -> None:
    Author.objects.create(name="counter", born=0)
    one, two = processes("shared"), processes("shared")
    assert one.call(increment) == two.call(increment) == 1
    assert two.call(rebuild) == 1
    assert one.call(increment) == 1
    assert (one.call(value), two.call(value)) == (3, 3)
    assert two.call(increment) == 1
    assert (one.call(value), two.call(value)) == (4, 4)


def test_what_was_left_by_a_process_that_died_while_it_made_a_replica(
    host: Host, processes: MakeProcess, tmp_path: Path
) -> None:
    """Replicas are large, and such processes may die one after the other."""
    Author.objects.create(name="counter", born=0)
    process = processes("shared")
    assert process.call(value) == 0
    for suffix in ("", "-wal", "-shm"):
        (tmp_path / f"shared.sqlite3-new-0123abcd{suffix}").write_bytes(b"x")
    another = tmp_path / "shared2.sqlite3-new-0123abcd"
    another.touch()
    assert process.call(rebuild) == 1
    assert process.call(value) == 0
    assert list(tmp_path.glob("shared.sqlite3-new-*")) == []
    assert another.exists()


def test_a_replica_is_made_anew_in_the_middle_of_a_block(
    host: Host, processes: MakeProcess, tmp_path: Path
) -> None:
    one, two = processes("shared"), processes("shared")
    one.call(catch_up)
    one.start(sit_in_a_block, "wait")
    assert one.receive() == "in the block"
    two.call(rebuild)
    (tmp_path / "wait").touch()
    assert one.result() == 1
    assert two.call(Tag.objects.count) == 1
    host.catch_up()
    assert Tag.objects.count() == 1


@pytest.mark.parametrize(
    "damage",
    ["garbage", "truncated", "empty", "no replica", "layout", "directory of wal"],
)
def test_a_replica_that_is_none(
    host: Host, hosts: MakeHost, processes: MakeProcess, tmp_path: Path, damage: str
) -> None:
    Author.objects.create(name="counter", born=7)
    path = tmp_path / "damaged.sqlite3"
    first = processes("damaged")
    assert first.call(value) == 7
    first.stop()
    if damage == "garbage":
        path.write_bytes(os.urandom(20_000))
    elif damage == "truncated":
        path.write_bytes(path.read_bytes()[:5000])
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "no replica":
        path.unlink()
        with sqlite3.connect(path) as other:
            other.execute("CREATE TABLE something (a)")
        other.close()
    elif damage == "layout":
        with sqlite3.connect(path) as other:
            other.execute("UPDATE _s3cache_meta SET layout = 0")
        other.close()
    else:
        (tmp_path / "damaged.sqlite3-wal").write_bytes(os.urandom(20_000))
    second = processes("damaged")
    assert second.call(value) == 7
    assert second.call(increment) == 1
    second.stop()
    replica = hosts("damaged")
    replica.catch_up()
    host.catch_up()
    assert replica.dump() == host.dump()
    assert path.stat().st_mode & 0o777 == 0o600


# Killed


def accounts(count: int, stock: int) -> list[str]:
    keeper = Author.objects.create(name="keeper")
    titles = [f"book {number}" for number in range(count)]
    Book.objects.bulk_create(
        [Book(title=title, author=keeper, stock=stock) for title in titles]
    )
    return titles


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.timeout(180)
def test_transfers_survive_kill_9(
    host: Host, hosts: MakeHost, processes: MakeProcess, seed: int
) -> None:
    """20 accounts, 4 processes on 2 replicas, 8 kills at random moments."""
    titles = accounts(20, 50)
    rng = random.Random(seed)
    names = ["a", "a", "b", "b"]
    numbers = iter(range(1000 * seed, 2000 * seed))
    acknowledged: list[str] = []

    def begin(name: str) -> Process:
        process = processes(name)
        process.start(keep_transferring, next(numbers), titles)
        return process

    running = [begin(name) for name in names]

    def listen(process: Process) -> None:
        """Take what it has said, also in the moment before it died."""
        try:
            while process.has_said():
                message = process.receive()
                if isinstance(message, tuple):
                    raise message[1]
                acknowledged.append(message)
        except (EOFError, ConnectionResetError):
            pass

    for _ in range(8):
        enough = len(acknowledged) + rng.randint(2, 12)
        while len(acknowledged) < enough:
            for process in running:
                listen(process)
            time.sleep(rng.random() * 0.02)
        victim = rng.randrange(len(running))
        running[victim].kill()
        listen(running[victim])
        running[victim] = begin(names[victim])
    for process in running:
        process.kill()
        listen(process)

    replicas = [hosts("a"), hosts("b"), hosts("new")]
    for replica in [host, *replicas]:
        replica.catch_up()
    assert sum(Book.objects.values_list("stock", flat=True)) == 20 * 50
    found = set(Tag.objects.values_list("name", flat=True))
    assert set(acknowledged) - found == set()
    assert len(acknowledged) == len(set(acknowledged)) >= 16
    moved = Counter(dict.fromkeys(titles, 50))
    for note in Tag.objects.values_list("note", flat=True):
        way, _colon, amount = note.partition(": ")
        source, _to, target = way.partition(" to ")
        moved[source] -= int(amount)
        moved[target] += int(amount)
    assert dict(Book.objects.values_list("title", "stock")) == moved
    assert host.dump() == replicas[0].dump() == replicas[1].dump() == replicas[2].dump()


def stop_in_the_middle_of(name: str, point: str) -> None:
    """Create a row, and be killed when the commit gets to ``point``."""
    from s3cache.replica.performer import Performer

    perform = Performer._perform

    def until(self: Performer, effect: object) -> object:
        kind, _, when = point.partition(" ")
        if type(effect).__name__ == kind:
            if when == "after":
                perform(self, effect)  # type: ignore[arg-type]
            os.kill(os.getpid(), 9)
        return perform(self, effect)  # type: ignore[arg-type]

    Performer._perform = until  # type: ignore[method-assign]
    with transaction.atomic():
        Tag.objects.create(name=name)
        Author.objects.create(name=name)


@pytest.mark.parametrize(
    ("point", "committed"),
    [
        ("HoldCommitLock before", False),
        ("Stage before", False),
        ("Stage after", False),
        ("Create before", False),
        ("Create after", True),
        ("Apply before", True),
        ("Apply after", True),
    ],
)
def test_a_process_that_is_killed_at_each_step_of_a_commit(
    host: Host, hosts: MakeHost, processes: MakeProcess, point: str, committed: bool
) -> None:
    Author.objects.create(name="counter", born=0)
    witness = processes("shared")
    assert witness.call(value) == 0
    victim = processes("shared")
    victim.call(catch_up)
    victim.call(reserve_ids)
    victim.start(stop_in_the_middle_of, "victim", point)
    with pytest.raises(EOFError):
        victim.receive()
    assert witness.call(increment) == 1
    assert witness.call(get_or_create, "victim")[1] is not committed
    witness.stop()
    replica = hosts("shared")
    for one in (host, replica):
        one.catch_up()
    assert Tag.objects.exists() is committed
    assert host.dump() == replica.dump()


def reserve_ids() -> None:
    """Have ids ready, so that the next commit is the one in question."""
    with transaction.atomic():
        Author.objects.create(name="needs an id")


def leave_a_block_open() -> None:
    """Write in a block, and be killed in Python."""
    with transaction.atomic():
        Author.objects.select_for_update().get(name="counter")
        increment()
        send("in the block")
        time.sleep(60)


def test_a_process_that_is_killed_in_a_block_holds_nothing(
    host: Host, processes: MakeProcess
) -> None:
    Author.objects.create(name="counter", born=0)
    victim = processes("shared")
    victim.start(leave_a_block_open)
    assert victim.receive() == "in the block"
    victim.kill()
    witness = processes("shared", commit_timeout=3.0)
    assert witness.call(value) == 0
    assert witness.call(lock_and_increment) == 1


def lock_and_increment() -> int:
    with transaction.atomic():
        Author.objects.select_for_update().get(name="counter")
        return increment()


# What is left open


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def use_and_fail(times: int) -> int:
    """Commits, errors, conflicts and connections, and the descriptors left."""
    from django.db import connections

    Tag.objects.create(name="once")
    before = 0
    for number in range(times + 5):
        if number == 5:
            before = open_descriptors()
        try:
            with transaction.atomic():
                Tag.objects.create(name=f"{number}")
                raise DatabaseError
        except DatabaseError:
            pass
        try:
            Tag.objects.bulk_create([Tag(name="once")])
        except IntegrityError:
            pass
        Tag.objects.filter(name="once").update(note=str(number))
        connections.close_all()
    return open_descriptors() - before


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc")
def test_nothing_is_left_open(host: Host, processes: MakeProcess) -> None:
    assert processes().call(use_and_fail, 20) <= 0
