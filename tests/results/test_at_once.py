"""A ``get()`` whose result is gone is one call of SQLite, and never stale.

Each test has a read that is hot, and a write that takes away what is kept.
"""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from django.core.cache import caches
from django.db import DatabaseError, connection, connections, models
from django.db.backends.utils import CursorWrapper
from django.test.utils import isolate_apps

from s3cache.managers import S3Manager
from s3cache.models import S3Model
from s3cache.replica.reader import Reader
from s3cache.replica.replica import forget_replica
from s3cache.results import flights, versions
from s3cache.results.flights import Flight, Flights
from s3cache.results.hot import Hot
from s3cache.results.plans import Plans
from s3cache.results.queries import queries
from s3cache.results.versions import RowScope, Versions
from s3cache.results.watching import Watch, Why, watch
from s3cache.transactions import write_behind
from tests.db.hosts import Turns, each_on, on, outcomes, together
from tests.engine import Host
from tests.results.seen import MISS, directory, events, totals
from tests.testapp.models import Gear, Shop

pytestmark = [directory, pytest.mark.usefixtures("hot_path")]


@pytest.fixture(autouse=True)
def memory_cache(settings: Any) -> Iterator[None]:
    """Results in a MemoryCache, which holds objects."""
    settings.CACHES = {
        "default": {"BACKEND": "s3cache.caches.MemoryCache", "LOCATION": "at-once"}
    }
    caches["default"].clear()
    yield
    caches["default"].clear()


@pytest.fixture
def gear(host: Host) -> Gear:
    made = Gear.objects.create(name="cog", weight=5)
    assert weight(made) == 5
    return made


def weight(gear: Gear) -> int:
    found: int = Gear.objects.get(pk=gear.pk).weight
    return found


def write(gear: Gear, weight: int) -> None:
    Gear.objects.filter(pk=gear.pk).update(weight=weight)


@contextmanager
def calls() -> Iterator[list[str]]:
    """What this thread's connection to the replica runs."""
    seen: list[str] = []
    wrapper: Any = connection
    wrapper.ensure_connection()
    reading = wrapper.connection.reader.connection
    reading.set_trace_callback(seen.append)
    try:
        yield seen
    finally:
        reading.set_trace_callback(None)


@contextmanager
def slowly(owner: type, method: str) -> Iterator[list[object]]:
    """Have a method take its time, so that all threads come; its calls."""
    called: list[object] = []
    original = getattr(owner, method)

    def slow(self: object, *args: Any) -> Any:
        called.append(args)
        time.sleep(0.3)
        return original(self, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, method, slow)
        yield called


def after_fetch(monkeypatch: pytest.MonkeyPatch, do: Callable[[], object]) -> None:
    """Have ``do`` called once, after the call of SQLite that reads a row."""
    fetch = Reader.fetch

    def early(self: Reader, *args: Any) -> Any:
        monkeypatch.setattr(Reader, "fetch", fetch)
        found = fetch(self, *args)
        do()
        return found

    monkeypatch.setattr(Reader, "fetch", early)


def before_fetch(monkeypatch: pytest.MonkeyPatch, do: Callable[[], object]) -> None:
    """Have ``do`` called once, before the call of SQLite that reads a row."""
    fetch = Reader.fetch

    def late(self: Reader, *args: Any) -> Any:
        monkeypatch.setattr(Reader, "fetch", fetch)
        do()
        return fetch(self, *args)

    monkeypatch.setattr(Reader, "fetch", late)


# What it takes


def test_it_is_one_call(gear: Gear) -> None:
    other = Gear.objects.create(name="wheel", weight=1)
    write(gear, 6)
    assert weight(other) == 1  # looks where the replica is
    with calls() as seen:
        assert weight(gear) == 6
        assert weight(gear) == 6
    assert len(seen) == 1


def test_a_row_that_is_not_there_is_one_call(gear: Gear) -> None:
    other = Gear.objects.create(name="wheel", weight=1)
    gone = Gear(pk=gear.pk)
    gear.delete()
    assert weight(other) == 1
    with calls() as seen:
        for _ in range(2):
            with pytest.raises(Gear.DoesNotExist):
                weight(gone)
    assert len(seen) == 1


def test_an_object_of_two_tables(host: Host) -> None:
    one = Shop.objects.create(name="one", rooms=1)
    get = partial(Shop.objects.get, pk=one.pk)
    get()
    for rooms in (2, 3):
        Shop.objects.filter(pk=one.pk).update(rooms=rooms)
        Shop.objects.count()
        with calls() as seen:
            found = get()
        assert (found.name, found.rooms, found.pk) == ("one", rooms, one.pk)
        assert len(seen) == 1


