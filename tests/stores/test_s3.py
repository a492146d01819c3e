"""What is particular to a bucket: its settings, and its bad days."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from botocore.config import Config
from django.core.exceptions import ImproperlyConfigured

from s3cache.stores import Answer, Store
from s3cache.stores.s3 import AT_ONCE, S3Store
from tests.s3_server import S3Server, SharedSessionStorage

Make = Callable[..., S3Store]


@pytest.fixture
def make(s3_options: dict[str, Any]) -> Make:
    """A function that makes a store with other options."""

    def make_store(**options: Any) -> S3Store:
        return S3Store(SharedSessionStorage(**(s3_options | options)))

    return make_store


class TestSettings:
    def test_location(
        self, s3_store: Store, s3_server: S3Server, s3_options: dict[str, Any]
    ) -> None:
        with s3_server.recording() as seen:
            s3_store.put("dir/key", b"")
        location = s3_options["location"]
        assert [each.path for each in seen] == [f"/s3cache-tests/{location}/dir/key"]
        assert s3_store.name == f"s3://s3cache-tests/{location}"

    @pytest.mark.parametrize("location", ["", "deep/er", "slash/"])
    def test_locations_of_any_form(self, make: Make, location: str) -> None:
        store = make(location=location)
        assert store.put("odd/key", b"body").ok
        assert store.get("odd/key").body == b"body"
        assert [found.key for found in store.list("odd/").keys] == ["odd/key"]
        assert store.delete_many(["odd/key"]).ok
        assert store.get("odd/key").status == 404

    def test_locations_do_not_see_each_other(self, make: Make) -> None:
        near, far = make(location="tenant"), make(location="tenant2")
        far.put("key", b"")
        assert near.list("").keys == ()
        far.delete("key")

    def test_object_parameters(self, make: Make, s3_server: S3Server) -> None:
        store = make(
            default_acl="private",
            object_parameters={
                "CacheControl": "no-store",
                "ContentType": "text/plain",
                "IfNoneMatch": "*",
                "Metadata": {"owner": "shop"},
                "RequestPayer": "requester",
                "ServerSideEncryption": "AES256",
            },
        )
        with s3_server.recording() as seen:
            store.put("key", b"", metadata={"position": "7"})
            store.put("key", b"")
            store.get("key")
            store.list("")
            store.delete("key")
        put = seen[0].headers
        assert put["cache-control"] == "no-store"
        assert put["x-amz-acl"] == "private"
        assert put["x-amz-server-side-encryption"] == "AES256"
        assert put["x-amz-meta-owner"] == "shop"
        assert put["x-amz-meta-position"] == "7"
        assert "if-none-match" not in put
        assert {each.headers["x-amz-request-payer"] for each in seen} == {"requester"}

    def test_a_small_body_is_sent_at_once(
        self, s3_store: S3Store, s3_server: S3Server
    ) -> None:
        """Of a large one, the server is asked first whether it is wanted."""
        with s3_server.recording() as seen:
            s3_store.put("small", bytes(AT_ONCE), if_none_match=True)
            s3_store.put("large", bytes(AT_ONCE + 1))
        assert ["expect" in one.headers for one in seen] == [False, True]

    def test_content_type(self, s3_store: S3Store) -> None:
        s3_store.put("json", b"")
        s3_store.put("binary", b"", content_type="application/octet-stream")
        location = s3_store.storage.location
        heads = [
            s3_store.client.head_object(Bucket=s3_store.bucket, Key=f"{location}/{key}")
            for key in ("json", "binary")
        ]
        assert [head["ContentType"] for head in heads] == [
            "application/json",
            "application/octet-stream",
        ]

    def test_addressing_style_and_signature(self, make: Make) -> None:
        store = make(addressing_style="path", signature_version="s3v4")
        config: Any = store.client.meta.config
        assert config.s3 == {"addressing_style": "path"}
        assert config.signature_version == "s3v4"

    def test_defaults_of_the_client(self, make: Make) -> None:
        config: Any = make().client.meta.config
        assert config.retries["total_max_attempts"] == 1
        assert config.max_pool_connections == 64
        assert (config.connect_timeout, config.read_timeout) == (5, 10)
        assert config.user_agent.startswith("django-s3cache/")

    def test_the_client_config_is_kept(self, make: Make) -> None:
        config: Any = make(
            client_config=Config(
                connect_timeout=1,
                max_pool_connections=100,
                read_timeout=2,
                retries={"max_attempts": 9, "mode": "legacy"},
                user_agent="shop",
                user_agent_extra="branch",
            )
        ).client.meta.config
        assert config.retries["total_max_attempts"] == 1
        assert config.max_pool_connections == 100
        assert (config.connect_timeout, config.read_timeout) == (1, 2)
        assert config.user_agent.startswith("shop ")
        assert config.user_agent_extra == "branch"

    def test_a_bucket_is_needed(self) -> None:
        with pytest.raises(
            ImproperlyConfigured, match="SharedSessionStorage has no bucket"
        ):
            S3Store(SharedSessionStorage())

    def test_an_endpoint_that_is_none(self, make: Make) -> None:
        store = make(endpoint_url="not an endpoint")
        with pytest.raises(ImproperlyConfigured, match="Invalid endpoint"):
            store.get("key")

    def test_one_client_for_all_threads(self, s3_store: S3Store) -> None:
        barrier = threading.Barrier(8)

        def client(_: int) -> int:
            barrier.wait()
            return id(s3_store.client)

        with ThreadPoolExecutor(8) as pool:
            assert len(set(pool.map(client, range(8)))) == 1


class TestBadDays:
    """Every way to fail, over a real connection."""

    @pytest.fixture(
        params=[
            lambda store: store.get("key"),
            lambda store: store.put("key", b"body", if_none_match=True),
            lambda store: store.delete("key"),
            lambda store: store.list(""),
            lambda store: store.delete_many(["key"]),
        ],
        ids=["get", "put", "delete", "list", "delete_many"],
    )
    def ask(self, request: pytest.FixtureRequest) -> Callable[[Store], Answer]:
        asked: Callable[[Store], Answer] = request.param
        return asked

    @pytest.mark.parametrize(
        ("status", "code"),
        [
            (400, "ExpiredToken"),
            (403, "AccessDenied"),
            (409, "ConditionalRequestConflict"),
            (412, "PreconditionFailed"),
            (429, "TooManyRequests"),
            (500, "InternalError"),
            (501, "NotImplemented"),
            (503, "SlowDown"),
        ],
    )
    def test_errors_are_answers_and_nothing_is_retried(
        self,
        s3_store: Store,
        s3_server: S3Server,
        ask: Callable[[Store], Answer],
        status: int,
        code: str,
    ) -> None:
        with (
            s3_server.fault(status=status, code=code),
            s3_server.recording() as seen,
        ):
            answer = ask(s3_store)
        assert answer == Answer(status, date=answer.date, message=f"{code}: injected")
        assert answer.date is not None
        assert answer.unclear is (status in {500, 503})
        assert len(seen) == s3_store.requests.total == 1

    @pytest.mark.parametrize("lost", ["before", "after"])
    def test_a_lost_connection_is_no_answer(
        self, s3_store: Store, s3_server: S3Server, lost: Any
    ) -> None:
        with s3_server.fault("PUT", lost=lost), s3_server.recording() as seen:
            answer = s3_store.put("key", b"body", if_none_match=True)
        assert (answer.status, answer.unclear) == (0, True)
        assert answer.message.startswith("ConnectionClosedError: ")
        assert len(seen) == 1
        assert s3_store.get("key").status == (200 if lost == "after" else 404)

    def test_a_timeout_is_no_answer(
        self, make: Make, s3_server: S3Server, ask: Callable[[Store], Answer]
    ) -> None:
        store = make(client_config=Config(read_timeout=0.2))
        with s3_server.fault(delay=0.6), s3_server.recording() as seen:
            answer = ask(store)
        assert answer.status == 0
        assert answer.message.startswith("ReadTimeoutError: ")
        assert len(seen) == 1

    def test_a_refused_connection_is_no_answer(
        self, make: Make, ask: Callable[[Store], Answer]
    ) -> None:
        answer = ask(make(endpoint_url="http://127.0.0.1:1"))
        assert answer.status == 0
        assert answer.message.startswith("EndpointConnectionError: ")

    def test_a_body_cut_short_is_no_answer(
        self, s3_store: Store, s3_server: S3Server
    ) -> None:
        s3_store.put("key", b"x" * 100_000)
        with s3_server.fault("GET", lost="midway"):
            answer = s3_store.get("key")
        assert (answer.status, answer.body) == (0, b"")

    def test_a_missing_bucket_is_not_a_missing_object(
        self, make: Make, ask: Callable[[Store], Answer]
    ) -> None:
        answer = ask(make(bucket_name="no-such-bucket"))
        assert answer.status == 410
        assert answer.message.startswith("NoSuchBucket: ")

    def test_a_404_of_something_else_is_not_a_missing_object(
        self, s3_store: Store, s3_server: S3Server
    ) -> None:
        with s3_server.fault("GET", status=404, body=b"<html>Not Found</html>"):
            answer = s3_store.get("key")
        assert (answer.status, answer.unclear) == (502, True)
        assert answer.message.startswith("a 404 without S3's error code")

    @pytest.mark.parametrize("method", ["get", "put", "list"])
    def test_a_200_of_something_else_is_no_success(
        self, s3_store: Store, s3_server: S3Server, method: str
    ) -> None:
        asked: dict[str, Callable[[], Answer]] = {
            "get": lambda: s3_store.get("key"),
            "put": lambda: s3_store.put("key", b""),
            "list": lambda: s3_store.list(""),
        }
        with s3_server.fault(status=200, body=b"<html><p>Please log in</p></html>"):
            answer = asked[method]()
        assert (answer.status, answer.unclear) == (502, True)
        assert answer.message == "a 200 without what S3 always sends with it"

    def test_a_garbled_page_is_no_page(
        self, s3_store: Store, s3_server: S3Server
    ) -> None:
        with s3_server.fault("GET", status=200, body=b"<ListBucketResult><Key>"):
            answer = s3_store.list("")
        assert answer.unclear
        assert answer.keys == ()

    def test_an_error_in_the_body_of_a_200(
        self, s3_store: Store, s3_server: S3Server, ask: Callable[[Store], Answer]
    ) -> None:
        body = b"<Error><Code>SlowDown</Code><Message>no</Message></Error>"
        with s3_server.fault(status=200, body=body):
            answer = ask(s3_store)
        assert not answer.ok
        assert answer.unclear

    @pytest.mark.parametrize(
        ("header", "date"),
        [
            ("Thu, 01 Jan 1970 00:01:00 GMT", 60),
            ("Thu, 01 Jan 1970 00:01:00 -0000", 60),
            ("yesterday", None),
        ],
    )
    def test_dates(
        self, s3_store: Store, s3_server: S3Server, header: str, date: float | None
    ) -> None:
        with s3_server.fault("GET", status=404, code="NoSuchKey", date=header):
            answer = s3_store.get("key")
        assert (answer.status, answer.date) == (404, date)

    def test_what_delete_many_could_not_delete(
        self, s3_store: Store, s3_server: S3Server
    ) -> None:
        body = (
            b"<DeleteResult><Error><Key>loc/b</Key><Code>AccessDenied</Code>"
            b"<Message>no</Message></Error></DeleteResult>"
        )
        with s3_server.fault("POST", status=200, body=body):
            answer = s3_store.delete_many(["a", "b"])
        assert answer.status == 403
        assert answer.message == "AccessDenied: loc/b, 1 of 2 not deleted"

    def test_no_credentials(
        self, make: Make, s3_server: S3Server, ask: Callable[[Store], Answer]
    ) -> None:
        store = make(access_key=None, secret_key=None)
        with s3_server.recording() as seen:
            answer = ask(store)
        assert answer == Answer(
            403, message="NoCredentialsError: Unable to locate credentials"
        )
        assert seen == []

    def test_a_request_that_cannot_be_made(self, s3_store: Store) -> None:
        answer = s3_store.put("key", b"", metadata={"bad": "h\N{SNOWMAN}"})
        assert (answer.status, answer.unclear) == (400, False)
        assert answer.message.startswith("ParamValidationError: ")
