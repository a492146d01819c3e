"""
Sending what botocore has worked out once.

A request by boto3 takes 2 ms of a processor. Most of that is for what comes
out the same each time: what its parameters mean, where the bucket is, who is
asking. And a PUT sends its body when the server has answered that it wants
it, which costs a round trip more. So what botocore sends for an object is
looked at once, and from then on sent with another key, body, condition and
signature, through botocore's own connections: its pool, its time limits, its
certificates and its proxies.

Only where that cannot make a difference. What botocore sent has to be signed
by Signature Version 4, and the same signature has to come out here; each of
its headers has to be one that is known here; and nobody but botocore may
listen to the events of the client, or have put something in the place of its
methods, as tracers and moto do. All else is left to boto3.
"""

from __future__ import annotations

import base64
import hashlib
import logging
import re
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FunctionType
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urlsplit

from botocore import __version__ as botocore_version
from botocore.client import BaseClient
from botocore.exceptions import (
    ClientError,
    FlexibleChecksumError,
    IncompleteReadError,
)

from s3cache.stores.s3_signing import Scope, authorization

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

logger = logging.getLogger("s3cache.stores")

__all__ = ["AT_ONCE", "ObjectRequest", "Response", "Shortcut"]

AT_ONCE: Final = 256 * 1024
"""
Bytes of a body that is sent without asking first whether it is wanted.

Of a larger one the round trip is a small part, and a refusal spares it all.
"""

_EVENTS: Final = (
    "provide-client-params",
    "before-parameter-build",
    "before-endpoint-resolution",
    "before-call",
    "request-created",
    "choose-signer",
    "before-sign",
    "before-send",
    "response-received",
    "needs-retry",
    "before-parse",
    "after-call",
    "after-call-error",
)
"""The events of a request, in their order."""

_KEPT: Final = frozenset(
    {
        "cache-control",
        "content-disposition",
        "content-encoding",
        "content-language",
        "content-type",
        "expires",
        "user-agent",
        "x-amz-acl",
        "x-amz-checksum-mode",
        "x-amz-expected-bucket-owner",
        "x-amz-request-payer",
        "x-amz-sdk-checksum-algorithm",
        "x-amz-server-side-encryption",
        "x-amz-server-side-encryption-aws-kms-key-id",
        "x-amz-server-side-encryption-bucket-key-enabled",
        "x-amz-server-side-encryption-context",
        "x-amz-server-side-encryption-customer-algorithm",
        "x-amz-server-side-encryption-customer-key",
        "x-amz-server-side-encryption-customer-key-md5",
        "x-amz-storage-class",
        "x-amz-tagging",
        "x-amz-website-redirect-location",
    }
)
"""Headers that say the same in each request with the same parameters."""

_OWN: Final = frozenset(
    {
        "amz-sdk-invocation-id",  # for botocore's own retries
        "amz-sdk-request",
        "authorization",
        "content-length",
        "expect",
        "if-match",
        "if-none-match",
        "transfer-encoding",
        "x-amz-checksum-crc32",
        "x-amz-content-sha256",
        "x-amz-date",
        "x-amz-decoded-content-length",
        "x-amz-security-token",
        "x-amz-trailer",
    }
)
"""Headers that are another one's in each request, or left out."""

_METADATA: Final = "x-amz-meta-"
_UNSIGNED: Final = {"user-agent"}
_IN_A_TRAILER: Final = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
_NOT_SIGNED: Final = "UNSIGNED-PAYLOAD"
_CREDENTIAL: Final = re.compile(
    r"AWS4-HMAC-SHA256 Credential=[^/]+/\d{8}/([^/]+)/([^/]+)/aws4_request, "
    r"SignedHeaders=([^,]+), Signature=[0-9a-f]{64}"
)

_ELSEWHERE: Final = frozenset({301, 302, 307, 308, 400})
"""
Statuses that may mean another address or region, which botocore finds.

Nothing has been done then, so it can be asked again.
"""

_CHECKSUMS: Final[Mapping[str, Callable[[bytes], bytes]]] = {
    "x-amz-checksum-crc32": lambda body: zlib.crc32(body).to_bytes(4, "big"),
    "x-amz-checksum-sha1": lambda body: hashlib.sha1(
        body, usedforsecurity=False
    ).digest(),
    "x-amz-checksum-sha256": lambda body: hashlib.sha256(body).digest(),
}


