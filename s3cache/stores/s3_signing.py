"""AWS's Signature Version 4 of a request for an object."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from typing import Final

ALGORITHM: Final = "AWS4-HMAC-SHA256"


@dataclass(frozen=True, slots=True)
class Scope:
    """Where a signature is good."""

    region: str
    service: str

    def on(self, date: str) -> str:
        """The scope on a day, ``YYYYMMDD``."""
        return f"{date}/{self.region}/{self.service}/aws4_request"


def authorization(
    method: str,
    path: str,
    headers: Mapping[str, str],
    payload: str,
    *,
    access_key: str,
    secret_key: str,
    scope: Scope,
) -> str:
    """The ``Authorization`` header of a request without a query.

    ``path`` is quoted as it is sent. ``headers`` are those to be signed, by
    their names in lower case, with ``host`` and ``x-amz-date`` among them;
    no value has white space at its ends, or twice in a row. ``payload`` is
    what ``x-amz-content-sha256`` says.
    """
    moment = headers["x-amz-date"]
    date = moment[:8]
    names = sorted(headers)
    signed = ";".join(names)
    lines = [f"{name}:{headers[name]}" for name in names]
    canonical = "\n".join([method, path, "", *lines, "", signed, payload])
    where = scope.on(date)
    digest = sha256(canonical.encode()).hexdigest()
    text = f"{ALGORITHM}\n{moment}\n{where}\n{digest}"
    key = _key(secret_key, date, scope.region, scope.service)
    signature = hmac.digest(key, text.encode(), "sha256").hex()
    return (
        f"{ALGORITHM} Credential={access_key}/{where}, "
        f"SignedHeaders={signed}, Signature={signature}"
    )


@lru_cache(maxsize=16)
def _key(secret_key: str, date: str, region: str, service: str) -> bytes:
    """The same all day."""
    key = f"AWS4{secret_key}".encode()
    for part in (date, region, service, "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    return key
