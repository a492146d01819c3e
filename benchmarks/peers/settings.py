"""The settings of each peer that is used through Django."""

from __future__ import annotations

import logging
import os
import secrets
import sqlite3
import urllib.request
from contextlib import ExitStack, closing
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.missing import Missing
from benchmarks.s3_server import storage

BUCKET = "peers"


@dataclass(frozen=True)
class Place:
    """Where a peer is measured: a folder, a store, and what is started."""

    folder: Path
    store: str
    stack: ExitStack


#: The settings of a peer.
Settings = dict[str, Any]


def s3cache(place: Place, *, records: bool = False) -> Settings:
    """The bucket, with results in the memory of the process."""
    return {
        "STORAGES": {"bucket": storage(place.store, BUCKET, secrets.token_hex(4))},
        "DATABASES": {
            "default": {
                "ENGINE": "s3cache.db",
                "NAME": place.folder / "replica.sqlite3",
                "OPTIONS": {"storage": "bucket", "records": records},
            }
        },
        "CACHES": {
            "default": {
                "BACKEND": "s3cache.caches.MemoryCache",
                "OPTIONS": {"max_memory_bytes": 64_000_000},
            }
        },
        "INSTALLED_APPS": ["s3cache"],
    }


def sqlite(place: Place, name: str = "") -> Settings:
    """Django's own backend, as it is recommended for servers."""
    return {
        "DATABASES": {
            "default": {
                "ENGINE": "django.db.backends.sqlite3",
                "NAME": name or place.folder / "plain.sqlite3",
                "OPTIONS": {
                    "init_command": (
                        "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL"
                    ),
                    "transaction_mode": "IMMEDIATE",
                    "timeout": 60,
                },
            }
        }
    }


def sqlite_in_memory(place: Place) -> Settings:
    """The same, with nothing on a disk."""
    return sqlite(place, "file:peers?mode=memory&cache=shared")


def postgresql_server(place: Place) -> Settings:
    """A server on a socket of its own, as Debian configures it, with fsync."""
    if find_spec("psycopg") is None:
        raise Missing("psycopg: pip install 'psycopg[binary]'")
    from tests.records import postgresql

    try:
        folder = place.stack.enter_context(postgresql.server(durable=True))
    except postgresql.Unavailable as error:
        raise Missing(f"PostgreSQL: {error}") from error
    database = {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": "postgres",
        "USER": "test",
        "HOST": str(folder),
        "CONN_MAX_AGE": None,
    }
    return {"DATABASES": {"default": database}}


def cachalot(place: Place) -> Settings:
    """Whole tables are invalidated; results are in Redis."""
    if find_spec("cachalot") is None:
        raise Missing("django-cachalot: pip install django-cachalot")
    cache = {"BACKEND": "django_redis.cache.RedisCache", "LOCATION": _redis(place)}
    return {
        **sqlite(place),
        "CACHES": {"default": cache},
        "INSTALLED_APPS": ["cachalot"],
    }


def cacheops(place: Place) -> Settings:
    """Results are invalidated by conditions; they are in Redis."""
    if find_spec("cacheops") is None:
        raise Missing("django-cacheops: pip install django-cacheops")
    return {
        **sqlite(place),
        "CACHEOPS_REDIS": _redis(place),
        "CACHEOPS": {"benchmarks.*": {"ops": "all", "timeout": 300}},
        "INSTALLED_APPS": ["cacheops"],
    }


def s3_sqlite(place: Place) -> Settings:
    """A SQLite file in the bucket, with a copy in ``/tmp``.

    It takes the address of the store and the credentials from where boto3
    looks for them.
    """
    if find_spec("django_s3_sqlite") is None:
        raise Missing("django-s3-sqlite: pip install django-s3-sqlite")
    os.environ |= {
        "AWS_ENDPOINT_URL_S3": place.store,
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    # It is always in this folder that it keeps its copy.
    name = f"s3cache-peers-{secrets.token_hex(4)}.sqlite3"
    place.stack.callback(Path("/tmp", name).unlink, missing_ok=True)  # noqa: S108
    # Its first start says that there is nothing in the bucket yet.
    logging.getLogger("django_s3_sqlite.base").setLevel(logging.CRITICAL)
    return {
        "DATABASES": {
            "default": {"ENGINE": "django_s3_sqlite", "NAME": name, "BUCKET": BUCKET}
        },
        "INSTALLED_APPS": ["django_s3_sqlite"],
    }


def _redis(place: Place) -> str:
    from tests.redis_server import NEEDED, RedisServer, program

    if program() is None:
        raise Missing(NEEDED)
    server = RedisServer()
    server.start()
    place.stack.callback(server.stop)
    return server.url


# What somebody finds who knows nothing but the bucket


def in_a_new_replica(place: Place, model: Any) -> dict[int, int]:
    """The stocks that a new host of s3cache reads."""
    objects = on_another_host(place, model, "anew")
    return dict(objects.values_list("pk", "stock"))


def on_another_host(place: Place, model: Any, alias: str = "elsewhere") -> Any:
    """The rows of the model on another host of s3cache."""
    from django.db import connections

    replica = place.folder / f"{alias}.sqlite3"
    connections.settings[alias] = {**connections.settings["default"], "NAME": replica}
    return model.objects.using(alias)


def in_the_object(place: Place, model: Any) -> dict[int, int]:
    """The stocks in the file that django-s3-sqlite left in the bucket."""
    from django.db import connection

    name = connection.settings_dict["REMOTE_NAME"]
    path = place.folder / "anew.sqlite3"
    urllib.request.urlretrieve(f"{place.store}/{BUCKET}/{name}", path)  # noqa: S310
    with closing(sqlite3.connect(path)) as found:
        rows = found.execute(f"SELECT id, stock FROM {model._meta.db_table}")  # noqa: S608
        return dict(rows.fetchall())
