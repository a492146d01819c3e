"""``python -m benchmarks.caches``: cache backends next to each other.

Django's LocMemCache and FileBasedCache, diskcache's DjangoCache, django-redis
and ours, in one run. Rounds take turns, and the fastest of each counts: what
else the machine does can only add to it. In microseconds; the ratios matter.
"""

from __future__ import annotations

import argparse
import gc
import json
import secrets
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROUNDS = 25
THREADS = 8
MEMORY_LIMIT = 100 * 2**20

#: A row as views cache it: about 1 KB, pickled.
ROW = {
    "id": 12345,
    "name": "product " + "x" * 60,
    "price": 19.99,
    "in_stock": True,
    "description": "y" * 700,
    **{f"attribute_{number}": f"value {number}" for number in range(8)},
}
IMMUTABLE = tuple(ROW.values())


@dataclass(frozen=True)
class Case:
    """What is measured; ``run`` does it ``repeat`` times."""

    name: str
    aliases: tuple[str, ...]
    run: Callable[[Any, int], None]
    repeat: int
    prepare: Callable[[Any], None] = lambda cache: None


@dataclass(frozen=True)
class Target:
    """``better`` takes at most a ``times``-th of what ``worse`` takes."""

    case: str
    better: str
    worse: str
    times: float


def configure(directory: Path) -> Callable[[], None]:
    """Set Django up with all backends; return what ends the Redis server."""
    import django
    from django.conf import settings

    from tests.redis_server import RedisServer, program

    redis = RedisServer()
    backends: dict[str, dict[str, Any]] = {
        "LocMemCache": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"},
        "MemoryCache": {
            "BACKEND": "s3cache.caches.MemoryCache",
            "OPTIONS": {"max_memory_bytes": MEMORY_LIMIT},
        },
        "MemoryCache lru": {
            "BACKEND": "s3cache.caches.MemoryCache",
            "OPTIONS": {"max_memory_bytes": MEMORY_LIMIT, "policy": "lru"},
        },
        "FileBasedCache": {
            "BACKEND": "django.core.cache.backends.filebased.FileBasedCache",
            "LOCATION": directory / "django",
        },
        "FileSystemCache": {
            "BACKEND": "s3cache.caches.FileSystemCache",
            "LOCATION": directory / "ours",
        },
        "diskcache": {
            "BACKEND": "diskcache.DjangoCache",
            "LOCATION": str(directory / "diskcache"),
        },
    }
    if program() is not None:
        redis.start()
        backends["django-redis"] = {
            "BACKEND": "django_redis.cache.RedisCache",
            "LOCATION": redis.url,
        }
    settings.configure(
        SECRET_KEY=secrets.token_hex(),
        CACHES={"default": backends["LocMemCache"], **backends},
    )
    django.setup()
    return redis.stop


def _store(value: Any) -> Callable[[Any], None]:
    return lambda cache: cache.set("key", value)


def _get(cache: Any, repeat: int) -> None:
    get = cache.get
    for _ in range(repeat):
        get("key")


def _miss(cache: Any, repeat: int) -> None:
    get = cache.get
    for _ in range(repeat):
        get("nothing")


def _set(value: Any) -> Callable[[Any, int], None]:
    def run(cache: Any, repeat: int) -> None:
        put = cache.set
        for number in range(repeat):
            put(f"key{number % 100}", value)

    return run


