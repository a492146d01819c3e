"""The database wrapper: settings, cursors, the shell, and test databases."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.core.management import call_command
from django.db import (
    DatabaseError,
    NotSupportedError,
    OperationalError,
    connection,
    connections,
    transaction,
)
from django.db.backends.signals import connection_created

from s3cache.db.base import DatabaseWrapper
from s3cache.exceptions import EntryFormatError, LogDiverged
from s3cache.metrics import keeping
from tests.engine import Bucket, Host, MakeHost
from tests.library.models import Author, Book, Tag

pytestmark = pytest.mark.parametrize("bucket", ["directory"], indirect=True)
ROOT = Path(__file__).parents[2]


# Settings


def configured(**changes: Any) -> DatabaseWrapper:
    """A connection whose settings differ in ``changes`` from good ones."""
    entry = {
        "ENGINE": "s3cache.db",
        "NAME": "replica.sqlite3",
        "OPTIONS": {"storage": "bucket"},
        **changes,
    }
    return DatabaseWrapper(
        connections.configure_settings({"default": entry})["default"], "default"
    )


@pytest.mark.parametrize("name", ["", ":memory:", "file:memorydb?mode=memory"])
def test_the_replica_has_to_be_a_file(hosts: MakeHost, name: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=r"DATABASES\['default'\]\['NAME'\]"):
        configured(NAME=name).ensure_connection()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "lacks 'storage'"),
        ({"storage": "bucket", "max_agee": 5}, "max_agee"),
        ({"storage": "bucket", "timeout": 5}, "timeout"),
        ({"storage": "bucket", "transaction_mode": "IMMEDIATE"}, "transaction_mode"),
        ({"storage": "bucket", "max_age": -1}, "max_age"),
        ({"storage": "bucket", "commit_timeout": 0}, "commit_timeout"),
        ({"storage": "bucket", "records": "yes"}, "records"),
        ({"storage": "nowhere"}, "nowhere"),
    ],
)
def test_options_that_are_not_understood_are_refused(
    hosts: MakeHost, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(ImproperlyConfigured, match=said):
        configured(OPTIONS=options).ensure_connection()


def test_what_the_wrapper_says_of_itself(host: Host) -> None:
    wrapper = host.connection
    assert wrapper.vendor == "sqlite"
    assert wrapper.display_name == "s3cache"
    assert wrapper.is_s3cache
    assert wrapper.is_usable()
    assert not wrapper.is_in_memory_db()
    assert wrapper.get_database_version() >= (3, 31)
    assert not wrapper.features.has_select_for_update
    assert wrapper.features.supports_transactions


def test_tables_of_the_replica_itself_are_not_shown(host: Host) -> None:
    names = connection.introspection.table_names()
    assert "library_book" in names
    assert not [name for name in names if "s3cache" in name]


# Connections


def test_a_connection_can_be_closed_and_used_again(host: Host) -> None:
    Tag.objects.create(name="a")
    connection.close()
    assert Tag.objects.get().name == "a"
    connection.close_if_unusable_or_obsolete()
    assert Tag.objects.count() == 1


def test_connection_created_is_sent(hosts: MakeHost) -> None:
    created: list[Any] = []

    def receive(*, connection: Any, **kwargs: Any) -> None:
        created.append(connection)

    connection_created.connect(receive)
    try:
        with hosts() as host:
            connection.ensure_connection()
    finally:
        connection_created.disconnect(receive)
    assert created == [host.connection]


@pytest.mark.parametrize(
    "table",
    [
        "CREATE TABLE t (x TEXT COLLATE backwards UNIQUE)",
        "CREATE TABLE t (x TEXT, CHECK (twice(x) != 'bb'))",
        "CREATE TABLE t (x TEXT, y AS (twice(x)))",
    ],
)
def test_a_new_host_has_the_functions_that_its_schema_needs(
    hosts: MakeHost, table: str
) -> None:
    def register(*, connection: Any, **kwargs: Any) -> None:
        made = connection.connection
        made.create_function("twice", 1, lambda x: 2 * x, deterministic=True)
        made.create_collation("backwards", lambda x, y: (x < y) - (x > y))

    connection_created.connect(register)
    try:
        first, second = hosts(), hosts()
        first.sql(table)
        first.sql("INSERT INTO t (x) VALUES ('ab')")
        assert second.sql("SELECT x FROM t") == [("ab",)]
        first.sql("INSERT INTO t (x) VALUES ('ba')")
        second.catch_up()
        assert second.sql("SELECT count(*) FROM t") == [(2,)]
    finally:
        connection_created.disconnect(register)


def test_a_function_that_cannot_be_registered_is_an_error(hosts: MakeHost) -> None:
    with hosts() as host:
        connection.ensure_connection()
        made = host.connection.connection
        assert made is not None
        with pytest.raises(sqlite3.OperationalError, match="[Ee]rror creating"):
            made.create_function("f", -5, len)
        assert Tag.objects.count() == 0


def test_closing_a_connection_in_a_block_rolls_it_back(host: Host) -> None:
    transaction.set_autocommit(False)
    Tag.objects.create(name="a")
    connection.close()
    assert not Tag.objects.exists()


def test_two_paths_are_two_hosts_and_one_path_is_one(hosts: MakeHost) -> None:
    a, b = hosts("same"), hosts("same")
    with a:
        Tag.objects.create(name="a")
    with b:
        assert Tag.objects.get().name == "a"
    assert a.connection.replica is b.connection.replica


# Cursors


def test_a_cursor_as_pep_249_has_it(host: Host) -> None:
    Tag.objects.bulk_create([Tag(name=name) for name in "abcde"])
    with connection.cursor() as cursor:
        cursor.execute("SELECT name, note FROM library_tag ORDER BY name")
        assert [column[0] for column in cursor.description] == ["name", "note"]
        assert cursor.fetchone() == ("a", "")
        assert cursor.fetchmany(2) == [("b", ""), ("c", "")]
        assert list(cursor) == [("d", ""), ("e", "")]
        assert cursor.fetchone() is None
        assert cursor.fetchall() == []
    with pytest.raises(DatabaseError, match="closed"):
        cursor.execute("SELECT 1")


def test_parameters_by_position_and_by_name(host: Host) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT %s, %s || '%%'", [1, "a"])
        assert cursor.fetchone() == (1, "a%")
        cursor.execute("SELECT %(b)s, %(a)s", {"a": 1, "b": 2})
        assert cursor.fetchone() == (2, 1)
        cursor.execute("SELECT '%s'")  # without parameters nothing is replaced
        assert cursor.fetchone() == ("%s",)


def test_scripts(host: Host) -> None:
    with connection.cursor() as cursor:
        cursor.executescript(
            "CREATE TABLE x (a TEXT); INSERT INTO x VALUES ('one; two');\n"
            "-- a comment; with a semicolon\nINSERT INTO x VALUES ('three');"
        )
    assert host.sql("SELECT a FROM x") == [("one; two",), ("three",)]


def test_large_results_are_there_as_a_whole(host: Host) -> None:
    Tag.objects.bulk_create([Tag(name=str(n)) for n in range(3000)])
    for number, tag in enumerate(Tag.objects.iterator(chunk_size=100)):
        if number % 1000 == 0:
            tag.delete()  # what is read meanwhile does not change
    assert number == 2999
    assert Tag.objects.count() == 2997


def test_explain(host: Host) -> None:
    assert "SCAN" in Tag.objects.all().explain()


@pytest.mark.parametrize(
    ("sql", "error"),
    [
        ("SELECT * FROM nothing", OperationalError),
        ("INSERT INTO nothing VALUES (1)", OperationalError),
        ("SELEC 1", OperationalError),
        ("COMMIT", OperationalError),
        ("SAVEPOINT a", OperationalError),
        ("ATTACH ':memory:' AS x", NotSupportedError),
        ("INSERT INTO _s3cache_meta SELECT * FROM _s3cache_meta", DatabaseError),
        ("UPDATE _s3cache_meta SET number = 0", DatabaseError),
    ],
)
def test_statements_that_are_refused(
    host: Host, sql: str, error: type[DatabaseError]
) -> None:
    before = host.position
    with pytest.raises(error):
        host.sql(sql)
    assert host.position == before


# dbshell


def test_dbshell_opens_the_replica_to_read(host: Host) -> None:
    arguments, environment = host.connection.client.settings_to_cmd_args_env(
        host.settings, ["-json"]
    )
    assert arguments == ["sqlite3", "-readonly", host.settings["NAME"], "-json"]
    assert environment is None


def test_dbshell_cannot_write(
    host: Host, require_program: Callable[[str, str], str]
) -> None:
    require_program("sqlite3", "dbshell")
    Tag.objects.create(name="a")

    def shell(sql: str) -> subprocess.CompletedProcess[str]:
        arguments, _ = host.connection.client.settings_to_cmd_args_env(
            host.settings, [sql]
        )
        return subprocess.run(  # noqa: S603
            arguments, capture_output=True, text=True, check=False
        )

    assert shell("SELECT name FROM library_tag").stdout == "a\n"
    refused = shell("DELETE FROM library_tag")
    assert "readonly" in refused.stderr
    assert Tag.objects.count() == 1


# Several databases


@pytest.fixture
def second(
    hosts: MakeHost, tmp_path: Path, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> DatabaseWrapper:
    """Another alias, on a store of its own, with an empty table of tags."""
    settings.STORAGES = {
        **settings.STORAGES,
        "second": {
            "BACKEND": "django.core.files.storage.FileSystemStorage",
            "OPTIONS": {"location": str(tmp_path / "second")},
        },
    }
    wrapper = configured(
        NAME=str(tmp_path / "second.sqlite3"), OPTIONS={"storage": "second"}
    )
    wrapper.alias = "second"
    monkeypatch.setitem(connections.settings, "second", wrapper.settings_dict)
    connections["second"] = wrapper
    with wrapper.schema_editor() as editor:
        for model in (Author, Tag):
            editor.create_model(model)
    return wrapper


def test_databases_do_not_see_one_another(host: Host, second: DatabaseWrapper) -> None:
    Tag.objects.create(name="first")
    Tag.objects.using("second").create(name="second")
    assert [tag.name for tag in Tag.objects.all()] == ["first"]
    assert [tag.name for tag in Tag.objects.using("second")] == ["second"]
    second.close()
    del connections["second"]


def test_blocks_on_two_databases(host: Host, second: DatabaseWrapper) -> None:
    with transaction.atomic(), transaction.atomic(using="second"):
        Author.objects.create(name="Ann")
        Author.objects.using("second").create(name="Bob")
    with pytest.raises(ZeroDivisionError), transaction.atomic(using="second"):
        Author.objects.create(name="Cid")
        Author.objects.using("second").create(name="Dan")
        raise ZeroDivisionError
    assert [a.name for a in Author.objects.order_by("pk")] == ["Ann", "Cid"]
    assert [a.name for a in Author.objects.using("second")] == ["Bob"]
    second.close()
    del connections["second"]


# The bucket is gone


def test_an_emptied_bucket_is_an_error_and_the_rows_stay_here(
    host: Host, bucket: Bucket
) -> None:
    Tag.objects.create(name="kept")
    bucket.store.delete_many(bucket.keys())
    with pytest.raises(LogDiverged, match="_head is missing"):
        host.connection.replica.side.remember("checked_at", 0.0)
        host.catch_up()
    with pytest.raises(LogDiverged, match="_head is missing"):
        Tag.objects.create(name="lost?")
    assert [tag.name for tag in Tag.objects.all()] == ["kept"]
    assert bucket.keys() == []


def test_a_host_finds_that_entries_are_gone_behind_its_own_new_ones(
    host: Host, bucket: Bucket
) -> None:
    """As after a wipe at the very moment at which it went on writing."""
    side = host.connection.replica.side
    side.remember("checked_at", 0.0)
    host.catch_up()
    checked = host.connection.position
    Tag.objects.create(name="gone")
    Tag.objects.create(name="newest")
    state = side.host_state("")
    assert state.checked_number == checked
    assert state.won_at and state.round_trip and state.turn_at
    bucket.store.delete(f"_log/{checked + 1:012}")
    side.remember("checked_at", state.checked_at - 3600)
    with pytest.raises(LogDiverged):
        host.catch_up()
    assert {tag.name for tag in Tag.objects.all()} == {"gone", "newest"}


# Test databases


@pytest.fixture
def runs_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that runs a project's tests counts nothing, to its end."""
    monkeypatch.setattr(keeping, "_kept", keeping._Kept())


