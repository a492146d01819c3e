"""What a process of the soak does: reads and writes, until it is told to stop.

Runs in a ``tests.db.hosts.Process``, whose database ``default`` is that of
its host. What it does it says to whoever started it, before and afterwards.
"""

from __future__ import annotations

import contextlib
import faulthandler
import itertools
import random
import resource
import signal
import sqlite3
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from django.conf import settings as django_settings
from django.db import (
    DatabaseError,
    IntegrityError,
    OperationalError,
    connection,
    connections,
    models,
    transaction,
)
from django.db.models import Case, F, Sum, When
from django.test import override_settings

from s3cache.db.base import DatabaseWrapper
from s3cache.exceptions import (
    CommitOutcomeUnknown,
    StoreRefused,
    StoreUnavailable,
    TransactionConflict,
)
from s3cache.keeper import rounds
from s3cache.keeper.rounds import KeeperOptions
from s3cache.keeper.run import keep_now
from s3cache.log import catch_up, commit, proof
from s3cache.management.commands.s3cache_verify import look
from s3cache.managers import S3QuerySet
from s3cache.records.run import record_now
from s3cache.transactions import write_behind
from tests.db import hosts
from tests.faults.ledger import STOCK, Found, Outcome, Write
from tests.library.models import Author, Book, Everything, Member, Tag

AUTHORS = 4
BOOKS = 5
COUNTERS = 3

#: How a token begins that a parked commit would have written.
IMPOSSIBLE = "impossible "

#: What a write is told that did not happen.
FAILED = (StoreRefused, StoreUnavailable, TransactionConflict, IntegrityError)

#: What a read is told that could not be answered.
UNREADABLE = (StoreRefused, StoreUnavailable)

#: What a write, or a migration, is told that waited too long for its turn.
LOCKED = "database is locked"

#: What somebody is told who opened a replica while it was deleted.
NO_FILE = "unable to open database file"

#: What a migration is told that another one has made needless meanwhile.
NEEDLESS = ("duplicate column", "no such column", "no such index", "already exists")

#: What is told while there is no room on the disk, and only then.
NO_ROOM = ("database or disk is full", "disk I/O error")

#: Reads of a thread between two times that it says so.
TOLD_EVERY = 50

#: What ``s3cache_verify`` says of objects that the next keeper deletes.
LEFT_OVER = "nothing refers to it."

#: Seconds from which on an answer needs a look at ``_head``: an hour, in the
#: time of a soak, in which a day is long enough for the log to be trimmed.
HOUR = 4.0
KEEPING = KeeperOptions(pack_after=8, lease=2.0, retain=6 * HOUR, grace=6 * HOUR)


@dataclass(frozen=True)
class Plan:
    """How a process works. ``seed`` and ``name`` say what it chooses."""

    seed: int
    name: str
    threads: int
    caches: Mapping[str, Any]
    pause: float = 0.0


def send(*message: Any) -> None:
    """Tell whoever started this process."""
    with _sending:
        hosts.send(message)


_sending = threading.Lock()


def settle(caches: Mapping[str, Any]) -> None:
    """Let days be seconds, and results be kept where the soak says."""
    proof.BELIEVED_FOR = commit.BELIEVED_FOR = HOUR  # type: ignore[attr-defined]
    catch_up.CHECK_EVERY = HOUR
    rounds.RECENT = HOUR
    override_settings(
        CACHES={**django_settings.CACHES, **caches},
        S3CACHE={"CACHE": "s3cache"} if caches else {},
    ).enable()


def work(plan: Plan) -> None:
    """Read and write, until ``stop`` is called; then return."""
    settle(plan.caches)
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    stopped = threading.Event()
    threads = [
        threading.Thread(
            target=_Worker(plan, number, stopped).run, name=f"{plan.name}.{number}"
        )
        for number in range(plan.threads)
    ]
    for thread in threads:
        thread.start()
    if hosts.pipe is None:
        raise RuntimeError("not a process of the soak")
    while (order := hosts.pipe.recv()) is not None:
        function, args = order
        try:
            function(*args)
        except UNREADABLE + FAILED + (CommitOutcomeUnknown,) as error:
            send("told", function.__name__, repr(error))
        except (DatabaseError, sqlite3.Error) as error:
            text = str(error)
            expected = text.startswith((*NO_ROOM, LOCKED, NO_FILE))
            expected |= function is migrate and any(one in text for one in NEEDLESS)
            kind, words = ("told", text) if expected else ("wrong", _words(error))
            send(kind, function.__name__, words)
        except Exception as error:
            send("wrong", function.__name__, _words(error))
    stopped.set()
    for thread in threads:
        thread.join()


