"""SELECTs are answered from the cache, and never with an old result."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from django.core.cache import caches
from django.core.cache.backends.locmem import LocMemCache
from django.db import NotSupportedError, OperationalError, connection, transaction
from django.db.models import (
    Count,
    Exists,
    F,
    OuterRef,
    QuerySet,
    Sum,
    TextChoices,
)
from django.db.models.functions import Now, Random

from s3cache.db import base
from s3cache.log.catch_up import advance
from s3cache.log.effects import Create
from s3cache.replica.performer import Performer
from s3cache.replica.side_file import SideFile
from s3cache.results import statements, versions
from s3cache.results.versions import Versions
from tests.db.hosts import on
from tests.db.test_reads import store_down
from tests.engine import Bucket, Host, MakeHost
from tests.forks import in_child
from tests.library.models import Author, Book, Member, Tag
from tests.results.seen import (
    BYPASS,
    HIT,
    MISS,
    NONE,
    before_each,
    directory,
    events,
    nothing,
    totals,
)
from tests.testapp.models import Counted, Gear, Product

pytestmark = directory


def names() -> list[str]:
    return [author.name for author in Author.objects.order_by("name")]


# Hits and misses


def test_what_was_read_once_is_kept(host: Host) -> None:
    Author.objects.create(name="Ann")
    assert events(names) == MISS
    assert events(names) == HIT
    assert names() == ["Ann"]


@pytest.mark.parametrize(
    "write",
    [
        lambda: Author.objects.create(name="Bob"),
        lambda: Author.objects.update(name="Bob"),
        lambda: Author.objects.all().delete(),
        lambda: connection.cursor().execute("UPDATE library_author SET name = 'X'"),
    ],
    ids=["create", "update", "delete", "sql"],
)
def test_a_write_is_seen_at_once(host: Host, write: Callable[[], Any]) -> None:
    Author.objects.create(name="Ann")
    before = names()
    write()
    assert events(names) == MISS
    assert names() != before


def test_a_write_to_another_table_leaves_results_as_they_are(host: Host) -> None:
    names()
    Tag.objects.create(name="x")
    assert events(names) == HIT


def test_a_write_that_changes_nothing_leaves_results_as_they_are(host: Host) -> None:
    names()
    Author.objects.filter(name="nobody").update(born=1)
    assert events(names) == HIT


def test_other_parameters_are_another_result(host: Host) -> None:
    Author.objects.create(name="1", born=1)
    Author.objects.create(name="2", born=2)
    found = [list(Author.objects.filter(born=n)) for n in (1, 2, 1)]
    assert [[one.born for one in some] for some in found] == [[1], [2], [1]]
    assert totals() == {"miss": 2, "hit": 1}


@pytest.mark.parametrize(
    ("one", "other"), [(1, True), (1, 1.0), ("1", 1), (b"1", "1"), (0.0, -0.0)]
)
def test_parameters_that_are_equal_or_look_alike(
    host: Host, one: object, other: object
) -> None:
    sql = "SELECT typeof(%s), quote(%s), count(*) FROM library_author"
    host.sql(sql, one, one)
    if isinstance(other, bool):  # SQLite does not tell them apart
        return
    expected = connection.connection.reader.execute(
        "SELECT typeof(?), quote(?), 0", (other, other)
    ).rows
    assert host.sql(sql, other, other) == expected


def test_hosts_at_the_same_position_share_results(hosts: MakeHost) -> None:
    a, b = hosts(), hosts()
    with a:
        Author.objects.create(name="Ann")
        names()
    b.catch_up()
    with b:
        assert events(names) == HIT
        assert names() == ["Ann"]


def test_what_another_host_wrote_is_seen_when_the_replica_has_it(
    hosts: MakeHost,
) -> None:
    a, b = hosts(), hosts(max_age=60)
    with b:
        assert names() == []
    with a:
        Author.objects.create(name="Ann")
    with b:
        assert names() == []
        b.pass_time(61)
        assert names() == ["Ann"]


def test_a_hit_costs_the_requests_that_freshness_costs(
    hosts: MakeHost, bucket: Bucket
) -> None:
    host = hosts(max_age=0)
    with host:
        names()
        with bucket.requests() as seen:
            assert events(names) == HIT
    assert seen == ["GET log"]


def test_a_replica_that_is_made_anew_has_the_same_results(host: Host) -> None:
    Author.objects.create(name="Ann")
    names()
    host.connection.rebuild_replica()
    assert events(names) == HIT
    assert names() == ["Ann"]


# Dependencies

QUERIES: dict[str, tuple[Callable[[], Any], str]] = {
    "join": (lambda: list(Book.objects.filter(author__name="A")), "book author"),
    "outer join": (
        lambda: list(Book.objects.select_related("translator")),
        "book author",
    ),
    "many to many": (lambda: list(Book.objects.filter(tags="x")), "book booktags"),
    "subquery": (
        lambda: list(Author.objects.filter(books__in=Book.objects.filter(stock=1))),
        "author book",
    ),
    "exists": (
        lambda: list(
            Author.objects.filter(Exists(Book.objects.filter(author=OuterRef("pk"))))
        ),
        "author book",
    ),
    "annotation": (
        lambda: list(Author.objects.annotate(n=Count("books"))),
        "author book",
    ),
    "aggregate": (lambda: Book.objects.aggregate(Sum("stock")), "book"),
    "union": (
        lambda: list(
            Author.objects.values_list("name").union(Tag.objects.values_list("name"))
        ),
        "author tag",
    ),
    "raw": (
        lambda: list(Author.objects.raw("SELECT * FROM library_author")),
        "author",
    ),
    "with": (
        lambda: run("WITH t AS (SELECT name FROM library_tag) SELECT * FROM t"),
        "tag",
    ),
    "count alone": (lambda: Tag.objects.count(), "tag"),
}

WRITES: dict[str, Callable[[], Any]] = {
    "author": lambda: Author.objects.update(born=F("born") + 1),
    "book": lambda: Book.objects.update(stock=F("stock") + 1),
    "tag": lambda: Tag.objects.update(note="new"),
    "booktags": lambda: Book.tags.through.objects.all().delete(),
    "member": lambda: Member.objects.create(name="M"),
}


def run(sql: str, *params: Any) -> list[Any]:
    with connection.cursor() as cursor:
        cursor.execute(sql, params)
        return list(cursor.fetchall())


@pytest.mark.parametrize("name", QUERIES)
def test_a_result_depends_on_exactly_the_tables_that_it_was_read_from(
    host: Host, name: str
) -> None:
    author = Author.objects.create(name="Ann")
    tag = Tag.objects.create(name="x")
    Book.objects.create(title="B", author=author, translator=author).tags.add(tag)
    query, tables = QUERIES[name]
    query()
    assert events(query) == HIT
    for table in [*WRITES]:
        WRITES[table]()
        expected = MISS if table in tables.split() else HIT
        assert events(query) == expected, table


def test_a_view_depends_on_its_tables_and_on_itself(host: Host) -> None:
    run("CREATE VIEW v AS SELECT name FROM library_author")
    query = "SELECT name FROM v"
    Author.objects.create(name="Ann")
    Tag.objects.create(name="tag")
    assert run(query) == [("Ann",)]
    assert events(lambda: run(query)) == HIT
    Author.objects.update(name="Bob")
    assert run(query) == [("Bob",)]
    run("DROP VIEW v")
    run("CREATE VIEW v AS SELECT name FROM library_tag")
    assert run(query) == [("tag",)]
    Tag.objects.update(name="other")
    assert run(query) == [("other",)]


# What is never kept


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT random() FROM library_author",
        "SELECT hex(randomblob(4)) FROM library_author",
        "SELECT rand() FROM library_author",
        "SELECT name FROM library_author ORDER BY random()",
        "SELECT current_timestamp FROM library_author",
        "SELECT datetime('now') FROM library_author",
        "SELECT strftime('%s', 'now') FROM library_author",
        "SELECT total_changes() FROM library_author",
        "SELECT count(*) FROM sqlite_master",
        "SELECT seq FROM sqlite_sequence",
        "SELECT number FROM _s3cache_meta",
        "SELECT value FROM library_author, json_each('[1]')",
        "SELECT 1",
        "VALUES (1)",
    ],
)
def test_what_does_not_follow_from_the_rows_is_not_kept(host: Host, sql: str) -> None:
    sql = sql.replace("%", "%%")
    host.sql(sql)
    assert events(lambda: host.sql(sql)) == BYPASS


def test_the_functions_of_django_that_are_not_pure(host: Host) -> None:
    queries: list[QuerySet[Author]] = [
        Author.objects.annotate(at=Now()),
        Author.objects.order_by("?"),
        Author.objects.annotate(n=Random()),
    ]
    for query in queries:
        assert events(partial(list, query)) == BYPASS


def test_a_function_of_the_project_is_not_trusted_whatever_its_name(
    host: Host,
) -> None:
    """Also one that takes the place of one of SQLite's."""
    Author.objects.create(name="Ann")
    sql = "SELECT upper(name) FROM library_author"
    assert run(sql) == [("ANN",)]
    assert events(lambda: run(sql)) == HIT
    connection.connection.create_function("Upper", 1, lambda name: f"{name}!")
    assert run(sql) == [("Ann!",)]
    assert events(lambda: run(sql)) == BYPASS


