"""A cache in memory: limits that hold, values that nobody shares."""

from __future__ import annotations

import asyncio
import datetime as dt
import random
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from django.core.cache.backends.base import CacheKeyWarning
from django.core.exceptions import ImproperlyConfigured
from hypothesis import given, settings
from hypothesis import strategies as st

from s3cache.caches import MemoryCache
from s3cache.caches.errors import NotSerializable
from s3cache.caches.machine import Machine
from s3cache.caches.shelf import ENTRY_BYTES
from tests.caches.conftest import Clock, MakeMemory
from tests.forks import in_child

POLICIES = ["s3fifo", "lru", "fifo"]


# Values


@pytest.mark.parametrize("value", [0, "", [], {}, False, None, b""], ids=repr)
def test_empty_values_are_values(make_memory: MakeMemory, value: Any) -> None:
    cache = make_memory()
    cache.set("key", value)
    assert cache.get("key", "absent") == value
    assert type(cache.get("key", "absent")) is type(value)
    assert cache.has_key("key")


def test_an_immutable_value_is_kept_as_it_is(make_memory: MakeMemory) -> None:
    cache = make_memory()
    row = (1, "a" * 100, b"b", 2.5, None, dt.date(2026, 1, 1), ("nested",))
    cache.set("row", row)
    assert cache.get("row") is row


@pytest.mark.parametrize(
    "value", [[1, 2], {"a": 1}, {1, 2}, {"a": [1]}, [(1, [2])]], ids=repr
)
def test_callers_never_share_what_can_change(
    make_memory: MakeMemory, value: Any
) -> None:
    cache = make_memory()
    before = repr(value)
    cache.set("key", value)
    value.clear()
    first, second = cache.get("key"), cache.get("key")
    assert repr(first) == before
    first.clear()
    assert repr(second) == repr(cache.get("key")) == before


def test_what_cannot_be_serialized_is_refused_and_the_old_value_stays(
    make_memory: MakeMemory,
) -> None:
    cache = make_memory()
    cache.set("key", 1)
    with pytest.raises(NotSerializable):
        cache.set("key", object())
    assert cache.get("key") == 1


@pytest.mark.parametrize("compression", ["zstd", "gzip"])
def test_compression_makes_room_for_more(
    make_memory: MakeMemory, compression: str
) -> None:
    value = [{"name": f"product {number}", "stock": 3} for number in range(100)]
    weights = []
    for options in ({}, {"compression": compression}):
        cache = make_memory(max_memory_bytes=10**6, **options)
        cache.set("key", value)
        assert cache.get("key") == value
        weights.append(cache._shelf.weight)
    assert weights[1] < weights[0] / 3


def test_small_values_are_not_compressed(make_memory: MakeMemory) -> None:
    cache = make_memory(compression="zstd", compression_threshold=1024)
    row = (1, "short")
    cache.set("key", row)
    assert cache.get("key") is row


class Fragile:
    """A serializer that cannot read what it wrote."""

    def dumps(self, value: Any) -> bytes:
        return b"bytes"

    def loads(self, data: bytes) -> Any:
        raise ValueError("not a value")


def test_what_cannot_be_read_is_a_counted_miss(make_memory: MakeMemory) -> None:
    cache = make_memory(serializer=f"{__name__}.Fragile")
    cache.set("key", [[1]])
    assert cache.get("key", "absent") == "absent"
    assert cache.get_with_metadata("key") is None
    assert cache.stats()["undecodable"] == 1
    assert cache.stats()["size"] == 0


# keep and peek


def test_keep_and_peek_hand_out_the_object_itself(make_memory: MakeMemory) -> None:
    cache = make_memory(max_memory_bytes=10_000)
    value = object()
    assert cache.keep(("shop.product", 7), value, weight=100)
    assert cache.peek(("shop.product", 7)) is value
    assert cache.peek(("shop.product", 8), "absent") == "absent"
    assert (cache.stats()["hits"], cache.stats()["misses"]) == (1, 1)
    assert cache.drop(("shop.product", 7))
    assert cache.stats()["memory_usage_bytes"] == 0


