"""``manage.py s3cache_verify``: every planted defect is found and named."""

from __future__ import annotations

import io
import json
import sqlite3

import msgspec
import pytest
from django.core.management import CommandError, call_command

from s3cache.keeper.rounds import KeeperOptions
from s3cache.keeper.run import keep_now
from s3cache.log import entry as entries
from s3cache.log.catalog import Catalog, open_catalog, seal_catalog
from s3cache.log.entry import Entry, seal, unseal
from s3cache.log.head import decode_head, encode_head
from s3cache.log.keys import HEAD, blob_key, entry_key
from tests.engine import Bucket, Host, MakeHost
from tests.library.models import Author, Book, Member

WHOLE = "default: everything is as it should be.\n"


@pytest.fixture
def packed(host: Host, bucket: Bucket) -> Host:
    """A host with packs, a trimmed log, and a tail."""
    Author.objects.create(name="Ann")
    at_once = KeeperOptions(pack_after=1, retain=0.0, grace=0.0)
    keep_now(host.connection.replica, at_once)
    for name in ("Bob", "Cid", "Dan"):
        Author.objects.create(name=name)
    return host


def verify(*arguments: str) -> str:
    """What the command says, whether or not all is well."""
    out = io.StringIO()
    try:
        call_command(
            "s3cache_verify", *arguments, database="default", stdout=out, no_color=True
        )
    except CommandError as error:
        assert str(error) == "Not everything is as it should be."
        assert error.returncode == 1
    else:
        assert out.getvalue().endswith(WHOLE)
    return out.getvalue()


def catalog_of(bucket: Bucket) -> Catalog:
    key = decode_head(bucket.store.get(HEAD).body).catalog
    return open_catalog(bucket.store.get(key).body, key=key)


def newest(bucket: Bucket) -> Entry:
    key = bucket.entries()[-1]
    return unseal(bucket.store.get(key).body, key=key)


def put(bucket: Bucket, entry: Entry) -> None:
    key = entry_key(entry.number)
    bucket.store.put(key, seal(entry, key=key, blob_key="").body)


def test_all_is_well(packed: Host) -> None:
    assert verify() == WHOLE


def test_all_is_well_where_nothing_was_packed(host: Host) -> None:
    Author.objects.create(name="Ann")
    assert verify() == WHOLE


def test_it_changes_nothing(packed: Host, bucket: Bucket) -> None:
    before = bucket.keys()
    with bucket.requests() as seen:
        verify()
    assert {request.split()[0] for request in seen} == {"GET", "LIST"}
    assert bucket.keys() == before
    path = packed.connection.replica.path
    assert not list(path.parent.glob(f"{path.name}-keeper-*"))


# What can be put right


@pytest.mark.parametrize("damage", ["missing", "truncated", "altered"])
def test_a_pack(packed: Host, bucket: Bucket, hosts: MakeHost, damage: str) -> None:
    key = catalog_of(bucket).packs[0].key
    body = bucket.store.get(key).body
    if damage == "missing":
        bucket.store.delete(key)
    elif damage == "truncated":
        bucket.store.put(key, body[:-7])
    else:
        bucket.store.put(key, body[:-1] + bytes([body[-1] ^ 1]))
    assert f"default: {key}: it is " in verify()
    assert verify("--repair").endswith(WHOLE)
    assert hosts("new").dump() == packed.dump()


@pytest.mark.parametrize("damage", ["missing", "unreadable", "foreign"])
def test_a_catalog(packed: Host, bucket: Bucket, hosts: MakeHost, damage: str) -> None:
    key = decode_head(bucket.store.get(HEAD).body).catalog
    if damage == "missing":
        bucket.store.delete(key)
    elif damage == "unreadable":
        bucket.store.put(key, b"{}")
    else:
        other = msgspec.structs.replace(catalog_of(bucket), database="another")
        bucket.store.put(key, seal_catalog(other, key=key))
    assert f"default: {key}: " in verify()
    assert verify("--repair").endswith(WHOLE)
    assert hosts("new").dump() == packed.dump()


def test_a_catalog_that_is_stale(packed: Host, bucket: Bucket, hosts: MakeHost) -> None:
    """Somebody has put back the one of before the trim."""
    key = decode_head(bucket.store.get(HEAD).body).catalog
    stale = msgspec.structs.replace(catalog_of(bucket), number=1)
    bucket.store.put(key, seal_catalog(stale, key=key))
    assert "what was between them is lost to new hosts" in verify()
    assert verify("--repair").endswith(WHOLE)
    assert hosts("new").dump() == packed.dump()