def test_a_function_of_the_project_in_a_generated_column(host: Host) -> None:
    """SQLite's authorizer is not told of these."""
    made = connection.connection
    made.create_function("twice", 1, lambda name: name * 2, deterministic=True)
    run("CREATE TABLE g (id INTEGER PRIMARY KEY, a TEXT, b TEXT AS (twice(a)))")
    run("INSERT INTO g (a) VALUES ('x')")
    assert [run("SELECT b FROM g")] * 2 == [[("xx",)]] * 2
    made.create_function("twice", 1, lambda name: f"2 {name}", deterministic=True)
    assert run("SELECT b FROM g") == [("2 x",)]


def test_a_collation_of_the_project_is_not_trusted(host: Host) -> None:
    """Also one that takes the place of one of SQLite's."""
    Author.objects.bulk_create([Author(name="a"), Author(name="B")])
    sql = "SELECT name FROM library_author ORDER BY name COLLATE NOCASE"
    assert run(sql) == [("a",), ("B",)]
    assert events(lambda: run(sql)) == HIT
    connection.connection.create_collation("nocase", lambda a, b: (a < b) - (a > b))
    assert run(sql) == [("a",), ("B",)]
    assert events(lambda: run(sql)) == BYPASS
    connection.connection.create_collation("nocase", lambda a, b: (a > b) - (a < b))
    assert run(sql) == [("B",), ("a",)]
    assert events(lambda: names()) == MISS
    assert events(lambda: names()) == HIT


