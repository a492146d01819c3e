"""The bucket stays small, whatever is written into it."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from s3cache.db import base
from s3cache.keeper.rounds import DAY, KeeperOptions
from s3cache.keeper.run import keep_now
from s3cache.stores import DirectoryStore, directory
from tests.engine import Bucket, Host, MakeHost
from tests.library.models import Author

#: A round is done so often in a day, and so many commits come before it.
ROUNDS = 24
COMMITS = 8

#: Rows that live, those that a commit changes, and bytes of each.
ROWS = 2000
CHANGED = 10
LONG = 300


class Clock:
    """The store's time, which passes as the test says."""

    def __init__(self) -> None:
        self.now = time.time()

    def time(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    clock = Clock()
    put = DirectoryStore._put

    def put_now(self: DirectoryStore, key: str, *args: Any) -> Any:
        answer = put(self, key, *args)
        if answer.ok:
            os.utime(self._path(key), (clock.now, clock.now))
        return answer

    monkeypatch.setattr(base, "keep_after", lambda replica, number: None)
    monkeypatch.setattr(DirectoryStore, "_put", put_now)
    monkeypatch.setattr(directory, "time", SimpleNamespace(time=clock.time))
    yield clock


def size(bucket: Bucket) -> int:
    """Bytes of all objects."""
    return sum(one.size for one in bucket.store.list("").keys)


def name(dice: random.Random) -> str:
    """What no compression makes smaller than half."""
    return dice.randbytes(LONG // 2).hex()


@pytest.mark.slow
@pytest.mark.parametrize("bucket", ["directory"], indirect=True)
def test_a_day_of_churn_leaves_less_than_three_times_the_rows(
    host: Host, hosts: MakeHost, bucket: Bucket, clock: Clock
) -> None:
    """Each row is changed about once in a day, and packed 24 times."""
    dice = random.Random(1)
    Author.objects.bulk_create(Author(name=name(dice)) for _ in range(ROWS))
    options = KeeperOptions(pack_after=1, target=64 * 1024)
    sizes = []
    for _round in range(2 * ROUNDS):
        for _commit in range(COMMITS):
            some = dice.sample(range(ROWS), CHANGED)
            rows = list(Author.objects.order_by("pk").filter(pk__in=some))
            for row in rows:
                row.name = name(dice)
            Author.objects.bulk_update(rows, ["name"])
        clock.now += DAY / ROUNDS
        keep_now(host.connection.replica, options)
        sizes.append(size(bucket))
    live = ROWS * LONG
    assert max(sizes[ROUNDS:]) < 3 * live
    # A day without commits later nothing but the rows is left.
    clock.now += DAY + 1
    keep_now(host.connection.replica, options)
    clock.now += DAY + 1
    keep_now(host.connection.replica, options)
    assert size(bucket) < live
    assert hosts("new").dump() == host.dump()
