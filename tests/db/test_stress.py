"""Random work of many threads on several hosts, with an oracle.

The oracle adds up what was acknowledged; the order does not matter to it. At
the end the database has to be that sum, and all replicas have to be equal, by
rowids and sequences too, to each other and to a new one made from the log.
"""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db import DatabaseError, IntegrityError, transaction
from django.db.models import F, Sum

from s3cache.exceptions import TransactionConflict
from s3cache.signals import rows_changed
from s3cache.stores.base import Answer
from s3cache.transactions import retry_on_conflict
from tests.db.hosts import (
    FaultyStore,
    MakeProcess,
    lost_after,
    lost_before,
    on,
    says,
    send,
    together,
)
from tests.engine import Host, MakeHost
from tests.library.models import Author, Book, Loan, Place, Tag

BOOKS = 8
STOCK = 40


class Totals:
    """What one thread was told that it has done."""

    def __init__(self) -> None:
        self.stock: Counter[str] = Counter()
        self.tags: Counter[str] = Counter()
        self.places: Counter[str] = Counter()
        self.authors: list[int] = []
        self.loans: list[tuple[int, str]] = []

    def add(self, other: Totals) -> None:
        self.stock.update(other.stock)
        self.tags.update(other.tags)
        self.places.update(other.places)
        self.authors += other.authors
        self.loans += other.loans


