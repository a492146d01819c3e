"""
Which entry goes next: each policy against a model that is a few lines long.

The limit of bytes is watched at every assignment, also inside of operations.
"""

from __future__ import annotations

import random
import secrets
import threading
from collections import OrderedDict
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from s3cache.caches import MemoryCache
from s3cache.caches.policies import MOST_USES, S3FIFO
from s3cache.caches.shelf import ENTRY_BYTES, Shelf
from tests.forks import in_child

LIMIT = 12_000


class Watched(Shelf):
    """A shelf whose weight may never be above its limit, nor below 0."""

    @property
    def weight(self) -> int:
        return self._weight

    @weight.setter
    def weight(self, value: int) -> None:
        if not 0 <= value <= (self.limits.bytes or value):
            raise AssertionError(f"{value} bytes in a cache of {self.limits.bytes}")
        self._weight = value


def watched(policy: str, **options: Any) -> MemoryCache:
    options = {"policy": policy, "MAX_ENTRIES": None, **options}
    cache = MemoryCache(secrets.token_hex(8), {"OPTIONS": options, "TIMEOUT": None})
    shelf = cache._shelf
    del shelf.__dict__["weight"]
    shelf.__class__ = Watched
    shelf.weight = 0
    return cache


def check(cache: MemoryCache) -> None:
    """What holds whenever nobody is changing the shelf."""
    shelf = cache._shelf
    queues = shelf.policy.queues()
    queued = [node for queue in queues for node in queue]
    assert shelf.weight == sum(entry.weight for entry in shelf.entries.values())
    assert sorted(map(id, queued)) == sorted(map(id, shelf.entries.values()))
    for queue in queues:
        assert queue.count == len(list(queue))
        assert queue.size == sum(node.size for node in queue)
        assert all(node.queue is queue for node in queue)
    if isinstance(shelf.policy, S3FIFO):
        assert all(0 <= node.uses <= MOST_USES for node in queued)
        assert not any(key in shelf.policy.ghosts for key in shelf.entries)
        assert len(shelf.policy.ghosts) <= most_entries(cache)


def most_entries(cache: MemoryCache) -> int:
    return cache._shelf.limits.entries or LIMIT // ENTRY_BYTES


def weight_of(cache: MemoryCache, key: str) -> int:
    return cache._entries[cache.make_key(key)].weight


KEYS = st.sampled_from([f"key{number}" for number in range(12)])


class Model(RuleBasedStateMachine):
    """
    A cache bounded by bytes, and what its policy's model holds.

    ``order`` has the keys from the first to go to the last.
    """

    policy: str

    @initialize()
    def begin(self) -> None:
        self.cache = watched(self.policy, max_memory_bytes=LIMIT)
        self.order: OrderedDict[str, tuple[bytes, int]] = OrderedDict()

    def used(self, key: str) -> None:
        """What a hit does to the order."""

    @rule(key=KEYS, size=st.integers(0, 3000))
    def write(self, key: str, size: int) -> None:
        value = bytes(size)
        self.cache.set(key, value)
        fits = self.cache.has_key(key)
        weight = weight_of(self.cache, key) if fits else LIMIT + 1
        self.make_room(key, weight)
        self.order.pop(key, None)
        if fits:
            self.order[key] = value, weight

    def make_room(self, key: str, weight: int) -> None:
        if weight > LIMIT:
            return

        def total() -> int:
            return sum(one for name, (_, one) in self.order.items() if name != key)

        while total() + weight > LIMIT:
            self.order.popitem(last=False)

    @rule(key=KEYS)
    def read(self, key: str) -> None:
        expected = self.order.get(key, (None, 0))[0]
        assert self.cache.get(key) == expected
        if expected is not None:
            self.used(key)

    @rule(key=KEYS)
    def delete(self, key: str) -> None:
        before = self.cache._shelf.weight
        assert self.cache.delete(key) == (key in self.order)
        _, weight = self.order.pop(key, (b"", 0))
        assert self.cache._shelf.weight == before - weight

    @rule(key=KEYS)
    def add(self, key: str) -> None:
        if self.cache.add(key, b"added"):
            assert key not in self.order
            weight = weight_of(self.cache, key)
            self.make_room(key, weight)
            self.order[key] = b"added", weight
        else:
            assert key in self.order

    @rule(key=KEYS)
    def refuse_what_is_too_large(self, key: str) -> None:
        self.cache.set(key, bytes(LIMIT))
        self.order.pop(key, None)

    @precondition(lambda self: len(self.order) > 3)
    @rule()
    def clear(self) -> None:
        self.cache.clear()
        self.order.clear()
        assert self.cache._shelf.weight == 0

    @invariant()
    def holds(self) -> None:
        if not hasattr(self, "cache"):
            return
        check(self.cache)
        self.compare()

    def compare(self) -> None:
        (queue,) = self.cache._shelf.policy.queues()
        queued = [self.cache._named(str(node.key)) for node in queue]
        assert queued == list(self.order)

    def teardown(self) -> None:
        if hasattr(self, "cache"):
            self.cache.clear()


