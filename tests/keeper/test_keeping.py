"""Rounds of the keeper on real stores, and new hosts that start from packs."""

from __future__ import annotations

import sqlite3
from dataclasses import replace

import msgspec
import pytest
from django.db import OperationalError
from django.db.models import F

from s3cache.exceptions import EntryFormatError, LogDiverged, StoreUnavailable
from s3cache.keeper import rounds
from s3cache.keeper.rounds import KeeperOptions, Kept
from s3cache.keeper.run import keep_now
from s3cache.log.catalog import Catalog, open_catalog, seal_catalog
from s3cache.log.head import Head, decode_head, encode_head
from s3cache.log.keys import HEAD
from s3cache.replica.packs import decompress
from tests.engine import Bucket, Host, MakeHost
from tests.library.models import Author, Book, Everything, Member, Tag

#: Packs whatever there is, and trims nothing.
PACK = KeeperOptions(pack_after=1)

#: Packs and trims all, and leaves nothing for later.
AT_ONCE = KeeperOptions(pack_after=1, retain=0.0, grace=0.0)


def keep(host: Host, options: KeeperOptions = PACK) -> Kept:
    return keep_now(host.connection.replica, options)


def head_of(bucket: Bucket) -> Head:
    return decode_head(bucket.store.get(HEAD).body)


def catalog_of(bucket: Bucket) -> Catalog:
    key = head_of(bucket).catalog
    return open_catalog(bucket.store.get(key).body, key=key)


def keys_below(bucket: Bucket, prefix: str) -> set[str]:
    return {listed.key for listed in bucket.store.list(prefix).keys}


def packs(bucket: Bucket) -> set[str]:
    return keys_below(bucket, "_packs/")


def some_rows() -> None:
    ann = Author.objects.create(name="Ann")
    book = Book.objects.create(title="One", author=ann, price="12.50")
    book.tags.add(Tag.objects.create(name="new"), Tag.objects.create(name="Old"))
    Everything.objects.create(blob=b"\x00\xff", real=2.0, whole=2**62, data={"a": 1})
    Everything.objects.create(text="ÄÖ\x01", real=float("inf"))
    Member.objects.bulk_create(Member(name=f"m{n}") for n in range(50))
    Member.objects.filter(pk__gt=40).delete()


# A new host


def test_a_new_host_is_equal_to_the_one_that_was_packed(
    host: Host, hosts: MakeHost
) -> None:
    some_rows()
    keep(host)
    assert hosts("new").dump() == host.dump()


def test_it_starts_from_the_packs_alone_when_the_log_is_gone(
    host: Host, hosts: MakeHost, bucket: Bucket
) -> None:
    some_rows()
    kept = keep(host, AT_ONCE)
    assert bucket.entries() == []
    assert kept.trimmed == kept.catalog == kept.newest == host.position
    new = hosts("new")
    assert new.dump() == host.dump()
    with new:
        Author.objects.create(name="Bob")
    host.catch_up()
    assert new.dump() == host.dump()


def test_it_reads_the_tail_of_the_log_after_the_packs(
    host: Host, hosts: MakeHost, bucket: Bucket
) -> None:
    some_rows()
    keep(host, AT_ONCE)
    Author.objects.create(name="Bob")
    Member.objects.filter(pk__lt=10).update(name=F("name") + "!")
    assert len(bucket.entries()) == 2
    assert hosts("new").dump() == host.dump()


def test_its_ids_go_on_where_they_were(host: Host, hosts: MakeHost) -> None:
    last = Author.objects.create(name="Ann").pk
    Author.objects.all().delete()
    keep(host, AT_ONCE)
    with hosts("new"):
        assert Author.objects.create(name="Bob").pk > last


def test_its_schema_is_the_same(host: Host, hosts: MakeHost) -> None:
    host.sql("CREATE INDEX partly ON library_member (name) WHERE id > 3")
    host.sql("CREATE VIEW names AS SELECT name FROM library_member")
    keep(host, AT_ONCE)
    everything = "SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY 1, 2"
    new = hosts("new")
    new.catch_up()
    assert sorted(new.sql(everything)) == sorted(host.sql(everything))


def test_a_cold_start_is_a_handful_of_requests(
    host: Host, hosts: MakeHost, bucket: Bucket
) -> None:
    some_rows()
    keep(host)
    new = hosts("new")
    with bucket.requests() as seen:
        new.dump()
    assert sorted(seen) == ["GET catalog", "GET head", "GET packs", "LIST log"]


def test_a_table_of_30_000_rows_takes_no_more_requests(
    host: Host, hosts: MakeHost, bucket: Bucket
) -> None:
    for _ in range(3):
        Member.objects.bulk_create(Member(name="x" * 40) for _ in range(10_000))
    keep(host)
    new = hosts("new")
    with bucket.requests() as seen:
        assert len(new.dump()["library_member"]) == 30_000
    assert len(seen) <= 8


