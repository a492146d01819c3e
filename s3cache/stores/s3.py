"""
A bucket as a store, reached as a django-storages ``S3Storage`` says.

Its session, endpoint, region, addressing style, signature, proxies,
``verify``, location, ACL and object parameters (encryption, storage class,
request payer, ...) are honoured; ``gzip`` is not, since bodies are compressed
where that pays. Five things about its client are not its own: no retries,
since each attempt is the caller's and is counted; a pool of at least 64
connections, since one client serves all threads; time limits short enough
for a commit's 20 seconds, unless it sets others; a name for the server's
access logs, unless it has one; and small bodies are sent without asking
first.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC
from email.utils import parsedate_to_datetime
from io import BytesIO
from typing import TYPE_CHECKING, Any, Final

import boto3
from botocore import exceptions as botocore_errors
from botocore.config import Config
from botocore.endpoint import DEFAULT_TIMEOUT
from botocore.parsers import ResponseParserError
from django.core.exceptions import ImproperlyConfigured
from storages.backends.s3 import S3Storage
from urllib3 import exceptions as urllib3_errors

from s3cache import __version__
from s3cache.stores.base import Answer, Listed, PerProcess, Store

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

__all__ = ["S3Store"]

POOL_CONNECTIONS: Final = 64
CONNECT_TIMEOUT: Final = 5.0
"""Seconds; botocore's 60 would outlast a commit's whole time."""
READ_TIMEOUT: Final = 10.0
"""Seconds without a byte, not for the whole answer."""

USER_AGENT: Final = f"django-s3cache/{__version__} Boto3/{boto3.__version__}"
"""botocore's own is put together anew for each request: 7 % of a small PUT."""

AT_ONCE: Final = 256 * 1024
"""Bytes of a body that is sent without asking first whether it is wanted.

Of a larger one the round trip is a small part, and a refusal spares it all."""

_READ_PARAMETERS: Final = {
    "ExpectedBucketOwner",
    "RequestPayer",
    "SSECustomerAlgorithm",
    "SSECustomerKey",
    "SSECustomerKeyMD5",
}
"""Object parameters that requests other than PUT take too, where they do."""

_CONDITIONS: Final = {"IfMatch", "IfNoneMatch"}
"""What no object parameter may set: conditions are the protocol's."""

# Raised before anything was sent, and not better the next time.
_NO_CREDENTIALS: Final = (
    botocore_errors.NoCredentialsError,
    botocore_errors.PartialCredentialsError,
    botocore_errors.NoAuthTokenError,
    botocore_errors.SSOError,
)
_NEVER_SENT: Final = (
    botocore_errors.BaseEndpointResolverError,
    botocore_errors.EndpointProviderError,
    botocore_errors.ParamValidationError,
    botocore_errors.UnsupportedSignatureVersionError,
    botocore_errors.ValidationError,
)
# Whatever else goes wrong may have gone wrong after the request was sent. Not
# all that urllib3 raises while a body is read is wrapped by botocore.
_NO_ANSWER: Final = (
    botocore_errors.BotoCoreError,
    ResponseParserError,
    urllib3_errors.HTTPError,
    OSError,
)


