"""Responses in the cache: their form, and the keys that they are under.

Under the *address* of a request it is said what its response is made of; under
a *key* with the versions of that is the response.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Iterable, Sequence
from typing import Any, Final, TypeVar, cast

import msgspec
from django.core.cache import caches
from django.http import HttpRequest, HttpResponse
from django.utils.cache import get_conditional_response
from django.utils.http import parse_http_date_safe

from s3cache import conf
from s3cache.db.moments import Moment
from s3cache.middleware.base import meta_name
from s3cache.middleware.cookies import ALL, values_of
from s3cache.middleware.status import STATUS_HEADER, TABLES_HEADER
from s3cache.results.keys import NAMESPACE

__all__ = ["LABEL", "Known", "Stored", "address_of", "key_of", "read", "write"]

logger = logging.getLogger("s3cache.middleware")

#: What responses are counted under.
LABEL: Final = "response"

#: Of no use in a response that is given again.
_NOT_KEPT: Final = frozenset(
    ["connection", "set-cookie", STATUS_HEADER.lower(), TABLES_HEADER.lower()]
)


class Known(msgspec.Struct, array_like=True, frozen=True):
    """What is known of an address before its view is called."""

    #: By alias, what the response is made of.
    tables: dict[str, tuple[str, ...]]
    #: Names of headers, in lower case and in order.
    vary: tuple[str, ...]
    #: Names of cookies that it goes by, in order.
    cookies: tuple[str, ...]
    #: Whether those of requests with credentials are kept, too.
    credentials: bool

    def merged(
        self,
        tables: dict[str, tuple[str, ...]],
        vary: tuple[str, ...],
        cookies: Iterable[str],
        *,
        credentials: bool,
    ) -> Known:
        """This and what a response has besides.

        Another one may read other tables, name other headers and go by other
        cookies. What one has named counts for all.
        """
        return Known(
            {
                alias: tuple(sorted({*self.tables.get(alias, ()), *names}))
                for alias, names in sorted((self.tables | tables).items())
            },
            tuple(sorted({*self.vary, *vary})),
            tuple(sorted({*self.cookies, *cookies})),
            credentials,
        )


class Stored(msgspec.Struct, array_like=True, frozen=True):
    """A response; ``made`` in epoch seconds, ``cookies`` as they were set."""

    headers: list[tuple[str, str]]
    body: bytes
    made: float
    cookies: list[str]

    @classmethod
    def of(cls, response: HttpResponse) -> Stored:
        """``response`` as it is now."""
        return cls(
            [
                (name, value)
                for name, value in response.headers.items()
                if name.lower() not in _NOT_KEPT
            ],
            response.content,
            time.time(),
            [morsel.OutputString() for morsel in response.cookies.values()],
        )

    def response_to(self, request: HttpRequest) -> HttpResponse:
        """The response; status 304 if ``request`` says that it has it."""
        response = HttpResponse(self.body)
        del response.headers["Content-Type"]
        for name, value in self.headers:
            response.headers[name] = value
        for line in self.cookies:
            response.cookies.load(line)
        if "Cache-Control" in response.headers:
            # What it says counts from when the response was made.
            response.headers["Age"] = str(max(0, int(time.time() - self.made)))
        modified = response.headers.get("Last-Modified")
        found = get_conditional_response(
            request,
            etag=response.headers.get("ETag"),
            last_modified=(modified and parse_http_date_safe(modified)) or None,
            response=response,
        )
        return cast("HttpResponse", found)


def address_of(request: HttpRequest, host: str, method: str) -> str:
    """Where it is said what the response to ``request`` is made of."""
    digest = _digest(
        method,
        request.scheme,
        host,
        # Not build_absolute_uri(): it takes dots out of paths, and views do
        # not.
        request.path,
        request.META.get("QUERY_STRING", ""),
        conf.settings().key_version,
    )
    return f"{NAMESPACE}:{LABEL}:{digest}"


def key_of(
    request: HttpRequest,
    address: str,
    known: Known,
    moment: Moment,
    who: Sequence[object],
) -> str:
    """Where the response is that shows its tables as at ``moment``.

    With credentials, of ``who_asks()``, it is nobody else's, and for all the
    cookies of the request.
    """
    meta = request.META
    headers = [(name, meta.get(meta_name(name), "")) for name in known.vary]
    cookies = values_of(request, [ALL] if who else known.cookies)
    versions = [
        (alias, known.tables[alias], at.schema, at.versions)
        for alias, at in moment.at.items()
    ]
    return f"{address}:{_digest(headers, cookies, [*who], versions)}"


def _digest(*words: object) -> str:
    text = repr(words).encode("utf-8", "surrogatepass")
    return hashlib.blake2b(text, digest_size=20).hexdigest()


_encoder = msgspec.msgpack.Encoder()
_T = TypeVar("_T", Known, Stored)

# Made by one thread; see s3cache.log.entry.
_decoders: dict[type, msgspec.msgpack.Decoder[Any]] = {
    kind: msgspec.msgpack.Decoder(kind) for kind in (Known, Stored)
}


def read(key: str, kind: type[_T]) -> _T | None:
    """What the cache has under ``key``; None, too, if it is damaged."""
    alias = cast("str", conf.settings().cache)
    try:
        data = caches[alias].get(key)
        return _decoders[kind].decode(data) if data else None
    except msgspec.MsgspecError as error:
        logger.warning("The response %s cannot be read: %s", key, error)
    except Exception as error:
        # Any cache serves, so any error is possible. The view has the answer.
        logger.warning("The cache %r failed: %s", alias, error)
    return None


def write(key: str, value: Known | Stored, ttl: float) -> None:
    """Have ``read`` find ``value`` for ``ttl`` seconds, if the cache can."""
    alias = cast("str", conf.settings().cache)
    try:
        caches[alias].set(key, _encoder.encode(value), ttl)
    except Exception as error:  # as above
        logger.warning("The cache %r failed: %s", alias, error)
