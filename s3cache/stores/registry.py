"""From an alias of Django's ``STORAGES`` to a store."""

from __future__ import annotations

import sys
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.core.files.storage import (
    FileSystemStorage,
    InvalidStorageError,
    Storage,
    storages,
)
from django.core.signals import setting_changed

from s3cache.stores.base import Store
from s3cache.stores.directory import DirectoryStore

__all__ = ["forget_store", "store_at", "store_for"]

_stores: dict[str, Store] = {}
_elsewhere: dict[tuple[str, str], Store] = {}


def store_for(alias: str, location: str | None = None) -> Store:
    """
    The store of that alias; one object per alias and process.

    With a ``location`` that place in the same bucket, by the same client.

    Raises ``ImproperlyConfigured`` for an alias that is not in ``STORAGES``,
    and for a storage that is neither an ``S3Storage`` nor a
    ``FileSystemStorage`` with a location of its own.
    """
    if location is not None:
        try:
            return _elsewhere[alias, location]
        except KeyError:
            made = store_for(alias).at(location)
            return _elsewhere.setdefault((alias, location), made)
    try:
        return _stores[alias]
    except KeyError:
        # Without a lock, which a fork could leave held: one object wins, and
        # connects to nothing before it is used.
        return _stores.setdefault(alias, _make(alias))


def forget_store(alias: str, location: str) -> None:
    """Keep nothing in memory for a place that nobody uses any more."""
    _elsewhere.pop((alias, location), None)


def _make(alias: str) -> Store:
    try:
        storage = storages[alias]
    except InvalidStorageError as error:
        raise ImproperlyConfigured(
            f"STORAGES[{alias!r}] cannot be used as a store: {error}"
        ) from error
    return _store_of(storage, alias)


def store_at(alias: str, location: str) -> Store:
    """
    A store like that of ``alias``, with another ``location``.

    Raises ``ImproperlyConfigured`` like ``store_for``.
    """
    backends: Any = storages.backends
    known = backends.get(alias)
    if known is None:
        raise ImproperlyConfigured(f"STORAGES has no {alias!r}")
    options = {**known.get("OPTIONS", {}), "location": location}
    return _store_of(storages.create_storage({**known, "OPTIONS": options}), alias)


def _store_of(storage: Storage, alias: str) -> Store:
    # django-storages has been imported if, and only if, a storage is of its
    # kind; importing it here would cost everybody else 0.3 s of boto3.
    backend = sys.modules.get("storages.backends.s3")
    if backend is not None and isinstance(storage, backend.S3Storage):
        from s3cache.stores.s3 import S3Store

        return S3Store(storage)
    if isinstance(storage, FileSystemStorage):
        return _directory(alias, storage)
    kind = type(storage)
    raise ImproperlyConfigured(
        f"STORAGES[{alias!r}] is a {kind.__module__}.{kind.__qualname__}; a store "
        "needs storages.backends.s3.S3Storage or "
        "django.core.files.storage.FileSystemStorage, or a subclass"
    )


def _directory(alias: str, storage: FileSystemStorage) -> DirectoryStore:
    # Only what OPTIONS say: the defaults are made for uploads, which web
    # servers publish.
    location = getattr(storage, "_location", None)
    if not location:
        raise ImproperlyConfigured(
            f"STORAGES[{alias!r}]['OPTIONS'] needs a 'location' of its own: "
            "MEDIA_ROOT, the default, is served to the public"
        )
    return DirectoryStore(
        storage.location,
        file_mode=getattr(storage, "_file_permissions_mode", None),
        directory_mode=getattr(storage, "_directory_permissions_mode", None),
    )


def _forget(*, setting: str, **kwargs: Any) -> None:
    if setting == "STORAGES" or setting.startswith("AWS_"):
        _stores.clear()
        _elsewhere.clear()


setting_changed.connect(_forget, dispatch_uid="s3cache.stores.registry")
