"""
The errors of the cache backends.

    NotSerializable   a value that the serializer refuses: raised, never stored
    QueueFull         a source that is written to later does not keep up
    Undecodable       an entry that cannot be, or must not be, read: a backend
                      counts it, by ``reason``, and answers with a miss
"""

from __future__ import annotations

from typing import Literal, TypeAlias

from s3cache.exceptions import S3CacheError

__all__ = ["NotSerializable", "QueueFull", "Reason", "Undecodable"]

Reason: TypeAlias = Literal["corrupt", "forged", "foreign", "too_large"]


class NotSerializable(S3CacheError, TypeError):
    """The value is, or contains, something that the serializer refuses."""


class QueueFull(S3CacheError, RuntimeError):
    """As many values wait to be written to a source as may wait."""


class Undecodable(S3CacheError, ValueError):
    """
    An entry that is not given to anybody.

    ``reason`` is "corrupt" (damaged, or of a model that has changed), "forged"
    (no known key made its MAC), "foreign" (written in a format, or with an
    option, that this process does not use) or "too_large" (more bytes than
    ``max_entry_bytes`` once decompressed).
    """

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