@pytest.mark.usefixtures("runs_tests")
def test_a_test_database_has_a_replica_and_a_store_of_its_own(
    hosts: MakeHost, bucket: Bucket, tmp_path: Path
) -> None:
    with hosts("site") as host:
        Tag.objects.create(name="real")
        before = bucket.keys()
        connection.creation.create_test_db(verbosity=0, autoclobber=True)
        try:
            assert connection.settings_dict["NAME"] == str(
                tmp_path / "test_site.sqlite3"
            )
            assert not Tag.objects.exists()
            Tag.objects.create(name="test")
        finally:
            connection.creation.destroy_test_db(host.settings["NAME"], verbosity=0)
        assert bucket.keys() == before
    assert list(tmp_path.glob("test_*")) == []


@pytest.mark.usefixtures("runs_tests")
def test_a_clone_has_the_rows_and_a_log_of_its_own(
    hosts: MakeHost, tmp_path: Path
) -> None:
    with hosts("site") as host:
        real = host.settings["NAME"]
        connection.creation.create_test_db(verbosity=0, autoclobber=True)
        Tag.objects.create(name="in both")
        creation = connection.creation
        creation.clone_test_db("1", verbosity=0)
        clone = DatabaseWrapper(creation.get_test_db_clone_settings("1"), "default")
        with clone.cursor() as cursor:
            cursor.execute("INSERT INTO library_tag VALUES ('in the clone', '')")
            cursor.execute("SELECT name FROM library_tag")
            assert cursor.fetchall() == [("in both",), ("in the clone",)]
        clone.close()
        assert Tag.objects.count() == 1
        creation.destroy_test_db(suffix="1", verbosity=0, keepdb=False)
        creation.destroy_test_db(real, verbosity=0)
    assert list(tmp_path.glob("test_*")) == []