@dataclass(frozen=True, slots=True)
class ObjectRequest:
    """
    A GET or PUT of an object.

    ``parameters`` are boto3's, the same for many requests. ``headers`` are
    this one's, by their names in lower case, with what boto3 would be given
    as a condition or as metadata.
    """

    method: str
    key: str
    parameters: Mapping[str, Any]
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Response:
    """What came back; the names of ``headers`` are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class _Template:
    """What all requests with the same parameters have in common."""

    parameters: Mapping[str, Any]
    url: str
    path: str
    headers: Mapping[str, str]
    host: str
    scope: Scope
    signs_body: bool
    has_checksum: bool


@dataclass(slots=True)
class _Prepared:
    """A request as botocore's sessions take them."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes | None
    stream_output: bool = False
    context: Mapping[str, Any] = field(default_factory=dict)


class Shortcut:
    """
    What is known of the requests of one client; for all threads.

    A request that ``send`` does not know is sent by boto3, while ``learning``
    it.
    """

    def __init__(self, client: S3Client) -> None:
        self.client = client
        self._client: Any = client  # for what is not in its interface
        self._templates: dict[str, _Template] = {}
        self._here = threading.local()
        self._is_unknown = False
        #: What the emitter remembers of its listeners, which is another object
        #: as soon as somebody begins or ceases to listen: when it was looked
        #: who they are, and when they were found to be botocore's alone.
        self._looked_at: object = None
        self._alone_at: object = None
        client.meta.events.register("before-send.s3", self._look)
        client.meta.events.register_last("before-call.s3", _send_at_once)

    def send(self, request: ObjectRequest) -> Response | None:
        """
        The answer; None: it is for boto3 to ask.

        Raises what botocore raises for an answer that does not come.
        """
        template = self._templates.get(request.method)
        if (
            template is None
            or template.parameters != request.parameters
            or len(request.body) > AT_ONCE
            or not all(map(_is_plain, request.headers.values()))
            or self._is_watched()
        ):
            return None
        signer = self._client._request_signer
        prepared = _prepare(
            template, request, signer._credentials.get_frozen_credentials()
        )
        answer = self._client._endpoint.http_session.send(prepared)
        response = Response(
            answer.status_code,
            {name.lower(): value for name, value in answer.headers.items()},
            answer.content,
        )
        if response.status in _ELSEWHERE:
            self._templates.pop(request.method, None)
            return None
        if request.method == "GET":
            _check(response)
        return response

    @contextmanager
    def learning(self, request: ObjectRequest) -> Iterator[None]:
        """See how boto3 sends ``request``."""
        self._here.sent = None
        try:
            yield
        except ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] not in _ELSEWHERE:
                self._learn(request)
            raise
        self._learn(request)

    def _learn(self, request: ObjectRequest) -> None:
        sent, self._here.sent = self._here.sent, None
        if sent is None or self._is_unknown:
            return
        try:
            if not self._is_listened_to():
                template = self._template(request, sent)
                if template is not None:
                    self._templates[request.method] = template
        except AttributeError:
            # What is looked at is no part of botocore's interface.
            self._is_unknown = True
            logger.warning(
                "botocore %s is not known to s3cache: requests are made by boto3 "
                "alone, and take longer.",
                botocore_version,
                exc_info=True,
            )

    def _look(self, request: Any, **_: Any) -> None:
        self._here.sent = request

    def _template(self, request: ObjectRequest, sent: Any) -> _Template | None:
        """What can be learned of what botocore ``sent`` for ``request``."""
        key = quote(request.key, safe="/~")
        parts = urlsplit(sent.url)
        if parts.query or not parts.path.endswith(key):
            return None
        headers = {
            name.lower(): _text(value)
            for name, value in sent.headers.items()
            if not name.lower().startswith(_METADATA)
        }
        metadata = {
            name.lower(): _text(value)
            for name, value in sent.headers.items()
            if name.lower().startswith(_METADATA)
        }
        said = _CREDENTIAL.fullmatch(headers.get("authorization", ""))
        if said is None or not headers.keys() <= _KEPT | _OWN:
            return None
        region, service, signed = said.groups()
        scope, host = Scope(region, service), _host(sent.url)
        payload = headers["x-amz-content-sha256"]
        known = {**headers, **metadata, "host": host}
        credentials = self._client._request_signer._credentials.get_frozen_credentials()
        ours = authorization(
            request.method,
            parts.path,
            {name: known.get(name, "") for name in signed.split(";")},
            payload,
            access_key=credentials.access_key,
            secret_key=credentials.secret_key,
            scope=scope,
        )
        if ours != headers["authorization"]:
            return None
        if payload == _IN_A_TRAILER:
            encodings = headers.pop("content-encoding", "").split(",")
            if others := ",".join(one for one in encodings if one != "aws-chunked"):
                headers["content-encoding"] = others
        return _Template(
            dict(request.parameters),
            sent.url.removesuffix(key),
            parts.path.removesuffix(key),
            {name: value for name, value in headers.items() if name in _KEPT},
            host,
            scope,
            payload not in (_IN_A_TRAILER, _NOT_SIGNED),
            "x-amz-sdk-checksum-algorithm" in headers,
        )

    def _is_watched(self) -> bool:
        """Whether anything has changed since nobody else was listening."""
        return (
            self._alone_at is not self._emitter._lookup_cache
            or _client_class._make_api_call is not _OF_BOTOCORE
        )

    def _is_listened_to(self) -> bool:
        """Whether anybody but botocore takes part in requests."""
        emitter = self._emitter
        now = emitter._lookup_cache
        if now is not self._looked_at:
            modules = (
                str(getattr(handler, "__module__", ""))
                for event in _EVENTS
                for operation in ("GetObject", "PutObject")
                for handler in emitter._handlers.prefix_search(
                    f"{event}.s3.{operation}"
                )
            )
            if all(name.startswith(("botocore.", __name__)) for name in modules):
                self._alone_at = now
            self._looked_at = now
        return self._is_watched() or not isinstance(_OF_BOTOCORE, FunctionType)

    @property
    def _emitter(self) -> Any:
        return self._client.meta.events._emitter


