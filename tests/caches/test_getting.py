"""One caller computes; an old value serves while, and if, that takes time."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from s3cache.caches import FileSystemCache, MemoryCache, getting
from s3cache.caches.stored import LEASES, StoredCache
from s3cache.caches.times import Times
from tests.caches.conftest import MakeMemory, restart
from tests.forks import in_child

Make = Callable[..., Any]


@pytest.fixture
def make_files(tmp_path: Path) -> Iterator[Make]:
    def make(**options: Any) -> FileSystemCache:
        return FileSystemCache(str(tmp_path / "files"), {"OPTIONS": options})

    yield make
    restart()
    StoredCache._all_counters.clear()


@pytest.fixture(params=["make_memory", "make_files"])
def make(request: pytest.FixtureRequest) -> Make:
    made: Make = request.getfixturevalue(request.param)
    return made


class Source:
    """Counts how often it is asked; answers when it may."""

    def __init__(self, value: Any = "value") -> None:
        self.value = value
        self.calls = 0
        self.started = threading.Event()
        self.may_end = threading.Event()
        self.may_end.set()

    def __call__(self) -> Any:
        self.calls += 1
        self.started.set()
        assert self.may_end.wait(30)
        if isinstance(self.value, Exception):
            raise self.value
        return self.value


def age(cache: Any, key: str, seconds: float) -> None:
    """Make an entry older, and nothing else."""
    made = cache.make_key(key)
    found = cache._find(made, stale=True)
    assert found is not None
    value, times = found
    older = Times(
        times.created - seconds, times.expires - seconds, times.soft - seconds, 1.0
    )
    cache._put(made, value, older)


def until(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def no_flights() -> bool:
    return not getting._flights._flights


# One caller computes


@pytest.mark.parametrize("callers", [20, 1000])
def test_of_all_threads_that_miss_one_computes(make: Make, callers: int) -> None:
    cache, source = make(), Source({"a": [1]})
    source.may_end.clear()
    answers: list[Any] = []
    threads = [
        threading.Thread(target=lambda: answers.append(cache.get_or_set("key", source)))
        for _ in range(callers)
    ]
    for thread in threads:
        thread.start()
    assert source.started.wait(30)
    source.may_end.set()
    for thread in threads:
        thread.join()
    assert source.calls == 1
    assert answers == [{"a": [1]}] * callers


def test_of_a_thousand_tasks_that_miss_one_computes(make: Make) -> None:
    cache = make()
    calls = 0

    async def source() -> str:
        nonlocal calls
        calls += 1
        await asyncio.sleep(0.01)
        return "value"

    async def ask() -> list[Any]:
        return await asyncio.gather(
            *(cache.aget_or_set("key", source) for _ in range(1000))
        )

    assert asyncio.run(ask()) == ["value"] * 1000
    assert calls == 1


def test_an_error_reaches_all_who_wait_and_the_next_caller_tries_again(
    make: Make,
) -> None:
    cache, source = make(), Source(ValueError("source"))
    source.may_end.clear()
    errors: list[str] = []

    def ask() -> None:
        try:
            cache.get_or_set("key", source)
        except ValueError as error:
            errors.append(str(error))

    threads = [threading.Thread(target=ask) for _ in range(5)]
    for thread in threads:
        thread.start()
    assert source.started.wait(30)
    # All have joined the flight, or will lead one of their own.
    source.may_end.set()
    for thread in threads:
        thread.join()
    assert errors == ["source"] * 5
    assert no_flights()
    assert cache.get_or_set("key", lambda: "fine") == "fine"


def test_a_cancelled_caller_lets_another_compute(make_memory: MakeMemory) -> None:
    cache = make_memory()

    async def ask() -> Any:
        started = asyncio.Event()

        async def never() -> None:
            started.set()
            await asyncio.Event().wait()

        first = asyncio.create_task(cache.aget_or_set("key", never))
        await started.wait()
        second = asyncio.create_task(cache.aget_or_set("key", lambda: "value"))
        await asyncio.sleep(0)
        first.cancel()
        return await second

    assert asyncio.run(ask()) == "value"
    assert no_flights()


def test_a_source_may_ask_for_its_own_key(make_memory: MakeMemory) -> None:
    cache = make_memory()
    outer = cache.get_or_set("key", lambda: [cache.get_or_set("key", lambda: 1)])
    assert outer == [1]


def compute(path: str, calls: str, value: str, dies: bool = False) -> None:
    cache = FileSystemCache(path, {"OPTIONS": {"lease_timeout": 1}})

    def source() -> str:
        with open(calls, "a") as file:  # noqa: PTH123
            file.write(value)
        if dies:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.05)
        return value

    assert cache.get_or_set("key", source)


def run(*arguments: tuple[Any, ...]) -> None:
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=compute, args=one) for one in arguments]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()


def test_of_all_processes_that_miss_one_computes(tmp_path: Path) -> None:
    calls = tmp_path / "calls"
    run(*((str(tmp_path / "files"), str(calls), "x") for _ in range(20)))
    assert calls.read_text() == "x"


def test_a_process_that_dies_releases_the_others(tmp_path: Path) -> None:
    calls = tmp_path / "calls"
    path = str(tmp_path / "files")
    run((path, str(calls), "dead", True))
    run((path, str(calls), "x"))
    assert calls.read_text() == "deadx"


def test_no_key_of_a_caller_is_a_lease(make_files: Make) -> None:
    cache = make_files()
    cache.set("key:lease", "a value")
    lease = cache._lease(cache.make_key("key"))
    assert lease is not None
    assert cache.keys() == ["key:lease"]
    assert cache.get("key:lease") == "a value"
    assert cache.delete_pattern("*") == 1
    lease()
    assert cache.stats()["size"] == 0


def test_nobody_frees_a_lease_that_is_not_theirs(make_files: Make) -> None:
    cache = make_files()
    made = cache.make_key("key")
    first = cache._lease(made)
    assert first is not None
    assert cache._lease(made) is None
    cache._remove(LEASES + made)  # as if its time were over
    second = cache._lease(made)
    assert second is not None
    first()  # late
    assert cache._lease(made) is None
    second()
    assert cache._lease(made) is not None


# Values


@pytest.mark.parametrize("value", [0, "", [], False, None], ids=repr)
def test_empty_values_are_values(make: Make, value: Any) -> None:
    cache, source = make(), Source(value)
    for _ in range(2):
        assert cache.get_or_set("key", source) == value
    assert source.calls == 1
    assert (cache.stats()["hits"], cache.stats()["misses"]) == (1, 1)


def test_a_value_that_is_no_callable_is_stored(make: Make) -> None:
    cache = make()
    assert cache.get_or_set("key", 5) == 5
    assert cache.get("key") == 5


def test_metadata(make: Make) -> None:
    cache = make()
    before = time.time()
    cache.set("key", "value", 100)
    found = cache.get_with_metadata("key")
    assert found.value == "value"
    assert before - 1 < found.created < time.time() + 1
    assert 90 < found.ttl <= 100
    cache.set("always", "value", None)
    assert asyncio.run(cache.aget_with_metadata("key")).value == "value"
    assert cache.get_with_metadata("always").ttl is None
    assert cache.get_with_metadata("other") is None


def test_looking_at_an_entry_is_not_counted(make: Make) -> None:
    cache = make()
    cache.set("key", "value", 100)
    assert cache.look("key").value == "value"
    assert cache.look("other") is None
    assert (cache.stats()["hits"], cache.stats()["misses"]) == (0, 0)


# Soft and hard expiry


def test_get_does_not_serve_what_is_stale(make: Make) -> None:
    cache = make(stale_while_revalidate=1000)
    cache.get_or_set("key", lambda: "old", 100)
    age(cache, "key", 150)
    assert cache.get("key") is None
    assert not cache.has_key("key")
    assert cache.get_with_metadata("key") is None


def test_stale_while_revalidate(make: Make) -> None:
    cache, source = make(stale_while_revalidate=1000), Source("new")
    cache.get_or_set("key", lambda: "old", 100)
    age(cache, "key", 150)
    source.may_end.clear()
    assert cache.get_or_set("key", source, 100) == "old"
    assert cache.get_or_set("key", source, 100) == "old"
    source.may_end.set()
    until(no_flights)
    assert source.calls == 1
    assert cache.get_or_set("key", source, 100) == "new"


def test_beyond_the_hard_expiry_nothing_is_served(make: Make) -> None:
    cache = make(stale_while_revalidate=1000, stale_if_error=1000)
    cache.get_or_set("key", lambda: "old", 100)
    age(cache, "key", 1200)
    with pytest.raises(ValueError, match="source"):
        cache.get_or_set("key", Source(ValueError("source")), 100)


def test_stale_if_error_serves_the_old_value_and_asks_less(make: Make) -> None:
    cache = make(stale_if_error=1000, error_interval=1000)
    broken = Source(ValueError("source"))
    cache.get_or_set("key", lambda: "old", 100)
    age(cache, "key", 150)
    for _ in range(10):
        assert cache.get_or_set("key", broken, 100) == "old"
    assert broken.calls == 1
    getting._flights._not_before.clear()
    assert cache.get_or_set("key", lambda: "new", 100) == "new"


def test_refresh_ahead(make: Make) -> None:
    cache, source = make(refresh_ahead=0.2), Source("new")
    cache.get_or_set("key", lambda: "old", 100)
    age(cache, "key", 79)
    assert cache.get_or_set("key", source, 100) == "old"
    assert source.calls == 0
    age(cache, "key", 2)
    assert cache.get_or_set("key", source, 100) == "old"
    until(lambda: source.calls and no_flights())
    assert cache.get("key") == "new"


def test_a_failed_refresh_leaves_the_old_value(make: Make) -> None:
    cache, source = make(refresh_ahead=1), Source(ValueError("source"))
    cache.get_or_set("key", lambda: "old", 100)
    assert cache.get_or_set("key", source, 100) == "old"
    until(lambda: source.calls and no_flights())
    assert cache.get("key") == "old"
    assert cache.counters.total()["refresh_failed"] == 1
    getting._flights._not_before.clear()


def test_xfetch_refreshes_early_what_was_expensive(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, source = make(early_refresh_beta=1), Source("new")
    cache.get_or_set("key", lambda: "old", 100)
    age(cache, "key", 95)  # 5 s are left of what took 1 s to compute
    monkeypatch.setattr("random.random", lambda: 0.99)  # draws 4.6 s
    assert cache.get_or_set("key", source, 100) == "old"
    assert source.calls == 0
    monkeypatch.setattr("random.random", lambda: 0.999)  # draws 6.9 s
    assert cache.get_or_set("key", source, 100) == "old"
    until(lambda: source.calls and no_flights())
    assert cache.get("key") == "new"


def test_stale_while_revalidate_in_tasks(make: Make) -> None:
    cache = make(stale_while_revalidate=1000)

    async def new() -> str:
        return "new"

    async def use() -> None:
        await cache.aget_or_set("key", lambda: "old", 100)
        age(cache, "key", 150)
        assert await cache.aget_or_set("key", new, 100) == "old"
        while getting._tasks:
            await asyncio.sleep(0.001)
        assert await cache.aget_or_set("key", new, 100) == "new"

    asyncio.run(use())


def test_a_child_does_not_wait_for_what_its_parent_computes(
    make_memory: MakeMemory,
) -> None:
    cache: MemoryCache = make_memory()
    source = Source()
    source.may_end.clear()
    thread = threading.Thread(target=cache.get_or_set, args=("key", source))
    thread.start()
    assert source.started.wait(30)

    def computes() -> bool:
        signal.alarm(20)
        return bool(cache.get_or_set("key", lambda: 2) == 2)

    assert in_child(computes)
    source.may_end.set()
    thread.join()
