"""Any source behind a cache: read through, written through, written behind."""

from __future__ import annotations

import asyncio
import multiprocessing
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3cache.caches import MemoryCache
from s3cache.caches.errors import NotSerializable, QueueFull
from s3cache.caches.strategies import ReadThrough, WriteBehind, WriteThrough
from tests.caches.conftest import Use, backend, named
from tests.forks import in_child


class Shelf:
    """A source in memory that notes what is asked of it, and may fail."""

    def __init__(self, **rows: Any) -> None:
        self.rows = dict(rows)
        self.calls: list[tuple[Any, ...]] = []
        self.down = False
        self.during_load: Callable[[], None] = lambda: None

    def load(self, key: str) -> Any:
        self._called("load", key)
        value = self.rows.get(key)
        self.during_load()
        return value

    def save(self, key: str, value: Any) -> None:
        self._called("save", key, value)
        self.rows[key] = value

    def delete(self, key: str) -> None:
        self._called("delete", key)
        self.rows.pop(key, None)

    def _called(self, *call: Any) -> None:
        self.calls.append(call)
        if self.down:
            raise ConnectionError("down")


class Batching(Shelf):
    def save_many(self, rows: dict[str, Any]) -> None:
        self._called("save_many", dict(rows))
        self.rows.update(rows)


@pytest.fixture(autouse=True)
def cache(use: Use) -> Any:
    return use(default=backend("MemoryCache"))


def behind(source: Shelf, **options: Any) -> WriteBehind:
    """One that writes when it is told to."""
    return WriteBehind(source, **{"interval": 3600, **options})


# Reading through


def test_a_value_is_loaded_once() -> None:
    source = Shelf(a=1, none=None)
    through = ReadThrough(source.load, timeout=60)
    for _ in range(2):
        assert through.get("a") == 1
        assert through.get("none") is None
        assert through.get_many(["a", "none"]) == {"a": 1, "none": None}
    assert source.calls == [("load", "a"), ("load", "none")]
    assert 50 < named("default").get_with_metadata("a").ttl <= 60
    through.forget("a")
    assert through.get("a") == 1
    assert len(source.calls) == 3


def test_an_error_is_raised_and_not_kept() -> None:
    source = Shelf(a=1)
    through = ReadThrough(source.load)
    source.down = True
    with pytest.raises(ConnectionError):
        through.get("a")
    source.down = False
    assert through.get("a") == 1


def test_coroutine_functions_load_too() -> None:
    async def load(key: str) -> str:
        await asyncio.sleep(0)
        return key * 2

    assert asyncio.run(ReadThrough(load).aget("ab")) == "abab"
    assert asyncio.run(ReadThrough(lambda key: key * 3).aget("xy")) == "xyxyxy"


def test_any_backend_will_do(use: Use) -> None:
    use(other={"BACKEND": "django.core.cache.backends.locmem.LocMemCache"})
    source = Shelf(a=1)
    through = WriteThrough(source, cache="other")
    assert through.get("a") == 1
    through.save("a", 2)
    assert through.get("a") == 2
    assert source.calls == [("load", "a"), ("save", "a", 2)]


# Writing through


def test_after_a_save_the_next_read_is_a_hit() -> None:
    source = Shelf(a=1)
    through = WriteThrough(source)
    through.save("a", 2)
    assert source.rows == {"a": 2}
    assert through.get("a") == 2
    assert ("load", "a") not in source.calls
    through.delete("a")
    assert source.rows == {}
    assert through.get("a") is None


def test_what_the_source_refuses_is_not_in_the_cache() -> None:
    source = Shelf(a=1)
    through = WriteThrough(source)
    assert through.get("a") == 1
    source.down = True
    with pytest.raises(ConnectionError):
        through.save("a", 2)
    source.down = False
    assert through.get("a") == 1


