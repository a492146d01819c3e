"""
Many databases in one process: one per tenant, each at a place of its own.

A tenant's database is made like one of ``DATABASES`` (``like``): the same
bucket, client and options, with another location and another replica. It has
an alias, as all databases have, and takes the place of ``like`` within
`using`, if `TenantRouter` is in ``DATABASE_ROUTERS``.

Which tenants there are, and where, is for the application to know: nothing
here keeps a list. All functions may be called from any thread.
"""

from __future__ import annotations

import re
import threading
from collections import Counter, OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from django.conf import settings as django_settings
from django.core.exceptions import ImproperlyConfigured
from django.core.management import call_command
from django.db import DEFAULT_DB_ALIAS, connections
from django.db.models import Model

from s3cache import conf
from s3cache.routers import S3Router, bucket_alias

if TYPE_CHECKING:
    from s3cache.db.base import DatabaseWrapper
    from s3cache.stores.base import Store

__all__ = [
    "CannotMove",
    "TenantExists",
    "TenantRouter",
    "UnknownTenant",
    "close",
    "create",
    "current",
    "drop",
    "move",
    "open",
    "opened",
    "using",
]

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")


class UnknownTenant(LookupError):
    """There is no database of that tenant, or it is not open."""


class TenantExists(Exception):
    """There is a database at that place already."""


class CannotMove(Exception):
    """The other place is taken, or the database cannot be read."""


_lock: Final = threading.RLock()
_registered: Final[dict[str, str]] = {}
"""Names by alias."""
_with_files: Final[OrderedDict[str, None]] = OrderedDict()
"""Aliases of those that may have files open, the last used one at the end."""
_active: Final[Counter[str]] = Counter()
"""How many blocks of ``using`` there are, by alias."""
_making: Final[dict[str, threading.Lock]] = {}
"""Locks by alias: of those who create the same one, one does."""
_changing: Final[dict[str, str]] = {}
"""What is being done, by alias, to those that nobody may use meanwhile."""

_current: Final[ContextVar[dict[str, str]]] = ContextVar("tenants")


def create(name: str, *, like: str | None = None, location: str | None = None) -> str:
    """
    Make a database for a tenant, with all tables, and open it.

    `name` is of lower-case letters, digits, ``-`` and ``_``, at most 63.
    `location` is its place in the bucket (a directory, if the storage is
    one); by default ``<that of like>-tenants/<name>``. Runs the migrations
    of `like`. Returns the alias. Raise `TenantExists` if there is a database
    already: one that was only begun is made complete by the next call.
    """
    from s3cache.keeper.beginning import begin_in_place_of_dropped
    from s3cache.keeper.without import on

    with _lock:
        is_new = _alias(name, _template(like)) not in _registered
        alias = _register(name, like, location)
        _active[alias] += 1
        making = _making.setdefault(alias, threading.Lock())
    is_made = False
    try:
        with making:
            connection = _connection(alias)
            if _is_complete(connection):
                place = _store(connection).name
                raise TenantExists(f"{place} holds a database already.")
            params = connection.get_connection_params()
            keys = params["options"].signing_keys
            on(params["store"], begin_in_place_of_dropped(keys))
            call_command("migrate", database=alias, verbosity=0, interactive=False)
            _used(alias)
            is_made = True
    finally:
        with _lock:
            _active[alias] -= 1
            if is_new and not is_made and not _active[alias]:
                _forget(alias)
    return alias


def open(name: str, *, like: str | None = None, location: str | None = None) -> str:
    """
    Make the database of a tenant usable in this process; return its alias.

    No request is made before it is read. At most ``S3CACHE["OPEN_TENANTS"]``
    keep files open: then those of the one that was not used for the longest
    time are closed, until it is used again. Again and again costs nothing.
    """
    with _lock:
        alias = _register(name, like, location)
        _used(alias)
    return alias


def opened() -> list[str]:
    """Return the names of the tenants that this process knows, in order."""
    with _lock:
        return sorted({*_registered.values()})


def close(name: str, *, like: str | None = None) -> None:
    """
    Forget a tenant in this process: its files are closed, its alias is gone.

    The replica stays where it is. Raise `UnknownTenant` if it is not open,
    and `RuntimeError` within a block of `using` that it is used by, and while
    it is created, moved or dropped.
    """
    with _alone(name, like, "closed") as alias, _lock:
        _forget(alias)


def drop(name: str, *, like: str | None = None) -> int:
    """
    Delete the database of a tenant, and its replica here; there is no undo.

    Returns how many objects were deleted. In the place of some stays the end
    of the log: other hosts that have it open get `EntryFormatError` from it,
    or `LogDiverged`, and write nothing there any more, however late they
    are. A database that is made in its place goes on from there. Raise what
    `close` raises. If it is interrupted, `open` and drop it again.
    """
    from s3cache.db.behind import forget_behind
    from s3cache.keeper.ending import begin_drop, finish_drop
    from s3cache.keeper.without import on
    from s3cache.replica.replica import drop_replica

    with _alone(name, like, "dropped") as alias:
        connection = _connection(alias)
        store, path = _store(connection), Path(connection.settings_dict["NAME"])
        ended = on(store, begin_drop())
        with _lock:
            _forget(alias)
        forget_behind(path)
        drop_replica(path)
        return on(store, finish_drop(ended))


