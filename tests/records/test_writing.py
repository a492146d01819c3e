"""Records in real stores, as rounds of writing leave them."""

from __future__ import annotations

import json
from datetime import date
from typing import Any

from django.db.models import F

from s3cache.keeper.rounds import KeeperOptions
from s3cache.keeper.run import keep_now
from s3cache.records.run import record_now
from s3cache.records.writing import Recorded, RecordOptions
from tests.engine import Bucket, Host, MakeHost
from tests.library.models import Author, Loan, Member, Tag


def record(host: Host, **options: Any) -> Recorded:
    return record_now(host.connection.replica, RecordOptions(**options))


def key_of(author: Author) -> str:
    return f"library_author/rows/{author.pk}.json"


def read(bucket: Bucket, key: str) -> dict[str, Any]:
    (found,) = json.loads(bucket.store.get(key).body)
    assert isinstance(found, dict)
    return found


def test_a_row_is_an_object_that_loaddata_takes(host: Host, bucket: Bucket) -> None:
    author = Author.objects.create(name="Änn")
    done = record(host)
    assert (done.written, done.backlog) == (1, 0)
    found = read(bucket, f"library_author/rows/{author.pk}.json")
    assert found.pop("s3cache")["entry"] == host.position
    assert found == {
        "model": "library.author",
        "pk": author.pk,
        "fields": {"name": "Änn", "born": 1900},
    }


def test_many_changes_of_a_row_are_one_request(host: Host, bucket: Bucket) -> None:
    author = Author.objects.create(name="Ann")
    record(host)
    for _ in range(20):
        Author.objects.update(born=F("born") + 1)
    with bucket.requests() as seen:
        done = record(host)
    assert sorted(seen) == ["GET records", "PUT library_author", "PUT records"]
    assert done.written == 1
    found = read(bucket, f"library_author/rows/{author.pk}.json")
    assert found["fields"]["born"] == 1920


def test_nothing_new_is_one_request(host: Host, bucket: Bucket) -> None:
    Author.objects.create(name="Ann")
    record(host)
    with bucket.requests() as seen:
        assert record(host).written == 0
    assert seen == ["GET records"]


def test_a_deleted_row_has_no_record(host: Host, bucket: Bucket) -> None:
    Author.objects.create(name="Ann")
    record(host)
    Author.objects.all().delete()
    assert record(host).removed == 1
    left = [bucket.store.get(key).body for key in bucket.records()]
    assert left in ([], [b"[]\n"])
    Author.objects.create(name="Bob")
    assert record(host).backlog == 0


def test_another_host_goes_on(host: Host, hosts: MakeHost, bucket: Bucket) -> None:
    ann = Author.objects.create(name="Ann")
    record(host)
    other = hosts("other", records=True)
    other.catch_up()
    with other:
        Author.objects.create(name="Bob")
        Author.objects.filter(pk=ann.pk).update(name="Anna")
        done = record(other)
    assert done.written == 2
    assert read(bucket, key_of(ann))["fields"]["name"] == "Anna"


def test_a_host_that_is_behind_writes_nothing_old(
    host: Host, hosts: MakeHost, bucket: Bucket
) -> None:
    behind = hosts("behind", records=True)
    behind.catch_up()
    ann = Author.objects.create(name="Ann")
    record(host)
    with behind:
        assert record(behind).written == 0
    assert read(bucket, key_of(ann))["fields"]["name"] == "Ann"


def test_a_new_host_learns_from_the_log_what_changed(
    host: Host, hosts: MakeHost, bucket: Bucket
) -> None:
    Member.objects.bulk_create(Member(name=str(n)) for n in range(50))
    record(host)
    Member.objects.filter(name="7").update(name="seven")
    keep_now(host.connection.replica, KeeperOptions(pack_after=1))
    new = hosts("new", records=True)
    with new:
        new.catch_up()
        with bucket.requests() as seen:
            assert record(new).written == 1
    assert seen.count("GET log") == 1
    assert seen.count("GET library_member") == 1  # whose it is that is there


def test_where_nobody_knows_what_changed_all_are_compared(
    host: Host, hosts: MakeHost, bucket: Bucket
) -> None:
    Member.objects.bulk_create(Member(name=str(n)) for n in range(50))
    record(host)
    Member.objects.filter(name="7").update(name="seven")
    Member.objects.filter(name="8").delete()
    keep_now(host.connection.replica, KeeperOptions(pack_after=1, retain=0.0))
    new = hosts("new", records=True)
    with new:
        new.catch_up()
        done = record(new)
    assert (done.written, done.removed, done.compared) == (1, 1, 48)


