"""``kill -9`` of a keeper after any of its requests."""

from __future__ import annotations

from pathlib import Path

import pytest
from django.db import connections

from s3cache.db.base import DatabaseWrapper
from s3cache.keeper.rounds import KeeperOptions
from s3cache.keeper.run import keep_now
from s3cache.log.catalog import open_catalog
from s3cache.log.head import decode_head
from s3cache.log.keys import HEAD
from tests.db.hosts import MakeProcess, killed_after
from tests.engine import Bucket, Host, MakeHost
from tests.library.models import Author, Member

#: It takes the lease at once, and leaves nothing for later.
AT_ONCE = KeeperOptions(pack_after=1, lease=0.0, retain=0.0, grace=0.0)


def keep_until(last: int) -> None:
    """Do a round, and be killed after so many requests."""
    connection = connections["default"]
    assert isinstance(connection, DatabaseWrapper)
    connection.catch_up()
    with killed_after(last):
        keep_now(connection.replica, AT_ONCE)


@pytest.mark.parametrize("last", [3, 8, 10, 12, 14, 15, 16])
def test_nothing_is_lost_and_nothing_is_left(
    host: Host,
    hosts: MakeHost,
    processes: MakeProcess,
    bucket: Bucket,
    tmp_path: Path,
    last: int,
) -> None:
    Member.objects.bulk_create(Member(name="x") for _ in range(100))
    processes("before").call(keep_until, 0)
    Author.objects.create(name="Ann")
    Member.objects.filter(pk__lt=50).delete()
    process = processes("killed")
    process.start(keep_until, last)
    with pytest.raises((EOFError, ConnectionResetError)):
        process.result()
    host.catch_up()
    assert hosts("meanwhile").dump() == host.dump()
    Author.objects.create(name="Bob")
    # The next keeper on that machine cleans up, without being told.
    processes("killed").call(keep_until, 0)
    head = decode_head(bucket.store.get(HEAD).body)
    catalog = open_catalog(bucket.store.get(head.catalog).body, key=head.catalog)
    assert head.keeper == ""
    left = [one.key for one in bucket.store.list("").keys]
    assert sorted(key for key in left if not key.startswith("_probe")) == sorted(
        [HEAD, head.catalog, *(pack.key for pack in catalog.packs)]
    )
    assert list(tmp_path.glob("*-keeper-*")) == []
    host.catch_up()
    assert hosts("afterwards").dump() == host.dump()
