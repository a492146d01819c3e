"""
Whether a store keeps the promises that the protocols are built on.

Some S3-compatible stores ignore ``If-None-Match`` without a word, and then two
hosts both believe that they made log entry n. So a store is asked, once per
database; the result is remembered in ``_head``.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any, Final, NoReturn

from s3cache.exceptions import StoreError, StoreUnavailable, UnsuitableStore
from s3cache.stores.base import Answer, Store
from s3cache.stores.failures import failure

__all__ = ["PREFIX", "ProbeResult", "probe"]

PREFIX: Final = "_probe/"
"""Where the probe's objects are while it runs."""

FORMAT: Final = 1
"""Of ProbeResult; a result of an older format calls for a new probe."""

RACERS: Final = 4
CONFLICT_ATTEMPTS: Final = 5
CONFLICT_PAUSE: Final = 0.1
"""Seconds; S3 asks to repeat what it answers with 409."""


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """
    What a probe found out about a store that passed it.

    What a store must have is not in here: without it there is no result.
    """

    conditional_delete: bool
    """``DELETE If-Match`` is honoured. The keeper purges only with it."""
    bulk_delete: bool
    """``delete_many`` works."""
    format: int = FORMAT

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ProbeResult | None:
        """
        The result that ``to_dict`` gave, or None where another is needed.

        Values that a newer release added are passed over.
        """
        try:
            if values["format"] < FORMAT:
                return None
            return cls(
                conditional_delete=bool(values["conditional_delete"]),
                bulk_delete=bool(values["bulk_delete"]),
            )
        except (KeyError, TypeError):
            return None


def probe(store: Store) -> ProbeResult:
    """
    Ask a store for everything that the protocols need of it.

    About twenty requests on objects of its own, which it removes. Raises
    ``UnsuitableStore``, whose message says what to change, and
    ``StoreUnavailable`` where the store did not answer: try again later.
    """
    probing = _Probe(store)
    try:
        return probing.run()
    finally:
        probing.clean_up()