class S3Store(Store):
    """
    The bucket and location of an ``S3Storage``.

    One client per process, made at the first request (0.3 s), shared by its
    threads. A 404 is believed only where S3's own error code says so.
    """

    def __init__(self, storage: S3Storage) -> None:
        if not storage.bucket_name:
            raise ImproperlyConfigured(
                f"{type(storage).__name__} has no bucket: set bucket_name in its "
                "OPTIONS in STORAGES"
            )
        self.storage = storage
        self.bucket: str = storage.bucket_name
        self.location = str(storage.location or "").strip("/")
        self._connection = PerProcess(lambda: _Connection(storage))
        super().__init__(
            f"s3://{self.bucket}/{self.location}".rstrip("/"), self.location
        )

    def at(self, location: str) -> S3Store:
        """Another place in the bucket, by the same client."""
        other = S3Store.__new__(type(self))
        other.storage, other.bucket = self.storage, self.bucket
        other.location = location.strip("/")
        other._connection = self._connection
        Store.__init__(
            other, f"s3://{self.bucket}/{other.location}".rstrip("/"), other.location
        )
        return other

    @property
    def client(self) -> S3Client:
        """This process's boto3 client."""
        return self._connection.get().client

    def _get(self, key: str) -> Answer:
        def read(client: S3Client) -> Answer:
            said: Any = client.get_object(**self._request(client, "GetObject", key))
            if not said.get("ETag"):
                return _not_s3(said)
            modified = said.get("LastModified")
            return Answer(
                200,
                body=said["Body"].read(),
                etag=said["ETag"],
                date=_date(said),
                modified=modified and modified.timestamp(),
            )

        return self._call(read)

    def _put(
        self,
        key: str,
        body: bytes,
        if_none_match: bool,
        if_match: str,
        content_type: str,
        metadata: Mapping[str, str],
    ) -> Answer:
        parameters: dict[str, Any] = {
            name: value
            for name, value in self._object_parameters(key).items()
            if name not in _CONDITIONS
        }
        if self.storage.default_acl:
            parameters.setdefault("ACL", self.storage.default_acl)
        parameters |= {
            "Bucket": self.bucket,
            "Key": self._prefix + key,
            "Body": body,
            "ContentType": content_type,
            "Metadata": {**parameters.get("Metadata", {}), **metadata},
        }
        if if_none_match:
            parameters["IfNoneMatch"] = "*"
        elif if_match:
            parameters["IfMatch"] = if_match

        def write(client: S3Client) -> Answer:
            said = client.put_object(**parameters)
            if not said.get("ETag"):
                return _not_s3(said)
            return Answer(200, etag=said["ETag"], date=_date(said))

        return self._call(write)

    def _delete(self, key: str, if_match: str) -> Answer:
        def remove(client: S3Client) -> Answer:
            parameters = self._request(client, "DeleteObject", key)
            if if_match:
                parameters["IfMatch"] = if_match
            return Answer(200, date=_date(client.delete_object(**parameters)))

        return self._call(remove)

    def _list(self, prefix: str, start_after: str, limit: int) -> Answer:
        def page(client: S3Client) -> Answer:
            parameters = self._request(client, "ListObjectsV2")
            parameters |= {"Prefix": self._prefix + prefix, "MaxKeys": limit}
            if start_after:
                parameters["StartAfter"] = self._prefix + start_after
            said = client.list_objects_v2(**parameters)
            if "IsTruncated" not in said:
                return _not_s3(said)
            return Answer(
                200,
                keys=tuple(
                    Listed(
                        found["Key"].removeprefix(self._prefix),
                        found["ETag"],
                        found["Size"],
                        found["LastModified"].timestamp(),
                    )
                    for found in said.get("Contents", ())
                ),
                more=said["IsTruncated"],
                date=_date(said),
            )

        return self._call(page)

    def _delete_many(self, keys: Sequence[str]) -> Answer:
        def remove(client: S3Client) -> Answer:
            said = client.delete_objects(
                **self._request(client, "DeleteObjects"),
                Delete={
                    "Objects": [{"Key": self._prefix + key} for key in keys],
                    "Quiet": True,
                },
            )
            if failed := said.get("Errors"):
                code = failed[0].get("Code", "")
                return Answer(
                    _STATUS_OF_CODE.get(code, 500),
                    date=_date(said),
                    message=f"{code}: {failed[0].get('Key')}, "
                    f"{len(failed)} of {len(keys)} not deleted",
                )
            return Answer(200, date=_date(said))

        return self._call(remove)

    def _call(self, send: Callable[[S3Client], Answer]) -> Answer:
        """The answer, whatever botocore makes of it."""
        try:
            return send(self.client)
        except botocore_errors.ClientError as error:
            return _answer(error)
        except _NO_CREDENTIALS as error:
            return Answer(403, message=_text(error))
        except _NEVER_SENT as error:
            return Answer(400, message=_text(error))
        except _NO_ANSWER as error:
            return Answer(0, message=_text(error))

    def _request(
        self, client: S3Client, operation: str, key: str | None = None
    ) -> dict[str, Any]:
        """Bucket, key, and the object parameters that the operation takes."""
        parameters = self._object_parameters(key or "")
        request: dict[str, Any] = {}
        if given := _READ_PARAMETERS & parameters.keys():
            shape = client.meta.service_model.operation_model(operation).input_shape
            for name in given.intersection(shape.members if shape else ()):
                request[name] = parameters[name]
        request["Bucket"] = self.bucket
        if key is not None:
            request["Key"] = self._prefix + key
        return request

    def _object_parameters(self, key: str) -> dict[str, Any]:
        parameters: dict[str, Any] = self.storage.get_object_parameters(key)
        return parameters