def test_keep_weighs_immutable_values_and_no_others(make_memory: MakeMemory) -> None:
    cache = make_memory()
    cache.keep("rows", ((1, "a"), (2, "b")))
    with pytest.raises(TypeError, match="cannot weigh a list: pass weight="):
        cache.keep("rows", [1])


def test_what_is_kept_expires(make_memory: MakeMemory, clock: Clock) -> None:
    cache = make_memory()
    cache.keep("key", 1, 10)
    clock.advance(10)
    assert cache.peek("key") is None


# Limits


actions = st.lists(
    st.tuples(
        st.sampled_from(["set", "set", "set", "get", "delete", "add", "keep"]),
        st.integers(0, 30),
        st.integers(0, 3000),
    ),
    max_size=150,
)


@pytest.mark.parametrize("policy", POLICIES)
@given(actions=actions)
@settings(max_examples=40)
def test_the_limit_holds_at_every_moment(
    policy: str, actions: list[tuple[str, int, int]]
) -> None:
    limit = 10_000
    cache = MemoryCache(
        f"limit-{policy}", {"OPTIONS": {"max_memory_bytes": limit, "policy": policy}}
    )
    cache.clear()
    shelf = cache._shelf
    values: dict[str, bytes] = {}
    for action, number, size in actions:
        key, value = f"key{number}", number.to_bytes(1, "big") * size
        if action == "set":
            cache.set(key, value)
            values[key] = value
        elif action == "add":
            if cache.add(key, value):
                values[key] = value
        elif action == "keep":
            cache.keep((key,), value)
        elif action == "delete":
            cache.delete(key)
            values.pop(key, None)
        else:
            assert cache.get(key, values.get(key)) == values.get(key)
        queued = [node for queue in shelf.policy.queues() for node in queue]
        assert shelf.weight <= limit
        assert shelf.weight == sum(entry.weight for entry in shelf.entries.values())
        assert sorted(map(id, queued)) == sorted(map(id, shelf.entries.values()))
    cache.clear()
    assert shelf.weight == 0


def test_an_entry_above_the_limit_is_not_stored_and_is_counted(
    make_memory: MakeMemory,
) -> None:
    cache = make_memory(max_memory_bytes=5000)
    cache.set("key", "old")
    cache.set("key", b"x" * 5000)
    assert cache.get("key") is None
    assert cache.stats()["rejected"] == 1
    assert cache.stats()["memory_usage_bytes"] == 0


def test_an_entry_above_its_own_limit_is_not_stored(make_memory: MakeMemory) -> None:
    cache = make_memory(max_entry_bytes=2000)
    cache.set("large", b"x" * 2000)
    cache.set("small", b"x" * 1000)
    assert cache.get_many(["large", "small"]) == {"small": b"x" * 1000}


def test_overwriting_frees_the_old_bytes(make_memory: MakeMemory) -> None:
    cache = make_memory(max_memory_bytes=100_000)
    cache.set("key", b"x" * 50_000)
    cache.set("key", b"x")
    assert cache._shelf.weight < ENTRY_BYTES + 200


def test_a_thousand_entries_unless_a_limit_is_given(make_memory: MakeMemory) -> None:
    assert make_memory().stats()["max_size"] == 1000
    assert make_memory(MAX_ENTRIES=None).stats()["max_size"] is None
    assert make_memory(max_memory_bytes=10**6).stats()["max_size"] is None
    assert make_memory(max_memory_bytes=10**6, MAX_ENTRIES=7).stats()["max_size"] == 7


@pytest.mark.parametrize("policy", POLICIES)
def test_only_as_many_are_evicted_as_is_needed(
    make_memory: MakeMemory, policy: str
) -> None:
    cache = make_memory(MAX_ENTRIES=10, policy=policy)
    for number in range(15):
        cache.set(f"key{number}", number, None)
    assert cache.stats()["size"] == 10
    assert cache.stats()["evictions"] == 5
    assert cache.stats()["evicted_due_to_memory"] == 0


