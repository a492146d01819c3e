"""
System checks of what a project does around its databases and caches.

Sessions, middleware, published directories, keys. `s3cache.checks` lists all
ids, and registers these too.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from django.apps import apps
from django.conf import settings
from django.core import checks
from django.core.cache import caches
from django.core.cache.backends.base import BaseCache, InvalidCacheBackendError
from django.core.cache.backends.dummy import DummyCache
from django.core.cache.backends.locmem import LocMemCache
from django.core.checks import CheckMessage, Error, Tags, Warning
from django.core.exceptions import ImproperlyConfigured
from django.db import router

from s3cache import conf
from s3cache.caches.composed import ComposedCache
from s3cache.caches.filesystem import FileSystemCache
from s3cache.caches.memory import MemoryCache
from s3cache.caches.s3 import S3Cache
from s3cache.caches.stored import StoredCache
from s3cache.caches.tiered import TieredCache
from s3cache.mounts import ON_NETWORK, file_system
from s3cache.stores import DirectoryStore, Store, store_for

__all__ = ["register"]

SESSIONS: Final = "django.contrib.sessions.backends."

# Dotted paths: to import a middleware may need what is not there yet.
OURS: Final = "s3cache.middleware."
READERS: Final = (
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.cache.FetchFromCacheMiddleware",
)
BEFORE: Final = {
    f"{OURS}CacheStatusMiddleware": (
        f"{OURS}CacheControlMiddleware",
        f"{OURS}ReadYourWritesMiddleware",
        f"{OURS}ResponseCacheMiddleware",
        *READERS,
    ),
    f"{OURS}CacheControlMiddleware": (
        f"{OURS}ReadYourWritesMiddleware",
        f"{OURS}ResponseCacheMiddleware",
        *READERS,
    ),
    f"{OURS}ReadYourWritesMiddleware": (f"{OURS}ResponseCacheMiddleware", *READERS),
    f"{OURS}ResponseCacheMiddleware": (
        *READERS,
        "django.middleware.locale.LocaleMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
    ),
}
"""By middleware, those that it has to come before."""

# What everybody, or everybody with an account at the provider, may read.
PUBLIC_ACLS: Final = frozenset(
    {"authenticated-read", "public-read", "public-read-write"}
)


def register(tag: str) -> None:
    """Register the checks of this module."""
    checks.register(check_blocks, tag)
    checks.register(check_sessions, tag)
    checks.register(check_middleware, tag)
    checks.register(check_published, tag, Tags.security)
    checks.register(check_networks, tag)
    checks.register(check_keys_of_files, tag, Tags.caches)
    checks.register(check_keys_of_buckets, tag, Tags.caches, deploy=True)
    checks.register(check_room_for_results, tag, Tags.caches, deploy=True)
    checks.register(check_directories, tag, deploy=True)


def check_blocks(**kwargs: Any) -> list[CheckMessage]:
    """Name the databases whose every request is a transaction."""
    return [
        Warning(
            f"DATABASES[{alias!r}]['ATOMIC_REQUESTS'] is True: every view is one "
            "atomic() block, and reads in a block are not answered by the cache.",
            hint="Leave it out, and use atomic() where several writes belong "
            "together; or mark views that only read with "
            "django.db.transaction.non_atomic_requests.",
            id="s3cache.W016",
        )
        for alias in conf.bucket_aliases()
        if settings.DATABASES[alias].get("ATOMIC_REQUESTS")
    ]


def check_sessions(**kwargs: Any) -> list[CheckMessage]:
    """Look where sessions go, and how often."""
    return [*_check_cache_of_sessions(), *_check_writes_of_sessions()]


def check_middleware(**kwargs: Any) -> list[CheckMessage]:
    """Look at the order of MIDDLEWARE."""
    places = {path: number for number, path in enumerate(settings.MIDDLEWARE)}
    return [
        Warning(
            f"{path} comes after {other} in MIDDLEWARE, and does not see what that "
            "one does.",
            hint=f"Place it before {other}.",
            id="s3cache.W013",
        )
        for path, others in BEFORE.items()
        for other in others
        if places.get(path, 0) > places.get(other, len(places))
    ]


def check_published(**kwargs: Any) -> list[CheckMessage]:
    """Look for replicas, stores and caches that a web server hands out."""
    published = [*_published()]
    messages: list[CheckMessage] = []
    for what, path in _private():
        for name, directory in published:
            if path.resolve().is_relative_to(directory.resolve()):
                messages.append(
                    Error(
                        f"{what} ({path}) lies in {name}, which web servers publish.",
                        hint="Whoever guesses a name can read all of it. Let it be in "
                        "a directory of its own.",
                        id="s3cache.E018",
                    )
                )
                break
    for alias, store in _stores():
        acl = getattr(getattr(store, "storage", None), "default_acl", None)
        if acl in PUBLIC_ACLS:
            messages.append(
                Error(
                    f"The storage of the database {alias!r} has the default_acl "
                    f"{acl!r}: all objects of the database can be read by others.",
                    hint="Leave 'default_acl' out of its OPTIONS in STORAGES.",
                    id="s3cache.E018",
                )
            )
    return messages


def check_networks(**kwargs: Any) -> list[CheckMessage]:
    """Look for stores and caches in files that are on other machines."""
    files = [
        (f"The store of the database {alias!r}", store.root)
        for alias, store in _stores()
        if isinstance(store, DirectoryStore)
    ] + [
        (f"The cache {alias!r}", Path(cache.location))
        for alias, cache in _caches()
        if isinstance(cache, FileSystemCache)
    ]
    return [
        Warning(
            f"{what} lies on a network file system ({path} is on {kind}).",
            hint="Locks and links do not work there as it needs them. Take a disk of "
            "the host, or a bucket.",
            id="s3cache.W017",
        )
        for what, path in files
        if (kind := file_system(path)) in ON_NETWORK
    ]


def check_keys_of_files(**kwargs: Any) -> list[CheckMessage]:
    """Open some entries of each cache in files."""
    return [
        message
        for alias, cache in _caches()
        # To look for entries would make the directory.
        if isinstance(cache, FileSystemCache)
        and Path(cache.location, "_index.sqlite3").is_file()
        for message in _check_keys(alias, cache)
    ]


def check_keys_of_buckets(**kwargs: Any) -> list[CheckMessage]:
    """Open some entries of each cache in a bucket: 1 LIST and up to 10 GET."""
    return [
        message
        for alias, cache in _caches()
        if isinstance(cache, S3Cache)
        for message in _check_keys(alias, cache)
    ]


def check_room_for_results(**kwargs: Any) -> list[CheckMessage]:
    """Look at Django's cache in memory, the default, with its default size."""
    try:
        alias = conf.settings().cache
    except ImproperlyConfigured:
        return []  # E005 says so
    params = settings.CACHES.get(alias or "", {})
    backend = f"{LocMemCache.__module__}.{LocMemCache.__qualname__}"
    if (
        not conf.bucket_aliases()
        or params.get("BACKEND") != backend
        or "MAX_ENTRIES" in params.get("OPTIONS", {})
    ):
        return []
    return [
        Warning(
            f"Results are kept in CACHES[{alias!r}], a LocMemCache with room for 300 "
            "entries.",
            hint="Use 's3cache.caches.MemoryCache' with 'max_memory_percent' in its "
            "OPTIONS: it is bounded by what it weighs, and lists are answered "
            "without SQL, too.",
            id="s3cache.W010",
        )
    ]