class _Connection:
    """A process's client, made by the first thread that needs it."""

    def __init__(self, storage: S3Storage) -> None:
        self._storage = storage
        self._lock = threading.Lock()
        self._client: S3Client | None = None

    @property
    def client(self) -> S3Client:
        if self._client is None:
            with self._lock:
                if self._client is None:
                    self._client = _make_client(self._storage)
        return self._client


def _make_client(storage: S3Storage) -> S3Client:
    # S3Storage.connection is a resource per thread, whose retries are on.
    try:
        client: S3Client = storage._create_session().client(
            "s3",
            region_name=storage.region_name,
            use_ssl=storage.use_ssl,
            endpoint_url=storage.endpoint_url,
            verify=storage.verify,
            config=_config(storage.client_config),
        )
    except ValueError as error:  # "Invalid endpoint: ..."
        raise ImproperlyConfigured(
            f"STORAGES of the bucket {storage.bucket_name!r}: {error}"
        ) from error
    client.meta.events.register_last("before-call.s3", _send_at_once)
    return client


def _send_at_once(params: dict[str, Any], **_: Any) -> None:
    """Send a small body without asking first whether it is wanted."""
    body = params["body"]
    if isinstance(body, BytesIO) and body.getbuffer().nbytes <= AT_ONCE:
        params["headers"].pop("Expect", None)


def _config(config: Config) -> Config:
    pool: int = config.max_pool_connections  # type: ignore[attr-defined]
    connect: float = config.connect_timeout  # type: ignore[attr-defined]
    read: float = config.read_timeout  # type: ignore[attr-defined]
    agent: str | None = config.user_agent  # type: ignore[attr-defined]
    return config.merge(
        Config(
            retries={"mode": "standard", "total_max_attempts": 1},
            max_pool_connections=max(pool, POOL_CONNECTIONS),
            connect_timeout=CONNECT_TIMEOUT if connect == DEFAULT_TIMEOUT else connect,
            read_timeout=READ_TIMEOUT if read == DEFAULT_TIMEOUT else read,
            user_agent=agent or USER_AGENT,
        )
    )


_STATUS_OF_CODE: Final = {"AccessDenied": 403, "InternalError": 500, "SlowDown": 503}


def _answer(error: botocore_errors.ClientError) -> Answer:
    said = error.response
    status = said["ResponseMetadata"]["HTTPStatusCode"]
    details = said.get("Error", {})
    code = details.get("Code", "")
    message = f"{code}: {details.get('Message', '')}".removesuffix(": ")
    if code == "NoSuchBucket":
        status = 410
    elif status == 404 and code != "NoSuchKey":
        # Not S3's word: a proxy, or another server at that address.
        status, message = 502, f"a 404 without S3's error code: {message}"
    return Answer(status, date=_date(said), message=message)


def _not_s3(said: Any) -> Answer:
    """The answer to a success that lacks what S3 always sends."""
    return Answer(
        502, date=_date(said), message="a 200 without what S3 always sends with it"
    )


def _date(said: Any) -> float | None:
    header = said["ResponseMetadata"].get("HTTPHeaders", {}).get("date", "")
    try:
        date = parsedate_to_datetime(header)
    except (TypeError, ValueError):
        return None
    # HTTP's dates are in GMT, also where "-0000" makes Python leave that open.
    return date.replace(tzinfo=date.tzinfo or UTC).timestamp()


def _text(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
