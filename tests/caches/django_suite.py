"""
Django's own tests of a cache backend, its code unmodified, on ours.

    python -m tests.caches.django_suite [NAME [TEST ...]]

NAME is a key of ``BACKENDS``; without it each is run, in a process of its own.
Exits with 1 if a test fails or is skipped; Django itself skips three tests for
a backend that has no limit of entries.
"""

from __future__ import annotations

import argparse
import atexit
import re
import subprocess
import sys
import tempfile
import unittest
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import django
from django.conf import settings
from django.test.runner import DiscoverRunner

from tests.conformance import sdist
from tests.redis_server import RedisServer

PACKAGE = "s3cache.caches"
# The tests store functions, which only pickle can.
PICKLE = {"serializer": "pickle"}
# Django's default, which is none of ours: as much is evicted as is needed.
CULLS = {"cull": {"CULL_FREQUENCY": 3}}

# A bucket does not count its objects; a lifecycle rule bounds it. Tiers and
# shards have limits of their own.
NO_CULLING = {
    "s3",
    "sharded-files",
    "tiered-memory-files",
    "tiered-memory-redis",
    "tiered-memory-sharded-redis",
}

Caches = dict[str, dict[str, Any]]


def backend(name: str, **options: Any) -> dict[str, Any]:
    return {"BACKEND": f"{PACKAGE}.{name}", "OPTIONS": options}


def files(folder: Path, name: str) -> dict[str, Any]:
    made = backend("FileSystemCache", **PICKLE)
    return {**made, "LOCATION": str(folder / name)}


def redis(folder: Path, name: str) -> dict[str, Any]:
    server = RedisServer()
    server.start()
    atexit.register(server.stop)
    bytes_only = "s3cache.caches.redis.BytesSerializer"
    return {
        "BACKEND": "django_redis.cache.RedisCache",
        "LOCATION": server.url,
        "OPTIONS": {"SERIALIZER": bytes_only},
    }


def memory(policy: str) -> Callable[[Path], Caches]:
    return lambda folder: {
        "default": {
            "BACKEND": f"{PACKAGE}.MemoryCache",
            "OPTIONS": {**PICKLE, "policy": policy},
        }
    }


BACKENDS: dict[str, Callable[[Path], Caches]] = {
    "memory-s3fifo": memory("s3fifo"),
    "memory-lru": memory("lru"),
    "memory-fifo": memory("fifo"),
    "filesystem": lambda folder: {
        "default": {
            "BACKEND": f"{PACKAGE}.FileSystemCache",
            "LOCATION": str(folder / "files"),
            "OPTIONS": PICKLE,
        }
    },
    "tiered-memory-files": lambda folder: {
        "default": backend("TieredCache", tiers=["near", "far"]),
        "near": backend("MemoryCache", **PICKLE),
        "far": files(folder, "far"),
    },
    "tiered-memory-redis": lambda folder: {
        "default": backend("TieredCache", tiers=["near", "far"], **PICKLE),
        "near": backend("MemoryCache", **PICKLE),
        "far": redis(folder, "far"),
    },
    "sharded-files": lambda folder: {
        "default": backend("ShardedCache", shards=["one", "two", "three"]),
        **{name: files(folder, name) for name in ("one", "two", "three")},
    },
    "tiered-memory-sharded-redis": lambda folder: {
        "default": backend("TieredCache", tiers=["near", "far"]),
        "near": backend("MemoryCache", **PICKLE),
        "far": backend("ShardedCache", shards=["one", "two"], **PICKLE),
        "one": redis(folder, "one"),
        "two": redis(folder, "two"),
    },
    "s3": lambda folder: {
        "default": {
            "BACKEND": f"{PACKAGE}.S3Cache",
            "OPTIONS": {**PICKLE, "storage": "cache"},
        }
    },
}


def caches_setting(tests: Any, base: dict[str, Any], extra: Caches) -> Caches:
    """Django's own aliases, each with the options of `base` beside its own."""
    made: Caches = tests.caches_setting_for_tests(base=base)
    for alias, params in made.items():
        params["OPTIONS"] = {
            **base.get("OPTIONS", {}),
            **params.get("OPTIONS", {}),
            **CULLS.get(alias, {}),
        }
    return {**made, **extra}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.caches.django_suite")
    parser.add_argument("backend", nargs="?", choices=sorted(BACKENDS))
    parser.add_argument("tests", nargs="*", help="names of single tests")
    asked = parser.parse_args(arguments)
    if asked.backend is None:
        return run_all()
    sys.path.insert(0, str(sdist.tests_folder()))
    with tempfile.TemporaryDirectory() as folder:
        return run(asked.backend, asked.tests, Path(folder))


def run_all() -> int:
    """Run each backend's tests; print how each ended."""
    failed = 0
    for name in sorted(BACKENDS):
        done = subprocess.run(  # noqa: S603 - our own words
            [sys.executable, "-m", "tests.caches.django_suite", name],
            capture_output=True,
            text=True,
            check=False,
        )
        (ran,) = re.findall(r"^Ran .* tests", done.stderr, re.M) or ["Did not run"]
        outcome = "FAILED" if done.returncode else "passed"
        sys.stdout.write(f"{name:30} {outcome}  {ran}\n")
        if done.returncode:
            failed += 1
            sys.stderr.write(done.stderr)
    return 1 if failed else 0


def run(backend: str, names: Sequence[str], folder: Path) -> int:
    aliases = BACKENDS[backend](folder)
    settings.configure(
        SECRET_KEY="not a secret: tests only",
        INSTALLED_APPS=["s3cache", "cache"],
        DATABASES={
            "default": {"ENGINE": "django.db.backends.sqlite3"},
            "other": {"ENGINE": "django.db.backends.sqlite3"},
        },
        ROOT_URLCONF="",
        USE_TZ=False,
        DEFAULT_AUTO_FIELD="django.db.models.AutoField",
        STORAGES={"cache": storage(folder)},
    )
    django.setup()
    # Both live in Django's tests folder, which is not a package of this one.
    from cache import tests as theirs  # type: ignore[import-not-found]
    from django.test import TestCase, override_settings

    base = aliases.pop("default")
    caches = caches_setting(theirs, base, aliases)
    allowed: set[str] = set()
    if backend in NO_CULLING:
        del caches["cull"], caches["zero_cull"]
        allowed = {"Culling isn't implemented."}
    case = override_settings(CACHES=caches)(
        type(backend, (theirs.BaseCacheTests, TestCase), {})
    )
    loader = unittest.defaultTestLoader
    chosen = names or loader.getTestCaseNames(case)
    suite = unittest.TestSuite(case(name) for name in chosen)
    runner = DiscoverRunner(verbosity=1, interactive=False)
    runner.setup_test_environment()
    databases = runner.setup_databases()
    result = runner.run_suite(suite)
    runner.teardown_databases(databases)
    skipped = [found for found in result.skipped if found[1] not in allowed]
    for test, reason in skipped:
        sys.stderr.write(f"SKIPPED {test}: {reason}\n")
    return 0 if result.wasSuccessful() and not skipped else 1


def storage(folder: Path) -> dict[str, Any]:
    return {
        "BACKEND": "django.core.files.storage.FileSystemStorage",
        "OPTIONS": {"location": str(folder / "bucket")},
    }


if __name__ == "__main__":
    sys.exit(main())
