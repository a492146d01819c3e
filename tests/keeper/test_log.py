"""``manage.py s3cache_log``: what changed, when, and by which host."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection

from s3cache.keeper.rounds import KeeperOptions
from s3cache.keeper.run import keep_now
from tests.engine import Bucket, Host, MakeHost
from tests.library.models import Author, Book, Tag

#: Packs everything, and trims all of the log.
TRIM = KeeperOptions(pack_after=1, retain=0.0)


def run(*arguments: str, **options: Any) -> str:
    out = io.StringIO()
    call_command("s3cache_log", *arguments, stdout=out, **options)
    return out.getvalue()


def programs(*arguments: str, **options: Any) -> Any:
    return json.loads(run(*arguments, json=True, **options))


def test_the_newest_entry_comes_first(host: Host, hosts: MakeHost) -> None:
    Author.objects.create(name="Ann")
    with hosts("other") as other:
        Author.objects.filter(name="Ann").delete()
    first, second = run("--limit", "2").splitlines()
    number, at, who, what = first.split("  ")
    assert int(number) == other.position
    assert at.startswith("20") and at.endswith("Z")
    assert who == other.connection.replica.host
    assert what == "library_author: 0 rows, 1 deleted"
    assert second.startswith(f"{other.position - 1}  ")
    assert second.endswith("library_author: 1 rows")


def test_what_it_reads(host: Host, bucket: Bucket) -> None:
    Author.objects.create(name="Ann")
    with bucket.requests() as seen:
        run("--limit", "1")
    assert seen.count("GET head") == 1
    # The one behind the newest, which is not there; and what is read at once.
    assert seen.count("GET log") == 1 + min(host.position, 16)


def test_only_what_changed_a_table(host: Host) -> None:
    Author.objects.create(name="Ann")
    Tag.objects.create(name="red")
    assert [one["rows"] for one in programs("library.Tag", limit=1)] == [
        {"library_tag": 1}
    ]
    assert programs("library_tag", limit=1) == programs("library.Tag", limit=1)


def test_changes_of_the_schema_are_told(host: Host) -> None:
    with connection.cursor() as cursor:
        cursor.execute('CREATE TABLE "cabinet" ("place" text)')
        cursor.execute("INSERT INTO cabinet VALUES ('here')")
    newest, before = programs(limit=2)
    assert newest["rows"] == {"cabinet": 1}
    assert before["statements"] == ['CREATE TABLE "cabinet" ("place" text)']
    assert 'schema: CREATE TABLE "cabinet" ("place" text)' in run("--limit", "2")
    assert len(programs("cabinet")) == 2


def test_the_history_of_a_row(host: Host) -> None:
    ann = Author.objects.create(name="Ann")
    Author.objects.create(name="Ben")
    Author.objects.filter(pk=ann.pk).update(born=1970)
    key = str(ann.pk)
    ann.delete()
    *told, made = programs("library.Author", key)
    assert made["schema"]
    assert [one["row"] and one["row"]["born"] for one in told] == [None, 1970, 1900]
    assert "deleted" in run("library.Author", key).splitlines()[0]


def test_a_row_as_it_was(host: Host) -> None:
    ann = Author.objects.create(name="Ann")
    position = host.position
    Author.objects.filter(pk=ann.pk).update(born=1970)
    row = json.loads(run("library.Author", str(ann.pk), at=position))
    assert row == {"id": ann.pk, "name": "Ann", "born": 1900}
    with pytest.raises(CommandError, match="no such row") as refused:
        run("library.Author", str(ann.pk), at=position - 1)
    assert refused.value.returncode == 1


def test_a_row_that_changed_before_the_log_begins(host: Host) -> None:
    ann = Author.objects.create(name="Ann")
    keep_now(host.connection.replica, TRIM)
    position = host.position
    row = {"id": ann.pk, "name": "Ann", "born": 1900}
    assert json.loads(run("library.Author", str(ann.pk), at=position)) == row
    # From packs, when the replica has another state.
    key = str(ann.pk)
    ann.delete()
    assert json.loads(run("library.Author", key, at=position)) == row
    with pytest.raises(CommandError, match=f"from {position} to {host.position}"):
        run("library.Author", key, at=position - 1)


def test_a_row_that_the_replica_has_not_loaded(host: Host, hosts: MakeHost) -> None:
    ann = Author.objects.create(name="Ann")
    keep_now(host.connection.replica, TRIM)
    with hosts("new", load_at_once=0) as new:
        row = json.loads(run("library.Author", str(ann.pk), at=new.position))
    assert row["name"] == "Ann"


def test_a_row_whose_table_was_altered_later(host: Host) -> None:
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE cabinet (place text NOT NULL PRIMARY KEY)")
        cursor.execute("INSERT INTO cabinet VALUES ('here')")
    keep_now(host.connection.replica, TRIM)
    position = host.position
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE cabinet ADD COLUMN number int DEFAULT 7")
    assert json.loads(run("cabinet", "here", at=position))["place"] == "here"
    assert "number" not in json.loads(run("cabinet", "here", at=position))
    assert json.loads(run("cabinet", "here", at=host.position))["number"] == 7
    assert "the schema was changed" in run("cabinet", "here")


@pytest.mark.parametrize("name", ["../x", "a/b", "%2F", "new\nline", "🌍", "US"])
def test_keys_are_taken_as_they_are(host: Host, name: str) -> None:
    Tag.objects.create(name=name)
    Tag.objects.create(name=name.lower() + "-")
    one, *_schema = programs("library.Tag", name)
    assert one["row"]["name"] == name


def test_rows_between_others_have_keys_too(host: Host) -> None:
    book = Book.objects.create(title="T", author=Author.objects.create(name="Ann"))
    book.tags.add(Tag.objects.create(name="red"))
    through = Book.tags.through.objects.get()
    one, *_schema = programs("library_book_tags", str(through.pk))
    assert one["row"]["tag_id"] == "red"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["library.Nothing"], "Nothing"),
        (["library.Author", "x"], "'x' is no primary key of library_author"),
        (["--at", "1"], "--at needs the table"),
        (["--database", "nothing"], "'nothing' is no database that lives in"),
    ],
)
def test_what_it_cannot_do(host: Host, arguments: list[str], says: str) -> None:
    with pytest.raises(CommandError, match=says):
        run(*arguments)


def test_it_writes_nothing(host: Host, bucket: Bucket) -> None:
    Author.objects.create(name="Ann")
    before = bucket.keys()
    run("library.Author", "1", at=host.position)
    assert bucket.keys() == before