@pytest.mark.parametrize("kind", [WriteThrough, behind])
def test_a_value_that_is_saved_while_an_older_one_is_loaded_stays(
    kind: Callable[[Shelf], WriteThrough],
) -> None:
    source = Shelf(a="old")
    through = kind(source)
    source.during_load = lambda: through.save("a", "new")
    through.get("a")
    source.during_load = lambda: None
    assert through.get("a") == "new"


def test_a_refresh_does_not_bring_back_what_a_save_replaced(use: Use) -> None:
    use(default=backend("MemoryCache", refresh_ahead=1))
    source = Shelf(a="old")
    through = WriteThrough(source)
    saved = threading.Event()

    def save() -> None:
        source.during_load = lambda: None
        through.save("a", "new")
        saved.set()

    assert through.get("a") == "old"
    source.during_load = save
    through.get("a")  # is refreshed meanwhile
    assert saved.wait(20)
    assert source.rows["a"] == through.get("a") == "new"


# Writing behind


def test_a_save_is_read_at_once_and_written_later() -> None:
    source = Shelf(a=1)
    through = behind(source)
    through.save("a", 2)
    assert through.get("a") == 2
    named("default").clear()  # as if it had been evicted
    assert through.get("a") == asyncio.run(through.aget("a")) == 2
    assert through.get_many(["a"]) == {"a": 2}
    assert source.rows == {"a": 1}
    assert through.stats() == {"pending": 1, "written": 0, "failed": 0}
    assert through.flush() == 1
    assert source.rows == {"a": 2}
    assert through.stats() == {"pending": 0, "written": 1, "failed": 0}
    assert ("load", "a") not in source.calls


def test_what_waits_is_written_by_itself() -> None:
    source = Shelf()
    through = WriteBehind(source, interval=0.001)
    through.save("a", 1)
    deadline = time.monotonic() + 20
    while through.stats()["pending"]:
        assert time.monotonic() < deadline
        time.sleep(0.001)
    assert source.rows == {"a": 1}


def test_the_caller_may_go_on_changing_its_value() -> None:
    source = Shelf()
    through = behind(source)
    value = [1]
    through.save("a", value)
    value.append(2)
    through.get("a").append(3)
    through.flush()
    assert source.rows == {"a": [1]}


def test_a_failed_write_is_counted_and_repeated() -> None:
    source = Shelf()
    through = behind(source)
    source.down = True
    through.save("a", 1)
    assert through.flush() == 0
    assert through.stats() == {"pending": 1, "written": 0, "failed": 1}
    assert through.get("a") == 1
    source.down = False
    through.close()
    assert source.rows == {"a": 1}


def test_one_batch_is_one_call_where_the_source_can(use: Use) -> None:
    source = Batching()
    through = behind(source)
    for number in range(3):
        through.save(f"key{number % 2}", number)
    through.flush()
    assert source.calls == [("save_many", {"key0": 2, "key1": 1})]


steps = st.tuples(
    st.sampled_from("abc"), st.integers(), st.sampled_from(["save", "flush", "fail"])
)


@given(st.lists(steps, max_size=30))
def test_of_each_key_no_older_value_comes_after_a_newer_one(
    steps: list[tuple[str, int, str]],
) -> None:
    source = Shelf()
    through = behind(source)
    saves = [(key, value) for key, value, _ in steps]
    for key, value, then in steps:
        through.save(key, value)
        source.down = then == "fail"
        if then != "save":
            through.flush()
    source.down = False
    through.flush()
    assert source.rows == dict(saves)
    for key in "abc":
        wanted = iter([value for name, value in saves if name == key])
        written = [call[2] for call in source.calls if call[:2] == ("save", key)]
        previous: list[int] = []
        for value in written:
            if [value] != previous:  # else the repetition of one that failed
                assert value in wanted
            previous = [value]