def test_what_somebody_else_has_changed_is_left_alone(
    host: Host, bucket: Bucket
) -> None:
    ann = Author.objects.create(name="Ann")
    record(host)
    body = bucket.store.get(key_of(ann)).body
    bucket.store.put(key_of(ann), body.replace(b"Ann", b"Eve"))
    Author.objects.update(name="Anna")
    done = record(host)
    assert (done.written, done.foreign) == (0, [key_of(ann)])
    Author.objects.all().delete()
    done = record(host)
    assert (done.removed, done.foreign) == (0, [key_of(ann)])
    assert b"Eve" in bucket.store.get(key_of(ann)).body


def test_a_record_that_somebody_copied_is_not_ours(host: Host, bucket: Bucket) -> None:
    ann = Author.objects.create(name="Ann")
    record(host)
    other = f"library_author/rows/{ann.pk + 1}.json"
    bucket.store.put(other, bucket.store.get(key_of(ann)).body)
    Author.objects.create(pk=ann.pk + 1, name="Bob")
    assert record(host).foreign == [other]


def test_a_table_that_is_dropped_loses_its_records(host: Host, bucket: Bucket) -> None:
    Loan.objects.create(copy=1, day=date(2024, 2, 29))
    record(host)
    assert bucket.records() == ["library_loan/rows/1,2024-02-29.json"]
    host.sql("DROP TABLE library_loan")
    assert record(host).removed == 1


def test_a_key_that_changes_its_case_is_another_record(
    host: Host, bucket: Bucket
) -> None:
    host.sql("DROP TABLE library_tag")
    host.sql(
        "CREATE TABLE library_tag (note TEXT NOT NULL, "
        "name TEXT NOT NULL PRIMARY KEY COLLATE NOCASE)"
    )
    Tag.objects.create(name="a")
    record(host)
    assert bucket.records() == ["library_tag/rows/a.json"]
    Tag.objects.filter(name="a").update(name="A")
    assert record(host).removed == 1
    assert bucket.records() == ["library_tag/rows/~41.json"]


def test_a_row_that_cannot_be_a_record_is_named(host: Host, bucket: Bucket) -> None:
    ann = Author.objects.create(name="Ann")
    host.sql(
        "INSERT INTO library_everything (id, text, uid) VALUES (?, '', 'x')", "0" * 32
    )
    done = record(host)
    key = f"library_everything/rows/{'0' * 32}.json"
    assert list(done.unreadable) == [key]
    assert key not in bucket.records()
    assert key_of(ann) in bucket.records()


def test_a_value_that_its_field_takes_for_nothing_is_kept(
    host: Host, bucket: Bucket
) -> None:
    host.sql(
        "INSERT INTO library_everything (id, text, day) VALUES (?, '', 'x')", "0" * 32
    )
    record(host)
    found = read(bucket, f"library_everything/rows/{'0' * 32}.json")
    assert found["fields"]["day"] is None
    assert found["s3cache"]["columns"] == {"day": "x"}


def test_columns_that_the_model_does_not_know_are_kept(
    host: Host, bucket: Bucket
) -> None:
    host.sql("ALTER TABLE library_author ADD COLUMN newer TEXT DEFAULT 'x'")
    ann = Author.objects.create(name="Ann")
    record(host)
    found = read(bucket, key_of(ann))
    assert found["s3cache"]["columns"] == {"newer": "x"}
    assert "newer" not in found["fields"]


def test_a_damaged_state_is_replaced(host: Host, bucket: Bucket) -> None:
    Author.objects.create(name="Ann")
    record(host)
    bucket.store.put("_records", b"nothing")
    Author.objects.create(name="Bob")
    done = record(host)
    assert (done.written, done.compared) == (1, 1)
    assert record(host).backlog == 0


def test_a_dry_run_tells_the_backlog(host: Host, bucket: Bucket) -> None:
    Author.objects.create(name="Ann")
    record(host)
    Author.objects.create(name="Bob")
    with bucket.requests() as seen:
        assert record(host, dry_run=True).backlog == 1
    assert seen == ["GET records"]


def test_rows_that_are_not_loaded_are_not_taken_for_gone(
    host: Host, hosts: MakeHost, bucket: Bucket
) -> None:
    ann, bob = Author.objects.create(name="Ann"), Author.objects.create(name="Bob")
    record(host)
    Author.objects.filter(pk=ann.pk).update(born=1950)
    keep_now(host.connection.replica, KeeperOptions(pack_after=1))
    Author.objects.filter(pk=bob.pk).update(born=1960)
    cold = hosts("cold", load_at_once=0, records=True)
    with cold:
        cold.catch_up()
        done = record(cold)
    assert (done.written, done.removed) == (2, 0)
    assert read(bucket, key_of(ann))["fields"]["born"] == 1950
    assert read(bucket, key_of(bob))["fields"]["born"] == 1960