class _Probe:
    """One run, on keys that nobody else has."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._prefix = f"{PREFIX}{secrets.token_hex(8)}/"
        self._key = f"{self._prefix}a"

    def run(self) -> ProbeResult:
        self._may_list()
        self._absence_is_said()
        self._creates_once()
        self._one_racer_wins()
        self._replaces_what_it_was_told()
        self._lists_in_order()
        return ProbeResult(
            conditional_delete=self._deletes_what_it_was_told(),
            bulk_delete=self._deletes_many(),
        )

    def clean_up(self) -> None:
        """Remove what is left, as far as that can be done."""
        for found in self._store.list(self._prefix).keys:
            self._store.delete(found.key)

    def _may_list(self) -> None:
        answer = self._store.list(PREFIX, limit=1)
        if answer.status == 403:
            self._refuse(
                "its keys cannot be listed. Allow s3:ListBucket on the bucket: "
                "without it, S3 answers 403 where an object is missing, and "
                f"nobody can tell whether there is a newer commit ({answer.message})"
            )
        self._expect(answer, 200, "list its keys")
        if answer.date is None:
            self._refuse(
                "its answers carry no Date, which ages are measured by. Is there a "
                "proxy in front that removes it? Use the store's own address"
            )

    def _absence_is_said(self) -> None:
        answer = self._store.get(self._key)
        if answer.status == 200:
            self._refuse("it returns an object that nobody has written")
        self._expect(answer, 404, "read an object that is missing")

    def _creates_once(self) -> None:
        first = self._put(self._key, b"first", if_none_match=True)
        self._expect(first, 200, "create an object with If-None-Match")
        second = self._put(self._key, b"second", if_none_match=True)
        if second.status == 200:
            self._refuse(
                "it ignores If-None-Match, so two hosts would overwrite each "
                "other's commits. Use a store with conditional writes (Amazon S3, "
                "Cloudflare R2, MinIO, Ceph, ... in a current release)"
            )
        self._expect(second, 412, "be refused a second object with If-None-Match")
        self._holds(b"first", "a refused write")

    def _one_racer_wins(self) -> None:
        # Some check a condition and then write, with time in between.
        key = f"{self._prefix}race"
        with ThreadPoolExecutor(RACERS) as pool:
            racers = [
                pool.submit(self._put, key, b"%d" % number, if_none_match=True)
                for number in range(RACERS)
            ]
        answers = [racer.result() for racer in racers]
        for answer in answers:
            if answer.status not in {200, 412}:
                raise self._failure(answer, "create an object with If-None-Match")
        won = sum(answer.ok for answer in answers)
        if won != 1:
            self._refuse(
                f"of {RACERS} writes with If-None-Match at the same time {won} were "
                "accepted. Use a store whose conditional writes are atomic"
            )

    def _replaces_what_it_was_told(self) -> None:
        etag = self._store.get(self._key).etag
        wrong = self._put(self._key, b"wrong", if_match=self._other(etag))
        if wrong.status == 200:
            self._refuse(
                "it ignores If-Match on PUT, so two keepers would overwrite each "
                "other's _head. Use a store with conditional writes"
            )
        self._expect(wrong, 412, "be refused a PUT with another If-Match")
        right = self._put(self._key, b"replaced", if_match=etag)
        self._expect(right, 200, "replace an object with If-Match")
        self._holds(b"replaced", "a PUT with If-Match")

    def _lists_in_order(self) -> None:
        last = f"{self._prefix}z"
        self._expect(self._put(last, b"last"), 200, "write an object")
        answer = self._store.list(self._prefix, start_after=self._key)
        self._expect(answer, 200, "list its keys")
        keys = [found.key for found in answer.keys]
        if keys != [f"{self._prefix}race", last]:
            self._refuse(
                "a list after one of its own keys did not return the later ones in "
                "order: it lacks StartAfter (directory buckets do), or what was "
                "just written does not show. Use a general purpose bucket"
            )

    def _deletes_what_it_was_told(self) -> bool:
        etag = self._store.get(self._key).etag
        wrong = self._store.delete(self._key, if_match=self._other(etag))
        if wrong.status != 412:
            self._store.delete(self._key)
            return False
        return self._store.delete(self._key, if_match=etag).ok and (
            self._store.get(self._key).status == 404
        )

    def _deletes_many(self) -> bool:
        keys = [f"{self._prefix}race", f"{self._prefix}z"]
        return self._store.delete_many(keys).ok and not any(
            found.key in keys for found in self._store.list(self._prefix).keys
        )

    def _put(
        self, key: str, body: bytes, *, if_none_match: bool = False, if_match: str = ""
    ) -> Answer:
        """A PUT, repeated while S3 says that another one is under way."""
        for _ in range(CONFLICT_ATTEMPTS):
            answer = self._store.put(
                key, body, if_none_match=if_none_match, if_match=if_match
            )
            if answer.status != 409:
                break
            time.sleep(CONFLICT_PAUSE)
        return answer

    def _holds(self, body: bytes, after: str) -> None:
        answer = self._store.get(self._key)
        self._expect(answer, 200, "read an object that was just written")
        if answer.body != body:
            self._refuse(
                f"after {after} it does not return what is there. Is there a cache "
                "in front? Use the store's own address"
            )

    def _expect(self, answer: Answer, status: int, doing: str) -> None:
        if answer.status == status:
            return
        error = self._failure(answer, doing)
        if isinstance(error, StoreUnavailable):
            raise error
        raise UnsuitableStore(
            str(error) if not answer.ok else f"{error} {status} was expected"
        )

    def _failure(self, answer: Answer, doing: str) -> StoreError:
        return failure(answer, doing, store=self._store.name)

    def _refuse(self, why: str) -> NoReturn:
        raise UnsuitableStore(f"{self._store.name} cannot hold a database: {why}.")

    @staticmethod
    def _other(etag: str) -> str:
        """An ETag of the same form, which no object has."""
        return etag.translate(str.maketrans("0123456789abcdef", "fedcba9876543210"))
