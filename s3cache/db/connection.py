"""What ``connections[alias].connection`` is."""

from __future__ import annotations

import sqlite3
from typing import Any

from django.db import NotSupportedError, OperationalError

from s3cache.replica.absent import NotLoaded
from s3cache.replica.connections import Registration
from s3cache.replica.reader import Reader
from s3cache.replica.replica import Replica
from s3cache.replica.results import Result
from s3cache.replica.sql import why_refused
from s3cache.results.statements import statements_of


def _refuse() -> sqlite3.Connection:
    raise sqlite3.ProgrammingError("Cannot operate on a closed database.")


#: What a closed connection reads with.
_CLOSED = Reader(_refuse)


class Connection:
    """The reading connection of one Django connection.

    It has those methods of ``sqlite3.Connection`` that projects use in
    ``connection_created`` receivers. Functions, aggregates and collations
    are registered on the writing connections, too.
    """

    def __init__(self, replica: Replica, reader: Reader) -> None:
        self.replica = replica
        self.reader = reader
        self.statements = statements_of(replica)

    def _register(self, method: str, args: Any, kwargs: Any) -> None:
        registration = Registration(method, args, kwargs)
        self.reader.register(registration)
        self.replica.register(registration)
        name = registration.args[0] if args else registration.kwargs["name"]
        self.statements.redefine(str(name))

    def create_function(self, *args: Any, **kwargs: Any) -> None:
        """See ``sqlite3.Connection.create_function``."""
        self._register("create_function", args, kwargs)

    def create_aggregate(self, *args: Any, **kwargs: Any) -> None:
        """See ``sqlite3.Connection.create_aggregate``."""
        self._register("create_aggregate", args, kwargs)

    def create_collation(self, *args: Any, **kwargs: Any) -> None:
        """See ``sqlite3.Connection.create_collation``."""
        self._register("create_collation", args, kwargs)

    def execute(self, sql: str, params: Any = ()) -> Result:
        """Run a statement that reads."""
        if reason := why_refused(sql):
            # What it hides is a table that results of others are read from.
            raise NotSupportedError(f"{sql[:100]} is not supported: {reason}.")
        self.statements.heed_pragma(sql)
        if not self.reader.is_in_transaction():
            return self.replica.loading(lambda: self.reader.execute(sql, params))
        try:
            return self.reader.execute(sql, params)
        except NotLoaded as missing:
            # It is the block's snapshot, which would never have it.
            raise OperationalError(
                f"{sql[:100]} needs rows that are not loaded: within atomic(), "
                f"run it on a cursor of Django's connection, which loads them."
            ) from missing

    def getlimit(self, category: int) -> int:
        """See ``sqlite3.Connection.getlimit``."""
        with self.reader.held() as connection:
            return connection.getlimit(category)

    def cursor(self) -> sqlite3.Cursor:
        """A cursor of SQLite's, to read."""
        self.replica.load()  # nobody looks at what is executed there
        return self.reader.connection.cursor()

    def close(self) -> None:
        """Give the reading connection back; using this one is an error."""
        reader, self.reader = self.reader, _CLOSED
        if reader is not _CLOSED:
            self.replica.give_back(reader)