# Orders


def keep() -> None:
    """Be the keeper for a round."""
    kept = keep_now(_replica(), KEEPING, wait=1.0)
    what = "busy" if kept.busy else f"{kept.packs_written} packs"
    send("told", "keep", f"{what}, trimmed to {kept.trimmed}")


def migrate() -> None:
    """Add a column and an index to a busy table, or take them away."""
    column = models.CharField(max_length=20, null=True)
    column.set_attributes_from_name("extra")
    column.model = Book
    index = models.Index(fields=["stock", "title"], name="soak_stock_title")
    with connection.cursor() as cursor:
        there = {
            one.name
            for one in connection.introspection.get_table_description(
                cursor, Book._meta.db_table
            )
        }
    with connection.schema_editor() as editor:
        if "extra" in there:
            editor.remove_index(Book, index)
            editor.remove_field(Book, column)
        else:
            editor.add_field(Book, column)
            editor.add_index(Book, index)
    send("told", "migrate", "back" if "extra" in there else "on")


def limit_files(seconds: float) -> None:
    """Let no file grow: what a full disk does to this process alone."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    time.sleep(seconds)
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))


# Before and after


def found_database() -> None:
    """Make the tables, and the rows that everybody writes."""
    from django.apps import apps

    with connection.schema_editor() as editor:
        for model in apps.get_models():
            if model._meta.can_migrate(connection):
                editor.create_model(model)
    authors = [Author(name=f"author {n}", born=0) for n in range(AUTHORS)]
    with transaction.atomic():
        made = Author.objects.bulk_create([*authors, Author(name="plain", born=0)])
        Book.objects.bulk_create(
            Book(title=f"book {n}", author=made[0], stock=STOCK) for n in range(BOOKS)
        )
        Everything.objects.bulk_create(
            Everything(text=f"counter {n}", whole=0) for n in range(COUNTERS)
        )


def report(path: Path, options: Mapping[str, Any]) -> dict[str, Any]:
    """All that a replica has, once it has caught up."""
    from tests.engine import Host

    host = Host(path, dict(options))
    host.catch_up()
    try:
        return host.dump()
    finally:
        host.close()


def numbers() -> Found:
    """The tokens, and the numbers, as the database has them."""
    connection.catch_up()  # type: ignore[attr-defined]
    with transaction.atomic():
        found = dict(Author.objects.values_list("name", "born"))
        found |= dict(Book.objects.values_list("title", "stock"))
        numbered = Everything.objects.exclude(whole=None)
        found |= {
            text: whole or 0 for text, whole in numbered.values_list("text", "whole")
        }
        tokens = {
            *Tag.objects.values_list("name", flat=True),
            *Everything.objects.filter(whole=None).values_list("text", flat=True),
            *Member.objects.values_list("name", flat=True),
        }
    return Found(frozenset(tokens), found)


@dataclass(frozen=True)
class Flushed:
    """What an outbox has come to: who is parked is named by its token."""

    waiting: int
    parked: tuple[str, ...]
    errors: tuple[str, ...]


def flush() -> Flushed:
    """Send what this host has written behind and not sent yet."""
    _replica()
    behind = connection.behind  # type: ignore[attr-defined]
    behind.send()
    parked = behind.outbox.parked()
    tokens = tuple(
        value
        for one in parked
        for _sql, params, _many in one.commands
        for value in params or ()
        if isinstance(value, str) and value.startswith(IMPOSSIBLE)
    )
    errors = tuple(sorted({one.error or "" for one in parked}))
    return Flushed(behind.outbox.statistics().waiting, tokens, errors)


def verify() -> list[str]:
    """What ``s3cache_verify`` finds, records included."""
    replica = _replica()
    record_now(replica, wait=60)
    database = connections["default"]
    if not isinstance(database, DatabaseWrapper):
        raise TypeError(database)
    found = look(database)
    if any(one.message == LEFT_OVER for one in found):
        # By a keeper that has lost its lease; it is for the next one.
        keep_now(replica, replace(KEEPING, pack_after=1), wait=60)
        found = look(database)
    return [f"{one.key}: {one.message}" for one in found]


def _replica() -> Any:
    connection.ensure_connection()
    return connection.replica  # type: ignore[attr-defined]


# Work


class Wrong(Exception):
    """Something was read that cannot be."""


class _Worker:
    """A thread: what it does next, and what it has seen."""

    #: By process: how far a counter was, at least, when it was last read.
    _seen: dict[str, int] = {}
    _seen_lock = threading.Lock()

    def __init__(self, plan: Plan, number: int, stopped: threading.Event) -> None:
        self._name = f"{plan.name}.{number}"
        self._random = random.Random(f"{plan.seed} {self._name}")
        self._pause = plan.pause
        self._stopped = stopped
        self._numbers = itertools.count()
        self._mine: list[str] = []
        self._behind = 0
        self._reads = 0
        self._authors: dict[str, int] = {}
        self._choices: list[tuple[Callable[[], None], int]] = [
            (self.increment, 3),
            (self.increment_with_token, 3),
            (self.move, 2),
            (self.move_in_python, 2),
            (self.tag, 2),
            (self.tag_many, 1),
            (self.untag, 2),
            (self.fail, 1),
            (self.add_behind, 3),
            (self.dangle_behind, 1),
            (self.get_one, 14),
            (self.count_mine, 4),
            (self.sum_up, 4),
            (self.look_twice, 3),
            (self.ask, 2),
        ]

    def run(self) -> None:
        """Until it is stopped."""
        actions = [action for action, _weight in self._choices]
        weights = [weight for _action, weight in self._choices]
        try:
            while not self._stopped.is_set():
                [action] = self._random.choices(actions, weights)
                try:
                    action()
                except Wrong as error:
                    send("wrong", action.__name__, str(error))
                if self._pause:
                    time.sleep(self._pause * self._random.random())
        except BaseException as error:
            send("wrong", self._name, f"stopped by {_words(error)}")
            raise
        finally:
            send("reads", self._reads)
            connections.close_all()

    # Writes

    def _write(self, write: Write, do: Callable[[], object]) -> bool:
        """Do it, and tell what came of it. Whether it was acknowledged."""
        name = f"{self._name} {next(self._numbers)} {do.__name__}"
        send("begin", name, write)
        outcome, words = _outcome(do)
        send("end", name, outcome, words)
        return outcome == "done"

    def _token(self) -> str:
        return f"{self._name}-{next(self._numbers)}"

    def increment(self) -> None:
        def autocommit() -> None:
            Author.objects.filter(name="plain").update(born=F("born") + 1)

        self._write(Write(added={"plain": 1}), autocommit)

    def increment_with_token(self) -> None:
        token, name = self._token(), f"author {self._random.randrange(AUTHORS)}"

        def block() -> None:
            with transaction.atomic():
                Author.objects.filter(name=name).update(born=F("born") + 1)
                Tag.objects.bulk_create([Tag(name=token)])

        if self._write(Write((token,), added={name: 1}), block):
            self._see(token)

    def move(self) -> None:
        self._move(read=False)

    def move_in_python(self) -> None:
        self._move(read=True)

    def _move(self, *, read: bool) -> None:
        token, amount = self._token(), self._random.randint(1, 200)
        source, target = self._random.sample([f"book {n}" for n in range(BOOKS)], 2)

        def transfer() -> None:
            with transaction.atomic():
                Tag.objects.bulk_create([Tag(name=token)])
                if read:
                    book = Book.objects.get(title=source)
                    book.stock -= amount
                    book.save(update_fields=["stock"])
                else:
                    Book.objects.filter(title=source).update(stock=F("stock") - amount)
                Book.objects.filter(title=target).update(stock=F("stock") + amount)

        self._write(Write((token,), added={source: -amount, target: amount}), transfer)

    def tag(self) -> None:
        token = self._token()

        def create() -> None:
            Tag.objects.create(name=token)

        if self._write(Write((token,)), create):
            self._mine.append(token)
            self._see(token)

    def tag_many(self) -> None:
        tokens = [self._token() for _ in range(20)]

        def create_many() -> None:
            Tag.objects.bulk_create([Tag(name=token) for token in tokens])

        self._write(Write(tuple(tokens)), create_many)

    def untag(self) -> None:
        if not self._mine:
            return
        token = self._mine.pop()

        def delete() -> None:
            Tag.objects.filter(name=token).delete()

        if self._write(Write(gone=(token,)), delete):
            self._see(token, there=False)

    def fail(self) -> None:
        token = self._token()

        def roll_back() -> None:
            with transaction.atomic():
                Book.objects.update(stock=F("stock") + 1)
                Tag.objects.bulk_create([Tag(name=token)])
                raise IntegrityError("on purpose")

        self._write(Write((token,), added={"book 0": 10**9}), roll_back)

    def add_behind(self) -> None:
        """Add to a number that only grows if all come in order, and once."""
        token, chain = self._token(), f"chain {self._name}"
        counter, number = f"counter {self._random.randrange(COUNTERS)}", self._behind

        def add() -> None:
            with write_behind():
                if not number:
                    Everything.objects.create(text=chain, whole=0)
                Everything.objects.filter(text=chain).update(
                    whole=Case(
                        When(whole=number, then=number + 1),
                        default=F("whole"),
                        output_field=models.BigIntegerField(),
                    )
                )
                Everything.objects.filter(text=counter).update(whole=F("whole") + 1)
                Everything.objects.create(text=token)

        if self._write(Write((token,), added={chain: 1, counter: 1}), add):
            self._behind += 1

    def dangle_behind(self) -> None:
        """Write what is found out when it is sent, and has to be parked."""
        token = IMPOSSIBLE + self._token()

        def dangle() -> None:
            with write_behind():
                Member(
                    pk=self._random.getrandbits(60), name=token, invited_by_id=1
                ).save(force_insert=True)

        self._write(Write(parked=token), dangle)

    # Reads

    def _read(self, do: Callable[[], Any]) -> Any:
        """The answer, or None if there is none."""
        self._reads += 1
        if self._reads == TOLD_EVERY:
            send("reads", self._reads)
            self._reads = 0
        try:
            return do()
        except UNREADABLE as error:
            send("told", do.__name__, type(error).__name__)
        except OperationalError as error:
            if str(error).startswith((LOCKED, NO_FILE)):
                send("told", do.__name__, str(error).partition(":")[0])
            elif str(error).startswith(NO_ROOM):
                send("no room", do.__name__)
            else:
                raise Wrong(_words(error)) from error
        except DatabaseError as error:
            raise Wrong(_words(error)) from error
        return None

    def _see(self, token: str, *, there: bool = True) -> None:
        """What this host has committed it sees."""

        def exists() -> bool:
            return Tag.objects.filter(name=token).exists()

        if self._read(exists) is (not there):
            raise Wrong(f"{token} was committed, and is not seen on its host")

    def get_one(self) -> None:
        name = f"author {self._random.randrange(AUTHORS)}"
        with self._seen_lock:
            before = self._seen.get(name, 0)

        def get() -> int:
            if name not in self._authors:
                self._authors[name] = Author.objects.get(name=name).pk
            return Author.objects.get(pk=self._authors[name]).born

        if (born := self._read(get)) is None:
            return
        if born < before:
            raise Wrong(f"{name} was at {before} before, and is at {born} now")
        with self._seen_lock:
            self._seen[name] = max(self._seen.get(name, 0), born)

    def count_mine(self) -> None:
        mine = self._mine[-5:]

        def count() -> int:
            return Tag.objects.filter(name__in=mine).count()

        if self._read(count) not in (None, len(mine)):
            raise Wrong(f"not all of {mine} are there")

    def sum_up(self) -> None:
        def total() -> int:
            return int(Book.objects.aggregate(total=Sum("stock"))["total"])

        if self._read(total) not in (None, BOOKS * STOCK):
            raise Wrong("books were moved, and their number has changed")

    def look_twice(self) -> None:
        """A block reads one snapshot."""

        def block() -> tuple[Any, Any]:
            with transaction.atomic():
                first = sorted(Book.objects.values_list("title", "stock"))
                list(Author.objects.order_by("name")[:3])
                return first, sorted(Book.objects.values_list("title", "stock"))

        if seen := self._read(block):
            first, second = seen
            if first != second or sum(n for _, n in first) != BOOKS * STOCK:
                raise Wrong(f"one block, two answers: {first}, {second}")

    def ask(self) -> None:
        """Ask the store first."""

        def fresh() -> int:
            return S3QuerySet(Tag).fresh().count()

        self._read(fresh)


def _outcome(do: Callable[[], object]) -> tuple[Outcome, str]:
    try:
        do()
    except CommitOutcomeUnknown as error:
        return "unknown", str(error)
    except FAILED as error:
        return "failed", type(error).__name__
    except OperationalError as error:
        if str(error).startswith(NO_ROOM):
            return "failed", "no room"
        if str(error).startswith(LOCKED):
            return "failed", "locked"
        if str(error).startswith(NO_FILE):
            return "failed", "no file"
        return "failed", f"WRONG {_words(error)}"
    except DatabaseError as error:
        return "failed", f"WRONG {_words(error)}"
    return "done", ""


def _words(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))


def corrupt(folder: Path, rng: random.Random) -> int:
    """Spoil some entries of a cache, or its index; how many files."""
    files = sorted(path for path in folder.rglob("*.*") if path.name[0] != "_")
    spoiled = rng.sample(files, min(len(files), 5))
    if rng.random() < 0.5:
        spoiled.append(folder / "_index.sqlite3")
    for path in spoiled:
        with contextlib.suppress(OSError), path.open("r+b") as file:
            file.seek(rng.randrange(path.stat().st_size + 1))
            file.write(rng.randbytes(rng.randrange(60)))
    return len(spoiled)