def test_a_host_that_slept_over_the_trim_starts_anew(
    host: Host, hosts: MakeHost
) -> None:
    asleep = hosts("asleep")
    asleep.catch_up()
    some_rows()
    keep(host, AT_ONCE)
    side = asleep.connection.replica.side
    side.remember("checked_at", 0.0)
    asleep.catch_up()
    assert asleep.dump() == host.dump()


def test_a_catalog_is_signed_like_an_entry() -> None:
    catalog = Catalog("db", 1, "t", "e", 0.0, [], {}, [])
    sealed = seal_catalog(catalog, key="_catalog/1", signing_keys=[b"secret"])
    assert open_catalog(sealed, key="_catalog/1", signing_keys=[b"secret"]) == catalog
    with pytest.raises(EntryFormatError, match="not signed by any of the keys"):
        open_catalog(sealed, key="_catalog/1", signing_keys=[b"other"])


# What a round costs and writes


def test_a_round_with_nothing_to_do_is_three_requests(
    host: Host, bucket: Bucket
) -> None:
    some_rows()
    keep(host)
    with bucket.requests() as seen:
        keep(host)
    assert sorted(seen) == ["GET catalog", "GET head", "LIST log"]


def test_a_few_entries_are_not_packed(host: Host, bucket: Bucket) -> None:
    Author.objects.create(name="Ann")
    assert keep(host, KeeperOptions()).packs_written == 0
    assert packs(bucket) == set()


def test_a_pack_that_nothing_has_touched_stays(host: Host, bucket: Bucket) -> None:
    Member.objects.bulk_create(Member(name="x" * 40) for _ in range(4000))
    options = replace(PACK, target=64 * 1024)
    keep(host, options)
    before = packs(bucket)
    assert len(before) > 4
    Member.objects.filter(pk=Member.objects.earliest("pk").pk).update(name="y")
    kept = keep(host, options)
    assert kept.packs_written == 1
    assert len(packs(bucket) - before) == 1
    assert before <= packs(bucket)  # for readers of the catalog before


def test_rows_that_changed_and_changed_back_are_not_written_again(
    host: Host,
) -> None:
    some_rows()
    keep(host)
    Author.objects.update(name="Bob")
    Author.objects.update(name="Ann")
    kept = keep(host)
    assert kept.catalog == host.position
    assert kept.packs_written == 0


def test_packs_of_a_table_that_grows_are_cut(
    host: Host, hosts: MakeHost, bucket: Bucket
) -> None:
    options = replace(PACK, target=32 * 1024)
    for _ in range(4):
        Member.objects.bulk_create(Member(name="x" * 40) for _ in range(500))
        keep(host, options)
    sizes = [pack.raw_size for pack in catalog_of(bucket).packs]
    assert max(sizes) <= 2.5 * options.target
    assert hosts("new").dump() == host.dump()


def test_a_table_that_is_made_or_dropped(host: Host, hosts: MakeHost) -> None:
    some_rows()
    keep(host)
    host.sql("CREATE TABLE extra (id INTEGER PRIMARY KEY, name TEXT)")
    host.sql("INSERT INTO extra (name) VALUES ('one')")
    keep(host)
    first = hosts("first")
    assert first.dump() == host.dump()
    host.sql("DROP TABLE extra")
    keep(host, AT_ONCE)
    second = hosts("second")
    assert second.dump() == host.dump()
    assert "extra" not in second.dump()


def test_old_packs_and_catalogs_go_after_their_time(host: Host, bucket: Bucket) -> None:
    some_rows()
    keep(host)
    Author.objects.create(name="Bob")
    kept = keep(host)
    assert kept.waiting == 2  # a pack and a catalog
    assert len(packs(bucket)) == 2
    keep(host, replace(PACK, grace=0.0))
    assert packs(bucket) == {pack.key for pack in catalog_of(bucket).packs}
    assert keys_below(bucket, "_catalog/") == {head_of(bucket).catalog}


def test_a_dry_run_writes_nothing(host: Host, bucket: Bucket) -> None:
    some_rows()
    with bucket.requests() as seen:
        kept = keep(host, replace(AT_ONCE, dry_run=True))
    assert set(seen) == {"GET head", "LIST log"}
    assert kept.packs_written == 1
    assert kept.deleted == host.position


def test_no_copy_of_the_replica_is_left(host: Host) -> None:
    path = host.connection.replica.path
    left = path.with_name(f"{path.name}-keeper-0123abcd")
    left.touch()
    some_rows()
    keep(host)
    assert list(path.parent.glob(f"{path.name}-keeper-*")) == []


def test_one_process_of_a_host_keeps(host: Host) -> None:
    with (
        host.connection.replica.side.keeping.held(1.0),
        pytest.raises(OperationalError, match="another process keeps"),
    ):
        keep(host)


# Keepers among each other