_client_class: Any = BaseClient  # for what is not in its interface

#: Before anybody had the chance to put something in its place.
_OF_BOTOCORE: Final = _client_class._make_api_call


def _send_at_once(params: dict[str, Any], **_: Any) -> None:
    """Have boto3, too, send a small body without being asked for it."""
    view = getattr(params.get("body"), "getbuffer", None)
    if view is not None and view().nbytes <= AT_ONCE:
        params["headers"].pop("Expect", None)


def _prepare(
    template: _Template, request: ObjectRequest, credentials: Any
) -> _Prepared:
    """The request, signed."""
    key = quote(request.key, safe="/~")
    digest = (
        hashlib.sha256(request.body).hexdigest() if template.signs_body else _NOT_SIGNED
    )
    headers = {
        **template.headers,
        **request.headers,
        "x-amz-content-sha256": digest,
        "x-amz-date": time.strftime("%Y%m%dT%H%M%SZ", time.gmtime()),
    }
    if template.has_checksum:
        headers["x-amz-checksum-crc32"] = base64.b64encode(
            zlib.crc32(request.body).to_bytes(4, "big")
        ).decode()
    if credentials.token:
        headers["x-amz-security-token"] = credentials.token
    signed = {"host": template.host, **headers}
    for name in _UNSIGNED:
        signed.pop(name, None)
    headers["Authorization"] = authorization(
        request.method,
        template.path + key,
        signed,
        digest,
        access_key=credentials.access_key,
        secret_key=credentials.secret_key,
        scope=template.scope,
    )
    body = None if request.method == "GET" else request.body
    return _Prepared(request.method, template.url + key, headers, body)


def _check(response: Response) -> None:
    """Raise, as botocore does, for a body that is not the object's."""
    length = response.headers.get("content-length")
    if length is not None and int(length) != len(response.body):
        raise IncompleteReadError(
            actual_bytes=len(response.body), expected_bytes=int(length)
        )
    if response.status != 200:
        return
    for name, digest in _CHECKSUMS.items():
        expected = response.headers.get(name)
        # With a hyphen it is one of parts' checksums.
        if expected is None or "-" in expected:
            continue
        found = base64.b64encode(digest(response.body)).decode()
        if found != expected:
            raise FlexibleChecksumError(
                error_msg=f"Expected {name} {expected}, but the body has {found}"
            )


def _is_plain(value: str) -> bool:
    """Whether a header with this value is signed just as it is sent."""
    return value.isascii() and value.isprintable() and value == " ".join(value.split())


def _text(value: Any) -> str:
    said = value.decode() if isinstance(value, bytes) else str(value)
    return " ".join(said.split())


def _host(url: str) -> str:
    """What the ``Host`` header says."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if ":" in host:
        host = f"[{host}]"
    usual = {"http": 80, "https": 443}.get(parts.scheme)
    return host if parts.port in (None, usual) else f"{host}:{parts.port}"
