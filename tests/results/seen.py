"""What the result cache did, for tests to say."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import pytest
from asgiref.sync import sync_to_async
from django.core.cache.backends.locmem import LocMemCache
from django.db import connections

from s3cache.results.counters import EVENTS, counters

T = TypeVar("T")

directory = pytest.mark.parametrize("bucket", ["directory"], indirect=True)

# 0, 1 and 2 of something
NONE: dict[str, int] = {}
HIT = {"hit": 1}
MISS = {"miss": 1}
BYPASS = {"bypass": 1}


def totals(label: str = "", action: str = "") -> dict[str, int]:
    """How often each event happened, to a model and an action or to all."""
    found = dict.fromkeys(EVENTS, 0)
    for (its_label, its_action), counts in counters.read().items():
        if label in ("", its_label) and action in ("", its_action):
            for event in EVENTS:
                found[event] += getattr(counts, event)
    return {event: number for event, number in found.items() if number}


def events(do: Callable[[], Any]) -> dict[str, int]:
    """What was counted while ``do`` ran."""
    before = totals()
    do()
    return {
        event: difference
        for event, number in totals().items()
        if (difference := number - before.get(event, 0))
    }


@contextmanager
def before_each(method: str, do: Callable[[str], object]) -> Iterator[list[str]]:
    """Have ``do(key)`` called before a method of the cache; the keys."""
    keys: list[str] = []
    original = getattr(LocMemCache, method)

    def spied(self: LocMemCache, key: str, *args: Any, **kwargs: Any) -> Any:
        keys.append(key)
        do(key)
        return original(self, key, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LocMemCache, method, spied)
        yield keys


def on_loop(task: Callable[[], Awaitable[T]]) -> T:
    """What a task comes to, with a new connection in the thread it uses.

    All loops use one thread, which may have a connection of another test.
    """

    def forget() -> None:
        connections["default"].close()
        del connections["default"]

    async def run() -> T:
        await sync_to_async(forget)()
        try:
            return await task()
        finally:
            await sync_to_async(forget)()

    return asyncio.run(run())


def nothing(key: str) -> None:
    """Do nothing."""