def _get_in_threads(cache: Any, repeat: int) -> None:
    threads = [
        threading.Thread(target=_get, args=(cache, repeat // THREADS))
        for _ in range(THREADS)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


IN_MEMORY = ("LocMemCache", "MemoryCache", "MemoryCache lru")
ON_DISK = ("FileBasedCache", "FileSystemCache", "diskcache", "django-redis")

CASES = (
    Case("get, a dict of 1 KB", IN_MEMORY, _get, 500, _store(ROW)),
    Case("get, a tuple of 1 KB", IN_MEMORY, _get, 500, _store(IMMUTABLE)),
    Case("get, a str of 1 KB", IN_MEMORY, _get, 500, _store("z" * 1000)),
    Case("get, a miss", IN_MEMORY, _miss, 500),
    Case("set, a dict of 1 KB", IN_MEMORY, _set(ROW), 300),
    Case("set, a tuple of 1 KB", IN_MEMORY, _set(IMMUTABLE), 300),
    Case("set, a str of 1 KB", IN_MEMORY, _set("z" * 1000), 300),
    Case(f"get in {THREADS} threads", IN_MEMORY, _get_in_threads, 4000, _store(ROW)),
    Case("get from a disk", ON_DISK, _get, 100, _store(ROW)),
    Case("get from a disk, a miss", ON_DISK, _miss, 100),
    Case("set on a disk", ON_DISK, _set(ROW), 50),
    Case(
        f"get from a disk in {THREADS} threads",
        ON_DISK,
        _get_in_threads,
        400,
        _store(ROW),
    ),
)

TARGETS = (
    Target("get, a dict of 1 KB", "MemoryCache", "LocMemCache", 3),
    Target("get, a tuple of 1 KB", "MemoryCache", "LocMemCache", 8),
    Target("get, a str of 1 KB", "MemoryCache", "LocMemCache", 8),
    Target("set, a dict of 1 KB", "MemoryCache", "LocMemCache", 1),
    Target("set, a tuple of 1 KB", "MemoryCache", "LocMemCache", 1),
    Target(f"get in {THREADS} threads", "MemoryCache", "LocMemCache", 3),
    Target("get from a disk", "FileSystemCache", "FileBasedCache", 2),
    Target("get from a disk", "FileSystemCache", "diskcache", 1),
    Target("set on a disk", "FileSystemCache", "FileBasedCache", 5),
    Target("set on a disk", "FileSystemCache", "diskcache", 1),
)

Figures = dict[str, dict[str, float]]


def measure(case: Case, rounds: int) -> dict[str, float]:
    """The fastest round of each, in microseconds for one operation."""
    from django.conf import settings
    from django.core.cache import caches

    aliases = [alias for alias in case.aliases if alias in settings.CACHES]
    found: dict[str, list[float]] = {alias: [] for alias in aliases}
    for alias in aliases:
        caches[alias].clear()
        case.prepare(caches[alias])
    for number in range(-1, rounds):
        start = number % len(aliases)
        for alias in (*aliases[start:], *aliases[:start]):
            cache = caches[alias]
            started = time.perf_counter()
            case.run(cache, case.repeat)
            seconds = time.perf_counter() - started
            if number >= 0:
                found[alias].append(seconds / case.repeat * 1e6)
    return {alias: min(times) for alias, times in found.items()}


FILL = """\
import json, sys
import django, psutil
from django.conf import settings
settings.configure(SECRET_KEY="s", CACHES={"default": {
    "BACKEND": "s3cache.caches.MemoryCache",
    "OPTIONS": {"max_memory_bytes": int(sys.argv[1])}, "TIMEOUT": 3600}})
django.setup()
from django.core.cache import cache
cache.set("warm", {"a": [1]})
resident = psutil.Process().memory_info
kind, before, number = sys.argv[2], resident().rss, 0
while not cache.stats()["evictions"]:
    for number in range(number, number + 1000):
        if kind == "small":
            value = number
        elif kind == "rows":
            text = f"y{number}" * 99
            value = {"id": number, "name": f"product {number}", "text": text}
        else:
            value = [{"id": number, "tags": ["a", "b", str(number)] * 10}] * 3
        cache.set(f"key{number}", value)
for number in range(number, number + 30000):
    cache.set(f"key{number}", value)
print(json.dumps((resident().rss - before) / int(sys.argv[1])))
"""


OPEN = """\
import os, signal, sys, time
import django
from django.conf import settings
settings.configure(SECRET_KEY="s", CACHES={"default": {
    "BACKEND": "s3cache.caches.FileSystemCache", "LOCATION": sys.argv[1],
    "TIMEOUT": 3600}})
django.setup()
from django.core.cache import cache
if sys.argv[2] == "fill":
    for number in range(100_000):
        cache.set(f"key{number}", "x" * (20_000 if number % 100 == 0 else 100))
    os.kill(os.getpid(), signal.SIGKILL)
began = time.perf_counter()
found = cache.get("key1"), cache.stats()["size"]
if found != ("x" * 100, 100_000):
    raise SystemExit(f"not what was written: {found}")
print(time.perf_counter() - began)
"""


def opening(directory: Path) -> float:
    """Seconds until 100,000 entries are there again after a crash."""
    command = [sys.executable, "-c", OPEN, str(directory)]
    subprocess.run([*command, "fill"], check=False)  # noqa: S603 - as above
    done = subprocess.run(  # noqa: S603 - as above
        [*command, "open"], capture_output=True, text=True, check=True
    )
    return float(done.stdout)


def resident(kind: str) -> float:
    """What a full MemoryCache takes of the memory, times its limit."""
    done = subprocess.run(  # noqa: S603 - this Python, with the text above
        [sys.executable, "-c", FILL, str(MEMORY_LIMIT), kind],
        capture_output=True,
        text=True,
        check=True,
    )
    return float(json.loads(done.stdout))


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure all; return 1 if ``--check`` finds a target missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.caches")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.add_argument("--case", help="only cases whose names have these words")
    options = parser.parse_args(arguments)
    figures: Figures = {}
    with tempfile.TemporaryDirectory(prefix="s3cache-benchmarks-") as directory:
        stop = configure(Path(directory))
        gc.collect()
        gc.freeze()
        try:
            for case in CASES:
                if options.case is None or options.case in case.name:
                    figures[case.name] = measure(case, 3 if options.quick else ROUNDS)
                    print(_line(case.name, figures[case.name]), flush=True)
        finally:
            stop()
    missed = 0
    print()
    for target in TARGETS:
        if target.case in figures:
            found = figures[target.case]
            ratio = found[target.worse] / found[target.better]
            missed += ratio < target.times
            print(
                f"{'met   ' if ratio >= target.times else 'MISSED'}  {target.case}: "
                f"{target.better} {ratio:.2f} times as fast as {target.worse} "
                f"(at least {target.times:g})"
            )
    if options.case is None:
        for kind in ("small", "rows", "nested"):
            share = resident(kind)
            missed += share > 1.35
            print(
                f"{'met   ' if share <= 1.35 else 'MISSED'}  resident memory of a full "
                f"MemoryCache, {kind}: {share:.2f} times its limit (at most 1.35)"
            )
        with tempfile.TemporaryDirectory(prefix="s3cache-benchmarks-") as directory:
            seconds = opening(Path(directory) / "cache")
        missed += seconds >= 1
        print(
            f"{'met   ' if seconds < 1 else 'MISSED'}  a FileSystemCache of 100,000 "
            f"entries opens after a crash: {seconds:.2f} s (under 1)"
        )
    return int(bool(missed) and options.check)


def _line(name: str, found: dict[str, float]) -> str:
    times = "   ".join(f"{alias} {value:.2f}" for alias, value in found.items())
    return f"{name:32} {times}"


if __name__ == "__main__":
    sys.exit(main())