def test_a_lease_is_respected_until_it_is_old(host: Host, bucket: Bucket) -> None:
    some_rows()
    answer = bucket.store.get(HEAD)
    head = msgspec.structs.replace(decode_head(answer.body), keeper="another")
    bucket.store.put(HEAD, encode_head(head), if_match=answer.etag)
    assert keep(host).busy
    kept = keep(host, replace(PACK, lease=0.0))
    assert not kept.busy
    assert head_of(bucket).keeper == ""


def test_who_loses_the_lease_changes_nothing(
    host: Host, hosts: MakeHost, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another one takes over while this one stores its catalog."""
    some_rows()
    other = hosts("other")
    other.catch_up()
    store = rounds.store
    told: list[Kept] = []

    def store_and_sleep(key, body):
        etag = yield from store(key, body)
        if key.startswith("_catalog") and not told:
            told.append(Kept())
            told[0] = keep(other, replace(AT_ONCE, lease=0.0))
        return etag

    monkeypatch.setattr(rounds, "store", store_and_sleep)
    mine = keep(host)
    assert mine.busy
    assert mine.deleted == 0
    assert not told[0].busy
    # What the sleeper left is deleted, and what the other one wrote is whole.
    Author.objects.create(name="Zoe")
    keep(other, AT_ONCE)
    assert packs(bucket) == {pack.key for pack in catalog_of(bucket).packs}
    host.catch_up()
    assert hosts("new").dump() == host.dump()


def test_a_lease_is_given_back_when_the_store_fails(
    host: Host, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    some_rows()

    def store(key, body):
        raise StoreUnavailable("no answer")
        yield

    with monkeypatch.context() as patched, pytest.raises(OperationalError):
        patched.setattr(rounds, "store", store)
        keep(host)
    assert head_of(bucket).keeper == ""
    assert keep(host).packs_written == 1


def test_a_replica_that_is_behind_packs_nothing(host: Host, hosts: MakeHost) -> None:
    behind = hosts("behind")
    behind.catch_up()
    some_rows()
    first = keep(host)
    again = keep(behind)
    assert again.catalog == first.catalog
    assert again.packs_written == 0


# Damage


def test_a_pack_that_is_missing_is_told_and_written_anew(
    host: Host, hosts: MakeHost, bucket: Bucket
) -> None:
    some_rows()
    keep(host, AT_ONCE)
    (key,) = packs(bucket)
    bucket.store.delete(key)
    with pytest.raises(LogDiverged, match=rf"{key} is missing, and a new replica"):
        hosts("new").catch_up()
    Author.objects.create(name="Bob")
    kept = keep(host)
    assert (kept.lost, kept.packs_written) == (1, 1)
    assert hosts("newer").dump() == host.dump()


@pytest.mark.parametrize("damage", ["truncated", "altered"])
def test_a_damaged_pack_is_never_used_and_written_anew(
    host: Host, hosts: MakeHost, bucket: Bucket, damage: str
) -> None:
    some_rows()
    keep(host, AT_ONCE)
    (key,) = packs(bucket)
    body = bucket.store.get(key).body
    altered = body[:-1] + bytes([body[-1] ^ 1])
    bucket.store.put(key, body[:-1] if damage == "truncated" else altered)
    with pytest.raises(EntryFormatError, match=rf"{key} is damaged: "):
        hosts("new").catch_up()
    Author.objects.create(name="Bob")
    kept = keep(host)
    assert (kept.lost, kept.packs_written) == (1, 1)
    assert hosts("newer").dump() == host.dump()


def test_a_catalog_that_is_damaged_is_replaced(
    host: Host, hosts: MakeHost, bucket: Bucket
) -> None:
    some_rows()
    keep(host, AT_ONCE)
    bucket.store.put(head_of(bucket).catalog, b"nothing of the kind")
    with pytest.raises(EntryFormatError, match="_catalog/"):
        hosts("new").catch_up()
    assert keep(host).packs_written == 1
    assert hosts("newer").dump() == host.dump()


def test_what_a_newer_release_wrote_is_left_alone(host: Host, bucket: Bucket) -> None:
    some_rows()
    keep(host)
    key = head_of(bucket).catalog
    newer = msgspec.structs.replace(catalog_of(bucket), format=2)
    bucket.store.put(key, seal_catalog(newer, key=key))
    with pytest.raises(EntryFormatError, match="upgrade this host"):
        keep(host, AT_ONCE)


def test_a_pack_can_be_opened_with_sqlite(
    host: Host, bucket: Bucket, tmp_path: object
) -> None:
    Author.objects.create(name="Ann")
    keep(host)
    (pack,) = catalog_of(bucket).packs
    raw = decompress(pack, bucket.store.get(pack.key).body)
    opened = sqlite3.connect(":memory:")
    opened.deserialize(raw)
    assert opened.execute("SELECT name FROM library_author").fetchall() == [("Ann",)]
    opened.close()
