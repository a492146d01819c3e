"""What commands about databases in buckets have in common."""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from django.apps import apps
from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DEFAULT_DB_ALIAS, DatabaseError, OperationalError, connections
from django.db.models import Model
from tqdm import tqdm

from s3cache import conf
from s3cache.db.base import DatabaseWrapper
from s3cache.facade import cache_of
from s3cache.stores.base import Request, observe


class BucketCommand(BaseCommand):
    """
    A command about one database that lives in a bucket, or all of them.

    Exit status 0: it is done; 1: it is not, or not all of it, and the last
    line on stderr says why (`CommandError`); 2: the arguments are wrong.
    """

    requires_system_checks = ()

    #: Whether it is always about one, DEFAULT_DB_ALIAS if none is named.
    about_one = False

    def execute(self, *args: Any, **options: Any) -> str | None:
        """
        Run it; what somebody can mend is said in a line.

        A store that is down, settings that are wrong, a full disk.
        """
        try:
            return super().execute(*args, **options)
        except (
            ImproperlyConfigured,
            OperationalError,
            sqlite3.OperationalError,
        ) as error:
            raise CommandError(str(error)) from error
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise CommandError(f"{error.strerror}: {error.filename}") from error

    def add_arguments(self, parser: CommandParser) -> None:
        usual = (
            repr(DEFAULT_DB_ALIAS) if self.about_one else "all that live in a bucket"
        )
        parser.add_argument(
            "--database",
            metavar="ALIAS",
            default=DEFAULT_DB_ALIAS if self.about_one else None,
            help=f"Which one (default: {usual}).",
        )
        parser.add_argument("--json", action="store_true", help="For programs.")

    @contextmanager
    def progress(self, doing: str, verbosity: int) -> Iterator[None]:
        """Count the store requests that are made meanwhile, on a terminal.

        Nothing is shown at verbosity 0, or where nobody looks.
        """
        with tqdm(
            desc=doing,
            unit=" requests",
            leave=False,
            disable=True if verbosity < 1 else None,
        ) as bar:

            def tell(request: Request) -> None:
                bar.update()

            with observe(tell):
                yield

    @contextmanager
    def about(self, alias: str) -> Iterator[None]:
        """Have errors of a database, and of its settings, name it."""
        try:
            yield
        except (DatabaseError, ImproperlyConfigured, sqlite3.Error) as error:
            raise CommandError(f"{alias}: {error}") from error

    def chosen(self, database: str | None) -> dict[str, DatabaseWrapper]:
        """The databases that are asked for, by alias."""
        found: dict[str, DatabaseWrapper] = {}
        for alias in self.aliases(database):
            connection: Any = connections[alias]
            found[alias] = connection
        return found

    def aliases(self, database: str | None) -> tuple[str, ...]:
        """The aliases of those that are asked for; nothing is opened."""
        known = conf.bucket_aliases()
        if not known:
            raise CommandError(f"No database has the ENGINE {conf.ENGINE!r}.")
        if database is not None and database not in known:
            raise CommandError(
                f"{database!r} is no database that lives in a bucket: "
                f"there are {conf.listed(known)}."
            )
        return known if database is None else (database,)


def models_called(labels: Iterable[str]) -> list[type[Model]]:
    """
    The models that are called ``app.Model``, and those of each ``app``.

    Without proxies, unless one is named. Raise `CommandError`, naming those
    that there are, for a model or an app that there is not.
    """
    found: dict[type[Model], None] = {}
    for label in labels:
        if "." in label:
            try:
                found[cache_of(label).model] = None
            except LookupError as error:
                raise CommandError(error.args[0]) from error
            continue
        configs = {one.label.lower(): one for one in apps.get_app_configs()}
        if label.lower() not in configs:
            known = sorted(name for name, one in configs.items() if one.models)
            raise CommandError(
                f"There is no app {label!r}. Apps with models are {conf.listed(known)}."
            )
        models = configs[label.lower()].get_models()
        found |= {one: None for one in models if not one._meta.proxy}
    return [*found]
