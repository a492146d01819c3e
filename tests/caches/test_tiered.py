"""Tiers and shards: failures are passed over, old values never come back."""

from __future__ import annotations

import asyncio
import errno
import multiprocessing
import os
import pickle
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.core.cache import caches
from django.core.cache.backends.locmem import LocMemCache
from django.core.exceptions import ImproperlyConfigured
from hypothesis import given
from hypothesis import strategies as st

from s3cache.caches import MemoryCache, breaker, filesystem, s3, sharded
from s3cache.caches.breaker import Breaker
from s3cache.caches.errors import NotSerializable
from s3cache.caches.times import Times
from s3cache.stores import Answer, DirectoryStore
from tests.caches.conftest import Use, backend, locmem, named, redis
from tests.redis_server import RedisServer


class Unreliable(LocMemCache):
    """A cache of another package that fails when it is told to."""

    down = False
    calls = 0

    def _called(self) -> None:
        type(self).calls += 1
        if self.down:
            raise ConnectionError("down")

    def get(self, *args: Any, **kwargs: Any) -> Any:
        self._called()
        return super().get(*args, **kwargs)

    def set(self, *args: Any, **kwargs: Any) -> None:
        self._called()
        super().set(*args, **kwargs)

    def add(self, *args: Any, **kwargs: Any) -> bool:
        self._called()
        return super().add(*args, **kwargs)

    def delete(self, *args: Any, **kwargs: Any) -> bool:
        self._called()
        return super().delete(*args, **kwargs)

    def clear(self) -> None:
        self._called()
        super().clear()


class Picky(LocMemCache):
    """A cache that, as Redis and Memcached, does not take every key."""

    def make_key(self, key: Any, version: Any = None) -> str:
        made = str(super().make_key(key, version))
        made.encode()
        return made


PICKY = {"BACKEND": f"{__name__}.Picky"}
UNRELIABLE = {"BACKEND": f"{__name__}.Unreliable"}


@pytest.fixture(autouse=True)
def _reliable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Unreliable, "down", False)
    monkeypatch.setattr(Unreliable, "calls", 0)


