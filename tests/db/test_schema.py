"""
Migrations: each is one commit, and every host comes to the same tables.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from django.core.management import call_command
from django.db import (
    DatabaseError,
    NotSupportedError,
    OperationalError,
    connection,
    migrations,
    models,
    transaction,
)
from django.db.migrations.executor import MigrationExecutor
from django.db.migrations.recorder import MigrationRecorder
from django.db.migrations.state import ProjectState
from django.db.models.functions import Random

from s3cache.exceptions import EntryFormatError, TransactionConflict
from s3cache.log.effects import Turn
from s3cache.replica import clock, connections
from s3cache.replica.capture import Capture
from s3cache.replica.file import ReplicaFile
from tests.db.hosts import on
from tests.engine import Bucket, Host, MakeHost
from tests.library.models import Author, Book, Place, Tag

pytestmark = pytest.mark.parametrize("bucket", ["directory"], indirect=True)


KEY: list[tuple[str, models.Field[Any, Any]]] = [
    ("id", models.BigAutoField(primary_key=True))
]


@pytest.fixture
def two(hosts: MakeHost) -> tuple[Host, Host]:
    """Two hosts that ask the store before they read."""
    a, b = hosts(max_age=0), hosts(max_age=0)
    b.catch_up()
    return a, b


@pytest.fixture(autouse=True)
def same_everywhere(hosts: MakeHost) -> Iterator[None]:
    """After each test all hosts, and a new one, hold the same."""
    yield
    made = list(hosts.made)
    fresh = hosts()
    fresh.catch_up()
    for host in made:
        host.catch_up()
        assert host.dump() == fresh.dump()
        assert schema(host) == schema(fresh)


def schema(host: Host) -> list[Any]:
    """All that SQLite knows of tables, indexes and views."""
    return host.sql(
        "SELECT type, name, tbl_name, sql FROM sqlite_master "
        "WHERE name NOT LIKE '%%s3cache%%' AND name NOT LIKE 'sqlite_%%' ORDER BY name"
    )


def columns(host: Host, table: str) -> list[str]:
    """The names of a table's columns."""
    return [
        name for (name,) in host.sql("SELECT name FROM pragma_table_info(%s)", table)
    ]


class Migration:
    """Operations of an app ``shed``, applied as ``migrate`` does."""

    def __init__(self) -> None:
        self.state = ProjectState()
        self.number = 0

    def __call__(self, *operations: migrations.operations.base.Operation) -> None:
        self.number += 1
        name = f"{self.number:04}"
        migration = migrations.Migration(name, "shed")
        migration.operations = operations  # type: ignore[misc]
        with connection.schema_editor(atomic=migration.atomic) as editor:
            self.state = migration.apply(self.state, editor)
            MigrationRecorder(connection).record_applied("shed", name)

    def model(self, name: str) -> Any:
        """The model as of the last migration."""
        return self.state.apps.get_model("shed", name)


@pytest.fixture
def migrate(host: Host) -> Migration:
    """Migrate on ``host``, which has the table of migrations."""
    MigrationRecorder(connection).ensure_schema()
    return Migration()


@pytest.fixture
def tools(migrate: Migration) -> Migration:
    """A table ``shed_tool`` with three rows in it, the last one deleted."""
    migrate(
        migrations.CreateModel(
            "Tool",
            [
                ("id", models.BigAutoField(primary_key=True)),
                ("name", models.CharField(max_length=20)),
                ("weight", models.IntegerField(default=0)),
            ],
        )
    )
    tool = migrate.model("Tool")
    for name in ("saw", "axe", "gone"):
        tool.objects.create(name=name, weight=len(name))
    tool.objects.filter(name="gone").delete()
    return migrate


# One commit


def test_a_migration_is_one_commit(
    host: Host, migrate: Migration, bucket: Bucket
) -> None:
    before = host.position
    with bucket.requests() as seen:
        migrate(
            migrations.CreateModel(
                "A", [("id", models.BigAutoField(primary_key=True))]
            ),
            migrations.CreateModel(
                "B",
                [
                    ("id", models.BigAutoField(primary_key=True)),
                    ("a", models.ForeignKey("shed.A", models.CASCADE)),
                ],
            ),
            migrations.AddField(
                "A", "name", models.CharField(max_length=9, default="")
            ),
        )
    assert host.position == before + 1
    assert seen.count("PUT log") == 1
    assert MigrationRecorder.Migration.objects.filter(app="shed").count() == 1