def test_a_trim_half_done(packed: Host, bucket: Bucket) -> None:
    bucket.store.put(entry_key(2), b"somebody slept over the trim")
    assert f"default: {entry_key(2)}: the log is trimmed to " in verify()
    assert verify("--repair").endswith(WHOLE)
    assert entry_key(2) not in bucket.entries()


def test_what_nothing_refers_to(packed: Host, bucket: Bucket) -> None:
    orphans = ["_packs/000000000001-0", "_catalog/000000000001-0", blob_key(2, "t")]
    for key in orphans:
        bucket.store.put(key, b"left")
    told = verify()
    assert all(f"default: {key}: " in told for key in orphans)
    assert verify("--repair").endswith(WHOLE)
    assert not set(orphans) & set(bucket.keys())


def test_a_replica_that_was_altered_by_hand(packed: Host, hosts: MakeHost) -> None:
    new = hosts("new").dump()
    other = sqlite3.connect(packed.connection.replica.path)
    with other:
        other.execute("UPDATE library_author SET born = 1 WHERE name = 'Bob'")
    other.close()
    assert "its rows of library_author are not what the bucket says" in verify()
    assert verify("--repair").endswith(WHOLE)
    assert packed.dump() == new


# What can only be named


def test_an_entry_that_is_missing(packed: Host, bucket: Bucket) -> None:
    key = bucket.entries()[1]
    bucket.store.delete(key)
    assert f"default: {key}: it is missing.\n" in verify()
    assert f"default: {key}: it is missing.\n" in verify("--repair")


def test_an_entry_that_was_altered(packed: Host, bucket: Bucket) -> None:
    key = bucket.entries()[1]
    bucket.store.put(key, bucket.store.get(key).body[:-9])
    assert f"default: {key}: {key} is damaged: " in verify("--repair")


def test_a_fork(packed: Host, bucket: Bucket) -> None:
    forked = msgspec.structs.replace(newest(bucket), previous="another")
    put(bucket, forked)
    key = entry_key(forked.number)
    assert f"default: {key}: it does not continue the entry before it.\n" in verify()


def test_an_entry_of_another_database(packed: Host, bucket: Bucket) -> None:
    put(bucket, msgspec.structs.replace(newest(bucket), database="another"))
    assert "of the database another.\n" in verify()


def test_a_body_that_is_missing(
    host: Host, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(entries, "BLOB_ABOVE", 500)
    Member.objects.create(name="x" * 40)
    Author.objects.bulk_create(Author(name=f"{n * 7919:x}" * 20) for n in range(99))
    (blob,) = [one.key for one in bucket.store.list("_blobs/").keys]
    bucket.store.delete(blob)
    assert f"{blob}, the body of {bucket.entries()[-1]}, is missing." in verify()


def test_a_head_that_is_lost(packed: Host, bucket: Bucket) -> None:
    bucket.store.delete(HEAD)
    assert verify() == (
        "default: _head: it is missing. Restore it from a version or a backup.\n"
    )


def test_a_head_that_is_damaged(packed: Host, bucket: Bucket) -> None:
    bucket.store.put(HEAD, b"nothing")
    assert verify().startswith("default: _head: _head is damaged: ")


def test_a_reference_to_a_row_that_is_not_there(
    packed: Host, bucket: Bucket, hosts: MakeHost
) -> None:
    book = Book.objects.create(title="One", author=Author.objects.get(name="Ann"))
    entry = newest(bucket)
    (change,) = [c for c in entry.changes if isinstance(c, entries.Rows)]
    row = list(change.rows[0])
    row[change.columns.index("author_id")] = 4711
    put(
        bucket,
        msgspec.structs.replace(
            entry, changes=[msgspec.structs.replace(change, rows=[row])]
        ),
    )
    host = hosts("new")
    with host:
        assert (
            f"the row of library_book with rowid {book.pk} refers to a row of "
            f"library_author that is not there." in verify()
        )


def test_json(packed: Host, bucket: Bucket) -> None:
    key = catalog_of(bucket).packs[0].key
    bucket.store.delete(key)
    assert json.loads(verify_json()) == {
        "default": [
            {
                "key": key,
                "message": "it is missing: no host can start.",
                "remedy": "keep",
            }
        ]
    }


def verify_json() -> str:
    out = io.StringIO()
    with pytest.raises(CommandError):
        call_command("s3cache_verify", "--json", database="default", stdout=out)
    return out.getvalue()


def test_what_a_keeper_is_about_to_name_is_no_leftover(
    packed: Host, bucket: Bucket
) -> None:
    head = msgspec.structs.replace(
        decode_head(bucket.store.get(HEAD).body), keeper="somebody"
    )
    bucket.store.put(HEAD, encode_head(head))
    bucket.store.put("_packs/000000000001-0", b"new")
    assert verify() == WHOLE
