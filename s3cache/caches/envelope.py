"""
One entry of a cache that others can write to: times, proof, and the value.

    4   magic and format: b"S3C" and 1
    1   flags: 1 = encrypted
    1   compression: 0 none, 1 zstd, 2 gzip
    1   serializer: 0 msgpack, 1 pickle, 255 one of the project's own
    1   0
    4   which key made the MAC
    32  created, soft expiry, hard expiry (epoch seconds; infinity: never), and
        the seconds that computing the value took
    32  HMAC-SHA-256 of the above, the cache key, and the body
    ... the body: serialized, then compressed, then encrypted

The cache key is part of what is authenticated, so an entry cannot be put in
another's place. Nothing is decrypted, decompressed or decoded before the MAC
was checked, and no more than ``max_entry_bytes`` come out of decompression.
"""

from __future__ import annotations

import hashlib
import hmac
import math
import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, cast

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from s3cache.caches.codec import MsgpackSerializer, PickleSerializer, Serializer
from s3cache.caches.compression import pack, unpack
from s3cache.caches.errors import Undecodable
from s3cache.caches.times import Times

__all__ = ["HEADER_BYTES", "Envelope", "Opened", "expiry", "keys"]

_MAGIC: Final = b"S3C\x01"
_HEADER: Final = struct.Struct(">4sBBBxIdddd")
_MAC_BYTES: Final = 32
HEADER_BYTES: Final = _HEADER.size + _MAC_BYTES
_ENCRYPTED: Final = 1
_OTHER: Final = 255
_SERIALIZERS: Final[dict[type, int]] = {MsgpackSerializer: 0, PickleSerializer: 1}
_SALT_BYTES: Final = 16
_NONCE_BYTES: Final = 12


class Opened(NamedTuple):
    """An entry whose MAC was right; its value is not decoded yet."""

    times: Times
    flags: int
    compression: int
    serializer: int
    body: bytes
    bound: bytes
    """The header without the MAC, and the key: what encryption binds to."""


@dataclass(frozen=True, slots=True)
class _Key:
    secret: bytes
    number: int

    @classmethod
    def derive(cls, secret: bytes, purpose: str) -> _Key:
        # HKDF (RFC 5869) with one block; each purpose has a key of its own.
        extracted = hmac.digest(b"s3cache.caches", secret, "sha256")
        key = hmac.digest(extracted, purpose.encode() + b"\x01", "sha256")
        number = hashlib.sha256(b"number" + key).digest()[:4]
        return cls(key, int.from_bytes(number, "big"))


def keys(path: str, value: object) -> tuple[bytes, ...]:
    """Read a list of secrets; the error does not quote them."""
    if (
        not isinstance(value, Sequence)
        or isinstance(value, str | bytes)
        or not all(isinstance(key, str | bytes) and key for key in value)
    ):
        raise ImproperlyConfigured(
            f"{path} must be a list of keys, each a str or bytes and not empty."
        )
    given = cast("Sequence[str | bytes]", value)
    return tuple(key.encode() if isinstance(key, str) else key for key in given)


def secret_keys() -> tuple[bytes, ...]:
    """SECRET_KEY, then its fallbacks."""
    return keys("SECRET_KEY", [settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS])


