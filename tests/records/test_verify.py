"""``manage.py s3cache_verify`` and records: what is found, mended, adopted."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from s3cache.records.run import record_now
from tests.engine import Bucket, Host
from tests.keeper.test_verify import WHOLE, verify
from tests.library.models import Author, Book, Loan


@pytest.fixture
def ann(host: Host) -> Author:
    """A row with a record, among others."""
    ann = Author.objects.create(name="Ann")
    Author.objects.create(name="Bob")
    Book.objects.create(title="One", author=Author.objects.create(name="Cid"))
    record_now(host.connection.replica)
    return ann


def key_of(author: Author) -> str:
    return f"library_author/rows/{author.pk}.json"


def edit(bucket: Bucket, key: str, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a record as somebody with an editor would."""
    (record,) = json.loads(bucket.store.get(key).body)
    change(record)
    bucket.store.put(key, json.dumps([record]).encode())


def add(bucket: Bucket, key: str, model: str, pk: Any, **fields: Any) -> None:
    record = {"model": model, "pk": pk, "fields": fields}
    bucket.store.put(key, json.dumps([record]).encode())


def test_all_is_well(ann: Author) -> None:
    assert verify() == WHOLE


def test_what_is_yet_to_be_written_is_no_finding(ann: Author) -> None:
    Author.objects.filter(pk=ann.pk).update(name="Anna")
    Author.objects.filter(name="Bob").delete()
    Author.objects.create(name="Dan")
    assert verify() == WHOLE


def test_that_there_are_none_is_no_finding(host: Host) -> None:
    Author.objects.create(name="Ann")
    assert verify() == WHOLE


def test_it_can_be_left_out(ann: Author, bucket: Bucket) -> None:
    bucket.store.delete(key_of(ann))
    with bucket.requests() as seen:
        assert verify("--skip-records") == WHOLE
    assert not any("library" in request for request in seen)


# What s3cache wrote, and is wrong


@pytest.mark.parametrize("how", ["missing", "stale", "of no row"])
def test_what_can_be_mended(ann: Author, bucket: Bucket, how: str, host: Host) -> None:
    key = key_of(ann)
    right = bucket.store.get(key).body
    if how == "missing":
        bucket.store.delete(key)
    elif how == "stale":
        Author.objects.filter(pk=ann.pk).update(name="Anna")
        record_now(host.connection.replica)
        bucket.store.put(key, right)
    else:
        ann.delete()
        record_now(host.connection.replica)
        bucket.store.put(key, right)  # as a request that comes late
    assert verify().startswith(f"default: {key}: it is ")
    assert verify("--repair").endswith(WHOLE)
    assert verify() == WHOLE


def test_the_state_of_another_log(ann: Author, bucket: Bucket) -> None:
    state = json.loads(bucket.store.get("_records").body)
    bucket.store.put("_records", json.dumps({**state, "token": "another"}).encode())
    assert verify().startswith("default: _records: it is damaged, or of another log.")
    assert verify("--repair").endswith(WHOLE)


# What somebody else has done


def test_a_changed_record_is_named_and_never_overwritten(
    ann: Author, bucket: Bucket
) -> None:
    edit(bucket, key_of(ann), lambda record: record["fields"].update(name="Eve"))
    said = f"default: {key_of(ann)}: it is not what s3cache wrote there.\n"
    assert verify() == said
    Author.objects.filter(pk=ann.pk).update(name="Anna")
    assert said in verify("--repair")
    assert b"Eve" in bucket.store.get(key_of(ann)).body


def test_a_changed_record_is_committed_on_request(ann: Author, bucket: Bucket) -> None:
    edit(bucket, key_of(ann), lambda record: record["fields"].update(name="Eve"))
    said = verify("--adopt", "changed")
    assert said == f"default: {key_of(ann)}: it is committed.\n{WHOLE}"
    assert Author.objects.get(pk=ann.pk).name == "Eve"
    assert verify() == WHOLE


def test_one_that_says_what_the_row_is_becomes_ours(
    ann: Author, bucket: Bucket
) -> None:
    edit(bucket, key_of(ann), lambda record: record.pop("s3cache"))
    assert verify("--adopt", "changed").endswith(WHOLE)
    assert verify() == WHOLE


def test_an_added_record(ann: Author, bucket: Bucket) -> None:
    key = "library_author/rows/4711.json"
    add(bucket, key, "library.author", 4711, name="Eve", born=1999)
    said = f"default: {key}: it is not s3cache's, and there is no such row.\n"
    assert verify() == verify("--repair").removesuffix(said) == said
    assert verify("--adopt", "changed") == said
    assert verify("--adopt", "added").endswith(WHOLE)
    assert Author.objects.get(pk=4711).born == 1999


def test_a_key_of_two_columns(ann: Author, bucket: Bucket) -> None:
    key = "library_loan/rows/3,2024-02-29.json"
    add(bucket, key, "library.loan", [3, "2024-02-29"], copy=3, day="2024-02-29")
    assert verify("--adopt", "added").endswith(WHOLE)
    assert Loan.objects.get().copy == 3


def test_a_removed_record(ann: Author, bucket: Bucket) -> None:
    bucket.store.delete(key_of(ann))
    assert verify("--adopt", "changed", "added").startswith("default: library_author")
    assert verify("--adopt", "removed").endswith(WHOLE)
    assert not Author.objects.filter(pk=ann.pk).exists()


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"\xff", "it does not fit: "),
        (b"{}", "it does not fit: "),
        (b'[{"model": "no.such", "pk": 1, "fields": {}}]', "no.such"),
        (b"[]", "it has 0 objects instead of one"),
        (b'[{"model": "library.tag", "pk": "a", "fields": {}}]', "is a library.Tag"),
        (b'[{"model": "library.author", "pk": 2, "fields": {}}]', "another one than"),
        (
            b'[{"model": "library.author", "pk": 4711, "fields": {"name": "Bob"}}]',
            "UNIQUE constraint failed",
        ),
        (
            b'[{"model": "library.author", "pk": 4711, "fields": {"born": "x"}}]',
            "must be an integer",
        ),
        (
            b'[{"model": "library.author", "pk": 4711, '
            b'"fields": {"name": "Eve", "born": 999999999999999999999}}]',
            "too large",
        ),
    ],
)
def test_what_does_not_fit_is_named_and_left(
    ann: Author, bucket: Bucket, host: Host, body: bytes, why: str
) -> None:
    key = "library_author/rows/4711.json"
    bucket.store.put(key, body)
    before, position = host.dump(), host.position
    said = verify("--adopt", "changed", "added", "removed")
    assert f"default: {key}: it does not fit: " in said
    assert why in said
    assert (host.dump(), host.position) == (before, position)
    assert bucket.store.get(key).body == body


def test_a_row_that_others_refer_to_is_not_deleted(ann: Author, bucket: Bucket) -> None:
    cid = Author.objects.get(name="Cid")
    bucket.store.delete(key_of(cid))
    said = verify("--adopt", "removed")
    assert "it does not fit: FOREIGN KEY constraint failed" in said
    assert Author.objects.filter(pk=cid.pk).exists()
    assert verify("--repair").endswith(WHOLE)


def test_a_row_that_cannot_be_a_record(ann: Author, host: Host) -> None:
    host.sql(
        "INSERT INTO library_everything (id, text, uid) VALUES (?, '', 'x')", "0" * 32
    )
    record_now(host.connection.replica)
    assert "its row cannot be a record: uid is 'x'" in verify()
