"""``manage.py s3cache_log``: what changed, when, and by which host."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from itertools import islice
from typing import Any

import msgspec
from django.apps import apps
from django.core.exceptions import ImproperlyConfigured, ValidationError
from django.core.management.base import CommandError, CommandParser
from django.db import DatabaseError
from django.db.models import Model

from s3cache.db.base import DatabaseWrapper
from s3cache.keeper.past import NoSuchState, Past
from s3cache.keeper.restore import CannotRestore
from s3cache.log.history import Logged, RowKey, Unclear, left_by, summary, touches
from s3cache.management.base import BucketCommand

#: Characters of a statement that are shown.
SHOWN = 60


class Command(BucketCommand):
    help = (
        "Tells what changed, when, and by which host, the newest first; of one "
        "table, or of one row with its values. With --at: the row as it was after "
        "that entry. The exit status is 1 if there was no such row."
    )
    about_one = True

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument(
            "table",
            nargs="?",
            help="A model, like shop.Product, or the name of a table.",
        )
        parser.add_argument(
            "key",
            nargs="*",
            help="The primary key of a row; its parts, where it has several.",
        )
        parser.add_argument(
            "--at",
            type=int,
            metavar="N",
            help="Show the row as it was after entry N.",
        )
        parser.add_argument(
            "--to",
            type=int,
            metavar="N",
            help="Begin with entry N (default: the newest).",
        )
        parser.add_argument(
            "--limit",
            type=int,
            default=20,
            metavar="COUNT",
            help="Show so many entries (default: %(default)s).",
        )

    def handle(
        self,
        *,
        database: str,
        table: str | None,
        key: list[str],
        at: int | None,
        **options: Any,
    ) -> None:
        if at is not None and not key:
            raise CommandError("--at needs the table and the primary key of a row.")
        if options["limit"] < 1:
            raise CommandError(f"--limit is {options['limit']}, but must be above 0.")
        (connection,) = self.chosen(database).values()
        try:
            connection.catch_up()
            past = Past(connection.replica)
            if table is None:
                told: Iterator[_Told] = map(_of_entry, past.entries(options["to"]))
                self._tell(told, options)
                return
            model = _model(table)
            name = table if model is None else model._meta.db_table
            if not key:
                entries = past.entries(options["to"])
                told = (_of_entry(one) for one in entries if touches(one.entry, name))
                self._tell(told, options)
                return
            row_key = _row_key(connection, name, model, key)
            if at is None:
                told = _of_row(past.entries(options["to"]), name, row_key)
                self._tell(told, options)
                return
            row = past.row(name, row_key, at)
        except (
            CannotRestore,
            DatabaseError,
            ImproperlyConfigured,
            NoSuchState,
        ) as error:
            raise CommandError(f"{database}: {error}") from error
        self.stdout.write(_text(row))
        if row is None:
            raise CommandError(f"There was no such row after entry {at}.", returncode=1)

    def _tell(self, told: Iterator[_Told], options: Mapping[str, Any]) -> None:
        chosen = islice(told, options["limit"])
        if options["json"]:
            self.stdout.write(_text([one.for_programs for one in chosen]))
            return
        for one in chosen:
            self.stdout.write(one.for_people)


class _Told(msgspec.Struct):
    """One line, for people and for programs."""

    for_people: str
    for_programs: dict[str, Any]


def _of_entry(one: Logged) -> _Told:
    changed = summary(one.entry)
    words = [
        f"{table}: {rows} rows" + (f", {deleted} deleted" if deleted else "")
        for table in changed.rows
        for rows, deleted in [(changed.rows[table], changed.deleted[table])]
    ]
    words += [
        f"schema: {sql[:SHOWN]}{'...' if len(sql) > SHOWN else ''}"
        for sql in map(_one_line, changed.statements)
    ]
    return _told(
        one,
        "; ".join(words),
        transactions=one.entry.transactions,
        rows=changed.rows,
        deleted={t: count for t, count in changed.deleted.items() if count},
        statements=changed.statements,
    )


def _of_row(entries: Iterator[Logged], table: str, key: RowKey) -> Iterator[_Told]:
    for one in entries:
        left = left_by(one.entry, table, key)
        if left is Unclear.SCHEMA:
            yield _told(one, "the schema was changed", schema=True)
        elif not isinstance(left, Unclear):
            yield _told(one, "deleted" if left is None else _text(left), row=left)


def _told(one: Logged, words: str, **more: object) -> _Told:
    entry = one.entry
    at = datetime.fromtimestamp(one.at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    common = {"number": entry.number, "at": at, "host": entry.host}
    return _Told(f"{entry.number}  {at}  {entry.host}  {words}", {**common, **more})


def _one_line(sql: str) -> str:
    return " ".join(sql.split())


def _text(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _model(name: str) -> type[Model] | None:
    """The model that is called so, or whose table is."""
    if "." in name:
        try:
            return apps.get_model(name)
        except (LookupError, ValueError) as error:
            raise CommandError(str(error)) from error
    models = apps.get_models(include_auto_created=True)
    return next((one for one in models if one._meta.db_table == name), None)


def _row_key(
    connection: DatabaseWrapper,
    table: str,
    model: type[Model] | None,
    key: list[str],
) -> RowKey:
    """The key as the log has it, if a model tells how."""
    if model is None or len(key) > 1:
        return RowKey(list(key), key)
    field = model._meta.pk
    try:
        value = field.get_db_prep_value(field.to_python(key[0]), connection)
    except ValidationError as error:
        raise CommandError(
            f"{key[0]!r} is no primary key of {table}: {' '.join(error.messages)}"
        ) from error
    return RowKey([value], key)