class FIFOModel(Model):
    policy = "fifo"


class LRUModel(Model):
    policy = "lru"

    def used(self, key: str) -> None:
        self.order.move_to_end(key)


class S3FIFOModel(RuleBasedStateMachine):
    """Entries of one size, against the algorithm as the paper states it."""

    most = 8

    @initialize()
    def begin(self) -> None:
        self.cache = watched("s3fifo", MAX_ENTRIES=self.most)
        self.small: list[str] = []
        self.main: list[str] = []
        # As many as there were entries; None: it has come back.
        self.ghosts: list[str | None] = []
        self.uses: dict[str, int] = {}

    @rule(key=KEYS)
    def write(self, key: str) -> None:
        self.cache.set(key, b"x")
        if key in self.uses:
            queue = self.small if key in self.small else self.main
            queue.remove(key)
            queue.append(key)
            self.uses[key] = min(3, self.uses[key] + 1)
            return
        while len(self.uses) >= self.most:
            self.evict()
        (self.main if key in self.ghosts else self.small).append(key)
        self.ghosts = [None if ghost == key else ghost for ghost in self.ghosts]
        self.uses[key] = 0

    def evict(self) -> None:
        while True:
            if self.small and (
                not self.main or len(self.small) >= 0.1 * len(self.uses)
            ):
                key = self.small.pop(0)
                if self.uses[key] >= 2:
                    self.uses[key] = 0
                    self.main.append(key)
                    continue
                self.ghosts.append(key)
                del self.ghosts[: -len(self.uses) + 1]
            else:
                key = self.main.pop(0)
                if self.uses[key]:
                    self.uses[key] -= 1
                    self.main.append(key)
                    continue
            del self.uses[key]
            return

    @rule(key=KEYS)
    def read(self, key: str) -> None:
        assert (self.cache.get(key) is not None) == (key in self.uses)
        if key in self.uses:
            self.uses[key] = min(3, self.uses[key] + 1)

    @rule(key=KEYS)
    def delete(self, key: str) -> None:
        assert self.cache.delete(key) == (key in self.uses)
        if key in self.uses:
            (self.small if key in self.small else self.main).remove(key)
            del self.uses[key]

    @invariant()
    def holds(self) -> None:
        if not hasattr(self, "cache"):
            return
        check(self.cache)
        policy = self.cache._shelf.policy
        assert isinstance(policy, S3FIFO)
        for queue, model in ((policy.small, self.small), (policy.main, self.main)):
            assert [self.cache._named(str(node.key)) for node in queue] == model
        for number in range(12):
            key = f"key{number}"
            assert (self.cache.make_key(key) in policy.ghosts) == (key in self.ghosts)

    def teardown(self) -> None:
        if hasattr(self, "cache"):
            self.cache.clear()


STEPS = settings(max_examples=30, stateful_step_count=40)
TestFIFO = FIFOModel.TestCase
TestLRU = LRUModel.TestCase
TestS3FIFO = S3FIFOModel.TestCase
TestFIFO.settings = TestLRU.settings = TestS3FIFO.settings = STEPS


def churn(cache: MemoryCache, seed: int, rounds: int) -> None:
    numbers = random.Random(seed)
    for _ in range(rounds):
        key = f"key{int(numbers.paretovariate(1)) % 60}"
        action = numbers.random()
        if action < 0.5:
            cache.get(key)
        elif action < 0.9:
            cache.set(key, bytes(numbers.randrange(2000)))
        elif action < 0.95:
            cache.delete(key)
        else:
            cache.add(key, 1)


@pytest.mark.parametrize("policy", ["s3fifo", "lru", "fifo"])
def test_the_limit_holds_with_eight_threads_and_in_their_children(policy: str) -> None:
    cache = watched(policy, max_memory_bytes=LIMIT)
    errors: list[BaseException] = []

    def work(seed: int) -> None:
        try:
            churn(cache, seed, 1500)
        except BaseException as error:
            errors.append(error)

    def as_a_child() -> bool:
        check(cache)
        churn(cache, 99, 200)
        check(cache)
        return True

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    children = [in_child(as_a_child) for _ in range(3)]
    for thread in threads:
        thread.join()
    assert errors == []
    assert children == [True] * 3
    check(cache)
    cache.clear()
    assert cache._shelf.weight == 0
