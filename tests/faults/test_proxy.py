"""A proxy before a store: what its faults look like to ``S3Store``."""

from __future__ import annotations

import socket
from typing import Any
from urllib.parse import urlsplit

import pytest

from s3cache.stores import Store
from s3cache.stores.s3 import S3Store
from tests.faults.proxy import Proxy
from tests.s3_server import S3Server, SharedSessionStorage


def test_without_a_fault_all_passes(through: Store, s3_store: Store) -> None:
    key, body = "dir/a b+\N{SNOWMAN}", b"x" * 300_000
    written = through.put(key, body, if_none_match=True)
    assert written.etag == s3_store.get(key).etag
    assert through.put(key, body, if_none_match=True).status == 412
    assert through.get(key).body == body
    assert [one.key for one in through.list("dir/").keys] == [key]
    assert through.delete("none").status == 200
    assert through.delete_many([key]).ok
    assert through.get(key).status == 404


@pytest.mark.parametrize(
    ("fault", "there"),
    [
        ({"lost": "before"}, False),
        ({"lost": "before", "reset": True}, False),
        ({"lost": "after"}, True),
        ({"lost": "after", "reset": True}, True),
    ],
    ids=str,
)
def test_a_lost_connection(
    through: Store, s3_store: Store, proxy: Proxy, fault: dict[str, Any], there: bool
) -> None:
    with proxy.fault("PUT", "/key", **fault):
        answer = through.put("key", b"body")
    assert (answer.status, answer.unclear) == (0, True)
    assert s3_store.get("key").ok is there
    assert through.put("key", b"body").ok


@pytest.mark.parametrize("reset", [True, False])
def test_a_reset_is_not_the_end_of_an_answer(proxy: Proxy, reset: bool) -> None:
    address = urlsplit(proxy.address)
    with (
        proxy.fault(lost="before", reset=reset),
        socket.create_connection((address.hostname, address.port)) as client,
    ):
        client.sendall(b"GET / HTTP/1.1\r\n\r\n")
        if reset:
            with pytest.raises(ConnectionResetError):
                client.recv(1)
        else:
            assert client.recv(1) == b""


@pytest.mark.parametrize("status", [403, 409, 429, 500, 503])
def test_an_error_keeps_the_request_from_the_store(
    through: Store, proxy: Proxy, s3_server: S3Server, status: int
) -> None:
    with proxy.fault(status=status, code="Why"), s3_server.recording() as seen:
        answer = through.put("key", b"body")
    assert (answer.status, answer.message) == (status, "Why: injected")
    assert answer.date is not None
    assert seen == []


def test_half_an_answer(through: Store, proxy: Proxy) -> None:
    through.put("key", b"x" * 100_000)
    with proxy.fault("GET", lost="midway"):
        assert through.get("key").status == 0


@pytest.mark.parametrize("status", [200, 503])
def test_a_bad_clock(through: Store, proxy: Proxy, status: int) -> None:
    through.put("key", b"body")
    right = through.get("key").date
    assert right is not None
    with proxy.fault("GET", skew=-7200, status=status):
        assert through.get("key").date == pytest.approx(right - 7200, abs=60)
    with proxy.fault("GET", date="Thu, 01 Jan 1970 00:01:00 GMT"):
        assert through.get("key").date == 60
    with proxy.fault("GET", date="yesterday"):
        assert through.get("key").date is None


def test_a_store_that_is_not_there_is_no_answer(s3_options: dict[str, Any]) -> None:
    with Proxy("http://127.0.0.1:1") as proxy:
        options = {**s3_options, "endpoint_url": proxy.address}
        assert S3Store(SharedSessionStorage(**options)).get("key").status == 0


def test_an_address_that_cannot_be() -> None:
    with pytest.raises(ValueError, match="'localhost' is not like http://"):
        Proxy("localhost")