def check_directories(**kwargs: Any) -> list[CheckMessage]:
    """Name the databases that are on this machine alone."""
    return [
        Warning(
            f"The database {alias!r} is in a directory of this machine ({store.root}), "
            "which is as durable as its disk, and which no other host can use.",
            hint="Name an S3Storage in its OPTIONS['storage'], or silence this check "
            "if one machine is all there will be.",
            id="s3cache.W015",
        )
        for alias, store in _stores()
        if isinstance(store, DirectoryStore)
    ]


def _check_cache_of_sessions() -> Iterator[CheckMessage]:
    engine, alias = settings.SESSION_ENGINE, settings.SESSION_CACHE_ALIAS
    if engine == f"{SESSIONS}cache" and _ends_with_process(alias):
        yield Warning(
            f"Sessions are in CACHES[{alias!r}], which ends with its process: another "
            "process, and this one after a restart, knows no visitor.",
            hint=f"Set SESSION_ENGINE to '{SESSIONS}cached_db', or SESSION_CACHE_ALIAS "
            "to a cache that processes share.",
            id="s3cache.W011",
        )


def _check_writes_of_sessions() -> Iterator[CheckMessage]:
    if (
        not settings.SESSION_SAVE_EVERY_REQUEST
        or settings.SESSION_ENGINE not in {f"{SESSIONS}db", f"{SESSIONS}cached_db"}
        or not apps.is_installed("django.contrib.sessions")
    ):
        return
    alias = router.db_for_write(apps.get_model("sessions", "Session"))
    if alias in conf.bucket_aliases():
        yield Warning(
            "SESSION_SAVE_EVERY_REQUEST is True, and sessions are in the database "
            f"{alias!r}: every request waits for a PUT, and pays it.",
            hint="Leave it out: a session is saved when it was changed. Or set "
            f"SESSION_ENGINE to '{SESSIONS}signed_cookies'.",
            id="s3cache.W012",
        )


