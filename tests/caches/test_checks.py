"""What ``manage.py check`` says of caches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from s3cache import checks
from s3cache.caches.machine import Machine
from tests.caches.conftest import Use, backend, locmem
from tests.redis_server import RedisServer, redis


def said(use: Use, **aliases: Any) -> list[tuple[str, str]]:
    """The ids and messages about these CACHES."""
    use(default=locmem())
    try:
        use(**aliases)
    except Exception as error:  # the check says the same, in its way
        del error
    return [(str(found.id), str(found.msg)) for found in checks.check_caches()]


def test_caches_that_are_right(use: Use) -> None:
    assert (
        said(
            use,
            default=backend("TieredCache", tiers=["near", "far"]),
            near=backend("MemoryCache", max_memory_bytes=10**6),
            far=backend("ShardedCache", shards=["one", "two"]),
            one=backend("FileSystemCache"),
            two=locmem(),
        )
        == []
    )


def test_a_backend_that_is_not_there_is_djangos_to_name(use: Use) -> None:
    assert said(use, other={"BACKEND": "no.such.Backend"}) == []


def test_wrong_options(use: Use) -> None:
    [(code, message)] = said(use, default=backend("MemoryCache", policy="mru"))
    assert code == "s3cache.E013"
    assert "CACHES['default']: OPTIONS of s3cache.caches.MemoryCache" in message


def test_a_directory_that_is_missing(use: Use, tmp_path: Path) -> None:
    files = backend("FileSystemCache", create_directory=False)
    missing = {**files, "LOCATION": str(tmp_path / "missing")}
    [(code, message)] = said(use, other=missing)
    assert code == "s3cache.E013"
    assert "'create_directory' is False" in message


def test_an_option_that_does_nothing(use: Use) -> None:
    tiers = backend("TieredCache", tiers=["near"], serializer="pickle")
    [(code, message)] = said(use, default=tiers, near=backend("MemoryCache"))
    assert code == "s3cache.E013"
    assert "'serializer'" in message


def test_a_tier_that_is_no_alias(use: Use) -> None:
    tiers = backend("TieredCache", tiers=["near", "nowhere"])
    [(code, message)] = said(use, default=tiers, near=backend("MemoryCache"))
    assert code == "s3cache.E014"
    assert message == (
        "CACHES['default']['OPTIONS']['tiers'] names 'nowhere', which is no CACHES "
        "alias."
    )


def test_tiers_that_loop(use: Use) -> None:
    found = said(
        use,
        default=backend("TieredCache", tiers=["one"]),
        one=backend("ShardedCache", shards=["two"]),
        two=backend("TieredCache", tiers=["default"]),
    )
    assert [code for code, _ in found] == ["s3cache.E014"] * 3
    assert "is made of 'default' itself" in found[0][1]


def test_a_tier_that_is_itself(use: Use) -> None:
    found = said(use, default=backend("TieredCache", tiers=["default"]))
    assert [code for code, _ in found] == ["s3cache.E014"]


@pytest.mark.parametrize(
    ("options", "codes"),
    [
        ({}, ["s3cache.W006"]),
        ({"SERIALIZER": "s3cache.caches.redis.BytesSerializer"}, []),
    ],
)
def test_a_redis_that_unpickles(
    use: Use, options: dict[str, Any], codes: list[str]
) -> None:
    redis = {
        "BACKEND": "django_redis.cache.RedisCache",
        "LOCATION": "redis://nowhere.invalid/0",
        "OPTIONS": options,
    }
    tiers = backend("TieredCache", tiers=["redis"])
    found = said(use, default=tiers, redis=redis)
    assert [code for code, _ in found] == codes


def test_more_than_the_memory(use: Use) -> None:
    half = Machine().total() * 2 // 3
    [(code, message)] = said(
        use,
        default=backend("MemoryCache", max_memory_bytes=half),
        other=backend("MemoryCache", max_memory_bytes=half),
    )
    assert code == "s3cache.W008"
    assert f"this process may use {Machine().total() // 2**20} MB" in message


def test_no_limit_of_bytes(use: Use) -> None:
    use(
        default=backend("MemoryCache"),
        bounded=backend("MemoryCache", max_memory_percent=5),
    )
    [found] = checks.check_memory_limits()
    assert found.id == "s3cache.W007"
    assert found.msg == "The MemoryCache CACHES['default'] has no limit of bytes."


@pytest.mark.parametrize("name", ["nowhere", "plain"])
def test_a_broadcast_by_what_is_no_redis(use: Use, name: str) -> None:
    memory = backend("MemoryCache", broadcast=name, max_memory_bytes=10**6)
    [(code, message)] = said(use, default=memory, plain=locmem())
    assert code == "s3cache.E015"
    assert message.startswith(
        f"CACHES['default']['OPTIONS']['broadcast'] is '{name}', which is no "
    )


def test_a_broadcast_of_a_tier(use: Use, redis_server: RedisServer) -> None:
    [(code, message)] = said(
        use,
        default=backend("TieredCache", tiers=["near"]),
        near=backend("MemoryCache", broadcast="redis", max_memory_bytes=10**6),
        redis=redis(redis_server),
    )
    assert code == "s3cache.E016"
    assert "CACHES['near'], a part of CACHES['default']" in message