def move(name: str, location: str, *, like: str | None = None) -> str:
    """
    Move the database of a tenant to another place; return its alias.

    First its log is ended: from then on nobody can commit to it, and other
    hosts that have it open get `EntryFormatError`, which names the new place.
    Then all is copied, and used from there. The old objects stay: delete them
    when no host needs to be told any more. If it is interrupted, call it
    again, on the same host. Raise `CannotMove`, what `close` raises, and what
    the store does.
    """
    from s3cache.keeper.ending import end_log
    from s3cache.keeper.restore import CannotRestore, restore
    from s3cache.keeper.without import on
    from s3cache.replica.replica import drop_replica

    with _alone(name, like, "moved") as alias:
        connection = _connection(alias)
        target = _store(connection).at(location)
        replica = connection.replica
        if target.name == replica.store.name:
            raise CannotMove(f"{target.name} is where {name!r} is already.")
        connection.behind.send()
        ended = on(replica.store, end_log(target.name))
        number = ended.last if ended else None
        try:
            restore(replica, target, number)
        except CannotRestore as error:
            raise CannotMove(str(error)) from error
        template = connection.settings_dict[conf.TENANT]["like"]
        with _lock:
            _forget(alias)
        drop_replica(replica.path)  # it is of a database with another id
        with _lock:
            del _changing[alias]
            return open(name, like=template, location=location)


@contextmanager
def using(name: str, *, like: str | None = None) -> Iterator[str]:
    """
    Have the database of a tenant take the place of `like` inside.

    For the thread or task that enters it, and what these call. Yields the
    alias, which ``transaction.atomic(using=...)`` needs. Raise
    `UnknownTenant` if it is not open, `RuntimeError` while it is moved or
    dropped, and `ImproperlyConfigured` without a `TenantRouter`.
    """
    if TenantRouter.path not in django_settings.DATABASE_ROUTERS:
        raise ImproperlyConfigured(
            f"DATABASE_ROUTERS lacks {TenantRouter.path!r}: without it queries "
            f"would go to the database that all tenants have in common."
        )
    with _lock:
        alias = _known(name, like)
        _used(alias)
        _active[alias] += 1
    try:
        _connection(alias)
        template = connections.settings[alias][conf.TENANT]["like"]
        token = _current.set({**_current.get({}), template: alias})
        try:
            yield alias
        finally:
            _current.reset(token)
    finally:
        with _lock:
            _active[alias] -= 1


def current(like: str | None = None) -> str | None:
    """Return the alias of the tenant that is in use here, or None."""
    return _current.get({}).get(_template(like))


class TenantRouter(S3Router):
    """
    As `S3Router`, and within `using` to the database of the tenant.

    A row that was read from a tenant's database stays there. What lives in
    the database that tenants' are made like lives in each of theirs, too:
    with ``default`` as that one, all models that no other router claims.
    """

    path: Final = conf.TENANT_ROUTER

    def db_for_read(self, model: type[Model], **hints: Any) -> str | None:
        return self._place(super().db_for_read(model, **hints), hints.get("instance"))

    def db_for_write(self, model: type[Model], **hints: Any) -> str | None:
        return self._place(super().db_for_write(model, **hints), hints.get("instance"))

    def _place(self, usual: str | None, instance: Model | None) -> str | None:
        if usual in _registered:
            return usual  # where the instance is
        if instance is not None and instance._state.db in _registered:
            return instance._state.db
        return _current.get({}).get(usual or DEFAULT_DB_ALIAS, usual)

    def allow_relation(self, obj1: Model, obj2: Model, **hints: Any) -> bool | None:
        """Allow relations within a tenant's database, and none out of it."""
        first, second = obj1._state.db, obj2._state.db
        if first in _registered or second in _registered:
            return first == second or None in (first, second)
        return super().allow_relation(obj1, obj2, **hints)

    def allow_migrate(
        self, db: str, app_label: str, model_name: str | None = None, **hints: Any
    ) -> bool | None:
        """Decide as for the database that it was made like."""
        if db in _registered:
            db = connections.settings[db][conf.TENANT]["like"]
        return super().allow_migrate(db, app_label, model_name, **hints)


def _template(like: str | None) -> str:
    alias = like or bucket_alias()
    if alias is None:
        raise ImproperlyConfigured(f"No database has the ENGINE {conf.ENGINE!r}.")
    return alias


def _alias(name: str, like: str) -> str:
    return f"{like}:{name}"


def _known(name: str, like: str | None) -> str:
    alias = _alias(name, _template(like))
    if alias not in _registered:
        raise UnknownTenant(f"The tenant {name!r} is not open: tenants.open() it.")
    _check_unchanging(alias, name)
    return alias


