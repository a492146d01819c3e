"""Creating the database that replicas are made of."""

from __future__ import annotations

import secrets
from dataclasses import asdict
from datetime import UTC, datetime

import msgspec

from s3cache.exceptions import LogDiverged
from s3cache.log.entry import seal_end
from s3cache.log.head import Head, encode_head
from s3cache.log.keys import HEAD, LOG, entry_key, entry_number
from s3cache.stores.base import Store
from s3cache.stores.failures import failure
from s3cache.stores.probe import probe

__all__ = ["create_database", "described"]


def create_database(store: Store) -> None:
    """Create ``_head`` in an empty location, unless it is there by now.

    Raises ``LogDiverged`` if there is anything of a log.
    """
    last = _last_of_log(store)
    if last and store.get(entry_key(last)).body == seal_end(""):
        raise LogDiverged(
            f"The database in {store.name} was dropped. (`tenants.create()` makes "
            f"another one there.)"
        )
    if last is not None:
        raise LogDiverged(
            f"{store.name} has a log but no {HEAD}: it was deleted, or the "
            f"location is another one. Restore {HEAD} from a version or a backup."
        )
    _create_head(store, Head(database=secrets.token_hex(8)))


def _last_of_log(store: Store) -> int | None:
    """The number of the log's last entry, 0 if none; None: it is empty."""
    last, after = None, ""
    while True:
        page = store.list(LOG, start_after=after)
        if page.status != 200:
            raise failure(page, "list its log", store=store.name)
        for one in page.keys:
            last, after = max(last or 0, entry_number(one.key) or 0), one.key
        if not page.more:
            return last


def described(head: Head, store: Store) -> Head:
    """``head`` of a database that is made now, with what the store honours."""
    return msgspec.structs.replace(
        head,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        probe=asdict(probe(store)),
    )


def _create_head(store: Store, head: Head) -> None:
    answer = store.put(HEAD, encode_head(described(head, store)), if_none_match=True)
    # 412: another host was first, and its database is as good.
    if answer.status not in (200, 412):
        raise failure(answer, f"create {HEAD}", store=store.name)