class Envelope:
    """
    Makes entries and opens them; safe to share between threads.

    The first of `signing_keys` and of `encryption_keys` is used for new
    entries, each of them for old ones. With encryption an entry that is not
    encrypted is a miss, so that none stays behind.
    """

    def __init__(
        self,
        serializer: Serializer,
        *,
        compression: str | None = None,
        threshold: int = 1024,
        most: int = 64 * 2**20,
        signing_keys: Sequence[bytes] | None = None,
        encryption_keys: Sequence[bytes] = (),
    ) -> None:
        self._serializer = serializer
        self._serializer_number = _SERIALIZERS.get(type(serializer), _OTHER)
        self._compression = compression
        self._threshold = threshold
        self.most = most
        secrets = secret_keys() if signing_keys is None else signing_keys
        made = [_Key.derive(secret, "mac") for secret in secrets]
        if not made:
            raise ImproperlyConfigured("'signing_keys' must not be empty.")
        self._signs = made[0]
        self._verifies = {key.number: key for key in made}
        self._ciphers = [_Key.derive(key, "cipher").secret for key in encryption_keys]
        if self._ciphers:
            _gcm()  # now, rather than at the first entry

    def seal(self, key: str, value: Any, times: Times) -> bytes:
        """Return the entry; raise what the serializer raises."""
        number, body = pack(
            self._serializer.dumps(value), self._compression, self._threshold
        )
        header = _HEADER.pack(
            _MAGIC,
            _ENCRYPTED if self._ciphers else 0,
            number,
            self._serializer_number,
            self._signs.number,
            times.created,
            times.soft,
            times.expires,
            times.cost,
        )
        bound = header + key.encode(errors="surrogatepass")
        if self._ciphers:
            body = _encrypt(self._ciphers[0], body, bound)
        return b"".join((header, _mac(self._signs, bound, body), body))

    def open(self, key: str, data: bytes) -> Opened:
        """Check an entry; raise `Undecodable` if it proves nothing."""
        if len(data) < HEADER_BYTES or data[:3] != _MAGIC[:3]:
            raise Undecodable("corrupt", "no entry")
        if data[3] != _MAGIC[3]:
            raise Undecodable("foreign", f"format {data[3]} is of another release")
        (_, flags, compression, serializer, number, created, soft, expires, cost) = (
            _HEADER.unpack_from(data)
        )
        signed_by = self._verifies.get(number)
        header, mac = data[: _HEADER.size], data[_HEADER.size : HEADER_BYTES]
        body = data[HEADER_BYTES:]
        bound = header + key.encode(errors="surrogatepass")
        if signed_by is None or not hmac.compare_digest(
            mac, _mac(signed_by, bound, body)
        ):
            raise Undecodable("forged", "no known key signed this entry")
        times = Times(created, expires, soft, cost)
        return Opened(times, flags, compression, serializer, body, bound)

    def value(self, opened: Opened) -> Any:
        """Decode an entry; raise `Undecodable`."""
        if opened.serializer != self._serializer_number:
            raise Undecodable("foreign", "another serializer made this entry")
        body = opened.body
        if bool(opened.flags & _ENCRYPTED) != bool(self._ciphers):
            raise Undecodable("foreign", "encrypted without keys, or the reverse")
        if self._ciphers:
            body = self._decrypted(body, opened.bound)
        data = unpack(opened.compression, body, self.most)
        try:
            return self._serializer.loads(data)
        except Undecodable:
            raise
        except Exception as error:
            raise Undecodable(
                "corrupt", f"the serializer refused: {error!r}"
            ) from error

    def renewed(self, key: str, opened: Opened, times: Times) -> bytes:
        """Return the same entry with other times, signed by the newest key."""
        if self._ciphers:  # the times are bound to the cipher text
            return self.seal(key, self.value(opened), times)
        header = _HEADER.pack(
            _MAGIC,
            opened.flags,
            opened.compression,
            opened.serializer,
            self._signs.number,
            times.created,
            times.soft,
            times.expires,
            times.cost,
        )
        bound = header + key.encode(errors="surrogatepass")
        return b"".join((header, _mac(self._signs, bound, opened.body), opened.body))

    def _decrypted(self, body: bytes, bound: bytes) -> bytes:
        for cipher in self._ciphers:
            found = _decrypt(cipher, body, bound)
            if found is not None:
                return found
        raise Undecodable("forged", "no known key decrypts this entry")


def _mac(key: _Key, bound: bytes, body: bytes) -> bytes:
    # The length keeps apart what belongs to the key and what to the body.
    message = b"".join((len(bound).to_bytes(4, "big"), bound, body))
    return hmac.digest(key.secret, message, "sha256")


def _gcm() -> Any:
    try:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    except ImportError as error:
        raise ImproperlyConfigured(
            "'encryption_keys' need the cryptography library: "
            "pip install 'django-s3cache[encryption]'."
        ) from error
    return AESGCM


def _encrypt(secret: bytes, body: bytes, bound: bytes) -> bytes:
    # A key for each entry, so that random nonces never have to be unique
    # among more entries than GCM allows for one key.
    salt, nonce = os.urandom(_SALT_BYTES), os.urandom(_NONCE_BYTES)
    cipher = _gcm()(hmac.digest(secret, salt, "sha256"))
    return salt + nonce + cast("bytes", cipher.encrypt(nonce, body, bound))


def _decrypt(secret: bytes, body: bytes, bound: bytes) -> bytes | None:
    from cryptography.exceptions import InvalidTag

    salt, nonce = body[:_SALT_BYTES], body[_SALT_BYTES : _SALT_BYTES + _NONCE_BYTES]
    cipher = _gcm()(hmac.digest(secret, salt, "sha256"))
    try:
        return cast(
            "bytes", cipher.decrypt(nonce, body[_SALT_BYTES + _NONCE_BYTES :], bound)
        )
    except (InvalidTag, ValueError):
        return None


def expiry(data: bytes) -> float:
    """The hard expiry that a header claims; for those who clean up."""
    if len(data) < _HEADER.size or data[:4] != _MAGIC:
        return -math.inf
    return float(_HEADER.unpack_from(data)[7])