def test_a_migration_that_fails_leaves_nothing(host: Host, migrate: Migration) -> None:
    before = host.position, schema(host)

    def fail(apps: Any, editor: Any) -> None:
        apps.get_model("shed", "A").objects.create()
        raise ValueError("in the middle")

    with pytest.raises(ValueError, match="in the middle"):
        migrate(
            migrations.CreateModel(
                "A", [("id", models.BigAutoField(primary_key=True))]
            ),
            migrations.RunPython(fail),
        )
    host.catch_up()
    assert (host.position, schema(host)) == before


def test_the_migrate_command(hosts: MakeHost, bucket: Bucket) -> None:
    bucket.store.delete_many(bucket.keys())
    a, b = hosts(max_age=0), hosts(max_age=0)
    with a:
        call_command("migrate", verbosity=0)
    with b:
        executor = MigrationExecutor(connection)
        assert executor.migration_plan(executor.loader.graph.leaf_nodes()) == []
        call_command("migrate", "auth", "zero", verbosity=0)
    with a:
        assert "auth_user" not in connection.introspection.table_names()
        call_command("migrate", verbosity=0)


# What happens to rows


def test_adding_a_field_with_a_default(tools: Migration, hosts: MakeHost) -> None:
    tools(migrations.AddField("Tool", "sharp", models.BooleanField(default=True)))
    with hosts():
        assert list(tools.model("Tool").objects.values_list("name", "sharp")) == [
            ("saw", True),
            ("axe", True),
        ]


def test_altering_and_renaming_a_field(tools: Migration, hosts: MakeHost) -> None:
    tools(
        migrations.AlterField("Tool", "weight", models.TextField(default="")),
        migrations.RenameField("Tool", "weight", "heft"),
    )
    with hosts():
        assert list(tools.model("Tool").objects.values_list("name", "heft")) == [
            ("saw", "3"),
            ("axe", "3"),
        ]


def test_removing_a_field_and_a_model(tools: Migration, hosts: MakeHost) -> None:
    tools(migrations.RemoveField("Tool", "weight"))
    other = hosts()
    assert columns(other, "shed_tool") == ["id", "name"]
    tools(migrations.DeleteModel("Tool"))
    other.catch_up()
    assert columns(other, "shed_tool") == []


def test_renaming_a_model(tools: Migration, hosts: MakeHost) -> None:
    other = hosts(max_age=0)
    other.catch_up()
    tools(migrations.RenameModel("Tool", "Gadget"))
    tools.model("Gadget").objects.create(name="new")
    with other:
        gadget = tools.model("Gadget")
        assert gadget.objects.count() == 3
        gadget.objects.filter(name="axe").delete()


def test_indexes_and_constraints(tools: Migration, hosts: MakeHost) -> None:
    tools(
        migrations.AddIndex("Tool", models.Index(fields=["name"], name="by_name")),
        migrations.AddConstraint(
            "Tool", models.UniqueConstraint(fields=["name"], name="one_name")
        ),
    )
    with hosts(), pytest.raises(DatabaseError):
        tools.model("Tool").objects.create(name="axe")
    tools(
        migrations.RemoveConstraint("Tool", "one_name"),
        migrations.RemoveIndex("Tool", "by_name"),
    )
    with hosts():
        tools.model("Tool").objects.create(name="axe")


def test_a_remade_table_keeps_its_sequence(tools: Migration, hosts: MakeHost) -> None:
    tools(migrations.AlterField("Tool", "name", models.CharField(max_length=99)))
    with hosts():
        made = tools.model("Tool").objects.create(name="new")
    assert made.pk == 4  # 3 was deleted, and is not given again


def test_a_remade_table_keeps_a_reserved_chunk(
    tools: Migration, hosts: MakeHost
) -> None:
    with transaction.atomic():
        mine = tools.model("Tool").objects.create(name="mine")
    tools(migrations.AlterField("Tool", "name", models.CharField(max_length=99)))
    with hosts():
        theirs = tools.model("Tool").objects.create(name="theirs")
    assert theirs.pk > mine.pk
    with transaction.atomic():
        again = tools.model("Tool").objects.create(name="again")
    assert again.pk not in (mine.pk, theirs.pk)