def in_a_transaction(sql: str) -> None:
    with transaction.atomic():
        run(sql)


@pytest.mark.parametrize(
    "set_pragma",
    [
        lambda sql: run(sql),
        in_a_transaction,
        lambda sql: connection.connection.execute(sql),
    ],
    ids=["run", "in a transaction", "past Django"],
)
def test_what_like_means_may_be_changed(
    host: Host, set_pragma: Callable[[str], object]
) -> None:
    Author.objects.create(name="Ann")
    count = Author.objects.filter(name__contains="ann").count
    assert count() == 1
    set_pragma("PRAGMA case_sensitive_like = ON")
    assert count() == 0
    set_pragma("PRAGMA case_sensitive_like = OFF")
    assert count() == 1


def test_no_table_hides_that_of_a_model(host: Host) -> None:
    with pytest.raises(NotSupportedError, match="temporary table"):
        connection.connection.execute("CREATE TEMP TABLE library_author (name)")


def test_members_of_choices_are_values_as_others(host: Host) -> None:
    class Name(TextChoices):
        ANN = "Ann"

    Author.objects.create(name="Ann")
    assert Author.objects.filter(name=Name.ANN).count() == 1
    assert events(Author.objects.filter(name=Name.ANN).count) == HIT


def test_what_is_too_large_is_not_kept(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statements, "MOST_ROWS", 1)
    Author.objects.bulk_create([Author(name="a"), Author(name="b")])
    names()
    assert events(names) == MISS
    assert events(lambda: list(Author.objects.all()[:1])) == MISS
    assert events(lambda: list(Author.objects.all()[:1])) == HIT