def test_a_newer_value_waits_while_an_older_one_is_written() -> None:
    source = Shelf()
    through = behind(source)
    save = source.save

    def slow(key: str, value: Any) -> None:
        source.save = save  # type: ignore[method-assign]
        through.save("a", "new")
        save(key, value)

    source.save = slow  # type: ignore[method-assign]
    through.save("a", "old")
    through.flush()
    assert (source.rows["a"], through.get("a")) == ("old", "new")
    through.flush()
    assert source.rows["a"] == "new"


def test_a_deleted_key_is_not_written_afterwards() -> None:
    source = Shelf(a=1)
    through = behind(source)
    through.save("a", 2)
    through.delete("a")
    through.flush()
    assert source.rows == {}
    assert through.get("a") is None


def test_what_waits_is_bounded() -> None:
    source = Shelf()
    through = behind(source, most=2)
    for number in range(5):
        through.save(f"key{number}", number)
        assert through.stats()["pending"] <= 2
    assert len(source.rows) == 4
    source.down = True
    through.save("key5", 5)
    with pytest.raises(QueueFull, match="2 values wait for"):
        through.save("key6", 6)
    through.save("key5", 7)  # one that waits already may change
    source.down = False
    through.flush()
    assert source.rows["key5"] == 7
    assert "key6" not in source.rows


SCRIPT = """\
import django
from django.conf import settings
settings.configure(CACHES={"default": {"BACKEND": "s3cache.caches.MemoryCache"}})
django.setup()
from s3cache.caches.strategies import WriteBehind

class Printing:
    def load(self, key): return None
    def delete(self, key): pass
    def save(self, key, value): print("saved", key, value, flush=True)

through = WriteBehind(Printing(), interval=3600)
through.save("a", 1)
"""


def test_what_waits_is_written_when_the_process_ends() -> None:
    done = subprocess.run(  # noqa: S603 - this Python, with the text above
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True
    )
    assert done.stdout == "saved a 1\n"


def test_a_child_does_not_write_what_its_parent_will() -> None:
    source = Shelf()
    through = behind(source)
    through.save("a", 1)
    assert in_child(lambda: through.stats()["pending"] == 0 and through.flush() == 0)
    assert through.flush() == 1


# A cache that fails


def test_a_cache_that_fails_does_not_stop_the_writing(use: Use) -> None:
    source = Shelf()
    through = WriteBehind(source, interval=0.01)
    broken = "set() must not be asked"
    with pytest.MonkeyPatch.context() as patch:
        through.save("a", 1)
        patch.setattr(MemoryCache, "set", failing(ConnectionError(broken)))
        wait_for(lambda: source.rows == {"a": 1} and not through.stats()["pending"])
    through.save("b", 2)
    wait_for(lambda: source.rows == {"a": 1, "b": 2})


def test_what_the_cache_refuses_does_not_wait_for_the_source() -> None:
    source = Shelf()
    through = behind(source)
    through.save("a", 1)
    with pytest.raises(NotSerializable):
        through.save("a", object())
    assert through.get("a") == 1
    through.flush()
    assert source.rows == {"a": 1}


def test_what_only_the_cache_refuses_leaves_nothing_old_in_it() -> None:
    source = Shelf()
    through = WriteThrough(source)
    through.save("a", 1)
    new = object()
    with pytest.raises(NotSerializable):
        through.save("a", new)
    assert through.cache.get("a") is None
    assert source.rows == {"a": new}


def test_what_waits_is_written_when_a_child_ends() -> None:
    def child() -> None:
        through = WriteBehind(PrintingTo(path), interval=3600)
        through.save("a", 1)

    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "saved"
        process = multiprocessing.get_context("fork").Process(target=child)
        process.start()
        process.join()
        assert path.read_text() == "a 1\n"


class PrintingTo(Shelf):
    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path

    def save(self, key: str, value: Any) -> None:
        with self.path.open("a") as file:
            file.write(f"{key} {value}\n")


def failing(error: Exception) -> Callable[..., Any]:
    def fail(*args: Any, **kwargs: Any) -> Any:
        raise error

    return fail


def wait_for(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.005)