def _check_unchanging(alias: str, name: str) -> None:
    if doing := _changing.get(alias):
        raise RuntimeError(f"The tenant {name!r} is being {doing} by another thread.")


@contextmanager
def _alone(name: str, like: str | None, doing: str) -> Iterator[str]:
    """Keep all others in this process from a tenant that nobody uses."""
    with _lock:
        alias = _known(name, like)
        if _active[alias]:
            raise RuntimeError(f"The tenant {name!r} is in use: leave using() first.")
        _changing[alias] = doing
    try:
        yield alias
    finally:
        with _lock:
            _changing.pop(alias, None)


def _register(name: str, like: str | None, location: str | None) -> str:
    """Put an entry into DATABASES, which threads make connections of."""
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"{name!r} is no name for a tenant: lower-case letters, digits, '-' and "
            f"'_', at most 63, and no '-' or '_' first."
        )
    template = _template(like)
    alias = _alias(name, template)
    with _lock:
        _check_unchanging(alias, name)
        known = connections.settings.get(alias)
        if known is not None:
            if location not in (None, known["OPTIONS"]["location"]):
                raise ValueError(
                    f"The tenant {name!r} is open at {known['OPTIONS']['location']!r}; "
                    f"close() it before you open it at {location!r}."
                )
            return alias
        connections.settings[alias] = _entry(name, template, location)
        _registered[alias] = name
    return alias


def _entry(name: str, like: str, location: str | None) -> dict[str, Any]:
    usual = connections.settings[like]
    if usual["ENGINE"] != conf.ENGINE and not conf.lives_in_bucket(like):
        raise ImproperlyConfigured(
            f"The database {like!r} does not live in a bucket, so no tenant's can "
            f"be like it."
        )
    connection = _connection(like)
    store, path = _store(connection), Path(usual["NAME"])
    home = getattr(store, "location", None)
    if location is None and home == "":
        raise ValueError(
            f"The database {like!r} is at the root of its bucket: say at which "
            f"location that of {name!r} is to be."
        )
    own = path.with_name(f"{path.stem}-tenants") / f"{name}.sqlite3"
    made = {
        **usual,
        "NAME": str(own),
        "TEST": {**usual["TEST"]},
        "OPTIONS": {
            **usual["OPTIONS"],
            "location": location
            or f"{store.name if home is None else home}-tenants/{name}",
        },
        conf.TENANT: {"name": name, "like": like},
    }
    from s3cache.db.creation import STORE_DIRECTORY

    if STORE_DIRECTORY in usual:  # tests never touch the bucket
        made[STORE_DIRECTORY] = f"{own}.store"
    return made


def _connection(alias: str) -> DatabaseWrapper:
    """The connection of this thread; of a tenant that is open now.

    And not that of one which has been closed since.
    """
    connection: DatabaseWrapper = connections[alias]  # type: ignore[assignment]
    if conf.was_closed(alias, connection.settings_dict):
        connection.close()
        del connections[alias]
        connection = connections[alias]  # type: ignore[assignment]
    return connection


def _store(connection: DatabaseWrapper) -> Store:
    """The store of a database; the replica is not opened, nor made."""
    store: Store = connection.get_connection_params()["store"]
    return store


def _is_complete(connection: DatabaseWrapper) -> bool:
    """Whether there is a database that was not only begun."""
    from s3cache.log.head import dropped_database
    from s3cache.log.keys import HEAD
    from s3cache.stores.failures import failure

    store = _store(connection)
    answer = store.get(HEAD)
    if answer.status == 404 or dropped_database(answer.body):
        return False
    if answer.status != 200:
        raise failure(answer, f"read {HEAD}", store=store.name)
    from django.db.migrations.executor import MigrationExecutor

    executor = MigrationExecutor(connection)
    return not executor.migration_plan(executor.loader.graph.leaf_nodes())


def _used(alias: str) -> None:
    """Note that a tenant is used, and close files of those that are not."""
    from s3cache.replica.replica import open_replica

    most = conf.settings().open_tenants
    with _lock:
        _with_files[alias] = None
        _with_files.move_to_end(alias)
        for other in list(_with_files)[:-most]:
            replica = open_replica(Path(connections.settings[other]["NAME"]))
            # One that is in use keeps its files until the next look.
            if not _active[other] and (replica is None or replica.close_if_idle()):
                del _with_files[other]


def _forget(alias: str) -> None:
    from s3cache.db.news import end_news
    from s3cache.replica.replica import open_replica
    from s3cache.stores.registry import forget_store

    with _lock:
        with suppress(Exception):  # one that could not even be opened
            connections[alias].close()
        options = connections.settings[alias]["OPTIONS"]
        replica = open_replica(Path(connections.settings[alias]["NAME"]))
        if replica is not None:
            end_news(replica)
            replica.close()
        with suppress(AttributeError):
            del connections[alias]
        del connections.settings[alias]
        _registered.pop(alias, None)
        _with_files.pop(alias, None)
        _active.pop(alias, None)
        forget_store(options["storage"], options["location"])
