"""A store that cannot hold a database is refused, and told why."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from s3cache.exceptions import StoreUnavailable, UnsuitableStore
from s3cache.stores import Answer, DirectoryStore, Store
from s3cache.stores.probe import RACERS, ProbeResult, probe
from tests.s3_server import S3Server


def test_a_suitable_store(store: Store) -> None:
    store.put("other", b"")
    before = store.requests
    assert probe(store) == ProbeResult(conditional_delete=True, bulk_delete=True)
    assert (store.requests - before).total <= 30
    assert [found.key for found in store.list("").keys] == ["other"]


def test_two_hosts_probe_at_once(store: Store) -> None:
    results: list[ProbeResult] = []
    threads = [
        threading.Thread(target=lambda: results.append(probe(store))) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 2


def test_results_as_json() -> None:
    result = ProbeResult(conditional_delete=True, bulk_delete=False)
    assert ProbeResult.from_dict(json.loads(json.dumps(result.to_dict()))) == result
    assert ProbeResult.from_dict(result.to_dict() | {"newer": 1}) == result


@pytest.mark.parametrize("values", [{}, {"format": 1}, {"format": None}, {"format": 0}])
def test_results_that_call_for_another_probe(values: dict[str, Any]) -> None:
    assert ProbeResult.from_dict(values) is None


class Weak(DirectoryStore):
    """A directory that forgets some of its manners."""

    ignores: frozenset[str] = frozenset()
    racers = threading.Barrier(RACERS)

    def _put(
        self,
        key: str,
        body: bytes,
        if_none_match: bool,
        if_match: str,
        content_type: str,
        metadata: Mapping[str, str],
    ) -> Answer:
        if "If-None-Match" in self.ignores:
            if_none_match = False
        if "If-Match" in self.ignores:
            if_match = ""
        if "atomic" in self.ignores and key.endswith("race"):
            absent = not self._get(key).ok
            self.racers.wait(30)
            if_none_match = not absent
        return super()._put(key, body, if_none_match, if_match, content_type, metadata)

    def _delete(self, key: str, if_match: str) -> Answer:
        if "DELETE If-Match" in self.ignores:
            if_match = ""
        if "DELETE not implemented" in self.ignores and if_match:
            return Answer(501, message="NotImplemented: header If-Match")
        return super()._delete(key, if_match)

    def _list(self, prefix: str, start_after: str, limit: int) -> Answer:
        if "StartAfter" in self.ignores:
            start_after = ""
        if "LIST" in self.ignores:
            return Answer(403, message="AccessDenied: no")
        answer = super()._list(prefix, start_after, limit)
        return replace(answer, date=None) if "Date" in self.ignores else answer

    def _get(self, key: str) -> Answer:
        answer = super()._get(key)
        if "absence" in self.ignores and answer.status == 404:
            return Answer(200, body=b"", date=answer.date)
        return replace(answer, body=b"first") if "cache" in self.ignores else answer

    def _delete_many(self, keys: Any) -> Answer:
        if "bulk" in self.ignores:
            return Answer(501, message="NotImplemented: DeleteObjects")
        return super()._delete_many(keys)


@pytest.fixture
def weak(directory_store: DirectoryStore) -> Weak:
    return Weak(directory_store.root)


@pytest.mark.parametrize(
    ("missing", "why"),
    [
        ("If-None-Match", "it ignores If-None-Match, so two hosts would overwrite"),
        ("If-Match", "it ignores If-Match on PUT, so two keepers would overwrite"),
        ("atomic", "of 4 writes with If-None-Match at the same time 4 were accepted"),
        ("StartAfter", "it lacks StartAfter (directory buckets do)"),
        ("LIST", "its keys cannot be listed. Allow s3:ListBucket on the bucket"),
        ("Date", "its answers carry no Date, which ages are measured by"),
        ("absence", "it returns an object that nobody has written"),
        ("cache", "it does not return what is there. Is there a cache in front?"),
    ],
)
def test_what_every_protocol_needs(weak: Weak, missing: str, why: str) -> None:
    weak.ignores = frozenset({missing})
    with pytest.raises(UnsuitableStore) as caught:
        probe(weak)
    assert str(caught.value).startswith(f"{weak.root} cannot hold a database: ")
    assert why in str(caught.value)
    weak.ignores = frozenset()
    assert weak.list("").keys == () or missing == "LIST"


@pytest.mark.parametrize("missing", ["DELETE If-Match", "DELETE not implemented"])
def test_conditional_delete_is_recorded(weak: Weak, missing: str) -> None:
    weak.ignores = frozenset({missing})
    assert probe(weak) == ProbeResult(conditional_delete=False, bulk_delete=True)
    assert weak.list("").keys == ()


def test_bulk_delete_is_recorded(weak: Weak) -> None:
    weak.ignores = frozenset({"bulk"})
    assert probe(weak) == ProbeResult(conditional_delete=True, bulk_delete=False)
    assert weak.list("").keys == ()


def test_credentials_that_may_not_write(s3_store: Store, s3_server: S3Server) -> None:
    with (
        s3_server.fault("PUT", status=403, code="AccessDenied"),
        pytest.raises(UnsuitableStore) as caught,
    ):
        probe(s3_store)
    assert str(caught.value) == (
        f"{s3_store.name}: could not create an object with If-None-Match: "
        "HTTP 403 (AccessDenied: injected). The credentials need s3:GetObject, "
        "s3:PutObject and s3:DeleteObject on the location and s3:ListBucket on the "
        "bucket (without it a missing object looks like a forbidden one), and this "
        "host's clock must be right."
    )


@pytest.mark.parametrize("status", [500, 503])
def test_a_store_that_is_down_is_not_unsuitable(
    s3_store: Store, s3_server: S3Server, status: int
) -> None:
    with (
        s3_server.fault("PUT", status=status, code="SlowDown"),
        pytest.raises(StoreUnavailable, match="SlowDown: injected"),
    ):
        probe(s3_store)


def test_conflicts_are_repeated(
    s3_store: Store, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("s3cache.stores.probe.CONFLICT_PAUSE", 0)
    with s3_server.fault("PUT", "/race", status=409, code="Conflict", times=2):
        assert probe(s3_store).conditional_delete
    with (
        s3_server.fault("PUT", status=409, code="Conflict"),
        pytest.raises(StoreUnavailable, match="Conflict: injected"),
    ):
        probe(s3_store)
