"""The same rows as objects, one for each, and a page that reads them there.

So do databases in a bucket that have neither a replica nor a cache: they list
what there is to count it, and get each row that they show.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

from s3cache.stores import Store, store_for

PREFIX = "objects/"
SHOWN = 10


@cache
def _threads() -> ThreadPoolExecutor:
    # Those of a worker, which asks for what it shows all at once.
    return ThreadPoolExecutor(SHOWN)


def write(rows: Iterable[dict[str, Any]]) -> None:
    """Put each row, by its key."""
    store = store_for("bucket")

    def put(row: dict[str, Any]) -> None:
        store.put(f"{PREFIX}{row['id']:08}.json", json.dumps(row).encode())

    list(_threads().map(put, rows))


def read() -> dict[str, Any]:
    """How many there are, and the first ten."""
    store = store_for("bucket")
    keys = [one.key for one in store.list(PREFIX, limit=SHOWN).keys]
    answers = _threads().map(store.get, keys)
    return {
        "count": _count(store),
        "first": [json.loads(answer.body) for answer in answers],
    }


def _count(store: Store) -> int:
    count, last, more = 0, "", True
    while more:
        answer = store.list(PREFIX, start_after=last)
        count += len(answer.keys)
        last, more = answer.keys[-1].key if answer.keys else "", answer.more
    return count