def test_a_remade_table_keeps_its_rowids(migrate: Migration, host: Host) -> None:
    migrate(
        migrations.CreateModel(
            "Word", [("text", models.CharField(max_length=9, primary_key=True))]
        )
    )
    word = migrate.model("Word")
    for text in "cabd":
        word.objects.create(text=text)
    word.objects.filter(text="a").delete()
    migrate(migrations.AddField("Word", "count", models.IntegerField(default=0)))
    migrate(migrations.AlterField("Word", "count", models.TextField(default="")))
    assert host.sql("SELECT rowid, text FROM shed_word NOT INDEXED") == [
        (1, "c"),
        (3, "b"),
        (4, "d"),
    ]


def test_a_computed_default_is_the_same_everywhere(
    tools: Migration, hosts: MakeHost
) -> None:
    """What differs from host to host is written down row by row."""
    other = hosts(max_age=0)
    other.catch_up()
    tools(migrations.AddField("Tool", "luck", models.FloatField(db_default=Random())))
    with other:
        luck = list(tools.model("Tool").objects.values_list("luck", flat=True))
    assert len(set(luck)) == 2
    assert list(tools.model("Tool").objects.values_list("luck", flat=True)) == luck


def test_run_python_and_ddl_in_one_migration(tools: Migration, hosts: MakeHost) -> None:
    def fill(apps: Any, editor: Any) -> None:
        for tool in apps.get_model("shed", "Tool").objects.all():
            tool.label = tool.name.upper()
            tool.save()

    tools(
        migrations.AddField(
            "Tool", "label", models.CharField(max_length=20, null=True)
        ),
        migrations.RunPython(fill),
        migrations.AlterField("Tool", "label", models.TextField(unique=True)),
    )
    with hosts():
        rows = tools.model("Tool").objects.order_by("pk").values_list("label")
        assert list(rows) == [("SAW",), ("AXE",)]


def test_a_migration_that_is_not_atomic(host: Host, migrate: Migration) -> None:
    migration = migrations.Migration("1", "shed")
    migration.atomic = False  # type: ignore[misc]
    migration.operations = [  # type: ignore[misc]
        migrations.CreateModel("A", KEY),
        migrations.RunSQL("INSERT INTO shed_a VALUES (5)"),
    ]
    with connection.schema_editor(atomic=False) as editor:
        migration.apply(ProjectState(), editor)
    assert host.sql("SELECT * FROM shed_a") == [(5,)]


# SQL by hand


def test_ddl_by_hand(two: tuple[Host, Host]) -> None:
    a, b = two
    a.sql("CREATE TABLE x (a INTEGER PRIMARY KEY, b TEXT DEFAULT 'd') STRICT")
    a.sql("CREATE TABLE y (a TEXT PRIMARY KEY, b) WITHOUT ROWID")
    a.sql("CREATE TABLE z (a, b)")
    a.sql("CREATE UNIQUE INDEX x_b ON x (b) WHERE b <> 'd'")
    a.sql("CREATE VIEW seen AS SELECT a FROM x UNION ALL SELECT a FROM y")
    a.sql("INSERT INTO x (a) VALUES (1), (2)")
    b.sql("INSERT INTO y VALUES ('k', 1.5)")
    b.sql("INSERT INTO z VALUES (1, 1), (1, 1)")
    a.sql("DELETE FROM z WHERE rowid = 1")
    a.sql("ALTER TABLE x ADD COLUMN c INT NOT NULL DEFAULT 7")
    b.sql("ALTER TABLE z RENAME COLUMN a TO aa")
    assert (
        a.sql("SELECT * FROM seen")
        == b.sql("SELECT * FROM seen")
        == [
            (1,),
            (2,),
            ("k",),
        ]
    )
    b.sql("DROP VIEW seen")
    b.sql("DROP TABLE x")


def test_create_table_as_select(two: tuple[Host, Host]) -> None:
    a, b = two
    with a:
        Tag.objects.bulk_create([Tag(name="a"), Tag(name="b")])
    a.sql("CREATE TABLE copy AS SELECT name FROM library_tag")
    b.sql("INSERT INTO copy VALUES ('c')")
    assert a.sql("SELECT * FROM copy") == [("a",), ("b",), ("c",)]


@pytest.mark.parametrize(
    "sql",
    [
        "CREATE TRIGGER t AFTER INSERT ON library_tag BEGIN SELECT 1; END",
        "CREATE TEMP TABLE t (a)",
        "ATTACH DATABASE ':memory:' AS other",
        "DETACH DATABASE main",
    ],
)
def test_what_a_log_cannot_carry_is_refused(host: Host, sql: str) -> None:
    before = host.position
    with pytest.raises(NotSupportedError):
        host.sql(sql)
    assert host.position == before