class Worker:
    """Does random things, and notes what was acknowledged."""

    def __init__(self, seed: int, name: str) -> None:
        self._rng = random.Random(f"{seed} {name}")
        self._name = name
        self._number = 0
        self.totals = Totals()
        self._actions: list[Callable[[], Any]] = [
            self.sell,
            self.move,
            self.move_with_locks,
            self.move_in_python,
            self.tag,
            self.tag_together,
            self.untag,
            self.swap_places,
            self.write,
            self.write_many,
            self.lend,
            self.try_and_undo,
            self.clash,
            self.fail,
            self.look,
        ]

    def work(self, times: int) -> Totals:
        for _ in range(times):
            self._number += 1
            self._rng.choice(self._actions)()
        return self.totals

    def _title(self) -> str:
        return f"book {self._rng.randrange(BOOKS)}"

    def _own(self) -> str:
        return f"{self._name} {self._number}"

    # Autocommit

    def sell(self) -> None:
        title, amount = self._title(), self._rng.randint(-3, 3)
        try:
            done = Book.objects.filter(title=title).update(stock=F("stock") + amount)
        except IntegrityError:
            return  # none left
        self.totals.stock[title] += done * amount

    def tag(self) -> None:
        name = f"shared {self._rng.randrange(6)}"
        try:
            Tag.objects.bulk_create([Tag(name=name, note=self._own())])
        except IntegrityError:
            return
        self.totals.tags[name] += 1

    def untag(self) -> None:
        name = f"shared {self._rng.randrange(6)}"
        with_raw = Tag.objects.filter(name=name)
        self.totals.tags[name] -= with_raw._raw_delete("default")

    def write(self) -> None:
        self.totals.authors.append(Author.objects.create(name=self._own()).pk)

    # Blocks

    def _move(self, book: Book | None, source: str, target: str, amount: int) -> None:
        if book is None:
            Book.objects.filter(title=source).update(stock=F("stock") - amount)
        else:
            book.stock -= amount
            book.save(update_fields=["stock"])
        Book.objects.filter(title=target).update(stock=F("stock") + amount)

    def _try_to_move(self, read: Callable[[str], Book | None], retries: int) -> None:
        source, target = self._rng.sample([f"book {n}" for n in range(BOOKS)], 2)
        amount = self._rng.randint(1, 4)

        def block() -> None:
            self._move(read(source), source, target, amount)

        try:
            if retries:
                retry_on_conflict(block, attempts=retries, using="default")()  # type: ignore[call-overload]
            else:
                with transaction.atomic():
                    block()
        except (IntegrityError, TransactionConflict):
            return
        self.totals.stock[source] -= amount
        self.totals.stock[target] += amount

    def move(self) -> None:
        self._try_to_move(lambda title: None, 0)

    def move_with_locks(self) -> None:
        books = Book.objects.select_for_update()
        self._try_to_move(lambda title: books.get(title=title), 0)

    def move_in_python(self) -> None:
        self._try_to_move(lambda title: Book.objects.get(title=title), 3)

    def tag_together(self) -> None:
        shared, own = f"shared {self._rng.randrange(6)}", self._own()
        try:
            with transaction.atomic():
                Tag.objects.bulk_create([Tag(name=own)])
                _tag, created = Tag.objects.get_or_create(name=shared)
        except (IntegrityError, TransactionConflict):
            return
        self.totals.tags[own] += 1
        self.totals.tags[shared] += created

    def swap_places(self) -> None:
        """Two unique values change hands."""
        try:
            with transaction.atomic():
                one, two = Place.objects.order_by("pk")[:2]
                labels = one.label, two.label
                Place.objects.filter(pk=one.pk).update(label=self._own())
                Place.objects.filter(pk=two.pk).update(label=labels[0])
                Place.objects.filter(pk=one.pk).update(label=labels[1])
        except TransactionConflict:
            return
        self.totals.places["swaps"] += 1

    def write_many(self) -> None:
        names = [f"{self._own()} {n}" for n in range(self._rng.randint(1, 5))]
        with transaction.atomic():
            made = [Author.objects.create(name=name) for name in names[:2]]
            made += Author.objects.bulk_create(Author(name=name) for name in names[2:])
        self.totals.authors += [author.pk for author in made]

    def lend(self) -> None:
        """A table whose rowid is nothing but an order."""
        copy, day = self._rng.randrange(5), f"2026-01-{self._rng.randint(1, 28):02}"
        try:
            with transaction.atomic():
                Loan.objects.create(copy=copy, day=day, reader=self._name)
        except IntegrityError:
            return
        self.totals.loans.append((copy, day))

    def try_and_undo(self) -> None:
        own = self._own()
        try:
            with transaction.atomic():
                Tag.objects.bulk_create([Tag(name=own)])
                try:
                    with transaction.atomic():
                        Book.objects.update(stock=F("stock") + 100)
                        Tag.objects.filter(name=own).update(note="undone")
                        raise ZeroDivisionError
                except ZeroDivisionError:
                    pass
                Tag.objects.filter(name=own).update(note="kept")
        except TransactionConflict:
            return
        self.totals.tags[own] += 1

    def clash(self) -> None:
        with pytest.raises(IntegrityError), transaction.atomic():
            Tag.objects.bulk_create([Tag(name=self._own())])
            Author.objects.bulk_create([Author(name="keeper")])

    def fail(self) -> None:
        with pytest.raises(ZeroDivisionError), transaction.atomic():
            Book.objects.update(stock=0)
            raise ZeroDivisionError

    def look(self) -> None:
        """One snapshot, in which nothing is half done."""
        with transaction.atomic():
            first = Book.objects.aggregate(Sum("stock"))
            list(Tag.objects.all())
            if Book.objects.aggregate(Sum("stock")) != first:
                raise AssertionError("a snapshot has changed")
            labels = set(Place.objects.values_list("label", flat=True))
            if labels != {"left", "right"}:
                raise AssertionError(labels)


def prepare() -> None:
    keeper = Author.objects.create(name="keeper")
    Book.objects.bulk_create(
        Book(title=f"book {n}", author=keeper, stock=STOCK) for n in range(BOOKS)
    )
    Place.objects.create(shelf="a", number=1, label="left")
    Place.objects.create(shelf="a", number=2, label="right")


def check(found: list[Totals]) -> None:
    """Compare the database with what was acknowledged."""
    total = Totals()
    for one in found:
        total.add(one)
    stock = Counter({f"book {n}": STOCK for n in range(BOOKS)})
    stock.update(total.stock)
    assert dict(Book.objects.values_list("title", "stock")) == dict(stock)
    tags = {name for name, count in total.tags.items() if count}
    assert set(total.tags.values()) <= {0, 1}
    assert set(Tag.objects.values_list("name", flat=True)) == tags
    assert not Tag.objects.filter(note="undone").exists()
    assert len(total.authors) == len(set(total.authors))
    pks = Author.objects.exclude(name="keeper").values_list("pk", flat=True)
    assert set(pks) == set(total.authors)
    loans = Loan.objects.values_list("copy", "day")
    assert sorted((copy, str(day)) for copy, day in loans) == sorted(total.loans)
    swapped = Place.objects.order_by("pk")[0].label == "right"
    assert swapped == bool(total.places["swaps"] % 2)