def test_evictions_due_to_memory_are_counted(make_memory: MakeMemory) -> None:
    cache = make_memory(max_memory_bytes=10_000)
    for number in range(20):
        cache.set(f"key{number}", b"x" * 1000)
    stats, memory = cache.stats(), cache.memory_stats()
    assert len(cache.keys()) + stats["evictions"] == 20
    assert memory["evicted_due_to_memory"] == stats["evictions"] > 0
    assert memory["memory_usage"]["max_text"] == "9.8 KB"
    assert memory["total_items"] == stats["size"]
    assert memory["average_item_size"] > 1000
    assert (memory["process_memory"] or 0) > 10**6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_memory_percent": 0.1}, "did you mean 10?"),
        ({"max_memory_percent": 101}, "a percentage, above 0 and up to 100"),
        ({"max_memory_percent": 5e8}, "a number of bytes is 'max_memory_bytes'"),
        ({"max_memory_percent": 5, "max_memory_bytes": 9}, "have both"),
        ({"max_memory": 5}, "unknown 'max_memory'"),
        ({"policy": "mru"}, "one of 's3fifo', 'lru', 'fifo'"),
        ({"compression": "lzma"}, "None, 'zstd' or 'gzip'"),
        ({"MAX_ENTRIES": -1}, "a whole number, 0 or more"),
    ],
)
def test_wrong_options_are_refused(
    make_memory: MakeMemory, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ImproperlyConfigured) as caught:
        make_memory(**options)
    assert message in str(caught.value)
    assert "s3cache.caches.MemoryCache" in str(caught.value)


# Policies


def test_fifo_forgets_what_was_written_first(make_memory: MakeMemory) -> None:
    cache = make_memory(MAX_ENTRIES=3, policy="fifo")
    for key in "abc":
        cache.set(key, key)
    cache.get("a")
    cache.set("d", "d")
    assert cache.keys() == ["b", "c", "d"]


def test_lru_forgets_what_was_not_used(make_memory: MakeMemory) -> None:
    cache = make_memory(MAX_ENTRIES=3, policy="lru")
    for key in "abc":
        cache.set(key, key)
    cache.get("a")
    cache.set("d", "d")
    assert sorted(cache.keys()) == ["a", "c", "d"]


def test_s3fifo_survives_a_scan(make_memory: MakeMemory) -> None:
    cache = make_memory(MAX_ENTRIES=100, policy="s3fifo")
    hot = [f"hot{number}" for number in range(50)]
    for key in hot:
        cache.set(key, key)
        cache.get(key)
        cache.get(key)
    for number in range(1000):
        cache.set(f"scan{number}", number)
    assert len(cache.get_many(hot)) == 50


# Time


def test_entries_expire_and_are_counted(make_memory: MakeMemory, clock: Clock) -> None:
    cache = make_memory()
    cache.set("key", 1, 10)
    clock.advance(9.9)
    assert cache.get("key") == 1
    clock.advance(0.1)
    assert cache.get("key") is None
    assert cache.stats()["expired"] == 1
    assert cache.stats()["size"] == 0


def test_expired_entries_are_removed_by_ordinary_operations(
    make_memory: MakeMemory, clock: Clock
) -> None:
    cache = make_memory(cleanup_interval=60)
    for number in range(10):
        cache.set(f"key{number}", number, 5)
    clock.advance(60)
    cache.set("other", 1)
    assert cache.stats()["size"] == 1


def test_cleanup_can_be_off(make_memory: MakeMemory, clock: Clock) -> None:
    cache = make_memory(cleanup_interval=0)
    cache.set("key", 1, 5)
    clock.advance(1000)
    cache.set("other", 1)
    assert cache.stats()["size"] == 2
    assert cache.cleanup() == 1


def test_touch_moves_the_time(make_memory: MakeMemory, clock: Clock) -> None:
    cache = make_memory()
    cache.set("key", 1, 10)
    assert cache.touch("key", 100)
    clock.advance(50)
    assert cache.get("key") == 1
    assert not cache.touch("other", 100)


