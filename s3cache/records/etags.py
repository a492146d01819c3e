"""What a host knows of the records in the bucket: their ETags.

A file beside the replica. It saves reading a record before it is replaced;
an ETag that is not the record's any more is found out by the store, so the
file may be old, or gone.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from s3cache.replica.file import create_private, delete_file

_CREATE = """
    CREATE TABLE IF NOT EXISTS etags (
        record TEXT PRIMARY KEY, etag TEXT NOT NULL
    ) WITHOUT ROWID
"""

#: Parameters of one statement.
_AT_ONCE = 500


class ETags:
    """The file at ``path``."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @classmethod
    def beside(cls, replica: Path) -> ETags:
        """The file of the host whose replica is there."""
        return cls(replica.with_name(f"{replica.name}-records"))

    def recall(self, keys: Sequence[str]) -> dict[str, str]:
        """The ETags that are known of ``keys``."""
        found: dict[str, str] = {}
        with self._opened() as connection:
            for start in range(0, len(keys), _AT_ONCE):
                some = list(keys[start : start + _AT_ONCE])
                marks = ", ".join("?" * len(some))
                found.update(
                    connection.execute(
                        f"SELECT record, etag FROM etags WHERE record IN ({marks})",  # noqa: S608
                        some,
                    )
                )
        return found

    def remember(self, etags: Mapping[str, str | None]) -> None:
        """Note ETags; None: the record is gone, or not ours."""
        with self._opened() as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(
                "INSERT OR REPLACE INTO etags VALUES (?, ?)",
                [(key, etag) for key, etag in etags.items() if etag],
            )
            connection.executemany(
                "DELETE FROM etags WHERE record = ?",
                [(key,) for key, etag in etags.items() if not etag],
            )
            connection.execute("COMMIT")

    @contextlib.contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        # Opened for each use: nothing of SQLite's is left open for a fork.
        try:
            connection = self._open()
        except sqlite3.DatabaseError:
            delete_file(self._path)  # it is no loss
            connection = self._open()
        with contextlib.closing(connection):
            yield connection

    def _open(self) -> sqlite3.Connection:
        create_private(self._path)
        connection = sqlite3.connect(self._path, isolation_level=None)
        try:
            connection.execute("PRAGMA synchronous = OFF")
            connection.execute(_CREATE)
        except BaseException:
            connection.close()
            raise
        return connection
