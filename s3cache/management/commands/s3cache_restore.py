"""``manage.py s3cache_restore``: an earlier state, as a new database."""

from __future__ import annotations

import json
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import CommandError, CommandParser
from django.db import DatabaseError

from s3cache.keeper.restore import CannotRestore, restore
from s3cache.management.base import BucketCommand
from s3cache.stores.registry import store_at


class Command(BucketCommand):
    help = (
        "Makes a new database, with a new id and in another location, of what one "
        "was after some entry of its log. The original is only read, and hosts may "
        "go on using it."
    )
    about_one = True

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument(
            "--to",
            type=int,
            metavar="N",
            help="The entry whose state is wanted (default: the newest).",
        )
        parser.add_argument(
            "--location",
            required=True,
            help="Where the new database goes, in the same bucket; a directory, if "
            "the storage is one. It must hold none yet.",
        )

    def handle(
        self,
        *,
        database: str,
        to: int | None,
        location: str,
        verbosity: int,
        **options: Any,
    ) -> None:
        (connection,) = self.chosen(database).values()
        try:
            replica = connection.replica
            target = store_at(replica.options.storage, location)
            if target.name == replica.store.name:
                raise CommandError("--location is where the database is already.")
            with self.progress(f"{database}: restoring", verbosity):
                head = restore(replica, target, to)
        except (CannotRestore, DatabaseError, ImproperlyConfigured) as error:
            raise CommandError(f"{database}: {error}") from error
        if options["json"]:
            told = {"database": head.database, "number": head.trimmed}
            self.stdout.write(json.dumps({**told, "location": target.name}))
        elif verbosity:
            self.stdout.write(
                f"{target.name} is the new database {head.database}, as {database!r} "
                f"was after entry {head.trimmed}."
            )