def check_replicas(hosts: MakeHost, *used: Host) -> None:
    new = hosts()
    for one in (*used, new):
        with one:
            one.catch_up()
    expected = new.dump()
    for one in used:
        assert one.dump() == expected


@pytest.fixture
def positions() -> Iterator[Counter[tuple[str, str, int]]]:
    """How often ``rows_changed`` told of a table at a position, by host."""
    told: Counter[tuple[str, str, int]] = Counter()
    lock = threading.Lock()

    def receive(*, table: str, position: int, **kwargs: Any) -> None:
        from django.db import connection

        with lock:
            told[connection.settings_dict["NAME"], table, position] += 1

    rows_changed.connect(receive)
    yield told
    rows_changed.disconnect(receive)


@pytest.mark.parametrize("seed", range(4))
def test_threads_of_three_hosts(
    host: Host,
    hosts: MakeHost,
    faulty: FaultyStore,
    positions: Counter[tuple[str, str, int]],
    seed: int,
) -> None:
    """One of them behind a bad network, one that asks at every read."""
    prepare()
    rng = random.Random(seed)
    lock = threading.Lock()

    def perhaps(send: Callable[[], Answer]) -> Answer:
        with lock:
            chance, action = rng.random(), rng.choice(actions)
        return action(send) if chance < 0.15 else send()

    actions = [lost_before, lost_after, says(503), says(500, after=True), says(409)]
    shaky, eager = hosts(storage="faulty"), hosts(max_age=0)
    shaky.catch_up()
    eager.catch_up()
    positions.clear()
    faulty.on("PUT", "_log/", perhaps)
    faulty.on("GET", "_log/", perhaps)

    def work(at: Host, name: str) -> Totals:
        with on(at):
            return Worker(seed, name).work(15)

    jobs = [
        lambda at=at, name=f"{letter}{n}": work(at, name)
        for letter, at in zip("hse", (host, shaky, eager), strict=True)
        for n in range(3)
    ]
    found = together(jobs)
    faulty.heal()
    check_replicas(hosts, host, shaky, eager)
    check(found)
    assert set(positions.values()) == {1}
    by_host = [
        {(table, n) for name, table, n in positions if name == one.settings["NAME"]}
        for one in (host, shaky, eager)
    ]
    assert by_host[0] == by_host[1] == by_host[2]


def work_in_process(seed: int, name: str, times: int) -> None:
    from tests.db.hosts import on  # noqa: F401

    send(Worker(seed, name).work(times))


@pytest.mark.parametrize("seed", [11, 12])
def test_processes_on_two_replicas(
    host: Host, hosts: MakeHost, processes: MakeProcess, seed: int
) -> None:
    prepare()
    made = [processes(name) for name in "aabb"]
    for number, process in enumerate(made):
        process.start(work_in_process, seed, f"p{number}", 25)
    found = [process.receive() for process in made]
    for one in found:
        if isinstance(one, tuple):
            raise one[1]
    for process in made:
        process.result()
        process.stop()
    check_replicas(hosts, host, hosts("a"), hosts("b"))
    check(found)


@pytest.mark.parametrize("bucket", ["directory"], indirect=True)
def test_threads_while_the_replica_is_made_anew(
    host: Host, hosts: MakeHost, processes: MakeProcess
) -> None:
    """By another process, again and again, under busy threads of this one."""
    prepare()
    shared = hosts("shared")
    shared.catch_up()
    rebuilder = processes("shared")
    rebuilder.start(rebuild, 6)

    def work(name: str) -> Totals:
        with on(shared):
            return Worker(21, name).work(20)

    found = together([lambda name=name: work(name) for name in "xyz"])  # type: ignore[misc]
    rebuilder.result()
    rebuilder.stop()
    check_replicas(hosts, host, shared)
    check(found)


def rebuild(times: int) -> None:
    from django.db import connection

    for _ in range(times):
        connection.rebuild_replica()  # type: ignore[attr-defined]
        try:
            Author.objects.count()
        except DatabaseError as error:
            raise AssertionError(str(error)) from error