@pytest.mark.parametrize(
    "sql",
    [
        "CREATE TABLE temp.t (a)",
        "CREATE TABLE temp.t AS SELECT 1",
        'CREATE TABLE "temp".t (a)',
        "CREATE VIEW temp.v AS SELECT 1",
    ],
)
def test_temporary_objects_are_refused_however_they_are_written(
    two: tuple[Host, Host], sql: str
) -> None:
    # Each replica would apply it on a connection of its own: a second one
    # would fail there, and the log could be read by nobody any more.
    host, other = two
    before = host.position
    for _ in range(2):
        with pytest.raises(NotSupportedError, match="temporary table"):
            host.sql(sql)
    assert host.position == before
    other.sql("INSERT INTO library_tag VALUES ('a', '')")
    assert host.sql("SELECT name FROM library_tag") == [("a",)]


def test_a_change_that_no_replica_could_apply_is_not_committed(
    two: tuple[Host, Host], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Such as a second CREATE TABLE temp.t, were it not refused before.
    host, other = two
    monkeypatch.setattr(Capture, "_may_change", lambda *args: True)
    host.sql("CREATE TABLE temp.t (a)")
    before = host.position
    with pytest.raises(NotSupportedError, match="table t already exists"):
        host.sql("CREATE TABLE temp.t (a)")
    assert host.position == before
    other.sql("INSERT INTO library_tag VALUES ('a', '')")
    assert host.sql("SELECT name FROM library_tag") == [("a",)]


def test_a_full_disk_is_not_said_to_be_the_changes_fault(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any) -> None:
        error = sqlite3.OperationalError("database or disk is full")
        error.sqlite_errorcode = sqlite3.SQLITE_FULL
        raise error

    monkeypatch.setattr(ReplicaFile, "rehearse", fail)
    with pytest.raises(OperationalError, match="^database or disk is full$"):
        host.sql("CREATE TABLE t (a)")


@pytest.mark.parametrize(
    "sql",
    [
        "ALTER TABLE _s3cache_meta RENAME TO mine",
        "ALTER TABLE _s3cache_recent DROP COLUMN host",
        "CREATE INDEX mine ON _s3cache_meta (number)",
        "CREATE TABLE _s3cache_mine (a)",
        "DROP TABLE _s3cache_recent",
    ],
)
def test_the_replicas_own_tables_are_not_the_projects(host: Host, sql: str) -> None:
    before = host.position
    with pytest.raises(DatabaseError):
        host.sql(sql)
    assert host.position == before


def test_maintenance_is_the_hosts_own_business(host: Host) -> None:
    before = host.position
    for sql in ("ANALYZE", "REINDEX", "VACUUM"):
        host.sql(sql)
    assert host.position == before
    Tag.objects.create(name="a")
    assert Tag.objects.get().name == "a"


def test_vacuum_does_not_number_rows_anew(two: tuple[Host, Host]) -> None:
    host, other = two
    host.sql("CREATE TABLE plain (x)")
    for number in range(4):
        host.sql("INSERT INTO plain VALUES (%s)", number)
    host.sql("DELETE FROM plain WHERE x < 2")
    with pytest.raises(NotSupportedError, match="plain"):
        host.sql("VACUUM")
    host.sql("UPDATE plain SET x = 20 WHERE x = 2")
    assert other.sql("SELECT x FROM plain") == [(20,), (3,)]
    host.sql("CREATE INDEX plain_x ON plain (x)")
    host.sql("VACUUM")  # and nothing is another one afterwards


# Two hosts at once


def create(name: str) -> Callable[[], None]:
    """Makes a table as a migration does, with its row in the records."""

    def run() -> None:
        with connection.schema_editor() as editor:
            editor.execute(f"CREATE TABLE {name} (id INTEGER PRIMARY KEY)")
            MigrationRecorder(connection).record_applied("shed", name)

    return run


@pytest.mark.usefixtures("migrate")
def test_of_two_hosts_that_migrate_at_once_one_wins(two: tuple[Host, Host]) -> None:
    a, b = two
    with (
        a,
        pytest.raises(DatabaseError) as refused,
        connection.schema_editor() as editor,
    ):
        editor.execute("CREATE TABLE same (id INTEGER PRIMARY KEY)")
        with b:
            create("same")()
    assert "same" in str(refused.value)
    with a:
        assert MigrationRecorder.Migration.objects.filter(name="same").count() == 1


@pytest.mark.usefixtures("migrate")
def test_migrations_of_different_things_both_happen(two: tuple[Host, Host]) -> None:
    a, b = two
    with a, connection.schema_editor() as editor:
        editor.execute("CREATE TABLE one (id INTEGER PRIMARY KEY)")
        with b:
            create("two")()
    for host in two:
        names = [name for _kind, name, *_ in schema(host)]
        assert {"one", "two"} <= set(names)


def test_a_write_of_another_host_in_the_middle_of_a_migration(
    tools: Migration, hosts: MakeHost
) -> None:
    """Its statements are run again on the newer rows, not on the old ones."""
    other = hosts(max_age=0)
    other.catch_up()
    tool = tools.model("Tool")
    with connection.schema_editor() as editor:
        editor.execute("UPDATE shed_tool SET weight = weight + 100")
        editor.execute("ALTER TABLE shed_tool ADD COLUMN c INT DEFAULT 1")
        with other:
            tool.objects.create(name="late", weight=4)
    with other:
        assert list(tool.objects.values_list("name", "weight")) == [
            ("saw", 103),
            ("axe", 103),
            ("late", 104),
        ]


class TurnAt(Turn):
    """A turn that is told where the log is."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __exit__(self, *exc_info: object) -> None:
        """Pass nothing on."""


def test_what_came_first_is_applied_though_a_migration_is_open(
    tools: Migration, hosts: MakeHost, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before its attempt, as when its turn says where the others are.

    It holds SQLite's write lock by then, and would wait for itself.
    """
    monkeypatch.setattr(connections, "BUSY_TIMEOUT", 0.1)
    host.restart()
    other = hosts(max_age=0)
    other.catch_up()
    tool = tools.model("Tool")
    with host, connection.schema_editor() as editor:
        editor.execute("ALTER TABLE shed_tool ADD COLUMN c INT DEFAULT 1")
        with other:
            tool.objects.create(name="late", weight=4)
        replica = host.connection.replica
        replica.take_turn = lambda patience: TurnAt(other.position)
        replica.side.remember("foreign_at", clock.now())
    assert host.sql("SELECT name, c FROM shed_tool ORDER BY name")[-2:] == [
        ("late", 1),
        ("saw", 1),
    ]
    assert schema(other) == schema(host)


def test_a_migration_whose_python_read_what_changed_is_a_conflict(
    tools: Migration, hosts: MakeHost
) -> None:
    other = hosts(max_age=0)
    other.catch_up()
    tool = tools.model("Tool")
    before = schema(other)
    with pytest.raises(TransactionConflict), connection.schema_editor() as editor:
        editor.execute("ALTER TABLE shed_tool ADD COLUMN c INT DEFAULT 1")
        count = tool.objects.count()
        with other:
            tool.objects.create(name="late", weight=4)
        editor.execute(f"UPDATE shed_tool SET c = {count}")  # noqa: S608
    assert schema(other) == before


def test_others_of_the_host_wait_for_a_migration(hosts: MakeHost) -> None:
    with hosts(commit_timeout=0.3) as host:
        with connection.schema_editor() as editor:
            editor.execute("CREATE TABLE x (a INTEGER PRIMARY KEY)")
            with on(host):
                assert not Tag.objects.exists()  # reads do not wait
                with pytest.raises(OperationalError, match="locked"):
                    Tag.objects.create(name="a")
        Tag.objects.create(name="a")


# Releases side by side


def test_an_additive_change_leaves_an_older_release_working(
    two: tuple[Host, Host],
) -> None:
    """``Tag`` here is the older release's: it does not know the column."""
    a, b = two
    with a:
        Tag.objects.create(name="a")
    a.sql("ALTER TABLE library_tag ADD COLUMN color TEXT NOT NULL DEFAULT 'red'")
    a.sql("UPDATE library_tag SET color = 'blue'")
    with b:
        tag = Tag.objects.get()
        tag.note = "by the older release"
        tag.save()
        Tag.objects.create(name="b")
    assert a.sql("SELECT * FROM library_tag") == [
        ("a", "by the older release", "blue"),
        ("b", "", "red"),
    ]


@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE library_tag RENAME COLUMN note TO remark",
        "ALTER TABLE library_tag DROP COLUMN note",
        "ALTER TABLE library_tag RENAME TO library_label",
        "DROP TABLE library_tag",
    ],
)
def test_after_a_destructive_change_an_older_release_is_refused(
    two: tuple[Host, Host], change: str
) -> None:
    a, b = two
    with b:
        Tag.objects.count()
    a.sql(change)
    with b:
        with pytest.raises(OperationalError, match="no such|no column"):
            Tag.objects.create(name="b")
        Author.objects.create(name="others go on")
    with a:
        assert Author.objects.count() == 1