def _check_keys(alias: str, cache: StoredCache) -> Iterator[CheckMessage]:
    try:
        wrong = cache.is_signed_by_others()
    except cache.failures:
        return  # which is no matter of keys
    if wrong:
        yield Warning(
            f"No key opens what is in CACHES[{alias!r}]: all of it is missed.",
            hint="If SECRET_KEY, or 'signing_keys', was changed, keep the old key: in "
            "SECRET_KEY_FALLBACKS, or behind the new one. Else clear the cache.",
            id="s3cache.W014",
        )


def _ends_with_process(alias: str, above: frozenset[str] = frozenset()) -> bool:
    if alias in above:
        return False  # E014 says so
    above |= {alias}
    for name, cache in _caches():
        if name == alias and isinstance(cache, ComposedCache):
            every = all if isinstance(cache, TieredCache) else any
            return every(_ends_with_process(one.alias, above) for one in cache.listed)
        if name == alias:
            return isinstance(cache, DummyCache | LocMemCache | MemoryCache)
    return False


def _caches() -> Iterator[tuple[str, BaseCache]]:
    """The caches that can be made; other checks name those that cannot."""
    for alias in settings.CACHES:
        try:
            cache = caches[alias]
        except (ImproperlyConfigured, InvalidCacheBackendError):
            continue
        yield alias, cache


def _stores() -> Iterator[tuple[str, Store]]:
    """The stores of databases that are configured right."""
    for alias in conf.bucket_aliases():
        given: object = settings.DATABASES[alias].get("OPTIONS", {})
        try:
            storage = conf.DatabaseOptions.from_settings(alias, given).storage
            yield alias, store_for(storage)
        except ImproperlyConfigured:
            continue


def _private() -> Iterator[tuple[str, Path]]:
    for alias in conf.bucket_aliases():
        if path := settings.DATABASES[alias].get("NAME"):
            yield f"The replica of the database {alias!r}", Path(path)
    for alias, store in _stores():
        if isinstance(store, DirectoryStore):
            yield f"The store of the database {alias!r}", store.root
    for alias, cache in _caches():
        if isinstance(cache, FileSystemCache):
            yield f"The cache {alias!r}", Path(cache.location)


def _published() -> Iterator[tuple[str, Path]]:
    for name in ("MEDIA_ROOT", "STATIC_ROOT"):
        if directory := getattr(settings, name, None):
            yield name, Path(directory)
    for directory in getattr(settings, "STATICFILES_DIRS", ()):
        # An entry may be a pair: a prefix and the directory.
        path = directory[1] if isinstance(directory, tuple | list) else directory
        yield "STATICFILES_DIRS", Path(path)
