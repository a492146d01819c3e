"""The databases that are compared, and the settings that make them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import django
from django.conf import settings
from django.db import connections
from django.db.models import Model, QuerySet

from s3cache.stores.base import Store

if TYPE_CHECKING:
    from benchmarks.models import Item
    from s3cache.db.base import DatabaseWrapper

SQLITE = "sqlite"
DIRECTORY = "directory"
DELAYED = "delayed"

#: Seconds that each request to the delayed store takes, beside its work.
LATENCY = 0.020

CATEGORIES = 20
REGIONS = 10

_Model = TypeVar("_Model", bound=Model)
_Item = TypeVar("_Item", bound="Item")


@dataclass(frozen=True)
class Sizes:
    """How many rows there are, and how many an operation is about."""

    small: int = 1_000
    large: int = 100_000
    bulk: int = 10_000
    block: int = 100
    delete: int = 1_000
    foreign: int = 100
    cold: int = 28_000
    cold_entry: int = 1_000


@dataclass(frozen=True)
class Database:
    """One of those that are compared.

    ``alias`` is a database with all tables filled. ``other`` is a second host
    on the same store, with a replica of its own. ``cold`` is a database of
    its own, to be loaded. Plain SQLite has but ``alias``.
    """

    name: str
    alias: str
    other: str = ""
    cold: str = ""

    @property
    def label(self) -> str:
        """For people."""
        return {
            SQLITE: "SQLite file",
            DIRECTORY: "directory",
            DELAYED: f"{LATENCY * 1000:.0f} ms store",
        }[self.name]

    def stores(self) -> list[Store]:
        """The stores of its databases; none for plain SQLite.

        ``alias`` and ``other`` may have one object between them, or one each.
        """
        aliases = [self.alias, self.other, self.cold] if self.other else []
        found: dict[int, Store] = {}
        for alias in aliases:
            store = cast("DatabaseWrapper", connections[alias]).store
            found[id(store)] = store
        return list(found.values())


DATABASES = (
    Database(SQLITE, SQLITE),
    Database(DIRECTORY, DIRECTORY, f"{DIRECTORY}_other", f"{DIRECTORY}_cold"),
    Database(DELAYED, DELAYED, f"{DELAYED}_other", f"{DELAYED}_cold"),
)


def configure(directory: Path) -> None:
    """Set Django up with all databases in ``directory``."""
    storages: dict[str, Any] = {}
    databases: dict[str, Any] = {"default": {}, SQLITE: _plain(directory)}
    for database in DATABASES:
        if not database.other:
            continue
        # A second host has its own replica, and the first one's store.
        for alias, place in (
            (database.alias, database.alias),
            (database.other, database.alias),
            (database.cold, database.cold),
        ):
            store = directory / f"{place}.store"
            storages[alias] = {
                "BACKEND": "django.core.files.storage.FileSystemStorage",
                "OPTIONS": {"location": str(store)},
            }
            databases[alias] = {
                "ENGINE": "s3cache.db",
                "NAME": directory / f"{alias}.sqlite3",
                # Records are written meanwhile, by a thread.
                "OPTIONS": {"storage": alias, "records": False},
            }
            if database.name == DELAYED:
                databases[alias] |= {
                    "ENGINE": "benchmarks.delayed",
                    "STORE": store,
                    "LATENCY": LATENCY,
                }
    settings.configure(
        DATABASES=databases,
        STORAGES=storages,
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
        INSTALLED_APPS=["s3cache", "benchmarks"],
        USE_TZ=True,
        S3CACHE={"CACHE": None},  # what is measured here is the engine
    )
    django.setup()


def _plain(directory: Path) -> dict[str, Any]:
    return {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": directory / "plain.sqlite3",
        "OPTIONS": {
            "init_command": "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL",
            "timeout": 60,
        },
    }


def fill(sizes: Sizes, database: Database) -> None:
    """Create the tables and the rows that stay, with keys from 1 on."""
    from benchmarks.models import LargeItem, SmallItem

    create_tables(database.alias)
    _load(SmallItem, database.alias, sizes.small, 10_000)
    _load(LargeItem, database.alias, sizes.large, 10_000)
    if database.other:
        connections[database.other].ensure_connection()
        create_tables(database.cold)
        _load(SmallItem, database.cold, sizes.cold, sizes.cold_entry)


def _load(model: type[Item], alias: str, count: int, at_once: int) -> None:
    made = items(model, count)
    for start in range(0, count, at_once):
        batch = list(itertools.islice(made, at_once))
        for key, one in enumerate(batch, start + 1):
            one.pk = key
        rows(model, alias).bulk_create(batch)


def create_tables(alias: str) -> None:
    """The tables, and the categories."""
    from benchmarks.models import Category, LargeItem, NewItem, SmallItem

    with connections[alias].schema_editor() as editor:
        for model in (Category, SmallItem, LargeItem, NewItem):
            editor.create_model(model)
    rows(Category, alias).bulk_create(
        Category(pk=number, name=f"Category {number}")
        for number in range(1, CATEGORIES + 1)
    )


def rows(model: type[_Model], alias: str) -> QuerySet[_Model]:
    """All rows of ``model`` in a database."""
    return model._default_manager.using(alias)


_number = itertools.count()


def items(model: type[_Item], count: int) -> Iterator[_Item]:
    """``count`` new objects of ``model``, none like another."""
    return (item(model) for _ in range(count))


def item(model: type[_Item]) -> _Item:
    """A new object of ``model``."""
    return model(**values())


def values() -> dict[str, Any]:
    """The values of a new item; its ``sku`` is unique in this run."""
    number = next(_number)
    return {
        "sku": f"sku-{number:012}",
        "name": f"Item number {number}",
        "category_id": number % CATEGORIES + 1,
        "region": f"r{number % REGIONS}",
        "price": Decimal(number % 100_000) / 100,
        "stock": number % 1000,
        "is_active": number % 3 != 0,
        "created": datetime(2025, 1, 1, tzinfo=UTC) + timedelta(seconds=number),
        "notes": f"What there is to say about item {number}, in a sentence or two.",
    }
