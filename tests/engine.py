"""
Hosts in this process, each with a replica of its own, on one store.

``bucket`` runs a test on a bucket over HTTP and on a directory, and counts
the requests that reach it. ``hosts`` makes hosts on it; ``host`` is a host
that is in use already. The tables of all installed apps exist.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qs

import pytest
from django.apps import apps
from django.contrib.contenttypes.models import ContentType
from django.db import connection, connections
from django.test import override_settings

from s3cache import conf
from s3cache.db.base import DatabaseWrapper
from s3cache.replica.replica import forget_replica
from s3cache.stores import DirectoryStore, Store, store_for
from s3cache.stores.base import Request, observe
from tests.s3_server import S3Server, Seen

#: Long enough for no read to ask the store by itself in a test.
NEVER = 100_000.0


class Bucket:
    """A store under the STORAGES alias ``bucket``, with tables in it."""

    def __init__(
        self, server: S3Server | None = None, bucket: str = "", location: str = ""
    ) -> None:
        self._server = server
        self._path = f"/{bucket}/{location}/"
        self._location = f"{location}/"

    @property
    def store(self) -> Store:
        """The store itself."""
        return store_for("bucket")

    @contextmanager
    def requests(self) -> Iterator[list[str]]:
        """
        The requests that arrive meanwhile, like "PUT log" or "GET head".

        For a bucket they are those that its server has seen.
        """
        seen: list[str] = []
        if self._server is None:
            with observe(lambda request: seen.append(_name(request))):
                yield seen
            return
        with self._server.recording() as recorded:
            yield seen
        seen.extend(filter(None, map(self._name_at_server, recorded)))

    def _name_at_server(self, seen: Seen) -> str:
        listed = parse_qs(seen.query).get("prefix", [""])[0]
        if listed.startswith(self._location):
            return f"LIST {_what(listed.removeprefix(self._location))}"
        if seen.path.startswith(self._path):
            return f"{seen.method} {_what(seen.path.removeprefix(self._path))}"
        return ""  # another test's

    def keys(self) -> list[str]:
        """The keys of all objects."""
        return [listed.key for listed in self.store.list("").keys]

    def records(self) -> list[str]:
        """The keys of all records."""
        return [key for key in self.keys() if "/rows/" in key]

    def entries(self) -> list[str]:
        """The keys of the log, the newest one last."""
        return [listed.key for listed in self.store.list("_log/").keys]


class Host:
    """
    A host: the database ``default`` while it is used as a context.

    As often as wished, and within one another: then the inner one counts.
    """

    def __init__(self, path: Path, options: dict[str, Any]) -> None:
        self.settings: dict[str, Any] = connections.configure_settings(
            {
                "default": {
                    "ENGINE": "s3cache.db",
                    "NAME": str(path),
                    "OPTIONS": {"storage": "bucket", **options},
                }
            }
        )["default"]
        self.connection = DatabaseWrapper(self.settings, "default")
        self._before: list[tuple[Any, Any]] = []

    def __enter__(self) -> Self:
        self._before.append((connections["default"], connections.settings["default"]))
        connections["default"] = self.connection
        # Other threads make their connections from these.
        connections.settings["default"] = self.settings
        conf.bucket_aliases.cache_clear()
        return self

    def __exit__(self, *exc_info: object) -> None:
        connections["default"], connections.settings["default"] = self._before.pop()
        conf.bucket_aliases.cache_clear()

    @property
    def position(self) -> int:
        """The last log entry that its replica has applied."""
        return self.connection.position

    def catch_up(self) -> None:
        """Ask the store for news."""
        self.connection.catch_up()

    def pass_time(self, seconds: float) -> None:
        """Let it be so much longer ago that the store was asked."""
        side = self.connection.replica.side
        side.remember("asked_at", side.asked_at - seconds)

    def sql(self, sql: str, *params: Any) -> list[tuple[Any, ...]]:
        """The rows of a statement, as SQLite has them."""
        with self, self.connection.cursor() as cursor:
            cursor.execute(sql, params)
            return [tuple(row) for row in cursor.fetchall()]

    def dump(self) -> dict[str, list[Any]]:
        """All rows of all tables in their natural order, with their rowids."""
        replica = self.connection.replica
        reader = replica.new_reader()
        try:
            found: dict[str, list[Any]] = {
                table.name: reader.execute(
                    f'SELECT {table.rowid or "NULL"}, * FROM "{table.name}"',  # noqa: S608
                    (),
                ).rows
                for table in replica.describe(reader.connection)
            }
            found["sqlite_sequence"] = sorted(
                reader.execute("SELECT name, seq FROM sqlite_sequence", ()).rows
            )
        finally:
            reader.close()
        return found

    def restart(self) -> None:
        """End its connections, as the end of its process would."""
        replica = self.connection.replica
        self.connection.close()
        replica.close()

    def close(self) -> None:
        """Be a host no more; the file stays where it is."""
        self.connection.close()
        forget_replica(Path(self.settings["NAME"]))


class MakeHost:
    """
    Makes hosts; the name of one is that of its replica's file.

    They ask the store only when a test says so, unless it gives ``max_age``,
    and write no records, unless it gives ``records``.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.made: list[Host] = []

    def __call__(self, name: str = "", /, **options: Any) -> Host:
        path = self._folder / f"{name or f'host-{len(self.made) + 1}'}.sqlite3"
        self.made.append(Host(path, {"max_age": NEVER, "records": False, **options}))
        return self.made[-1]