def test_threads_that_come_at_once_ask_once(host: Host, gear: Gear) -> None:
    write(gear, 6)
    before = totals("testapp.gear", "get")
    with slowly(Reader, "fetch") as fetched:
        found = together(each_on(host, partial(Gear.objects.get, pk=gear.pk), 8))
    assert [one.weight for one in found] == [6] * 8
    assert len({id(one) for one in found}) == 8
    assert len(fetched) == 1
    after = totals("testapp.gear", "get")
    assert after["miss"] == before["miss"] + 1
    assert after["wait"] - before.get("wait", 0) == 7


def test_one_of_all_readers_looks_where_the_replica_is(host: Host, gear: Gear) -> None:
    write(gear, 6)
    with slowly(Versions, "at") as looked:
        assert together(each_on(host, partial(weight, gear), 8)) == [6] * 8
    assert len(looked) == 1


def test_nobody_waits_for_one_that_is_held_up(gear: Gear) -> None:
    """Nor does one after the other wait for SQLite's timeout."""
    wrapper: Any = connection
    write(gear, 6)
    versions = wrapper.statements.versions
    turn = versions._following
    with turn:
        assert weight(gear) == 6
        assert versions._following is not turn  # the next one does not wait


# What must not be


def test_a_commit_after_it_was_looked_where_the_replica_is(
    host: Host, gear: Gear, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The row is newer than the version that is known: that is not its own."""

    def commit() -> None:
        with on(host):
            write(gear, 7)

    write(gear, 6)
    before_fetch(monkeypatch, commit)
    assert weight(gear) in (6, 7)
    assert weight(gear) == 7
    write(gear, 8)
    assert weight(gear) == 8


def test_a_commit_that_all_but_one_have_seen(
    host: Host, gear: Gear, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The version is newer than the row: nobody finds that under it."""

    def overtake() -> None:
        with on(host):
            write(gear, 7)
            assert weight(gear) == 7

    write(gear, 6)
    after_fetch(monkeypatch, overtake)
    assert weight(gear) in (6, 7)
    assert weight(gear) == 7


def test_one_is_interrupted_who_goes_on_to_a_newer_version(
    host: Host, gear: Gear, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was read before gets no version that is half that of the next."""
    add = versions._add

    def interrupted(*args: Any) -> None:
        add(*args)
        raise KeyboardInterrupt

    def go_on_by_half() -> None:
        with on(host):
            write(gear, 7)
            with monkeypatch.context() as patch:
                patch.setattr(versions, "_add", interrupted)
                with pytest.raises(KeyboardInterrupt):
                    weight(gear)

    write(gear, 6)
    after_fetch(monkeypatch, go_on_by_half)
    assert weight(gear) in (6, 7)
    assert weight(gear) == 7


def test_the_replica_was_closed_for_good(host: Host, gear: Gear) -> None:
    """What is known is about another object, whose numbers are gone."""
    write(gear, 6)
    connection.close()
    forget_replica(Path(host.settings["NAME"]))
    assert weight(gear) == 6
    write(gear, 7)
    assert weight(gear) == 7


def test_a_replica_whose_numbers_are_still_there(
    host: Host, gear: Gear, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection is opened anew, to one that has versions of its own."""
    write(gear, 6)
    assert weight(gear) == 6
    replica = host.connection.replica
    connection.close()
    with monkeypatch.context() as patch:
        patch.setattr(type(replica), "retire", lambda self: None)
        forget_replica(Path(host.settings["NAME"]))
    with monkeypatch.context() as patch:
        # As if that had come just now, after it was looked for.
        patch.setattr(Hot, "find", lambda *args, **kwargs: None)
        with on(host):
            write(gear, 7)
        with on(host):
            assert weight(gear) == 7
    replica.retire(delete_side=False)


@isolate_apps("tests.testapp")
def test_a_view_of_columns_of_several_types(host: Host) -> None:
    """SQLite would make a number of the text, beside the position."""

    class Code(S3Model):
        id = models.IntegerField(primary_key=True)
        code = models.CharField(max_length=9)

        objects = S3Manager()

        class Meta:
            app_label = "testapp"
            managed = False
            db_table = "codes"

        def __str__(self) -> str:
            return self.code

    for sql in (
        "CREATE TABLE whole (id integer PRIMARY KEY, code integer)",
        "CREATE TABLE texts (id integer PRIMARY KEY, code text)",
        "CREATE VIEW codes AS SELECT id, code FROM whole "
        "UNION ALL SELECT id, code FROM texts",
        "INSERT INTO texts VALUES (2, '007')",
    ):
        host.sql(sql)
    assert [Code.objects.get(pk=2).code for _ in range(3)] == ["007"] * 3
    host.sql("INSERT INTO whole VALUES (1, 5)")
    assert Code.objects.get(pk=2).code == "007"


def test_one_is_interrupted_before_it_could_ask(
    gear: Gear, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only one waits for it in vain: it will never come back."""
    join = Flights.join

    def interrupted(self: Any, key: Any) -> Any:
        join(self, key)
        raise KeyboardInterrupt

    monkeypatch.setattr(flights, "PATIENCE", 0.1)
    write(gear, 6)
    with monkeypatch.context() as patch:
        patch.setattr(Flights, "join", interrupted)
        with pytest.raises(KeyboardInterrupt):
            weight(gear)
    waited = []
    wait = Flight.wait

    def noted(self: Flight[Any]) -> Any:
        waited.append(self)
        return wait(self)

    monkeypatch.setattr(Flight, "wait", noted)
    for _ in range(3):
        assert weight(gear) == 6
        caches["default"].clear()
    assert len(waited) == 1


def test_a_change_of_the_schema_meanwhile(
    host: Host, gear: Gear, monkeypatch: pytest.MonkeyPatch
) -> None:
    def migrate() -> None:
        with on(host) as wrapper, wrapper.cursor() as cursor:
            cursor.execute("CREATE INDEX by_weight ON testapp_gear (weight)")
            write(gear, 7)

    write(gear, 6)
    before_fetch(monkeypatch, migrate)
    assert weight(gear) in (6, 7)
    assert weight(gear) == 7


def test_what_was_compiled_for_another_schema(gear: Gear) -> None:
    """Nor does it belong to what is known of another replica."""
    hot: Any = Gear.objects._hot_path()
    [compiled] = {
        recipe.compiled
        for shape in hot.shapes
        for action, recipe in shape.recipes.items()
        if action == "get" and "id" in recipe.compiled.sql.partition("WHERE")[2]
    }
    wrapper: Any = connection
    known, key = compiled.known, gear.pk.hex
    scopes = (RowScope("testapp_gear", (key,)),)
    assert wrapper.read_at_once(known, (key,), scopes) is not None
    elsewhere = Plans()
    elsewhere.add(known.sql, known.plans.get(known.sql))
    known = dataclasses.replace(known, plans=elsewhere)
    assert wrapper.read_at_once(known, (key,), scopes) is None


def test_who_asks_fails(
    host: Host, gear: Gear, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others are not told of it: each of them asks for itself."""
    write(gear, 6)

    def fail() -> None:
        raise RuntimeError("lost")

    before_fetch(monkeypatch, fail)
    with pytest.raises(RuntimeError, match="lost"):
        weight(gear)
    assert weight(gear) == 6


# Who else wants to see it


def test_a_tool_with_a_cursor_of_its_own(
    gear: Gear, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = []
    wrapper: Any = connection
    cursor = wrapper.cursor

    def counting() -> Any:
        opened.append(1)
        return cursor()

    write(gear, 6)
    # Not by the proxy: it is the connection's own attribute.
    monkeypatch.setattr(wrapper._connections["default"], "cursor", counting)
    assert weight(gear) == 6
    assert opened


def test_who_wants_to_see_it_does_not_wait_for_another(host: Host, gear: Gear) -> None:
    """What that one's statement brings would go past the wrapper."""
    seen: list[str] = []
    turns = Turns()

    def wrap(execute: Any, sql: str, *rest: Any) -> Any:
        seen.append(sql)
        return execute(sql, *rest)

    def watched() -> int:
        with on(host) as wrapper, wrapper.execute_wrapper(wrap):
            turns.wait("asks")
            try:
                return weight(gear)
            finally:
                turns.say("seen")

    def waits(self: object) -> None:
        pytest.fail("it waits for another one's statement")

    def alone() -> int:
        with on(host):
            return weight(gear)

    def meanwhile() -> None:
        turns.say("asks")
        turns.wait("seen")

    write(gear, 6)
    with pytest.MonkeyPatch.context() as patch:
        before_fetch(patch, meanwhile)
        patch.setattr(Flight, "wait", waits)
        assert together([alone, watched]) == [6, 6]
    assert len(seen) == 1


def test_a_connection_of_another_thread_is_refused(gear: Gear) -> None:
    """As Django does it, where a statement is needed."""
    write(gear, 6)
    borrowed = connections["default"]

    def borrow() -> int:
        connections["default"] = borrowed
        try:
            return weight(gear)
        finally:
            del connections["default"]

    [outcome] = outcomes([borrow])
    assert isinstance(outcome, DatabaseError)
    assert "can only be used in that same thread" in str(outcome)


def test_a_tool_that_has_put_its_own_in_the_place_of_djangos(
    gear: Gear, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    execute = CursorWrapper.execute

    @functools.wraps(execute)
    def traced(self: CursorWrapper, sql: str, params: Any = None) -> Any:
        seen.append(sql)
        return execute(self, sql, params)

    write(gear, 6)
    monkeypatch.setattr(CursorWrapper, "execute", traced)
    assert weight(gear) == 6
    assert len(seen) == 1


def test_what_waits_in_the_outbox_is_seen(host: Host, gear: Gear) -> None:
    with write_behind():
        write(gear, 6)
    assert weight(gear) == 6


def test_it_is_counted(gear: Gear) -> None:
    write(gear, 6)
    assert events(partial(weight, gear)) == MISS


def test_a_row_that_is_not_there_is_none(gear: Gear, settings: Any) -> None:
    """Among the slow statements, too."""
    settings.S3CACHE = {"SLOW_QUERY": 0.0}
    gone = Gear(pk=gear.pk)
    assert weight(gear) == 5
    gear.delete()
    with calls() as seen, pytest.raises(Gear.DoesNotExist):
        weight(gone)
    assert "_s3cache_meta" in seen[-1]
    assert queries.slow()[1][-1].rows == 0


def test_who_watches_is_told(gear: Gear, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also of what another thread has kept since it was looked for."""

    def told() -> list[tuple[str, Why]]:
        with watch(Watch()) as seen:
            assert weight(gear) == 6
        return [(one.event, one.why) for one in seen.reads]

    write(gear, 6)
    assert told() == [("miss", Why.ABSENT)]
    assert told() == [("hit", Why.HOT)]
    find = Hot.find
    monkeypatch.setattr(Hot, "find", lambda *args, **kwargs: None)
    assert told() == [("hit", Why.HOT)]
    monkeypatch.setattr(Hot, "find", find)
    write(gear, 6)
    with monkeypatch.context() as patch:
        kept: Any = _kept(gear)
        patch.setattr(Flights, "join", lambda self, key: (_Landed(kept), False))
        assert told() == [("wait", Why.WAITED)]


class _Landed(Flight[Any]):
    """A flight that is over."""

    __slots__ = ()

    def __init__(self, outcome: object) -> None:
        super().__init__()
        self.outcome = outcome
        self.land()


def _kept(gear: Gear) -> object:
    hot: Any = Gear.objects._hot_path()
    found = hot.keep_object(Gear.objects.skip_cache().get(pk=gear.pk))
    assert found is not None
    return found


def test_it_is_kept_once(host: Host, gear: Gear) -> None:
    """Not as the result of a statement, too."""
    cache: Any = caches["default"]
    write(gear, 6)
    before = cache.stats()["size"]
    assert weight(gear) == 6
    assert cache.stats()["size"] == before + 1


def test_reads_that_nobody_repeats_are_not_kept(host: Host, gear: Gear) -> None:
    rows = Gear.objects.bulk_create(Gear(name=str(n), weight=n) for n in range(80))
    cache: Any = caches["default"]
    for row in rows:
        assert weight(row) == row.weight
    assert cache.stats()["size"] < 60


def test_an_execute_wrapper_sees_it(gear: Gear) -> None:
    seen: list[str] = []

    def wrap(execute: Any, sql: str, *rest: Any) -> Any:
        seen.append(sql)
        return execute(sql, *rest)

    write(gear, 6)
    with connection.execute_wrapper(wrap):
        assert weight(gear) == 6
    assert len(seen) == 1


def test_two_rows_are_djangos_to_tell(gear: Gear) -> None:
    Gear.objects.get(name="cog")
    Gear.objects.create(name="cog")
    with pytest.raises(models.ObjectDoesNotExist):
        Gear.objects.get(name="none")
    with pytest.raises(Gear.MultipleObjectsReturned, match="it returned 2!"):
        Gear.objects.get(name="cog")