def test_iterators_are_kept_when_they_are_asked_for_a_second_time(host: Host) -> None:
    def read() -> list[Author]:
        return list(Author.objects.order_by("name").iterator())

    assert [events(read) for _ in range(3)] == [MISS, MISS, HIT]
    Author.objects.create(name="Ann")
    assert [author.name for author in read()] == ["Ann"]


def test_a_transaction_reads_past_the_cache(host: Host) -> None:
    """What a block has not committed is seen by nobody, and it sees it."""
    names()
    with transaction.atomic():
        assert events(names) == BYPASS
        Author.objects.create(name="Ann")
        assert names() == ["Ann"]
        transaction.set_rollback(True)
    assert events(names) == HIT
    assert names() == []


def test_select_for_update_is_read_from_the_replica(host: Host) -> None:
    query = Author.objects.select_for_update()
    with transaction.atomic():
        assert events(lambda: list(query)) == BYPASS


# What a queryset may ask for


def gears() -> int:
    return Gear.objects.count()


def test_skip_cache_neither_takes_nor_stores(host: Host) -> None:
    skipping = Gear.objects.skip_cache().all
    with before_each("set", nothing) as stored:
        assert events(lambda: list(skipping())) == BYPASS
        assert events(lambda: list(skipping())) == BYPASS
    assert stored == []


def test_fresh_does_not_believe_what_is_in_the_cache(hosts: MakeHost) -> None:
    """A stale entry is planted under the very key that is asked for."""
    a, b = hosts(), hosts()
    b.catch_up()
    with b, before_each("set", nothing) as stored:
        list(Gear.objects.order_by("name"))
        key = stored[0]
        before = caches["default"].get(key)
    with a:
        Gear.objects.create(name="new")
    with b, before_each("set", nothing) as stored:
        gears = Gear.objects.order_by("name")
        assert len(gears.fresh()) == 1
        caches["default"].set(stored[0], before)
        assert len(gears.all()) == 0  # this is how a stale entry looks
        assert len(gears.fresh()) == 1
        assert len(gears.all()) == 1  # and it is gone


def lifetimes(
    monkeypatch: pytest.MonkeyPatch, do: Callable[[], Any]
) -> list[float | None]:
    found: list[float | None] = []
    original = LocMemCache.set

    def spied(self: Any, key: str, value: Any, timeout: Any = None, **kw: Any) -> None:
        found.append(timeout)
        original(self, key, value, timeout, **kw)

    with monkeypatch.context() as patch:
        patch.setattr(LocMemCache, "set", spied)
        do()
    return found


