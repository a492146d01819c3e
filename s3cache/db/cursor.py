"""Cursors over buffered results."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from itertools import chain
from typing import Any

from django.db.backends.sqlite3.base import FORMAT_QMARK_REGEX

from s3cache.replica.results import Result
from s3cache.results.reading import QuerySQL

#: Characters of a statement whose conversion is kept.
_LONGEST_KEPT = 5_000


class Cursor:
    """A DB-API cursor.

    ``run(sql, params, many, reading)`` executes its statements.
    """

    arraysize = 1

    def __init__(self, run: Callable[..., Result]) -> None:
        self._run = run
        self._result: Result | None = None
        self._closed = False

    def execute(self, query: str, params: Any = None) -> Cursor:
        """Execute a statement with Django's placeholders."""
        self._check_open()
        reading = query.reading if isinstance(query, QuerySQL) else None
        if reading is not None and params is not reading.params:
            # An execute wrapper has changed them: it is another query.
            reading = None
        query, params = prepared(query, params)
        self._result = self._run(query, params, False, reading)
        return self

    def executemany(self, query: str, param_list: Iterable[Any]) -> Cursor:
        """Execute a statement once for each of the parameters."""
        self._check_open()
        # It may be run again, so a generator is not enough.
        many = [
            dict(params) if isinstance(params, Mapping) else tuple(params)
            for params in param_list
        ]
        self._result = self._run(_convert(query, many[0] if many else ()), many, True)
        return self

    def executescript(self, script: str) -> Cursor:
        """Execute statements that ``;`` separates."""
        self._check_open()
        statement = ""
        for part in chain.from_iterable((piece, ";") for piece in script.split(";")):
            statement += part
            if sqlite3.complete_statement(statement):
                if statement.strip(" ;\n\t"):
                    self._result = self._run(statement, (), False)
                statement = ""
        return self

    def _check_open(self) -> None:
        if self._closed:
            raise sqlite3.ProgrammingError("Cannot operate on a closed cursor.")

    def fetchone(self) -> Any:
        """The next row, or None."""
        self._check_open()
        return self._result.fetchone() if self._result is not None else None

    def fetchmany(self, size: int | None = None) -> list[Any]:
        """The next ``size`` rows."""
        self._check_open()
        if self._result is None:
            return []
        return self._result.fetchmany(self.arraysize if size is None else size)

    def fetchall(self) -> list[Any]:
        """All rows that are left."""
        self._check_open()
        return self._result.fetchall() if self._result is not None else []

    def __iter__(self) -> Iterator[Any]:
        return iter(self.fetchone, None)

    def close(self) -> None:
        """Refuse to be used from now on."""
        self._closed = True
        self._result = None

    @property
    def description(self) -> Any:
        """The columns of the result, as in DB-API."""
        return self._result.description if self._result is not None else None

    @property
    def rowcount(self) -> int:
        """The rows that were changed, or -1."""
        return self._result.rowcount if self._result is not None else -1

    @property
    def lastrowid(self) -> int | None:
        """The rowid of the last row that was inserted."""
        return self._result.lastrowid if self._result is not None else None


def prepared(query: str, params: Any) -> tuple[str, Any]:
    """A statement with Django's placeholders as SQLite takes it."""
    if params is None:
        return query, ()
    kept = dict(params) if isinstance(params, Mapping) else tuple(params)
    return _convert(query, params), kept


def _convert(query: str, params: Any) -> str:
    if isinstance(params, Mapping):
        return query % {name: f":{name}" for name in params}
    if len(query) > _LONGEST_KEPT:
        return _question_marks(query)
    return _kept_question_marks(str(query))  # not with what a QuerySQL holds


def _question_marks(query: str) -> str:
    return FORMAT_QMARK_REGEX.sub("?", query).replace("%%", "%")


_kept_question_marks = lru_cache(maxsize=500)(_question_marks)
