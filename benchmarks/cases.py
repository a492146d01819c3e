"""What is measured."""

from __future__ import annotations

import itertools
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any, cast

from django.db import connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import F

from benchmarks.databases import (
    DATABASES,
    DELAYED,
    Database,
    Sizes,
    item,
    items,
    rows,
    values,
)
from benchmarks.measuring import Case
from benchmarks.models import Item, LargeItem, NewItem, SmallItem
from s3cache.db.base import DatabaseWrapper
from s3cache.keeper.rounds import KeeperOptions
from s3cache.keeper.run import keep_now

_ONLY_DELAYED = tuple(one for one in DATABASES if one.name == DELAYED)

_turn = itertools.count()


def _some_key(rows: int) -> int:
    """A primary key of a table of so many rows, seldom the same one."""
    return next(_turn) * 7919 % rows + 1


def _connection(alias: str) -> DatabaseWrapper:
    return cast(DatabaseWrapper, connections[alias])


class _LeavesRows(Case):
    """A case whose new rows are deleted after each round."""

    def tidy(self, database: Database, prepared: Any) -> None:
        rows(NewItem, database.alias).all()._raw_delete(database.alias)


class Save(Case):
    name = "save()"
    rounds = 100

    def prepare(self, database: Database) -> SmallItem:
        key = _some_key(self.sizes.small)
        found = rows(SmallItem, database.alias).get(pk=key)
        found.stock += 1
        return found

    def run(self, database: Database, prepared: SmallItem) -> None:
        prepared.save()


class Create(_LeavesRows):
    name = "create()"
    rounds = 100

    def prepare(self, database: Database) -> dict[str, Any]:
        return values()

    def run(self, database: Database, prepared: dict[str, Any]) -> None:
        rows(NewItem, database.alias).create(**prepared)


class Get(Case):
    name = "get(pk)"
    rounds = 40
    operations = 20

    def prepare(self, database: Database) -> list[int]:
        return [_some_key(self.sizes.small) for _ in range(self.operations)]

    def run(self, database: Database, prepared: list[int]) -> None:
        for key in prepared:
            rows(SmallItem, database.alias).get(pk=key)


class Filter(Case):
    name = "filter(), 100 rows"
    rounds = 40
    operations = 5

    def run(self, database: Database, prepared: None) -> None:
        for number in range(self.operations):
            found = rows(SmallItem, database.alias)
            list(found.filter(region=f"r{number}").order_by("name")[:100])


class Count(Case):
    name = "filter().count()"
    rounds = 40
    operations = 20

    def run(self, database: Database, prepared: None) -> None:
        for number in range(self.operations):
            found = rows(SmallItem, database.alias)
            found.filter(region=f"r{number % 10}").count()


class Block(Case):
    """``atomic()`` with one write; its cost must not grow with the table."""

    rounds = 60
    model: type[Item]
    count: int

    def run(self, database: Database, prepared: None) -> None:
        key = _some_key(self.count)
        with transaction.atomic(using=database.alias):
            found = rows(self.model, database.alias).filter(pk=key)
            found.update(stock=F("stock") + 1)


class BlockOnSmall(Block):
    model = SmallItem

    def __init__(self, sizes: Sizes) -> None:
        super().__init__(sizes)
        self.count = sizes.small
        self.name = f"atomic(), 1 write, {self.count:,} rows"


class BlockOnLarge(Block):
    model = LargeItem

    def __init__(self, sizes: Sizes) -> None:
        super().__init__(sizes)
        self.count = sizes.large
        self.name = f"atomic(), 1 write, {self.count:,} rows"


class BlockOfCreates(_LeavesRows):
    rounds = 20

    def __init__(self, sizes: Sizes) -> None:
        super().__init__(sizes)
        self.name = f"atomic(), {sizes.block} creates"

    def prepare(self, database: Database) -> list[dict[str, Any]]:
        return [values() for _ in range(self.sizes.block)]

    def run(self, database: Database, prepared: list[dict[str, Any]]) -> None:
        with transaction.atomic(using=database.alias):
            for one in prepared:
                rows(NewItem, database.alias).create(**one)


class BulkCreate(_LeavesRows):
    rounds = 9

    def __init__(self, sizes: Sizes) -> None:
        super().__init__(sizes)
        self.name = f"bulk_create({sizes.bulk:,})"

    def prepare(self, database: Database) -> list[NewItem]:
        return list(items(NewItem, self.sizes.bulk))

    def run(self, database: Database, prepared: list[NewItem]) -> None:
        rows(NewItem, database.alias).bulk_create(prepared)


class Update(Case):
    rounds = 9

    def __init__(self, sizes: Sizes) -> None:
        super().__init__(sizes)
        self.name = f"update() of {sizes.bulk:,} rows"

    def run(self, database: Database, prepared: None) -> None:
        found = rows(LargeItem, database.alias).filter(pk__lte=self.sizes.bulk)
        found.update(stock=F("stock") + 1)


class Delete(Case):
    rounds = 15

    def __init__(self, sizes: Sizes) -> None:
        super().__init__(sizes)
        self.name = f"delete() of {sizes.delete:,} rows"

    def prepare(self, database: Database) -> None:
        made = items(NewItem, self.sizes.delete)
        rows(NewItem, database.alias).bulk_create(made)

    def run(self, database: Database, prepared: None) -> None:
        rows(NewItem, database.alias).all().delete()