@pytest.mark.slow
@pytest.mark.usefixtures("bucket")
@pytest.mark.parametrize("arguments", [[], ["--parallel", "2"]], ids=["", "parallel"])
def test_a_projects_tests_run_on_it(tmp_path: Path, arguments: list[str]) -> None:
    ran = subprocess.run(  # noqa: S603
        [
            sys.executable,
            "-W",
            "error",
            "-m",
            "django",
            "test",
            "tests.library",
            "--pattern",
            "suite.py",
            "--settings",
            "tests.library.settings",
            "--shuffle",
            *arguments,
        ],
        cwd=ROOT,
        env={**os.environ, "S3CACHE_TEST_FOLDER": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert "Ran 7 tests" in ran.stderr
    assert [path for path in tmp_path.iterdir() if "test" in path.name] == []


def test_dumping_a_replica_needs_no_store(host: Host) -> None:
    """It is a SQLite file like any other, for whatever reads those."""
    Book.objects.create(title="x", author=Author.objects.create(name="Ann"))
    uri = f"{Path(host.settings['NAME']).as_uri()}?mode=ro"
    with sqlite3.connect(uri, uri=True) as reader:
        assert reader.execute("SELECT title FROM library_book").fetchall() == [("x",)]
        assert reader.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    reader.close()


def test_the_check_command(host: Host) -> None:
    call_command("check", databases=["default"])


# Signed entries


def test_entries_that_are_not_signed_are_refused(
    hosts: MakeHost, bucket: Bucket
) -> None:
    """Else whoever can write the bucket can change anything."""
    signed = hosts(signing_keys=["new", "old"], max_age=0, stale_if_error=0)
    with signed, pytest.raises(EntryFormatError, match="signing_keys"):
        Tag.objects.exists()  # the tables were made without a key


def test_hosts_with_a_common_key_understand_one_another(
    hosts: MakeHost, bucket: Bucket
) -> None:
    bucket.store.delete_many(bucket.keys())
    a = hosts(signing_keys=["old"])
    with a, a.connection.schema_editor() as editor:
        editor.create_model(Tag)
    with hosts(signing_keys=["new", "old"]) as b:
        Tag.objects.create(name="signed with the new key")
        assert b.position == 2
    with pytest.raises(EntryFormatError, match="signing_keys"):
        a.catch_up()
    with hosts(signing_keys=["other", "new", "old"]):
        assert Tag.objects.count() == 1
