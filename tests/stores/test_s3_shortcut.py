"""What botocore has worked out once is sent again, and nothing differs."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any
from unittest import mock
from urllib.parse import quote, urlsplit

import pytest
from botocore import UNSIGNED
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.client import BaseClient
from botocore.config import Config
from botocore.credentials import Credentials
from hypothesis import given
from hypothesis import strategies as st

from s3cache.stores import Answer
from s3cache.stores.s3 import S3Store
from s3cache.stores.s3_shortcut import AT_ONCE, Shortcut
from s3cache.stores.s3_signing import Scope, authorization
from tests.s3_server import S3Server, Seen, SharedSessionStorage

Make = Callable[..., S3Store]

#: Headers that are other ones each time, and those of botocore's retries.
OTHERS = {
    "amz-sdk-invocation-id",
    "amz-sdk-request",
    "authorization",
    "x-amz-date",
}


@pytest.fixture
def make(s3_options: dict[str, Any]) -> Make:
    """A function that makes a store with other options."""

    def make_store(**options: Any) -> S3Store:
        return S3Store(SharedSessionStorage(**(s3_options | options)))

    return make_store


@contextmanager
def by_boto() -> Iterator[list[str]]:
    """Note what boto3 is asked to do."""
    asked: list[str] = []
    real = BaseClient._make_api_call  # type: ignore[attr-defined]

    def call(self: Any, operation: str, parameters: Any) -> Any:
        asked.append(operation)
        return real(self, operation, parameters)

    with (
        mock.patch("s3cache.stores.s3_shortcut._OF_BOTOCORE", call),
        mock.patch.object(BaseClient, "_make_api_call", call),
    ):
        yield asked


def use(store: S3Store) -> None:
    """Have the store know how its requests are sent."""
    store.put("first", b"")
    store.get("first")


def like_boto(seen: Seen) -> tuple[str, str, str, dict[str, str]]:
    """What is to be the same, whoever sends it."""
    headers = {k: v for k, v in seen.headers.items() if k not in OTHERS}
    # What of botocore was used before is in there as well: m/N,b,E
    headers["user-agent"] = re.sub(r"m/\S+", "", headers["user-agent"])
    return seen.method, seen.path, seen.query, headers


NAMES = st.from_regex(r"x-amz-[a-z]{1,8}", fullmatch=True)
VALUES = st.from_regex(r"[!-~]{0,8}( [!-~]{1,8})?", fullmatch=True).map(str.strip)


@given(
    key=st.text(st.characters(codec="utf-8"), min_size=1, max_size=20),
    body=st.binary(max_size=50),
    headers=st.dictionaries(NAMES, VALUES, max_size=4),
    token=st.none() | st.just("token"),
    secret=st.text(st.characters(codec="ascii"), min_size=1),
)
def test_signatures_are_those_of_botocore(
    key: str, body: bytes, headers: dict[str, str], token: str | None, secret: str
) -> None:
    url = f"https://bucket.example:9000/{quote(key, safe='/~')}"
    config = SimpleNamespace(s3={"payload_signing_enabled": True})
    request = AWSRequest("PUT", url, dict(headers), body)
    request.context["client_config"] = config
    S3SigV4Auth(Credentials("access", secret, token), "s3", "eu-x-1").add_auth(request)
    sent = {name.lower(): value for name, value in request.headers.items()}
    expected = sent.pop("authorization")
    ours = authorization(
        "PUT",
        urlsplit(url).path,
        {"host": "bucket.example:9000", **sent},
        sent["x-amz-content-sha256"],
        access_key="access",
        secret_key=secret,
        scope=Scope("eu-x-1", "s3"),
    )
    assert ours == expected


def test_only_the_first_request_of_a_kind_is_made_by_boto(make: Make) -> None:
    store = make()
    with by_boto() as asked:
        for number in range(3):
            assert store.put(f"a/{number}", b"body", if_none_match=True).ok
            assert store.get(f"a/{number}").body == b"body"
            assert store.get("a/nothing").status == 404
    assert asked == ["PutObject", "GetObject"]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"addressing_style": "path"},
        {"client_config": Config(request_checksum_calculation="when_required")},
        {"client_config": Config(user_agent_extra="shop")},
        {"security_token": "token"},
        {
            "default_acl": "private",
            "object_parameters": {
                "CacheControl": "no-store",
                "ExpectedBucketOwner": "123456789012",
                "Metadata": {"Owner": "shop"},
                "ServerSideEncryption": "aws:kms",
                "SSEKMSKeyId": "key",
                "StorageClass": "STANDARD_IA",
                "Tagging": "a=b",
            },
        },
    ],
)
def test_it_sends_what_boto_sends(
    make: Make, s3_server: S3Server, options: dict[str, Any]
) -> None:
    def ask(store: S3Store) -> None:
        etag = store.put(key, b"body", metadata={"position": "7"}).etag
        store.put(key, b"other", if_match=etag, metadata={"position": "8"})
        store.put(key, b"", if_none_match=True)
        store.get(key)
        store.get("not/there")

    key = "a/b ü=&+~!*'()$@:;,.json"
    by_itself, after = make(**options), make(**options)
    by_itself.client.meta.events.register("before-send.s3", lambda **_: None)
    use(by_itself)
    use(after)
    with s3_server.recording() as expected:
        ask(by_itself)
    by_itself.delete(key)
    with s3_server.recording() as seen, by_boto() as asked:
        ask(after)
    assert asked == []
    assert list(map(like_boto, seen)) == list(map(like_boto, expected))
    assert all("expect" not in one.headers for one in seen)
    after.delete(key)


FAULTS: list[dict[str, Any]] = [
    {"status": 403, "code": "AccessDenied"},
    {"status": 404, "code": "NoSuchBucket"},
    {"status": 404, "code": ""},
    {"status": 404, "body": b"<html>no</html>"},
    {"status": 409, "code": "ConditionalRequestConflict"},
    {"status": 412, "code": "PreconditionFailed"},
    {"status": 500, "code": "InternalError"},
    {"status": 503, "body": b"<html><body>Unavailable</body></html>"},
    {"status": 503, "body": b""},
    {"status": 400, "code": "ExpiredToken"},
    {"status": 200, "body": b"<Error><Code>InternalError</Code></Error>"},
    {"status": 200, "body": b"hello"},
]


@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_bad_answers_mean_the_same(
    make: Make, s3_server: S3Server, fault: dict[str, Any]
) -> None:
    def ask(store: S3Store) -> list[Answer]:
        return [store.put("key", b"body", if_none_match=True), store.get("key")]

    boto, after = make(), make()
    boto.client.meta.events.register("before-send.s3", lambda **_: None)
    use(boto)
    use(after)
    with s3_server.fault(date="Sat, 01 Jan 2022 00:00:00 GMT", **fault):
        assert ask(after) == ask(boto)


@pytest.mark.parametrize("lost", ["before", "after", "midway"])
def test_answers_that_do_not_come(make: Make, s3_server: S3Server, lost: Any) -> None:
    store = make()
    use(store)
    store.put("key", b"body" * 100)
    with s3_server.fault("GET", lost=lost), by_boto() as asked:
        assert store.get("key").status == 0
    with s3_server.fault("PUT", lost=lost):
        # Of a PUT the status is enough.
        assert store.put("key", b"body").status == (200 if lost == "midway" else 0)
    assert asked == []
    assert store.get("key").ok


def test_a_body_that_was_changed_on_its_way(make: Make) -> None:
    store = make()
    use(store)
    with mock.patch.dict(
        "s3cache.stores.s3_shortcut._CHECKSUMS",
        {"x-amz-checksum-crc32": lambda body: b"another"},
    ):
        answer = store.get("first")
    assert answer.status == 0
    assert answer.message.startswith("FlexibleChecksumError: Expected x-amz-checksum")


def test_boto_is_asked_again_about_another_address(
    make: Make, s3_server: S3Server
) -> None:
    store = make()
    use(store)
    elsewhere = s3_server.fault("GET", status=301, code="PermanentRedirect", times=1)
    with elsewhere, by_boto() as asked:
        assert store.get("first").ok
        assert store.get("first").ok
    assert asked == ["GetObject"]


def test_large_bodies_are_left_to_boto(make: Make, s3_server: S3Server) -> None:
    store = make()
    use(store)
    with by_boto() as asked, s3_server.recording() as seen:
        assert store.put("large", bytes(AT_ONCE + 1)).ok
        assert store.put("small", bytes(AT_ONCE)).ok
    assert asked == ["PutObject"]
    assert ["expect" in one.headers for one in seen] == [True, False]
    store.delete("large")


def test_other_parameters_are_learned_anew(make: Make) -> None:
    store = make()
    use(store)
    with by_boto() as asked:
        for key in ("a", "b"):
            store.put(key, b"", content_type="text/plain")
    assert asked == ["PutObject"]
    for key in ("a", "b"):
        head = store.client.head_object(
            Bucket=store.bucket, Key=f"{store.location}/{key}"
        )
        assert head["ContentType"] == "text/plain"


@pytest.mark.parametrize("value", ["two  spaces", " in front", "line\nbreak", "ü"])
def test_metadata_that_is_not_plain_is_left_to_boto(make: Make, value: str) -> None:
    store = make()
    use(store)
    with by_boto() as asked:
        store.put("key", b"", metadata={"name": value})
    assert asked == ["PutObject"]


def test_new_credentials_are_used_at_once(make: Make, s3_server: S3Server) -> None:
    store = make(security_token="old")
    use(store)
    credentials: Any = store.client._request_signer._credentials  # type: ignore[attr-defined]
    credentials.token, credentials.access_key = "new", "another"
    with s3_server.recording() as seen:
        store.get("first")
    assert seen[0].headers["x-amz-security-token"] == "new"
    assert "Credential=another/" in seen[0].headers["authorization"]


class TestWhoListensHearsAll:
    """Then all is left to boto3."""

    def test_a_listener(self, make: Make) -> None:
        store, heard = make(), []
        store.client.meta.events.register(
            "before-send.s3", lambda request, **_: heard.append(request.method)
        )
        use(store)
        use(store)
        assert heard == ["PUT", "GET"] * 2

    def test_a_listener_that_comes_later(self, make: Make) -> None:
        store, heard = make(), []
        use(store)
        store.client.meta.events.register(
            "before-sign.s3", lambda request, **_: heard.append(request.method)
        )
        use(store)
        use(store)
        assert heard == ["PUT", "GET"] * 2

    def test_somebody_in_the_place_of_the_method(self, make: Make) -> None:
        store = make()
        use(store)
        with mock.patch.object(BaseClient, "_make_api_call") as call:
            call.return_value = {"ETag": '"mocked"', "ResponseMetadata": {}}
            assert store.put("key", b"").etag == '"mocked"'
        with by_boto() as asked:
            use(store)
        assert asked == []

    @pytest.mark.parametrize("signature", ["s3", "s3v4-unsigned"])
    def test_other_signatures(self, make: Make, signature: str) -> None:
        version: Any = UNSIGNED if signature == "s3v4-unsigned" else signature
        store = make(client_config=Config(signature_version=version))
        use(store)
        with by_boto() as asked:
            use(store)
        assert asked == ["PutObject", "GetObject"]


def test_a_botocore_that_is_made_otherwise(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    store = make()
    with mock.patch.object(Shortcut, "_emitter", None):
        use(store)
        use(store)
    with by_boto() as asked:
        use(store)
    assert asked == ["PutObject", "GetObject"]
    said = [one for one in caplog.messages if one.startswith("botocore ")]
    assert len(said) == 1
    assert said[0].endswith("requests are made by boto3 alone, and take longer.")