def test_jitter_spreads_expiry_and_never_extends_it(
    make_memory: MakeMemory, clock: Clock
) -> None:
    cache = make_memory(jitter=0.5)
    for number in range(100):
        cache.set(f"key{number}", number, 100)
    left = [entry.expires - clock() for entry in cache._entries.values()]  # type: ignore[operator]
    assert 50 <= min(left) < max(left) <= 100


def test_incr_keeps_the_time(make_memory: MakeMemory, clock: Clock) -> None:
    cache = make_memory()
    cache.set("key", 1, 10)
    assert cache.incr("key", 4) == 5
    clock.advance(10)
    assert cache.get("key") is None


# Keys


def test_keys_are_as_callers_wrote_them(make_memory: MakeMemory) -> None:
    cache = make_memory({"KEY_PREFIX": "shop"})
    cache.set("user:1", 1)
    cache.set("user:2", 1)
    cache.set("other", 1)
    cache.set("user:3", 1, version=2)
    assert sorted(cache.keys()) == ["other", "user:1", "user:2"]
    assert cache.keys("user:*", version=2) == ["user:3"]
    assert len(cache.keys("user:*", limit=1)) == 1


def test_delete_pattern(make_memory: MakeMemory) -> None:
    cache = make_memory()
    for key in ("a:1:x", "a:2:x", "a:1:y", "ba:1:x", "a.1.x"):
        cache.set(key, 1)
    assert cache.delete_pattern("a:*:x") == 2
    assert sorted(cache.keys()) == ["a.1.x", "a:1:y", "ba:1:x"]


def test_case_can_be_folded(make_memory: MakeMemory) -> None:
    cache = make_memory(case_sensitive=False)
    cache.set("Key", 1)
    assert cache.get("kEY") == 1
    assert make_memory().get("Key") is None


def test_a_hit_warns_of_a_key_too(make_memory: MakeMemory) -> None:
    cache = make_memory()
    for operation in (cache.get, lambda key: cache.set(key, 1), cache.get):
        with pytest.warns(CacheKeyWarning):
            operation("with space")


def test_aliases_share_entries_if_location_and_limits_are_the_same() -> None:
    one = MemoryCache("shared", {"OPTIONS": {}})
    two = MemoryCache("shared", {"OPTIONS": {}, "KEY_PREFIX": ""})
    other = MemoryCache("shared", {"OPTIONS": {"policy": "lru"}})
    one.set("key", 1)
    assert two.get("key") == 1
    assert other.get("key") is None
    one.clear()


# Statistics


def test_three_hits_and_a_miss_are_three_quarters(make_memory: MakeMemory) -> None:
    cache = make_memory()
    cache.set("key", 1)
    for key in ("key", "key", "other", "key"):
        cache.get(key)
    assert cache.stats()["hit_rate"] == 0.75
    cache.reset_stats()
    assert cache.stats()["hits"] == cache.stats()["misses"] == 0


def test_statistics_are_exact_with_many_threads(make_memory: MakeMemory) -> None:
    cache = make_memory(policy="lru", MAX_ENTRIES=50)
    errors: list[BaseException] = []

    def work(seed: int) -> None:
        numbers = random.Random(seed)
        try:
            for _ in range(1000):
                key = f"key{numbers.randrange(100)}"
                if (found := cache.get(key)) is None:
                    cache.set(key, [key])
                else:
                    assert found == [key]
        except BaseException as error:
            errors.append(error)

    # More than the number of cells after which finished threads are summed.
    for _ in range(10):
        threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert errors == []
    assert cache.stats()["hits"] + cache.stats()["misses"] == 80_000
    assert cache.stats()["size"] == 50


def _is_whole(cache: MemoryCache) -> bool:
    cache.set("mine", 1)
    shelf = cache._shelf
    weight = sum(entry.weight for entry in shelf.entries.values())
    return cache.get("mine") == 1 and shelf.weight == weight