def test_a_block_that_began_before_a_change_of_the_schema(
    two: tuple[Host, Host],
) -> None:
    a, b = two
    with a, transaction.atomic():
        Tag.objects.create(name="a")
        b.sql("ALTER TABLE library_tag ADD COLUMN color TEXT DEFAULT 'red'")
    assert b.sql("SELECT * FROM library_tag") == [("a", "", "red")]


def test_a_block_that_wrote_to_a_table_which_is_gone(two: tuple[Host, Host]) -> None:
    a, b = two
    with a, pytest.raises(OperationalError), transaction.atomic():
        Tag.objects.create(name="a")
        b.sql("DROP TABLE library_tag")


def newer_format(bucket: Bucket) -> None:
    """Add an entry as a release of the future would."""
    last = bucket.entries()[-1]
    header = msgspec.json.encode({"s3cache": 99}) + b"\n{}"
    bucket.store.put(f"_log/{int(last[-12:]) + 1:012}", header)


def test_an_older_release_that_meets_a_newer_format_stops_with_a_message(
    hosts: MakeHost, bucket: Bucket
) -> None:
    with hosts(max_age=0, stale_if_error=0) as host:
        Tag.objects.create(name="a")
        newer_format(bucket)
        with pytest.raises(EntryFormatError, match="upgrade this host"):
            Tag.objects.count()
        with pytest.raises(EntryFormatError, match="upgrade this host"):
            Tag.objects.create(name="b")
        assert host.connection.replica.position().number == host.position
    bucket.store.delete(bucket.entries()[-1])


