"""
A cache in a bucket (or in the directory of a ``FileSystemStorage``).

One object per key, below one prefix, so that one lifecycle rule can delete
what is older than the longest timeout in use. An object says in its metadata
when it expires; what counts is the same number in the entry, which is
authenticated.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import quote, unquote

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from s3cache import conf
from s3cache.caches.compression import SUFFIXES
from s3cache.caches.envelope import expiry
from s3cache.caches.stored import Change, Condition, StoredCache
from s3cache.exceptions import StoreError
from s3cache.stores import Answer, Store, store_for
from s3cache.stores.failures import failure

__all__ = ["S3Cache"]

_PREFIX: Final = "cache"
_ATTEMPTS: Final = 20
_LONGEST: Final = 700
"""Bytes of an escaped key; a longer one is replaced by its hash."""


class S3Cache(StoredCache):
    """
    A cache below the prefix LOCATION of the store ``OPTIONS["storage"]``.

    Reading is one GET, writing one PUT; ``add`` and ``incr`` are conditional
    writes, right between any number of hosts.
    """

    readers = {**StoredCache.readers, "storage": conf.optional(conf.text)}
    defaults = {**StoredCache.defaults, "storage": None}
    failures = (StoreError,)

    @property
    def spans_hosts(self) -> bool:
        return True

    def __init__(self, location: str, params: dict[str, Any]) -> None:
        super().__init__(location.strip("/") or _PREFIX, params)
        self._alias = self.options["storage"] or self._database_storage()
        self._suffix = SUFFIXES[self.options["compression"]]

    @property
    def store(self) -> Store:
        """The store of the entries; looked up each time, for tests move it."""
        return store_for(self._alias)

    def _database_storage(self) -> str:
        for alias in conf.bucket_aliases():
            options: object = settings.DATABASES[alias].get("OPTIONS", {})
            return conf.DatabaseOptions.from_settings(alias, options).storage
        raise ImproperlyConfigured(
            f"OPTIONS of s3cache.caches.{type(self).__name__} need 'storage', a "
            "STORAGES alias: there is no database in a bucket to take it from."
        )

    def _failure(self, answer: Answer, doing: str) -> StoreError:
        return failure(answer, doing, store=self.store.name)

    def _name(self, made: str) -> str:
        """The object of a key: readable, and never outside of the prefix."""
        escaped = _escaped(made)
        if len(escaped) > _LONGEST:
            digest = hashlib.sha256(made.encode(errors="surrogatepass")).hexdigest()
            return f"{self.location}/~{digest}{self._suffix}"
        return f"{self.location}/{escaped}{self._suffix}"

    def _fetch(self, made: str) -> bytes | None:
        answer = self._get(made)
        return answer.body if answer.ok else None

    def _get(self, made: str) -> Answer:
        answer = self.store.get(self._name(made))
        if not answer.ok and answer.status != 404:
            raise self._failure(answer, "read a cache entry")
        return answer

    def _write(self, made: str, data: bytes) -> None:
        answer = self._send(made, data)
        if not answer.ok:
            raise self._failure(answer, "write a cache entry")

    def _send(
        self,
        made: str,
        data: bytes,
        *,
        if_none_match: bool = False,
        if_match: str = "",
    ) -> Answer:
        return self.store.put(
            self._name(made),
            data,
            if_none_match=if_none_match,
            if_match=if_match,
            content_type="application/octet-stream",
            metadata={"expires": _text(expiry(data))},
        )

    def _exchange(self, made: str, change: Change) -> None:
        answer = Answer(409)
        for _ in range(_ATTEMPTS):
            found = self._get(made)
            data = change(found.body if found.ok else None)
            if data is None:
                return
            answer = self._send(
                made, data, if_none_match=not found.ok, if_match=found.etag
            )
            if answer.ok:
                return
            if answer.status not in {404, 409, 412}:
                break
        raise self._failure(answer, "change a cache entry")

    def _erase(self, made: str, only_if: Condition | None = None) -> bool:
        found = self._get(made)
        if not found.ok or not (only_if is None or only_if(found.body)):
            return False
        if_match = "" if only_if is None else found.etag
        answer = self.store.delete(self._name(made), if_match=if_match)
        if only_if is not None and answer.status in {404, 409, 412}:
            return False
        if not answer.ok:
            raise self._failure(answer, "delete a cache entry")
        return True

    def _names(self, begin: str) -> Iterator[str]:
        start = len(self.location) + 1
        for key in self._objects(_escaped(begin)):
            name = key[start:].removesuffix(self._suffix)
            if not name.startswith("~"):  # the hash of a key that is too long
                yield unquote(name, errors="surrogatepass")

    def _objects(self, begin: str = "") -> Iterator[str]:
        after = ""
        while True:
            page = self.store.list(f"{self.location}/{begin}", start_after=after)
            if not page.ok:
                raise self._failure(page, "list the cache")
            for found in page.keys:
                yield found.key
            if not page.more:
                return
            after = page.keys[-1].key

    def _erase_all(self) -> None:
        names: list[str] = []
        for name in self._objects():
            names.append(name)
            if len(names) == 1000:
                self._erase_names(names)
                names = []
        self._erase_names(names)

    def _erase_names(self, names: list[str]) -> None:
        answer = self.store.delete_many(names)
        if not answer.ok:
            raise self._failure(answer, "clear the cache")


def _escaped(made: str) -> str:
    """Escape each character by itself: a beginning stays a beginning."""
    escaped = quote(made, safe=":-_", errors="surrogatepass")
    return escaped.replace(".", "%2E").replace("~", "%7E")


def _text(expires: float) -> str:
    if expires == math.inf:
        return "never"
    return datetime.fromtimestamp(expires, UTC).isoformat(timespec="seconds")
