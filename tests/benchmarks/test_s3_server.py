"""The benchmarks' S3 does what every store does, and counts."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator

import pytest
from botocore.exceptions import ClientError

from benchmarks.s3_server import Running, running
from s3cache.stores import Store
from s3cache.stores.s3 import S3Store
from tests.s3_server import SharedSessionStorage
from tests.stores.test_contract import *  # noqa: F403


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    """A server with the bucket "shop", in a process of its own."""
    with running() as made:
        made.create_bucket("shop")
        yield made


@pytest.fixture
def store(server: Running) -> Store:
    """An empty store on it, in the place of those of the other tests."""
    return S3Store(
        SharedSessionStorage(
            endpoint_url=server.address,
            region_name="us-east-1",
            access_key="test",
            secret_key="test",
            bucket_name="shop",
            location=secrets.token_hex(8),
        )
    )


def test_requests_are_counted_by_kind(server: Running, store: Store) -> None:
    before = server.counts()
    store.put("a", b"")
    store.get("a")
    store.get("missing")
    store.list("")
    store.delete("a")
    store.delete_many(["a", "b"])
    assert server.counts() - before == {"PUT": 1, "GET": 2, "LIST": 1, "DELETE": 2}


def test_answers_are_as_late_as_they_are_told_to_be(
    server: Running, store: Store
) -> None:
    store.get("a")
    server.be_late(0.1)
    started = time.monotonic()
    store.get("a")
    server.be_late(0)
    assert time.monotonic() - started > 0.1


def test_what_other_clients_ask(server: Running, store: Store) -> None:
    """Copies, parts, groups of keys, and the rest of a long list."""
    assert isinstance(store, S3Store)
    client, place = store.client, store.location
    for name in ("a/1", "a/2", "b", "c/1"):
        store.put(name, b"0123456789", metadata={"kept": name.replace("/", "-")})
    client.copy_object(Bucket="shop", Key=f"{place}/d", CopySource=f"shop/{place}/a/1")
    part = client.get_object(Bucket="shop", Key=f"{place}/d", Range="bytes=2-4")
    assert (part["Body"].read(), part["Metadata"]) == (b"234", {"kept": "a-1"})
    pages = client.get_paginator("list_objects_v2").paginate(
        Bucket="shop",
        Prefix=f"{place}/",
        Delimiter="/",
        PaginationConfig={"PageSize": 1},
    )
    found = [
        one.get("Key") or one["Prefix"]
        for page in pages
        for one in (*page.get("Contents", ()), *page.get("CommonPrefixes", ()))
    ]
    assert found == [f"{place}/{name}" for name in ("a/", "b", "c/", "d")]
    assert client.head_object(Bucket="shop", Key=f"{place}/b")["ContentLength"] == 10


def test_an_etag_without_quotes_is_the_same(store: Store) -> None:
    """django-s3-sqlite sends such ones."""
    assert isinstance(store, S3Store)
    store.put("a", b"1")
    key = f"{store.location}/a"
    etag = store.client.head_object(Bucket="shop", Key=key)["ETag"]
    for same in (etag, etag.strip('"')):
        with pytest.raises(ClientError, match="304"):
            store.client.get_object(Bucket="shop", Key=key, IfNoneMatch=same)