@pytest.fixture
def breaks(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    return lambda down: monkeypatch.setattr(Unreliable, "down", down)


@pytest.fixture
def tick(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """A function that moves the clock of breakers."""
    moved = [0.0]
    monkeypatch.setattr(breaker, "now", lambda: moved[0])

    def move(seconds: float) -> None:
        moved[0] += seconds

    return move


def tiers(*names: Any, **options: Any) -> dict[str, Any]:
    return backend("TieredCache", tiers=list(names), **options)


def of(cache: Any, alias: str) -> Any:
    """The statistics of a tier."""
    (found,) = [one for one in cache.stats()["members"] if one["cache"] == alias]
    return found


@pytest.fixture
def pair(use: Use) -> Any:
    """Memory before files."""
    return use(
        default=tiers("near", "far"),
        near=backend("MemoryCache"),
        far=backend("FileSystemCache"),
    )


@pytest.fixture
def shaky(use: Use) -> Any:
    """A tier that may fail before files."""
    return use(
        default=tiers("near", "far", retry_after=30),
        near=UNRELIABLE,
        far=backend("FileSystemCache"),
    )


# Reading and writing


@pytest.mark.parametrize("value", [0, "", [], {}, False, None, b""], ids=repr)
def test_empty_values_are_values(pair: Any, value: Any) -> None:
    pair.set("key", value)
    named("near").clear()
    for _ in range(2):  # from the far tier, then from the near one
        assert pair.get("key", "absent") == value
        assert type(pair.get("key", "absent")) is type(value)


def test_each_backend_says_what_it_is(pair: Any) -> None:
    stats = pair.stats()
    assert stats["driver"] == "TieredCache"
    of_tiers = [one["stats"]["driver"] for one in stats["members"]]
    assert of_tiers == ["MemoryCache", "FileSystemCache"]


def test_writing_and_deleting_reach_all_tiers(pair: Any) -> None:
    pair.set("key", 1)
    assert named("near").get("key") == named("far").get("key") == 1
    assert pair.delete("key")
    assert not named("near").has_key("key")
    assert not named("far").has_key("key")
    pair.set("key", 1)
    pair.clear()
    assert not named("near").has_key("key")
    assert not named("far").has_key("key")


def test_a_hit_fills_the_tiers_before(pair: Any) -> None:
    pair.set_many({"a": 1, "b": 2})
    named("near").clear()
    assert pair.get("a") == 1
    assert pair.get_many(["a", "b", "c"]) == {"a": 1, "b": 2}
    assert named("near").get_many(["a", "b"]) == {"a": 1, "b": 2}
    near, far = of(pair, "near"), of(pair, "far")
    assert (near["hits"], near["misses"], near["promoted"]) == (1, 3, 2)
    assert (far["hits"], far["misses"]) == (2, 1)
    assert (pair.stats()["hits"], pair.stats()["misses"]) == (3, 1)


def test_nothing_is_promoted_where_that_is_not_wanted(use: Use) -> None:
    cache = use(
        default=tiers("near", "far", promote_on_hit=False),
        near=backend("MemoryCache"),
        far=backend("FileSystemCache"),
    )
    cache.set("key", 1)
    named("near").clear()
    assert cache.get("key") == cache.get_many(["key"])["key"] == 1
    assert not named("near").has_key("key")


def test_a_tier_keeps_entries_for_its_own_time_at_most(use: Use) -> None:
    cache = use(
        default=tiers({"cache": "near", "ttl": 60}, {"cache": "far", "ttl": 3600}),
        near=backend("MemoryCache"),
        far=backend("FileSystemCache"),
    )
    for timeout, near, far in ((None, 60, 3600), (600, 60, 600), (10, 10, 10)):
        cache.set("key", 1, timeout)
        for alias, expected in (("near", near), ("far", far)):
            ttl = named(alias).get_with_metadata("key").ttl
            assert expected - 5 < ttl <= expected
    cache.touch("key", 7200)
    assert named("far").get_with_metadata("key").ttl <= 3600


def test_a_promoted_entry_does_not_outlive_its_origin(pair: Any) -> None:
    pair.set("key", 1, 1000)
    named("near").clear()
    pair.get("key")
    near, far = (named(alias).get_with_metadata("key") for alias in ("near", "far"))
    assert abs(near.expires - far.expires) < 0.1
    assert abs(near.created - far.created) < 0.1


def test_the_tiers_hold_the_callers_keys(use: Use) -> None:
    cache = use(
        default={**tiers("near", "far"), "KEY_PREFIX": "shop", "VERSION": 3},
        near=backend("MemoryCache"),
        far=backend("FileSystemCache"),
    )
    cache.set("user:1", 1)
    assert named("near").keys("*", version=3) == ["shop:user:1"]
    assert cache.keys() == ["user:1"]
    assert cache.keys("nothing*") == []
    cache.set("user:2", 2)
    assert cache.delete_pattern("user:*") == 2
    assert named("far").keys(version=3) == []


def test_what_one_tier_refuses_is_in_no_other(use: Use) -> None:
    cache = use(
        default=tiers("near", "far"),
        near=backend("MemoryCache"),
        far=backend("FileSystemCache", serializer="pickle"),
    )
    with pytest.raises(NotSerializable):
        cache.set("key", {1: complex})
    assert not named("far").has_key("key")
    assert of(cache, "far")["errors"] == 0


def test_a_value_that_a_fast_tier_refuses_is_served_by_the_slow_one(use: Use) -> None:
    cache = use(
        default=tiers("near", "far"),
        near=backend("MemoryCache"),
        far=backend("FileSystemCache", serializer="pickle"),
    )
    named("far").set("key", [complex])
    assert cache.get("key") == [complex]
    assert of(cache, "near")["rejected"] == 1


def test_add_and_incr_have_one_judge(pair: Any) -> None:
    assert pair.add("key", 1)
    assert not pair.add("key", 2)
    named("near").clear()
    assert not pair.add("key", 2)
    assert pair.incr("key", 5) == 6
    assert pair.get("key") == 6
    named("far").clear()  # as if it had been evicted
    assert not pair.add("key", 2)
    assert pair.incr("key") == 7
    assert named("far").get("key") == 7
    with pytest.raises(ValueError, match="not found"):
        pair.incr("other")


def test_a_soft_expired_copy_does_not_hide_a_fresh_one(use: Use) -> None:
    cache = use(
        default=tiers("near", "far", stale_while_revalidate=1000),
        near=backend("MemoryCache"),
        far=backend("FileSystemCache"),
    )
    cache.get_or_set("key", lambda: "old", 0.001)
    while cache.get("key") is not None:
        pass
    named("far").set("key", "new")  # another process has computed it
    assert cache.get_or_set("key", lambda: "unused") == "new"
    assert named("near").get("key") == "new"


def test_a_deleted_value_is_not_promoted(
    pair: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader stands between the tiers while another thread deletes."""
    pair.set("key", "old")
    named("near").clear()
    far = pair.members[1]
    find = far._find

    def slow(made: str, stale: bool) -> Any:
        found = find(made, stale)
        thread = threading.Thread(target=pair.delete, args=("key",))
        thread.start()
        thread.join()
        return found

    monkeypatch.setattr(far, "_find", slow)
    assert pair.get("key") == "old"  # at the same time as the deletion
    monkeypatch.undo()
    assert pair.get("key") is None


# Failures


def test_a_tier_that_fails_is_passed_over_and_counted(
    shaky: Any, breaks: Callable[[bool], None]
) -> None:
    shaky.set("key", 1)
    breaks(True)
    assert shaky.get("key") == 1
    shaky.set("other", 2)
    assert shaky.get("other") == 2
    assert shaky.stats()["errors"] == 3
    assert of(shaky, "near")["state"] == "open"


def test_a_tier_that_keeps_failing_is_not_asked_for_a_while(
    shaky: Any, breaks: Callable[[bool], None], tick: Callable[[float], None]
) -> None:
    shaky.set("key", 1)
    breaks(True)
    for _ in range(3):
        shaky.get("key")
    calls = Unreliable.calls
    for _ in range(10):
        assert shaky.get("key") == 1
    assert Unreliable.calls == calls
    assert of(shaky, "near")["skipped"] >= 10
    tick(30)
    assert of(shaky, "near")["state"] == "half-open"
    shaky.get("key")  # asks once, in vain
    shaky.get("key")
    assert Unreliable.calls == calls + 1
    tick(30)
    breaks(False)
    assert shaky.get("key") == 1
    assert of(shaky, "near")["state"] == "closed"


def test_a_value_that_a_tier_did_not_hear_of_is_not_served_by_it(
    shaky: Any, breaks: Callable[[bool], None], tick: Callable[[float], None]
) -> None:
    for key in ("set", "deleted", "touched", "same"):
        shaky.set(key, "old")
    breaks(True)
    shaky.set("set", "new")
    shaky.delete("deleted")
    shaky.touch("touched", 0)
    breaks(False)
    tick(30)
    assert shaky.get("set") == "new"
    assert shaky.get("deleted") is None
    assert shaky.get("touched") is None
    assert named("near").get("deleted") is None  # it has been told since
    assert of(shaky, "near")["untold"] == 0
    assert of(shaky, "near")["hits"] == 0
    assert shaky.get("same") == "old"
    assert of(shaky, "near")["hits"] == 1


def test_after_a_clear_that_failed_nothing_older_is_believed(
    shaky: Any, breaks: Callable[[bool], None]
) -> None:
    shaky.set("key", "old")
    breaks(True)
    shaky.clear()
    breaks(False)
    assert shaky.get("key") is None
    shaky.set("key", "new")
    assert shaky.get("key") == "new"
    assert of(shaky, "near")["hits"] == 1


def test_too_many_changes_to_remember_make_all_older_entries_misses(
    shaky: Any, breaks: Callable[[bool], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("s3cache.caches.members._MOST_UNTOLD", 2)
    for number in range(5):
        shaky.set(f"key{number}", "old")
    breaks(True)
    for number in range(3):
        shaky.set(f"key{number}", "new")
    breaks(False)
    assert of(shaky, "near")["untold"] <= 2
    assert [shaky.get(f"key{number}") for number in range(3)] == ["new"] * 3


def test_a_key_that_a_tier_cannot_have_says_nothing_about_the_tier(use: Use) -> None:
    cache = use(default=tiers("near", "far"), near=PICKY, far=backend("MemoryCache"))
    cache.set("good", 1)
    for number in range(5):
        cache.set(f"bad\ud800{number}", number)
        assert cache.get(f"bad\ud800{number}") == number  # from the far tier
        assert cache.delete(f"bad\ud800{number}")
    assert of(cache, "near")["state"] == "closed"
    assert of(cache, "near")["errors"] == of(cache, "near")["untold"] == 0
    assert cache.get("good") == 1


def test_a_deletion_that_fails_is_not_forgotten_by_who_catches_up(
    shaky: Any, breaks: Callable[[bool], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    near = shaky.members[0]
    shaky.set("key", 1)
    breaks(True)
    shaky.delete("key")
    breaks(False)
    remove = near._remove

    def overtaken(made: str) -> bool:
        """Another thread stores a value, and fails to delete it."""
        removed = bool(remove(made))
        monkeypatch.setattr(near, "_remove", remove)
        near._put(made, 2, Times(time.time()))
        breaks(True)
        near.remove(made)
        breaks(False)
        return removed

    monkeypatch.setattr(near, "_remove", overtaken)
    shaky.get("other")
    assert shaky.get("key") is None


def test_all_tiers_down_is_a_miss_and_the_source_is_asked(
    use: Use, breaks: Callable[[bool], None]
) -> None:
    cache = use(default=tiers("one"), one=UNRELIABLE)
    breaks(True)
    assert cache.get("key") is None
    assert not cache.add("key", 1)
    assert cache.get_or_set("key", lambda: "source") == "source"


def test_one_breaker_lets_one_try(tick: Callable[[float], None]) -> None:
    made = Breaker(2, 10)
    assert [made.failed(), made.failed(), made.failed()] == [False, True, False]
    assert not made.allows()
    tick(10)
    assert [made.allows() for _ in range(3)] == [True, False, False]
    made.succeeded()
    assert made.allows()


# Caches of other packages


def test_other_packages_get_bytes_that_prove_where_they_are_from(use: Use) -> None:
    cache = use(default=tiers("far"), far=locmem())
    cache.set("admin", True)
    cache.set("guest", False)
    stored = named("far").get("admin")
    assert isinstance(stored, bytes)
    named("far").set("guest", stored)  # another's entry
    assert cache.get("guest") is None
    named("far").set("admin", stored[:-1] + b"x")
    assert cache.get("admin") is None
    named("far").set("admin", {"not": "ours"})
    assert cache.get("admin") is None
    assert of(cache, "far")["undecodable"] == 3
    assert of(cache, "far")["errors"] == 0
    assert cache.add("admin", "again")
    assert cache.get("admin") == "again"


def test_other_packages_get_what_is_encrypted(use: Use) -> None:
    cache = use(default=tiers("far", encryption_keys=["secret"]), far=locmem())
    cache.set("key", "a sentence to look for")
    assert b"sentence" not in named("far").get("key")
    assert cache.get("key") == "a sentence to look for"


def test_an_entry_that_is_too_large_is_not_stored_and_counted(use: Use) -> None:
    cache = use(
        default=tiers("far", max_entry_bytes=500, compression=None), far=locmem()
    )
    cache.set("key", "old")
    cache.set("key", "x" * 500)
    assert cache.get("key") is None
    assert of(cache, "far")["rejected"] == 1


def test_an_entry_that_grows_beyond_the_cap_is_a_miss(use: Use) -> None:
    cache = use(default=tiers("far", compression="zstd"), far=locmem())
    cache.set("bomb", b"\0" * 10**6)
    careful = use(
        default=tiers("far", compression="zstd", max_entry_bytes=10**5), far=locmem()
    )
    named("far").set("bomb", cache.members[0].cache.get("bomb"))
    assert careful.get("bomb") is None


# Redis


@pytest.fixture
def with_redis(use: Use, redis_server: RedisServer) -> Any:
    return use(
        default=tiers("near", "redis", "far", lease_timeout=30),
        near=backend("MemoryCache"),
        redis=redis(redis_server),
        far=backend("FileSystemCache"),
    )


def test_redis_is_a_tier(with_redis: Any) -> None:
    with_redis.set("key", {"a": (1, 2)}, 1000)
    assert 990 < named("redis").ttl("key") <= 1000
    named("near").clear()
    named("far").clear()
    assert with_redis.get("key") == {"a": (1, 2)}
    assert with_redis.keys("k*") == ["key"]
    assert with_redis.touch("key", 50)
    assert 40 < named("redis").ttl("key") <= 50
    with_redis.set_many({"a[1]": 1, "a1": 2})
    assert with_redis.delete_pattern("a[*") == 1
    assert with_redis.get_many(["a[1]", "a1"]) == {"a1": 2}


def test_redis_killed_and_restarted(
    with_redis: Any, redis_server: RedisServer, tick: Callable[[float], None]
) -> None:
    with_redis.set("key", "value")
    named("near").clear()
    redis_server.kill()
    for number in range(10):
        assert with_redis.get("key") == "value"
        with_redis.set(f"other{number}", number)
        assert with_redis.get_or_set(f"new{number}", lambda: "computed") == "computed"
    assert of(with_redis, "redis")["state"] == "open"
    assert of(with_redis, "redis")["errors"] == 3
    redis_server.start()
    tick(30)
    with_redis.set("again", 1)
    assert of(with_redis, "redis")["state"] == "closed"
    assert named("redis").get("again") is not None


def test_redis_may_die_while_a_value_is_computed(
    use: Use, redis_server: RedisServer
) -> None:
    cache = use(default=tiers("redis"), redis=redis(redis_server))

    def source() -> str:
        redis_server.kill()
        return "value"

    assert cache.get_or_set("key", source) == "value"
    assert of(cache, "redis")["errors"] >= 1


def test_a_pickle_in_redis_is_not_loaded(with_redis: Any, tmp_path: Path) -> None:
    class Exploding:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "ran",)

    client = named("redis").client
    client.get_client().set(client.make_key("key"), pickle.dumps(Exploding()))
    assert with_redis.get("key") is None
    assert not (tmp_path / "ran").exists()
    assert of(with_redis, "redis")["undecodable"] == 1


def in_processes(work: Callable[..., None], *arguments: Any, number: int = 4) -> None:
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=work, args=arguments) for _ in range(number)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0


def test_redis_loses_no_increment(use: Use, redis_server: RedisServer) -> None:
    cache = use(
        default=tiers("near", "redis"),
        near=backend("MemoryCache"),
        redis=redis(redis_server),
    )
    cache.set("counter", 0)

    def add() -> None:
        caches.close_all()
        for _ in range(50):
            named("default").incr("counter")

    in_processes(add)
    named("near").clear()
    assert cache.get("counter") == 200


@pytest.mark.parametrize("shared", ["redis", "far"])
def test_of_all_processes_that_miss_one_computes(
    use: Use, redis_server: RedisServer, tmp_path: Path, shared: str
) -> None:
    use(
        default=tiers("near", shared),
        near=backend("MemoryCache"),
        redis=redis(redis_server),
        far=backend("FileSystemCache"),
    )
    calls = tmp_path / "calls"

    def source() -> str:
        with calls.open("a") as file:
            file.write("x")
        time.sleep(0.05)
        return "value"

    in_processes(lambda: named("default").get_or_set("key", source))
    assert calls.read_text() == "x"


def test_nobody_frees_a_lease_that_is_not_theirs(
    use: Use, redis_server: RedisServer
) -> None:
    cache = use(default=tiers("redis", lease_timeout=0.02), redis=redis(redis_server))
    first = cache._lease(":1:key")
    while (second := cache._lease(":1:key")) is None:
        pass  # the first one's time is over
    cache.members[0]._lease_timeout = 60
    second()
    third = cache._lease(":1:key")
    first()
    second()
    assert cache._lease(":1:key") is None
    third()
    assert cache._lease(":1:key") is not None


def forged(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (forged, "forged"),
        (lambda data: data[:-1], "forged"),
        (lambda data: data[:3] + b"\7" + data[4:], "foreign"),
        (lambda data: b"", "corrupt"),
    ],
    ids=["forged", "truncated", "newer", "empty"],
)
def test_a_damaged_entry_in_redis_is_a_counted_miss(
    with_redis: Any, change: Callable[[bytes], bytes], reason: str
) -> None:
    with_redis.set("key", "value")
    client = named("redis").client
    name = client.make_key("key")
    client.get_client().set(name, change(client.get_client().get(name)))
    named("near").clear()
    assert with_redis.get("key") == "value"  # from the files
    assert with_redis.members[1].health.counters.total()[reason] >= 1
    assert of(with_redis, "redis")["state"] == "closed"


# Places of ours that fail


@pytest.mark.parametrize("status", [500, 503])
def test_a_bucket_that_is_down_is_passed_over(
    use: Use,
    directory_store: DirectoryStore,
    monkeypatch: pytest.MonkeyPatch,
    status: int,
) -> None:
    monkeypatch.setattr(s3, "store_for", lambda alias: directory_store)
    cache = use(
        default=tiers("bucket", "far"),
        bucket=backend("S3Cache", storage="any"),
        far=backend("FileSystemCache"),
    )
    cache.set("key", "old")
    with monkeypatch.context() as patched:
        for name in ("_get", "_put", "_delete"):
            patched.setattr(
                directory_store, name, lambda *args: Answer(status), raising=True
            )
        assert cache.get("key") == "old"
        cache.set("key", "new")
        assert cache.get("key") == "new"
        assert cache.get_or_set("other", lambda: "source") == "source"
    assert of(cache, "bucket")["errors"] == 3
    assert of(cache, "bucket")["state"] == "open"


def test_a_full_disk_is_passed_over(use: Use, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filesystem, "_IN_INDEX", 0)
    cache = use(
        default=tiers("near", "far"),
        near=backend("FileSystemCache"),
        far=backend("MemoryCache"),
    )
    cache.set("key", "old")

    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr("builtins.open", full)
        cache.set("key", "new")
        assert cache.get("key") == "new"
    assert cache.get("key") == "new"
    assert of(cache, "near")["errors"] >= 1


# Async


def test_a_near_hit_is_answered_on_the_event_loop(pair: Any) -> None:
    async def use_it() -> tuple[Any, Any]:
        await pair.aset("key", 1)
        loop = asyncio.get_running_loop()
        loop.set_default_executor = None  # type: ignore[method-assign,assignment]
        there = pair._near(pair.make_key("key"))
        return there, await pair.aget("key")

    (found, got) = asyncio.run(use_it())
    assert found[0] == got == 1
    assert asyncio.run(pair.aget("other", "absent")) == "absent"


# Options


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "lack 'tiers'"),
        ({"tiers": []}, "not empty"),
        ({"tiers": "near"}, "a list of CACHES aliases"),
        ({"tiers": ["near", "near"]}, "no alias is twice"),
        ({"tiers": [{"cache": "near", "tll": 5}]}, "{'cache': alias, 'ttl': seconds}"),
        ({"tiers": [{"cache": "near", "ttl": 0}]}, "seconds above 0"),
        ({"tiers": ["near"], "failure_threshold": 0}, "a whole number above 0"),
        ({"tiers": ["near"], "promote": True}, "unknown 'promote'"),
    ],
)
def test_wrong_options_are_refused(
    use: Use, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ImproperlyConfigured) as caught:
        use(default=backend("TieredCache", **options), near=backend("MemoryCache"))
    assert message in str(caught.value)


def test_an_option_that_would_do_nothing_is_refused(use: Use) -> None:
    cache = use(default=tiers("near", compression="zstd"), near=backend("MemoryCache"))
    with pytest.raises(ImproperlyConfigured, match="'compression'.*'near' have"):
        cache.get("key")


def test_a_cache_that_is_made_of_itself_is_refused(use: Use) -> None:
    cache = use(default=tiers("near"), near=tiers("default"))
    with pytest.raises(ImproperlyConfigured, match="'near' is made of itself"):
        cache.get("key")


# Shards

SHARDS = ["one", "two", "three"]


@pytest.fixture
def shards(use: Use) -> Any:
    return use(
        default=backend("ShardedCache", shards=SHARDS),
        **{name: backend("MemoryCache") for name in SHARDS},
    )


def test_each_key_lives_in_one_shard(shards: Any) -> None:
    data = {f"key{number}": number for number in range(300)}
    shards.set_many(data)
    assert shards.get_many(data) == data
    sizes = [len(named(name).keys()) for name in SHARDS]
    assert sum(sizes) == 300
    assert min(sizes) > 60
    assert sorted(shards.keys()) == sorted(data)
    assert shards.delete_pattern("key1*") == 111
    shards.clear()
    assert shards.keys() == []


@given(st.lists(st.text(), min_size=1, max_size=50, unique=True))
def test_another_shard_takes_its_share_and_moves_nothing_else(keys: list[str]) -> None:
    def home(key: str, names: list[str]) -> str:
        return max(names, key=lambda name: sharded._score(name, key))

    for key in keys:
        before, after = home(key, SHARDS), home(key, [*SHARDS, "four"])
        assert after in {before, "four"}
        assert home(key, SHARDS[::-1]) == before


def test_the_share_of_a_new_shard() -> None:
    names = [*SHARDS, "four"]
    homes = [
        max(names, key=lambda name: sharded._score(name, f"key{number}"))
        for number in range(4000)
    ]
    assert all(800 < homes.count(name) < 1200 for name in names)


def test_the_keys_of_a_shard_that_fails_are_misses(
    use: Use, breaks: Callable[[bool], None]
) -> None:
    cache = use(
        default=backend("ShardedCache", shards=["good", "bad"]),
        good=backend("MemoryCache"),
        bad=UNRELIABLE,
    )
    data = {f"key{number}": number for number in range(100)}
    cache.set_many(data)
    breaks(True)
    found = cache.get_many(data)
    assert set(found) == set(named("good").keys())
    assert all(cache.get(key) == data.get(key) for key in found)
    missing = next(key for key in data if key not in found)
    assert cache.get(missing) is None
    assert of(cache, "bad")["errors"] >= 1
    assert cache.get_or_set(missing, lambda: "source") == "source"


def test_a_tier_may_be_made_of_shards(use: Use, redis_server: RedisServer) -> None:
    cache = use(
        default=tiers("near", "far"),
        near=backend("MemoryCache"),
        far=backend("ShardedCache", shards=["one", "two"]),
        one=backend("FileSystemCache"),
        two=redis(redis_server),
    )
    data = {f"key{number}": number for number in range(20)}
    cache.set_many(data)
    named("near").clear()
    assert cache.get_many(data) == data
    assert sorted(cache.keys()) == sorted(data)
    assert isinstance(named("near"), MemoryCache)
