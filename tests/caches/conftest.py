"""What the tests of caches share."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.cache import caches

from s3cache.caches import MemoryCache, composed, filesystem, memory, shelf
from s3cache.caches.stored import StoredCache
from tests.redis_server import redis, redis_program, redis_server

__all__ = ["redis", "redis_program", "redis_server"]


def restart() -> None:
    """Forget what this process knows of directories, as a new one would."""
    for directory in filesystem._directories.values():
        directory.index.close()
    filesystem._directories.clear()


class Clock:
    """A clock that tests move."""

    def __init__(self) -> None:
        self.time = 1000.0

    def __call__(self) -> float:
        return self.time

    def advance(self, seconds: float) -> None:
        self.time += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of memory caches."""
    made = Clock()
    monkeypatch.setattr(shelf, "now", made)
    monkeypatch.setattr(memory, "now", made)
    return made


MakeMemory = Callable[..., MemoryCache]


@pytest.fixture
def make_memory() -> Iterator[MakeMemory]:
    """A function that makes an empty memory cache of these OPTIONS."""
    location = secrets.token_hex(8)
    made: list[MemoryCache] = []

    def make(params: dict[str, Any] | None = None, **options: Any) -> MemoryCache:
        cache = MemoryCache(location, {**(params or {}), "OPTIONS": options})
        made.append(cache)
        return cache

    yield make
    for cache in made:
        cache.clear()


Use = Callable[..., Any]


@pytest.fixture
def use(settings: Any, tmp_path: Path) -> Iterator[Use]:
    """
    A function that makes these CACHES and returns "default".

    ``memory()``, ``files()`` and the like below make their values.
    """

    def make(**aliases: dict[str, Any]) -> Any:
        for alias, params in aliases.items():
            if params["BACKEND"].endswith("FileSystemCache"):
                params.setdefault("LOCATION", str(tmp_path / alias))
            else:
                params.setdefault("LOCATION", secrets.token_hex(8))
        settings.CACHES = {"default": aliases.get("default") or locmem(), **aliases}
        return caches["default"]

    yield make
    caches.close_all()
    restart()
    StoredCache._all_counters.clear()
    composed._shared.clear()


def backend(name: str, **options: Any) -> dict[str, Any]:
    return {"BACKEND": f"s3cache.caches.{name}", "OPTIONS": options}


def locmem() -> dict[str, Any]:
    return {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}


def named(alias: str) -> Any:
    """The cache of an alias."""
    return caches[alias]
