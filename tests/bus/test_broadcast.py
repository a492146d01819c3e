"""What one host deletes, the caches of the others drop."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.core.cache import caches

from s3cache.caches import composed
from s3cache.caches.broadcast import Broadcast
from tests.bus.conftest import until
from tests.db.hosts import MakeProcess, Process
from tests.engine import Bucket
from tests.forks import in_child
from tests.redis_server import RedisServer, redis

pytestmark = pytest.mark.parametrize("bucket", ["directory"], indirect=True)


def backend(name: str, **options: Any) -> dict[str, Any]:
    return {"BACKEND": f"s3cache.caches.{name}", "OPTIONS": options}


def all_caches(server: RedisServer, files: str) -> dict[str, Any]:
    """The caches of a host; only ``redis`` is common to all."""
    return {
        "redis": redis(server),
        "default": backend("TieredCache", tiers=["near", "redis"], broadcast="redis"),
        "near": {**backend("MemoryCache"), "LOCATION": "near"},
        "memory": {**backend("MemoryCache", broadcast="redis"), "LOCATION": "memory"},
        "own": backend("TieredCache", tiers=["locmem", "files"], broadcast="redis"),
        "locmem": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"},
        "files": {**backend("FileSystemCache"), "LOCATION": files},
    }


def broadcast(alias: str) -> Broadcast:
    """The broadcast of a cache, once it hears the others."""
    found: Broadcast = caches[alias].broadcast  # type: ignore[attr-defined]
    until(lambda: found.hears)
    return found


@pytest.fixture
def here(
    bucket: Bucket, settings: Any, redis_server: RedisServer, tmp_path: Any
) -> Iterator[None]:
    """This process, as a host with those caches."""
    composed._shared.clear()  # circuit breakers, say, of other tests
    settings.CACHES = all_caches(redis_server, str(tmp_path / "here"))
    for alias in ("default", "memory", "own"):
        broadcast(alias)
    yield
    for alias in ("near", "memory", "locmem"):
        caches[alias].clear()
    settings.CACHES = {"default": settings.CACHES["locmem"]}


@pytest.fixture
def there(
    here: None, processes: MakeProcess, redis_server: RedisServer, tmp_path: Any
) -> Process:
    """Another host."""
    process = processes()
    process.call(use, all_caches(redis_server, str(tmp_path / "there")))
    return process


# What is done there


def use(made: dict[str, Any]) -> None:
    django_settings.CACHES = made
    caches.settings = caches.configure_settings(None)
    for alias in ("default", "memory", "own"):
        broadcast(alias)


def call(alias: str, method: str, *args: Any) -> Any:
    return getattr(caches[alias], method)(*args)


CHANGES: list[Callable[[Process, str], Any]] = [
    lambda there, alias: there.call(call, alias, "delete", "key"),
    lambda there, alias: there.call(call, alias, "delete_many", ["key", "other"]),
    lambda there, alias: there.call(call, alias, "clear"),
]
PATTERN: Callable[[Process, str], Any] = lambda there, alias: there.call(  # noqa: E731
    call, alias, "delete_pattern", "k*y"
)
NAMES = ["delete", "delete_many", "clear"]


@pytest.mark.parametrize("alias", ["default", "memory"])
@pytest.mark.parametrize("change", [*CHANGES, PATTERN], ids=[*NAMES, "delete_pattern"])
def test_what_is_deleted_there_is_gone_here(
    there: Process, alias: str, change: Callable[[Process, str], Any]
) -> None:
    caches[alias].set("key", "value")
    assert caches[alias].get("key") == "value"
    change(there, alias)
    until(lambda: caches[alias].get("key") is None)


@pytest.mark.parametrize("change", CHANGES, ids=NAMES)
def test_files_that_only_this_host_sees_are_dropped_too(
    there: Process, change: Callable[[Process, str], Any]
) -> None:
    caches["own"].set("key", "value")
    change(there, "own")
    until(lambda: caches["own"].get("key") is None)
    assert caches["files"].get("key") is None


def test_a_new_value_there_is_read_here_from_the_common_tier(there: Process) -> None:
    cache = caches["default"]
    cache.set("key", 1)
    cache.get("key")
    there.call(call, "default", "set", "key", 5)
    until(lambda: cache.get("key") == 5)
    there.call(call, "default", "incr", "key")
    until(lambda: cache.get("key") == 6)


def test_a_value_of_one_memory_is_no_news_for_the_others(there: Process) -> None:
    # Or two hosts that compute the same value would drop it for each other.
    heard = broadcast("memory").heard
    caches["memory"].set("key", "ours")
    there.call(call, "memory", "set", "key", "theirs")
    there.call(call, "memory", "delete", "other")
    until(lambda: broadcast("memory").heard == heard + 1)
    assert caches["memory"].get("key") == "ours"


def test_other_keys_stay(there: Process) -> None:
    caches["memory"].set_many({"key": 1, "kept": 2})
    PATTERN(there, "memory")
    until(lambda: caches["memory"].get("key") is None)
    assert caches["memory"].get("kept") == 2


# Where messages may have been missed


def test_while_redis_is_down_nothing_is_kept_that_it_could_not_tell_of(
    there: Process, redis_server: RedisServer
) -> None:
    for alias in ("default", "memory", "own"):
        caches[alias].set("key", "old")
    made = [broadcast(alias) for alias in ("default", "memory", "own")]
    redis_server.kill()
    until(lambda: not any(one.hears for one in made))
    for alias in ("default", "memory", "own"):
        assert caches[alias].get("key") is None
        caches[alias].set("key", "meanwhile")
        assert caches[alias].get("key") is None
        assert caches[alias].get_or_set("key", lambda: "computed") == "computed"
    redis_server.start()
    until(lambda: all(one.hears for one in made))
    for alias in ("memory", "own"):
        assert caches[alias].get("key") is None
        caches[alias].set("key", "new")
        assert caches[alias].get("key") == "new"


def test_what_was_deleted_while_redis_was_down_is_told_when_it_is_back(
    there: Process, redis_server: RedisServer
) -> None:
    redis_server.kill()
    there.call(call, "memory", "delete", "key")
    redis_server.start()
    broadcast("memory")
    until(lambda: there.call(flush, "memory"))
    caches["memory"].set("key", "value")
    assert caches["memory"].get("key") == "value"


def flush(alias: str) -> bool:
    return broadcast(alias).bus.flush(5)


def test_what_results_keep_by_version_is_not_dropped_with_the_connection(
    here: None, redis_server: RedisServer
) -> None:
    cache: Any = caches["memory"]
    cache.keep(("table", 7), (1, 2))
    cache.set("key", 1)
    redis_server.kill()
    until(lambda: not cache.broadcast.hears)
    assert cache.peek(("table", 7)) == (1, 2)
    assert cache.get("key") is None


def test_a_child_believes_nothing_that_it_inherits(here: None) -> None:
    cache = caches["memory"]
    cache.set("key", "value")

    def check() -> bool:
        gone = cache.get("key") is None
        until(lambda: broadcast("memory").hears)
        cache.set("key", "own")
        return gone and cache.get("key") == "own"

    assert in_child(check)
    assert cache.get("key") == "value"


def test_nothing_listens_without_the_option(bucket: Bucket, settings: Any) -> None:
    settings.CACHES = {"default": backend("MemoryCache")}
    assert caches["default"].broadcast is None  # type: ignore[attr-defined]