def test_a_child_has_the_entries_and_its_locks_are_free(
    make_memory: MakeMemory,
) -> None:
    cache = make_memory(max_memory_bytes=100_000)
    cache.set("key", "value")
    stop = threading.Event()

    def write() -> None:
        number = 0
        while not stop.is_set():
            cache.set(f"key{number % 100}", b"x" * 100)
            number += 1
            time.sleep(0.0005)  # locks are not fair: the fork waits for this one

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(20):
            assert in_child(lambda: _is_whole(cache))
    finally:
        stop.set()
        writer.join()
    assert cache.get("mine") is None


def test_the_async_api_stays_on_the_loop(make_memory: MakeMemory) -> None:
    cache = make_memory()
    threads: set[int] = set()
    original = cache.get

    def get(*args: Any, **kwargs: Any) -> Any:
        threads.add(threading.get_ident())
        return original(*args, **kwargs)

    cache.get = get  # type: ignore[method-assign]

    async def use() -> None:
        await cache.aset("key", 1)
        assert await cache.aget("key") == 1
        assert await cache.aincr("key") == 2
        assert await cache.aget_many(["key"]) == {"key": 2}
        assert await cache.adelete_pattern("k*") == 1

    asyncio.run(use())
    assert threads == {threading.get_ident()}


# The machine


def group(root: Path, name: str, limit: str, used: int, inactive: int = 0) -> None:
    folder = root / "sys/fs/cgroup" / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.current").write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 1\ninactive_file {inactive}\n")


def machine(root: Path, cgroup: str) -> Machine:
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(cgroup)
    (root / "proc/meminfo").write_text(
        "MemTotal:  1000 kB\nMemAvailable:  750 kB\nHugePages_Total: 0\n"
    )
    return Machine(root)


def test_without_a_container_the_machine_counts(tmp_path: Path) -> None:
    found = machine(tmp_path, "0::/\n")
    assert found.total() == 1000 * 1024
    assert found.used_percent() == 25


def test_the_limit_of_a_container_counts(tmp_path: Path) -> None:
    group(tmp_path, "app/web", "max", 0)
    group(tmp_path, "app", "500000", 300_000, inactive=100_000)
    found = machine(tmp_path, "0::/app/web\n")
    assert found.total() == 500_000
    assert found.used_percent() == 40


def test_the_path_of_the_host_is_not_there_in_a_container(tmp_path: Path) -> None:
    group(tmp_path, "", "600000", 0)
    assert machine(tmp_path, "0::/kubepods/x/y\n").total() == 600_000


def test_groups_of_the_first_version(tmp_path: Path) -> None:
    folder = tmp_path / "sys/fs/cgroup/memory/app"
    folder.mkdir(parents=True)
    (folder / "memory.limit_in_bytes").write_text("400000")
    (folder / "memory.usage_in_bytes").write_text("300000")
    (folder / "memory.stat").write_text("total_inactive_file 100000\n")
    (folder.parent / "memory.limit_in_bytes").write_text(str(2**63 - 4096))
    found = machine(tmp_path, "5:cpu:/\n4:memory,blkio:/app\n")
    assert found.total() == 400_000
    assert found.used_percent() == 50


def test_the_percentage_is_of_what_the_process_may_use(
    make_memory: MakeMemory,
) -> None:
    limit = make_memory(max_memory_percent=10).stats()["max_memory_bytes"]
    assert limit == int(Machine().total() / 10)


def test_the_watchdog_shrinks_then_clears(
    make_memory: MakeMemory, clock: Clock, tmp_path: Path
) -> None:
    cache = make_memory(watchdog_percent=20, watchdog_interval=30)
    cache._shelf.machine = machine(tmp_path, "0::/\n")  # a quarter is in use
    for number in range(100):
        cache.set(f"key{number}", number, None)
    weight = cache.stats()["memory_usage_bytes"] or 0
    clock.advance(30)
    cache.set("due", 1)
    assert 0 < cache._shelf.weight <= weight
    assert cache.memory_stats()["watchdog"] == {"shrunk": 1, "cleared": 0}
    cache.set("not-due", 1)
    assert cache.stats()["size"] in range(45, 55)
    clock.advance(30)
    cache.set("due-again", 1)
    assert cache.stats()["size"] == 0
    assert cache.memory_stats()["watchdog"] == {"shrunk": 1, "cleared": 1}