def test_a_new_host_of_an_older_release_stops_with_a_message(
    hosts: MakeHost, bucket: Bucket
) -> None:
    newer_format(bucket)
    with hosts(), pytest.raises(EntryFormatError, match="upgrade this host"):
        Tag.objects.count()
    bucket.store.delete(bucket.entries()[-1])


def test_a_migration_survives_a_rebuild(tools: Migration, host: Host) -> None:
    tools(migrations.AlterField("Tool", "name", models.TextField()))
    before = host.dump(), schema(host)
    host.connection.rebuild_replica()
    assert (host.dump(), schema(host)) == before


def test_the_schema_editor_can_only_collect_sql(host: Host) -> None:
    before = host.position
    with connection.schema_editor(collect_sql=True) as editor:
        editor.alter_field(
            Place,
            Place._meta.get_field("label"),
            _renamed(models.CharField(max_length=99), "label"),
        )
    assert any("new__library_place" in sql for sql in editor.collected_sql)
    assert host.position == before


def _renamed(field: models.Field[Any, Any], name: str) -> models.Field[Any, Any]:
    field.set_attributes_from_name(name)
    field.model = Place
    return field


def test_inspectdb_shows_the_projects_tables_only(
    host: Host, capsys: pytest.CaptureFixture[str]
) -> None:
    call_command("inspectdb")
    out = capsys.readouterr().out
    assert "class LibraryBook(" in out
    assert "s3cache" not in out.lower()


def test_foreign_keys_follow_a_table_that_is_renamed(
    host: Host, hosts: MakeHost
) -> None:
    ann = Author.objects.create(name="Ann")
    host.sql("ALTER TABLE library_author RENAME TO library_writer")
    with hosts(), pytest.raises(DatabaseError):
        Book.objects.create(title="x", author_id=ann.pk + 1)
    host.sql("ALTER TABLE library_writer RENAME TO library_author")
    with hosts():
        Book.objects.create(title="x", author=ann)


def test_replicas_are_private_files(host: Host) -> None:
    path = Path(host.settings["NAME"])
    assert path.stat().st_mode & 0o077 == 0


def test_names_that_differ_by_the_case_of_a_letter_are_refused(host: Host) -> None:
    host.sql('CREATE TABLE "é" (id INTEGER PRIMARY KEY)')
    for sql in ('CREATE TABLE "É" (id)', 'ALTER TABLE library_tag RENAME TO "É"'):
        with pytest.raises(NotSupportedError, match="case of letters"):
            host.sql(sql)
    host.sql('ALTER TABLE "é" RENAME TO "É"')
    assert host.sql('SELECT * FROM "É"') == []
