"""
The errors of s3cache.

Everything here is also a ``django.db.OperationalError``, which is what Django
itself, its retry helpers and most projects already catch.

    S3CacheError                 root of the family; never raised as such
    ├── StoreError               a store answered with an error, or not at all
    │   ├── StoreUnavailable     timeout, lost connection, 5xx: try again later
    │   ├── StoreRefused         403, other 4xx: something has to be changed
    │   └── UnsuitableStore      no conditional writes, no list permission, ...
    ├── TransactionConflict      another commit came first; nothing was written
    │   └── RowChanged           ... for save(if_unchanged=True)
    ├── CommitOutcomeUnknown     the commit may or may not have happened
    ├── LogDiverged              this is not the log that the replica followed
    └── EntryFormatError         an entry that is newer than this release,
                                 damaged, or wrongly signed

They derive from ``django.db``'s classes directly: Django's
``wrap_database_errors`` would turn subclasses of ``sqlite3``'s errors into
plain ones.
"""

from __future__ import annotations

from django.db import OperationalError

__all__ = [
    "CommitOutcomeUnknown",
    "EntryFormatError",
    "LogDiverged",
    "RowChanged",
    "S3CacheError",
    "StoreError",
    "StoreRefused",
    "StoreUnavailable",
    "TransactionConflict",
    "UnsuitableStore",
]


class S3CacheError(Exception):
    """The root of the family, to catch whatever s3cache raises on purpose."""


class StoreError(S3CacheError, OperationalError):
    """A store answered with an error, or not at all."""


class StoreUnavailable(StoreError):
    """No answer, a 5xx, or a 409. The same request may succeed later."""


class StoreRefused(StoreError):
    """A 403 or another 4xx. It stays so until something is changed."""


class UnsuitableStore(StoreError):
    """The store lacks something that no protocol here can do without."""


class TransactionConflict(S3CacheError, OperationalError):
    """
    Another commit changed what this transaction had read.

    Nothing was written anywhere; running the transaction again is safe.
    """


class RowChanged(TransactionConflict):
    """``save(if_unchanged=True)`` met a row that is not as it was loaded."""


class CommitOutcomeUnknown(S3CacheError, OperationalError):
    """
    The store gave no conclusive answer to a commit within its time.

    The commit may have happened, may still happen, or may not. ``position``
    is the log number that it asked for and ``token`` the entry's random token:
    the commit happened if, and only if, the entry with that number carries
    that token.
    """

    def __init__(self, message: str, *, position: int, token: str) -> None:
        super().__init__(message)
        self.position = position
        self.token = token

    def __reduce__(self) -> tuple[object, ...]:
        # Exceptions cross process pools; the default would lose the keywords.
        return _commit_outcome_unknown, (str(self), self.position, self.token)


class LogDiverged(S3CacheError, OperationalError):
    """The bucket was wiped, restored or forked under this replica."""


class EntryFormatError(S3CacheError, OperationalError):
    """A log entry that this release cannot read, or must not trust."""


def _commit_outcome_unknown(
    message: str, position: int, token: str
) -> CommitOutcomeUnknown:
    return CommitOutcomeUnknown(message, position=position, token=token)