def test_how_long_a_result_is_kept(
    host: Host, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the query, else by the model, else by the settings."""
    settings.S3CACHE = {"TTL": 7}
    assert lifetimes(monkeypatch, lambda: list(Gear.objects.all())) == [7]
    assert lifetimes(monkeypatch, lambda: list(Product.objects.all())) == [60]
    product = Product.objects.cached(ttl=5)
    assert lifetimes(monkeypatch, lambda: list(product.filter(stock=1))) == [5]
    assert lifetimes(monkeypatch, lambda: product.count()) == [5]


# Settings


def test_a_cache_of_none_keeps_nothing(host: Host, settings: Any) -> None:
    settings.S3CACHE = {"CACHE": None}
    with before_each("set", nothing) as stored:
        names()
        assert events(names) == NONE
    assert stored == []


def test_the_key_version_makes_old_results_unreachable(
    host: Host, settings: Any
) -> None:
    names()
    settings.S3CACHE = {"KEY_VERSION": 2}
    assert events(names) == MISS
    settings.S3CACHE = {"KEY_VERSION": "2"}
    assert events(names) == MISS
    settings.S3CACHE = {"KEY_VERSION": 1}
    assert events(names) == HIT


def test_what_is_unreachable_is_removed_with_the_others(
    host: Host, settings: Any
) -> None:
    """A change of the schema, as one of the version, makes other keys."""
    with before_each("set", nothing) as stored:
        list(Gear.objects.order_by("name"))
        settings.S3CACHE = {"KEY_VERSION": 2}
        list(Gear.objects.order_by("name"))
        with connection.cursor() as cursor:
            cursor.execute("CREATE TABLE another (id integer PRIMARY KEY)")
        list(Gear.objects.order_by("name"))
    assert len(caches["default"].get_many(stored)) == 3
    Gear.objects.cache.clear()
    assert caches["default"].get_many(stored) == {}


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({}, "author book sql"),
        ({"INCLUDE": ["library.Author"]}, "author"),
        ({"INCLUDE": ["library"]}, "author book sql"),
        ({"INCLUDE": ["library.book"]}, "book"),
        ({"INCLUDE": ["testapp"]}, ""),
        ({"EXCLUDE": ["library.Book"]}, "author"),
        # A book is read together with its author.
        ({"EXCLUDE": ["library.Author"]}, ""),
        ({"INCLUDE": ["library"], "EXCLUDE": ["library.Book"]}, "author"),
    ],
)
def test_models_that_are_kept(
    host: Host, settings: Any, options: dict[str, Any], kept: str
) -> None:
    settings.S3CACHE = options
    queries: dict[str, Callable[[], Any]] = {
        "author": names,
        "book": lambda: list(Book.objects.select_related("author")),
        "sql": lambda: run(
            "SELECT 1 FROM library_book JOIN library_author a ON author_id = a.id"
        ),
    }
    for query in queries.values():
        query()
    found = [name for name, query in queries.items() if events(query) == HIT]
    assert found == kept.split()


def test_a_model_may_have_a_cache_of_its_own(
    host: Host, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.CACHES = {
        "default": {"BACKEND": "django.core.cache.backends.dummy.DummyCache"},
        "own": {
            "BACKEND": "django.core.cache.backends.locmem.LocMemCache",
            "LOCATION": "own",
        },
    }
    gears()
    assert events(gears) == BYPASS
    options = Gear._s3meta
    object.__setattr__(options, "cache", "own")
    try:
        settings.S3CACHE = {}  # forget what was known of the model
        gears()
        assert events(gears) == HIT
    finally:
        object.__setattr__(options, "cache", None)
        settings.S3CACHE = {}
        caches["own"].clear()


# Caches that fail


def test_an_entry_that_cannot_be_read_is_replaced(host: Host) -> None:
    Author.objects.create(name="Ann")
    with before_each("set", nothing) as stored:
        names()
    for rubbish in (b"rubbish", "text", b"\x93\x91\xa1x\xa1d\x91\x91\x01", 7):
        caches["default"].set(stored[0], rubbish)
        assert events(names) == {"miss": 1, "broken": 1}
        assert events(names) == HIT
        assert names() == ["Ann"]


@pytest.mark.parametrize("method", ["get", "set"])
def test_a_cache_that_raises_keeps_nobody_from_reading(
    host: Host, method: str, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(key: str) -> None:
        raise ConnectionError("the cache is down")

    with before_each(method, fail):
        assert events(names) == {"miss": 1, "failed": 1}
    assert "the cache is down" in caplog.text


# Races


@pytest.mark.parametrize("moment", ["get", "set"])
def test_a_write_between_a_miss_and_its_store_makes_no_read_stale(
    hosts: MakeHost, moment: str
) -> None:
    """The writer commits after the reader looked, or before it stores."""
    host = hosts()
    writer = hosts("host-1")  # the same replica
    written: list[str] = []

    def write(key: str) -> None:
        if not written:
            written.append(key)
            with writer:
                Author.objects.create(name="new")

    with host:
        assert names() == []
        Author.objects.create(name="old")
        with before_each(moment, write):
            assert names() in (["old"], ["new", "old"])
        assert written
        assert names() == ["new", "old"]
        assert names() == ["new", "old"]
        Author.objects.all().delete()
        assert names() == []


def test_a_result_is_stored_under_the_versions_that_it_belongs_to(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The writer commits between the versions and the rows."""
    original = Versions.at

    def at(self: Any, reading: Any, tables: Any) -> Any:
        found = original(self, reading, tables)
        if tables:
            monkeypatch.setattr(Versions, "at", original)
            with on(host):
                Author.objects.update(name="new")
        return found

    Author.objects.create(name="old")
    before = host.position
    monkeypatch.setattr(Versions, "at", at)
    assert names() == ["old"]  # its snapshot
    assert host.position == before + 1
    assert names() == ["new"]


@pytest.mark.parametrize(
    "reads", ["its own write", "what it waited for", "its position", "past the cache"]
)
def test_an_entry_that_a_process_applied_that_could_not_say_so(
    host: Host, hosts: MakeHost, monkeypatch: pytest.MonkeyPatch, reads: str
) -> None:
    """It was killed, or has not come to it; another one goes on from it."""
    Author.objects.create(name="old")
    assert names() == names() == ["old"]
    replica = host.connection.replica
    number = replica.position().number + 1
    create = Performer._create

    def apply() -> None:
        with monkeypatch.context() as patch:
            patch.setattr(SideFile, "moved_to", lambda *args: None)
            replica.run(advance(number, ()))

    def create_and_lose(self: Performer, effect: Create) -> Any:
        answer = create(self, effect)
        monkeypatch.setattr(Performer, "_create", create)
        apply()
        return answer

    if reads == "its own write":
        monkeypatch.setattr(Performer, "_create", create_and_lose)
        Author.objects.update(name="new")
    else:
        with hosts("other"):
            Author.objects.update(name="new")
        apply()
        if reads == "what it waited for":
            replica.advance(number)
        elif reads == "its position":
            assert replica.position().number == number
        else:
            inner: Any = host.connection.connection
            found = inner.execute("SELECT name FROM library_author").rows
            assert found == [("new",)]
            assert replica.side.number == number
    assert names() == names() == ["new"]


def test_a_snapshot_that_others_have_overtaken_is_taken_again(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its old rows would have got the versions that are known meanwhile."""
    original = versions._position

    def position(reading: sqlite3.Connection) -> Any:
        found = original(reading)
        monkeypatch.setattr(versions, "_position", original)
        with on(host):
            Author.objects.update(name="new")
            assert names() == ["new"]
            Author.objects.update(name="newest")
            assert Author.objects.count() == 1  # the versions are those of now
        return found

    Author.objects.create(name="old")
    assert names() == ["old"]
    caches["default"].clear()
    monkeypatch.setattr(versions, "_position", position)
    assert names() == ["newest"]
    assert names() == ["newest"]


# Freshness by model


def test_a_model_may_be_fresher_than_its_database(
    hosts: MakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = Counted._meta.db_table
    monkeypatch.setattr(base, "max_ages", lambda: {table: 10})
    a, b = hosts(), hosts(max_age=60)
    with b:
        assert Counted.objects.count() == Tag.objects.count() == 0
    with a:
        Counted.objects.create()
        Tag.objects.create(name="x")
    b.pass_time(11)
    with b:
        assert Tag.objects.count() == 0
        assert Counted.objects.count() == 1
        assert Tag.objects.count() == 1  # the same request answered for all


def test_a_model_may_be_staler_than_its_database(
    hosts: MakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base, "max_ages", lambda: {Counted._meta.db_table: 100})
    a, b = hosts(), hosts(max_age=10)
    with b:
        assert Counted.objects.count() == 0
    with a:
        Counted.objects.create()
    b.pass_time(20)
    with b:
        assert Counted.objects.count() == 0
        b.pass_time(100)
        assert Counted.objects.count() == 1


def test_the_store_being_down_is_counted_as_stale(hosts: MakeHost) -> None:
    host = hosts(max_age=60, stale_if_error=600)
    with host:
        names()
        host.pass_time(61)
        with store_down():
            assert events(names) == {"hit": 1, "stale": 1}
        host.pass_time(-61)


# What is counted


@pytest.mark.parametrize(
    ("action", "query"),
    [
        ("get", lambda: get(1)),
        ("list", lambda: list(Author.objects.all())),
        ("page", lambda: list(Author.objects.all()[10:20])),
        ("count", lambda: Author.objects.filter(born=1).count()),
        ("count", lambda: Author.objects.distinct()[:5].count()),
        ("exists", lambda: Author.objects.filter(born=1).exists()),
        ("aggregate", lambda: Author.objects.aggregate(Sum("born"))),
    ],
)
def test_actions(host: Host, action: str, query: Callable[[], Any]) -> None:
    query()
    assert totals("library.author", action) == MISS


def get(pk: int) -> Author | None:
    try:
        return Author.objects.get(pk=pk)
    except Author.DoesNotExist:
        return None


def test_sql_by_hand_is_counted_apart(host: Host) -> None:
    host.sql("SELECT name FROM library_author")
    assert totals("sql", "query") == MISS


def test_a_schema_that_changed_elsewhere_is_looked_at_again(hosts: MakeHost) -> None:
    """A view of the same name that reads other tables."""
    a, b = hosts(), hosts(max_age=60)
    query = "SELECT name FROM v"
    with a:
        run("CREATE VIEW v AS SELECT name FROM library_author")
        Author.objects.create(name="Ann")
        Tag.objects.create(name="tag")
    b.catch_up()
    with b:
        assert run(query) == [("Ann",)]
    with a:
        run("DROP VIEW v")
        run("CREATE VIEW v AS SELECT name FROM library_tag")
    b.pass_time(61)
    with b:
        assert run(query) == [("tag",)]
        Tag.objects.create(name="zebra")
        assert run(query) == [("tag",), ("zebra",)]


def test_a_look_at_the_replica_that_fails_is_begun_again(
    hosts: MakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody goes on from the half of what there was to see."""
    a, b = hosts(), hosts()
    b.catch_up()
    with a:
        Author.objects.create(name="Ann")
    with b:
        assert Author.objects.count() == 0
        b.connection.rebuild_replica()

        def fail(*args: Any) -> Any:
            raise sqlite3.OperationalError("disk I/O error")

        with monkeypatch.context() as patch:
            patch.setattr(versions, "_schema", fail)
            with pytest.raises(OperationalError):
                Author.objects.count()
        seen = b.connection.statements.versions
        assert seen._generation == ""
        assert [Author.objects.count() for _ in range(2)] == [1, 1]


def test_who_looks_on_while_all_is_looked_at_again_sees_no_older_version(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The version of the row before it was changed has its old result."""
    one = Author.objects.create(name="Ann")
    for name in "bcd":
        Author.objects.create(name=name)
    Author.objects.filter(pk=one.pk).update(name="Bob")
    known = connection.statements.versions  # type: ignore[attr-defined]
    assert names() == ["Bob", "b", "c", "d"]
    seen = set()

    class Entries(list[Any]):
        def __iter__(self) -> Iterator[Any]:
            for entry in super().__iter__():
                seen.add(known.of_row("library_author", (one.pk,)))
                yield entry

    read_rows = versions._read_rows

    def read(*args: Any) -> Any:
        entries, since = read_rows(*args)
        return Entries(entries), since

    monkeypatch.setattr(versions, "_read_rows", read)
    expected = known.of_row("library_author", (one.pk,))
    known._generation, known.seen = "", (b"", 0.0)  # as of another replica
    names()
    assert seen == {expected}


def test_a_fork_in_the_middle_of_a_look_begins_it_again(host: Host) -> None:
    Author.objects.create(name="Ann")
    assert Author.objects.count() == 1
    seen = host.connection.statements.versions
    assert not in_child(lambda: seen._generation == "")
    with seen._lock:
        assert in_child(lambda: seen._generation == "" and not seen._lock.locked())


def test_statements_that_nobody_repeats_take_no_more_memory(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What they depend on is forgotten, and of those in use remembered."""
    monkeypatch.setattr("s3cache.results.plans.MOST_PLANS", 5)
    plans = connection.statements.versions.plans  # type: ignore[attr-defined]

    def used() -> int:
        return Author.objects.count()

    for number in range(1, 20):
        list(Author.objects.filter(pk__in=range(number)))
        used()
    assert len(plans) <= 10
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("s3cache.replica.analysis.Analyser.access", None)
        used()
