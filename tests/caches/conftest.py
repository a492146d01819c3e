"""What the tests of caches share."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from s3cache.caches import MemoryCache, memory, shelf


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
