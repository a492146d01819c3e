"""Creating the database that replicas are made of."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime

import msgspec

from s3cache.exceptions import LogDiverged
from s3cache.log.catalog import Catalog, seal_catalog
from s3cache.log.entry import seal_end
from s3cache.log.head import Head, encode_head
from s3cache.log.keys import HEAD, LOG, catalog_key, entry_key, entry_number
from s3cache.stores.base import Answer, Store
from s3cache.stores.failures import failure
from s3cache.stores.probe import probe

__all__ = ["create_database", "create_in_place_of_dropped"]


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


def create_in_place_of_dropped(store: Store, signing_keys: Sequence[bytes]) -> None:
    """Create an empty database where another one was dropped, if it was.

    Its log goes on from the other one's end. A host that has not noticed yet
    could else create entries that are still to come; and a log with somebody
    else's entry in it cannot be followed.
    """
    last = _last_of_log(store)
    if not last or store.get(entry_key(last)).body != seal_end(""):
        return
    database, token = secrets.token_hex(8), secrets.token_hex(16)
    key = catalog_key(last, token)
    empty = Catalog(
        database=database,
        number=last,
        token=token,
        etag="",
        modified=0.0,
        schema=[],
        sequences={},
        packs=[],
    )
    body = seal_catalog(empty, key=key, signing_keys=signing_keys)
    _check(store.put(key, body, if_none_match=True), key, store)
    _create_head(store, Head(database=database, trimmed=last, catalog=key))


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


def _create_head(store: Store, head: Head) -> None:
    made = msgspec.structs.replace(
        head,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        probe=asdict(probe(store)),
    )
    # 412: another host was first, and its database is as good.
    answer = store.put(HEAD, encode_head(made), if_none_match=True)
    if answer.status != 412:
        _check(answer, HEAD, store)


def _check(answer: Answer, key: str, store: Store) -> None:
    if answer.status != 200:
        raise failure(answer, f"create {key}", store=store.name)
