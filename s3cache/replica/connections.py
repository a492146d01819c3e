"""Connections to the replica file."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django.db.backends.sqlite3._functions import register as register_functions


@dataclass(frozen=True)
class Registration:
    """A function, aggregate or collation: wanted on all connections.

    ``method`` is the one of ``sqlite3.Connection`` that registers it.
    """

    method: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]

    @property
    def name(self) -> tuple[str, Any]:
        """What a later registration of the same name replaces."""
        return self.method, self.args[:1] or self.kwargs.get("name")

    def on(self, connection: sqlite3.Connection) -> None:
        """Register it on ``connection``."""
        getattr(connection, self.method)(*self.args, **self.kwargs)


#: Seconds that a connection waits for another process's SQLite transaction.
#: They are short, but for those that a block leaves open when its process
#: was the only one: they last until its next statement.
BUSY_TIMEOUT = 20.0

_PRAGMAS = (
    "PRAGMA temp_store = MEMORY",
    # REPLACE deletes rows without telling the triggers otherwise.
    "PRAGMA recursive_triggers = ON",
    # Foreign keys are checked by foreign_keys.py: SQLite would only do so in
    # a commit, and what is tried out here is rolled back.
    "PRAGMA foreign_keys = OFF",
    "PRAGMA legacy_alter_table = OFF",
)


def connect(
    path: Path,
    *,
    read_only: bool = False,
    create: bool = True,
    cached_statements: int = 256,
    registrations: Iterable[Registration] = (),
    factory: type[sqlite3.Connection] = sqlite3.Connection,
) -> sqlite3.Connection:
    """Open the replica file, with Django's functions and ``registrations``.

    A connection that only reads is opened as such: a write that escapes the
    capture fails loudly.
    """
    mode = "ro" if read_only else "rwc" if create else "rw"
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={mode}",
        uri=True,
        isolation_level=None,
        check_same_thread=False,
        detect_types=sqlite3.PARSE_DECLTYPES | sqlite3.PARSE_COLNAMES,
        timeout=BUSY_TIMEOUT,
        cached_statements=cached_statements,
        factory=factory,
    )
    with closed_on_error(connection):
        register_functions(connection)
        for pragma in _PRAGMAS:
            connection.execute(pragma)
        for registration in registrations:
            registration.on(connection)
    return connection


@contextmanager
def closed_on_error(connection: sqlite3.Connection) -> Iterator[None]:
    """Close ``connection`` if anything is raised within the context.

    For who has opened it, until it is where somebody else will close it.
    """
    try:
        yield
    except BaseException:
        connection.close()
        raise


def identity_of(path: Path) -> tuple[int, int]:
    """What tells a file from another one that took its place; (0, 0): none."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return 0, 0
    return found.st_dev, found.st_ino


def make_durable(connection: sqlite3.Connection) -> None:
    """Set what the file, not a connection, has to be set to once."""
    connection.execute("PRAGMA journal_mode = WAL")
    # A crash of the machine may undo the last transactions of the replica,
    # but not the log's, and leaves a consistent older state.
    connection.execute("PRAGMA synchronous = NORMAL")