def savepoint() -> str:
    """The id of a new savepoint of the open transaction."""
    name = connection.savepoint()
    assert name is not None
    return name


def _name(request: Request) -> str:
    return f"{request.kind} {_what(request.key)}"


def _what(key: str) -> str:
    """ "log" for a log entry, "head" for ``_head``, and so on."""
    return key.strip("/").partition("/")[0].removeprefix("_")


Kept = dict[str, bytes]


def keep_tables(location: Path) -> Kept:
    """The objects of a database with the tables of all installed apps."""
    storages = {
        "bucket": {
            "BACKEND": "django.core.files.storage.FileSystemStorage",
            "OPTIONS": {"location": str(location / "store")},
        }
    }
    with override_settings(STORAGES=storages):
        host = Host(location / "replica.sqlite3", {})
        with host, host.connection.schema_editor() as editor:
            for model in apps.get_models():
                if model._meta.can_migrate(host.connection):
                    editor.create_model(model)
        host.close()
        store = store_for("bucket")
        return {one.key: store.get(one.key).body for one in store.list("").keys}


Blocker = Any


@pytest.fixture(scope="session")
def tables(
    tmp_path_factory: pytest.TempPathFactory, django_db_blocker: Blocker
) -> Kept:
    """What a bucket holds before a test begins."""
    with django_db_blocker.unblock():
        return keep_tables(tmp_path_factory.mktemp("tables"))


@pytest.fixture(params=["directory", "s3"])
def bucket(request: pytest.FixtureRequest) -> Iterator[Bucket]:
    """A store of each kind in turn, with the tables of all installed apps."""
    settings = request.getfixturevalue("settings")
    if request.param == "s3":
        options = request.getfixturevalue("s3_options")
        backend = "tests.s3_server.SharedSessionStorage"
        made = Bucket(
            request.getfixturevalue("s3_server"),
            options["bucket_name"],
            options["location"],
        )
    else:
        options = {"location": str(request.getfixturevalue("tmp_path") / "store")}
        backend = "django.core.files.storage.FileSystemStorage"
        made = Bucket()
    monkeypatch = request.getfixturevalue("monkeypatch")
    monkeypatch.setattr(DirectoryStore, "durable", False)
    settings.STORAGES = {
        **settings.STORAGES,
        "bucket": {"BACKEND": backend, "OPTIONS": options},
    }
    for key, body in request.getfixturevalue("tables").items():
        made.store.put(key, body)
    yield made
    if request.param == "s3":
        while keys := made.keys():
            made.store.delete_many(keys)


@pytest.fixture
def hosts(
    bucket: Bucket, tmp_path: Path, django_db_blocker: Blocker
) -> Iterator[MakeHost]:
    """Makes hosts on ``bucket``, and closes them."""
    make = MakeHost(tmp_path)
    with django_db_blocker.unblock():
        yield make
        for host in make.made:
            host.close()
    # Django remembers ids of content types, which are others in another test.
    ContentType.objects.clear_cache()


@pytest.fixture
def host(hosts: MakeHost) -> Iterator[Host]:
    """A host that is in use and has caught up."""
    made = hosts()
    made.catch_up()
    with made:
        yield made


@pytest.fixture
def elsewhere(tmp_path: Path, django_db_blocker: Blocker) -> Iterator[str]:
    """The alias of another database, which is no bucket."""
    alias = "elsewhere"
    engine = "django.db.backends.sqlite3"
    database = {"ENGINE": engine, "NAME": str(tmp_path / "elsewhere.sqlite3")}
    connections.settings[alias] = connections.configure_settings(
        {"default": {}, alias: database}
    )[alias]
    with django_db_blocker.unblock():
        yield alias
        connections[alias].close()
    del connections[alias]
    del connections.settings[alias]