class Threads:
    """Threads that have their connections before the clock starts."""

    def __init__(self, alias: str, count: int) -> None:
        self._alias = alias
        self._count = count
        self._pool = ThreadPoolExecutor(count)
        self.call(lambda: connections[alias].ensure_connection())

    def call(self, function: Callable[[], object]) -> None:
        """Call it in all threads at once, and wait for them."""
        together = threading.Barrier(self._count)

        def call() -> None:
            together.wait()
            function()

        for future in [self._pool.submit(call) for _ in range(self._count)]:
            future.result()

    def end(self) -> None:
        """End them, and their connections."""
        self.call(lambda: connections[self._alias].close())
        self._pool.shutdown()


class CreateInOneThread(_LeavesRows):
    name = "create() in 1 thread"
    rounds = 7
    threads = 1
    #: Of each thread: so many that how it starts and ends matters little.
    creates = 60
    operations = creates
    databases = _ONLY_DELAYED

    def prepare(self, database: Database) -> Threads:
        return Threads(database.alias, self.threads)

    def run(self, database: Database, prepared: Threads) -> None:
        def create() -> None:
            for _ in range(self.creates):
                item(NewItem).save(using=database.alias)

        prepared.call(create)

    def tidy(self, database: Database, prepared: Threads) -> None:
        prepared.end()
        super().tidy(database, prepared)


class CreateInThreads(CreateInOneThread):
    name = "create() in 16 threads"
    threads = 16
    operations = threads * CreateInOneThread.creates


class CatchUp(_LeavesRows):
    """On SQLite: to create the same rows."""

    rounds = 9

    def __init__(self, sizes: Sizes) -> None:
        super().__init__(sizes)
        self.name = f"catch up on {sizes.foreign} entries"

    def prepare(self, database: Database) -> None:
        if database.other:
            _connection(database.other).catch_up()
            self._create(database)

    def run(self, database: Database, prepared: None) -> None:
        if database.other:
            _connection(database.other).catch_up()
        else:
            self._create(database)

    def _create(self, database: Database) -> None:
        for one in items(NewItem, self.sizes.foreign):
            one.save(using=database.alias)


class ColdStart(_LeavesRows):
    """A new replica, made from the log. On SQLite: to load the same rows."""

    rounds = 5

    def __init__(self, sizes: Sizes) -> None:
        super().__init__(sizes)
        self.name = f"cold start, {sizes.cold:,} rows"

    def prepare(self, database: Database) -> list[NewItem]:
        if database.cold:
            return []
        return list(items(NewItem, self.sizes.cold))

    def run(self, database: Database, prepared: list[NewItem]) -> None:
        if database.cold:
            _connection(database.cold).rebuild_replica()
        else:
            rows(NewItem, database.alias).bulk_create(prepared)


class ColdStartFromPacks(_LeavesRows):
    """A new replica, made from packs. On SQLite: to copy the rows."""

    rounds = 5

    def __init__(self, sizes: Sizes) -> None:
        super().__init__(sizes)
        self.name = f"cold start from packs, {sizes.cold:,} rows"

    def prepare(self, database: Database) -> None:
        if database.cold:
            packed = KeeperOptions(pack_after=1)
            keep_now(_connection(database.cold).replica, packed)
        else:
            made = items(NewItem, self.sizes.cold)
            rows(NewItem, database.alias).bulk_create(made)

    def run(self, database: Database, prepared: None) -> None:
        if database.cold:
            _connection(database.cold).rebuild_replica()
        else:
            _copy_table(connections[database.alias], NewItem._meta.db_table)


def _copy_table(connection: BaseDatabaseWrapper, table: str) -> None:
    source = Path(connection.settings_dict["NAME"])
    target = source.with_name("copy.sqlite3")
    with closing(sqlite3.connect(target, isolation_level=None)) as copy:
        copy.execute("PRAGMA journal_mode = WAL")
        copy.execute("PRAGMA synchronous = NORMAL")
        copy.execute("ATTACH ? AS source", [str(source)])
        copy.execute("BEGIN")
        for kind in ("table", "index"):
            for (sql,) in copy.execute(
                "SELECT sql FROM source.sqlite_master "
                "WHERE type = ? AND tbl_name = ? AND sql IS NOT NULL",
                [kind, table],
            ).fetchall():
                copy.execute(sql)
            if kind == "table":
                name = f'"{table}"'
                copy.execute(f"INSERT INTO main.{name} SELECT * FROM source.{name}")  # noqa: S608
        copy.execute("COMMIT")
    for suffix in ("", "-wal", "-shm"):
        target.with_name(target.name + suffix).unlink(missing_ok=True)


CASES: tuple[type[Case], ...] = (
    Save,
    Create,
    Get,
    Filter,
    Count,
    BlockOnSmall,
    BlockOnLarge,
    BlockOfCreates,
    BulkCreate,
    Update,
    Delete,
    CreateInOneThread,
    CreateInThreads,
    CatchUp,
    ColdStart,
    ColdStartFromPacks,
)
