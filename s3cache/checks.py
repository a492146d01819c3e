"""
System checks. An id that is retired is never used again.

    s3cache.E001  the platform is not supported
    s3cache.E002  OPTIONS of a bucket database are wrong
    s3cache.E003  its storage names no STORAGES alias
    s3cache.E004  its storage is of a kind that cannot hold a database
    s3cache.E005  S3CACHE is wrong
    s3cache.E006  a cache names no CACHES alias
    s3cache.E007  INCLUDE or EXCLUDE names no model
    s3cache.E008  an S3Model is routed to a database outside of a bucket
    s3cache.E009  a partition names no field that has a column
    s3cache.E010  a DecimalField has more digits than SQLite keeps
    s3cache.E011  a store cannot hold a database (with --database only)
    s3cache.E012  several databases could hold an S3Model
    s3cache.E013  a cache is not configured right
    s3cache.E014  a tier or shard names no CACHES alias, or is made of itself
    s3cache.E015  a database or cache names no Redis to talk to others by
    s3cache.E016  a tier has a broadcast of its own
    s3cache.E017  two databases share one replica
    s3cache.E018  what only the project may read lies where it is published
    s3cache.E019  a bucket's configuration publishes or deletes a database
                  (with --database only)
    s3cache.E020  entries of a log cannot be read (with --database only)
    s3cache.E021  a model cannot be written behind
    s3cache.I001  reads of a model are not cached (with --deploy only)
    s3cache.I002  reads of a model are never hot (with --deploy only)
    s3cache.W001  a replica lies in memory
    s3cache.W002  a replica lies on a network file system
    s3cache.W003  max_age is 0: every read pays a request
    s3cache.W004  a relation leaves the database
    s3cache.W005  a store did not answer (with --database only)
    s3cache.W006  a tier or shard unpickles what others may have written
    s3cache.W007  a cache in memory has no limit of bytes (with --deploy only)
    s3cache.W008  caches in memory may grow larger than the memory
    s3cache.W009  a cache cannot keep results (with --deploy only)
    s3cache.W010  results have room for 300 entries (with --deploy only)
    s3cache.W011  sessions are in a cache that ends with its process
    s3cache.W012  every request writes a session to a bucket
    s3cache.W013  a middleware comes after one that it should come before
    s3cache.W014  no key opens what is in a cache (in a bucket: --deploy only)
    s3cache.W015  a database is in a directory (with --deploy only)
    s3cache.W016  every request is a block: no read is answered by a cache
    s3cache.W017  a store or cache in files lies on a network file system
    s3cache.W018  tenants may open more files than a process may
"""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from django.apps import AppConfig, apps
from django.conf import settings
from django.core import checks
from django.core.cache import caches
from django.core.cache.backends.base import InvalidCacheBackendError
from django.core.checks import CheckMessage, Error, Info, Tags, Warning
from django.core.exceptions import FieldDoesNotExist, ImproperlyConfigured
from django.db import models, router

from s3cache import conf, project_checks
from s3cache.caches import redis
from s3cache.caches.base import Cache
from s3cache.caches.composed import ComposedCache
from s3cache.caches.machine import Machine
from s3cache.caches.memory import MemoryCache
from s3cache.exceptions import EntryFormatError, StoreError, StoreUnavailable
from s3cache.log.entry import token_of
from s3cache.log.keys import LOG
from s3cache.managers import why_not_hot
from s3cache.models import S3Model
from s3cache.mounts import IN_MEMORY, ON_NETWORK, file_system
from s3cache.results.hot import why_not_built
from s3cache.results.policy import kept_in, unknown_labels, why_not_kept
from s3cache.results.statements import UNSUITABLE
from s3cache.stores import DirectoryStore, Store, store_for
from s3cache.stores.probe import probe

__all__ = ["register"]

TAG: Final = "s3cache"

# What SQLite's floating point numbers, and Django's converter, keep exactly.
EXACT_DIGITS: Final = 15
# Of a tenant in use; see docs/how-to/tenants.md. What processes agree by, the
# shared memory of SQLite, and file and WAL for each of three connections.
TENANT_FILES: Final = 9
# Of each connection that reads it: as many as threads that use it at once.
READER_FILES: Final = 2
# As many as servers with threads often have. No setting of Django's says it.
USUAL_THREADS: Final = 4
MEMORY_CACHES: Final = frozenset(
    {"s3cache.caches.MemoryCache", "s3cache.caches.memory.MemoryCache"}
)

_AppConfigs = Sequence[AppConfig] | None
_Model = type[models.Model]


def register() -> None:
    """Register all checks; called once, by the app's ``ready()``."""
    checks.register(check_platform, TAG)
    checks.register(check_databases, TAG)
    checks.register(check_settings, TAG)
    checks.register(check_models, TAG, Tags.models)
    checks.register(check_results, TAG, Tags.models, deploy=True)
    checks.register(check_stores, TAG, Tags.database)
    checks.register(check_caches, TAG, Tags.caches)
    checks.register(check_memory_limits, TAG, Tags.caches, deploy=True)
    project_checks.register(TAG)


def check_platform(**kwargs: Any) -> list[CheckMessage]:
    if sys.platform != "win32":
        return []
    return [
        Error(
            "s3cache does not run on Windows.",
            hint="Use Linux, macOS, or the Windows Subsystem for Linux.",
            id="s3cache.E001",
        )
    ]


def check_databases(**kwargs: Any) -> list[CheckMessage]:
    """Check DATABASES without a request to any store."""
    return [
        message
        for alias in conf.bucket_aliases()
        for message in (*_check_options(alias), *_check_replica(alias))
    ] + [*_check_shared_replicas()]


def check_settings(**kwargs: Any) -> list[CheckMessage]:
    """Check S3CACHE."""
    try:
        given = conf.settings()
    except ImproperlyConfigured as error:
        return [
            Error(
                str(error),
                hint="Correct S3CACHE in the settings: until then each read raises "
                "this error.",
                id="s3cache.E005",
            )
        ]
    messages: list[CheckMessage] = []
    if given.cache is not None:
        messages += _check_cache("S3CACHE['CACHE']", given.cache)
    if given.metrics_cache is not None:
        path = "S3CACHE['METRICS_CACHE']"
        messages += _check_cache(path, given.metrics_cache)
    for name, namespace in given.namespaces.items():
        if namespace.cache is not None:
            path = f"S3CACHE['NAMESPACES'][{name!r}]['CACHE']"
            messages += _check_cache(path, namespace.cache)
    models = tuple(name for name in given.warm_at_start if "." in name)
    for option, labels in (
        ("INCLUDE", given.include),
        ("EXCLUDE", given.exclude),
        ("WARM_AT_START", models),
    ):
        messages += [
            Error(
                f"S3CACHE[{option!r}] names {label!r}, which is neither an "
                f"installed app nor a model of one.",
                hint="Write 'app_label' or 'app_label.ModelName'.",
                id="s3cache.E007",
            )
            for label in unknown_labels(labels or ())
        ]
    messages += _check_tenants(given.open_tenants)
    return messages


def _check_tenants(most: int) -> Iterator[CheckMessage]:
    if conf.TENANT_ROUTER not in settings.DATABASE_ROUTERS:
        return
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = files_of_tenants(most, USUAL_THREADS)
    if limit != resource.RLIM_INFINITY and files > limit:
        yield Warning(
            f"S3CACHE['OPEN_TENANTS'] is {most}, which takes {files} files where "
            f"{USUAL_THREADS} threads use each of them, but a process here may open "
            f"{limit}.",
            hint="Lower it, or raise the limit (ulimit -n, LimitNOFILE of systemd). "
            f"Each thread makes a difference of {most * READER_FILES} files.",
            id="s3cache.W018",
        )


def files_of_tenants(tenants: int, threads: int) -> int:
    """Return how many files a process has open for `tenants` in use.

    With so many `threads` that read each of them at the same time; what is
    written behind is not reckoned.
    """
    return tenants * (TENANT_FILES + threads * READER_FILES)


def check_models(app_configs: _AppConfigs = None, **kwargs: Any) -> list[CheckMessage]:
    """Check the models that live in a bucket, and the relations between."""
    messages: list[CheckMessage] = []
    for app_config in app_configs or apps.get_app_configs():
        for model in app_config.get_models():
            if issubclass(model, S3Model):
                messages += _check_s3meta(model)
            try:
                alias = router.db_for_write(model)
            except ImproperlyConfigured as error:
                messages.append(
                    Error(
                        str(error),
                        hint="If all of its rows are in one of them, let its S3Meta "
                        "say so: otherwise each query needs .using(...).",
                        obj=model,
                        id="s3cache.E012",
                    )
                )
                continue
            messages += _check_home(model, alias)
            messages += _check_decimals(model, alias)
            messages += _check_relations(model, alias)
    return messages


def check_results(app_configs: _AppConfigs = None, **kwargs: Any) -> list[CheckMessage]:
    """Name the models in a bucket whose reads are not cached, and why."""
    messages: list[CheckMessage] = []
    for app_config in app_configs or apps.get_app_configs():
        for model in app_config.get_models():
            try:
                if (
                    not model._meta.proxy
                    and router.db_for_read(model) in conf.bucket_aliases()
                ):
                    messages += _check_kept(model)
            except ImproperlyConfigured:
                continue  # E005, E007 and E012 say so
    return messages


def check_stores(
    databases: Sequence[str] | None = None, **kwargs: Any
) -> list[CheckMessage]:
    """
    Ask the stores for all that the protocols need, in about thirty requests.

    Like every check of a database it runs with ``check --database`` and
    before ``migrate`` only.
    """
    return [
        message
        for alias in conf.bucket_aliases()
        if alias in (databases or ())
        for message in _check_store(alias)
    ]


def check_caches(**kwargs: Any) -> list[CheckMessage]:
    """Check our caches in CACHES, and what they are made of."""
    messages: list[CheckMessage] = []
    made: list[Cache] = []
    for alias in settings.CACHES:
        try:
            cache = caches[alias]
            if not isinstance(cache, Cache):
                continue
            if name := cache.options.get("broadcast"):
                path = f"CACHES[{alias!r}]['OPTIONS']['broadcast']"
                messages += _check_redis(path, name)
            if isinstance(cache, ComposedCache):
                if found := [*_check_members(alias, cache)]:
                    messages += found
                    continue
                messages += _check_pickles(alias, cache)
                messages += _check_broadcasts(alias, cache)
        except InvalidCacheBackendError:
            continue  # Django says so itself
        except ImproperlyConfigured as error:
            messages.append(
                Error(
                    f"CACHES[{alias!r}]: {error}",
                    hint="Correct it in the settings: until then whoever uses the "
                    "cache gets this error.",
                    id="s3cache.E013",
                )
            )
        else:
            made.append(cache)
    return [*messages, *_check_memory(made)]


def check_memory_limits(**kwargs: Any) -> list[CheckMessage]:
    """Name the caches in memory whose size nothing bounds."""
    return [
        Warning(
            f"The MemoryCache CACHES[{alias!r}] has no limit of bytes.",
            hint="MAX_ENTRIES says nothing about the size of an entry. Set "
            "'max_memory_bytes', or 'max_memory_percent', in its OPTIONS.",
            id="s3cache.W007",
        )
        for alias, params in settings.CACHES.items()
        if params.get("BACKEND") in MEMORY_CACHES
        and not {"max_memory_bytes", "max_memory_percent"}
        & {*(params.get("OPTIONS") or {})}
    ]


def _check_options(alias: str) -> Iterator[CheckMessage]:
    database = settings.DATABASES[alias]
    try:
        options = conf.DatabaseOptions.from_settings(alias, database.get("OPTIONS", {}))
    except ImproperlyConfigured as error:
        yield Error(
            str(error),
            hint=f"Correct DATABASES[{alias!r}]['OPTIONS'] in the settings: until then "
            "the database cannot be used.",
            id="s3cache.E002",
        )
        return
    path = f"DATABASES[{alias!r}]['OPTIONS']"
    if options.storage not in settings.STORAGES:
        yield Error(
            f"{path}['storage'] is {options.storage!r}, which is no STORAGES alias.",
            hint=f"Defined are {conf.listed(settings.STORAGES)}.",
            id="s3cache.E003",
        )
    else:
        try:
            store_for(options.storage)
        except ImproperlyConfigured as error:
            yield Error(
                f"{path}['storage'] cannot hold a database: {error}",
                hint="Name an S3Storage (a bucket) or a FileSystemStorage (a "
                "directory, for development).",
                id="s3cache.E004",
            )
    if options.max_age == 0:
        yield _every_read_pays(f"{path}['max_age']")
    if options.redis is not None:
        yield from _check_redis(f"{path}['redis']", options.redis)


def _check_redis(path: str, alias: str) -> Iterator[CheckMessage]:
    if alias not in settings.CACHES:
        yield Error(
            f"{path} is {alias!r}, which is no CACHES alias.",
            hint=f"Defined are {conf.listed(settings.CACHES)}.",
            id="s3cache.E015",
        )
        return
    try:
        usable = redis.is_redis(caches[alias])
    except (InvalidCacheBackendError, ImproperlyConfigured):
        return  # said elsewhere
    if not usable:
        yield Error(
            f"{path} is {alias!r}, which is no Redis behind django-redis.",
            hint="Messages between hosts need django_redis.cache.RedisCache with "
            "its default client, or that for Sentinel.",
            id="s3cache.E015",
        )


def _check_replica(alias: str) -> Iterator[CheckMessage]:
    path = settings.DATABASES[alias].get("NAME")
    kind = file_system(Path(path)) if path else None
    if kind in IN_MEMORY:
        yield Warning(
            f"The replica of the database {alias!r} lies in memory "
            f"({path} is on {kind}).",
            hint="It takes memory that is not accounted to any process, and is "
            f"gone after a restart. Let DATABASES[{alias!r}]['NAME'] be on a disk "
            "of the host; silence this check if a replica in memory is wanted.",
            id="s3cache.W001",
        )
    elif kind in ON_NETWORK:
        yield Warning(
            f"The replica of the database {alias!r} lies on a network file "
            f"system ({path} is on {kind}).",
            hint="SQLite's locks and shared memory do not work there; hosts that "
            "share it damage it. Every host needs a replica of its own: let "
            f"DATABASES[{alias!r}]['NAME'] be on a disk of the host.",
            id="s3cache.W002",
        )


def _check_shared_replicas() -> Iterator[CheckMessage]:
    aliases: dict[Path, list[str]] = {}
    for alias in conf.bucket_aliases():
        if name := settings.DATABASES[alias].get("NAME"):
            aliases.setdefault(Path(name).resolve(), []).append(alias)
    for path, sharing in aliases.items():
        if len(sharing) > 1:
            yield Error(
                f"The databases {conf.listed(sharing)} have one replica, {path}.",
                hint="A replica follows one log. Give each of them a NAME of its own "
                "in DATABASES.",
                id="s3cache.E017",
            )


def _check_store(alias: str) -> Iterator[CheckMessage]:
    given: object = settings.DATABASES[alias].get("OPTIONS", {})
    try:
        options = conf.DatabaseOptions.from_settings(alias, given)
        store = store_for(options.storage)
        probe(store)
        yield from _check_bucket(alias, store)
        yield from _check_entries(alias, store, options.signing_keys)
    except ImproperlyConfigured:
        return  # E002 to E004 say so
    except StoreUnavailable as error:
        yield Warning(
            f"The store of the database {alias!r} did not answer: {error}",
            hint="Reads go on from the replica for stale_if_error seconds; writes "
            "raise StoreUnavailable until it answers.",
            id="s3cache.W005",
        )
    except StoreError as error:
        yield Error(
            f"The store of the database {alias!r} cannot hold it: {error}",
            hint="Until it can, nothing is written. 'manage.py s3cache_doctor "
            f"--database {alias}' looks again; with --policy it prints the "
            "permissions that suffice for a bucket.",
            id="s3cache.E011",
        )


def _check_bucket(alias: str, store: Store) -> Iterator[CheckMessage]:
    if isinstance(store, DirectoryStore):
        return
    # They cost whoever has no bucket 0.3 s of boto3.
    from s3cache.doctor.bucket import examine_bucket
    from s3cache.doctor.findings import Level
    from s3cache.stores.s3 import S3Store

    if isinstance(store, S3Store):
        for found in examine_bucket(store):
            if found.level is Level.ERROR:
                yield Error(
                    f"{store.name}, with the database {alias!r}: {found.message}",
                    hint=found.advice,
                    id="s3cache.E019",
                )


def _check_entries(
    alias: str, store: Store, signing_keys: Sequence[bytes]
) -> Iterator[CheckMessage]:
    """Read an entry, as every host that comes has to."""
    listed = store.list(LOG)
    if not listed.keys:
        return  # an empty place, or no permission, which the probe has asked
    key = listed.keys[-1].key
    answer = store.get(key)
    if not answer.ok:
        return  # trimmed meanwhile
    try:
        token_of(answer.body, key=key, signing_keys=signing_keys)
    except EntryFormatError as error:
        yield Error(
            f"The log of the database {alias!r} cannot be read: {error}",
            hint="If 'signing_keys' were changed, keep the old key behind the new one "
            "for as long as entries that it signed are in the log.",
            id="s3cache.E020",
        )


def _check_members(alias: str, cache: ComposedCache) -> Iterator[CheckMessage]:
    """Look at the aliases without making caches of them, which may loop."""
    option = cache.members_option
    path = f"CACHES[{alias!r}]['OPTIONS'][{option!r}]"
    for member in cache.listed:
        if member.alias not in settings.CACHES:
            yield Error(
                f"{path} names {member.alias!r}, which is no CACHES alias.",
                hint=f"Defined are {conf.listed(settings.CACHES)}.",
                id="s3cache.E014",
            )
        elif alias in _made_of(member.alias, {member.alias}):
            yield Error(
                f"{path} names {member.alias!r}, which is made of {alias!r} itself.",
                hint="Take one of the two out of what the other is made of.",
                id="s3cache.E014",
            )


def _made_of(alias: str, seen: set[str]) -> set[str]:
    """The aliases that a cache is made of, itself among them."""
    cache = caches[alias]
    if isinstance(cache, ComposedCache):
        for member in cache.listed:
            if member.alias in settings.CACHES and member.alias not in seen:
                seen.add(member.alias)
                _made_of(member.alias, seen)
    return seen


def _check_pickles(alias: str, cache: ComposedCache) -> Iterator[CheckMessage]:
    for member in cache.members:
        if redis.unpickles(member.cache):
            yield Warning(
                f"CACHES[{member.alias!r}], a part of CACHES[{alias!r}], unpickles "
                "whatever is in its Redis: whoever can write there can run code here.",
                hint="Set 'SERIALIZER': 's3cache.caches.redis.BytesSerializer' in its "
                "OPTIONS. What is kept there is serialized, and authenticated, "
                f"by CACHES[{alias!r}].",
                id="s3cache.W006",
            )


def _check_broadcasts(alias: str, cache: ComposedCache) -> Iterator[CheckMessage]:
    for member in cache.members:
        options = getattr(member.cache, "options", {})
        if options.get("broadcast") is not None:
            yield Error(
                f"CACHES[{member.alias!r}], a part of CACHES[{alias!r}], has the "
                "option 'broadcast': what is removed to make room for a newer value "
                "would be removed everywhere.",
                hint=f"Give the option to CACHES[{alias!r}], which knows what was "
                "changed by whom.",
                id="s3cache.E016",
            )


def _check_memory(made: Sequence[Cache]) -> Iterator[CheckMessage]:
    limits = {
        id(cache.shelf): cache.shelf.limits.bytes or 0
        for cache in made
        if isinstance(cache, MemoryCache)
    }
    most, total = sum(limits.values()), Machine().total()
    if most > total:
        yield Warning(
            f"The caches in memory may grow to {most // 2**20} MB, but this process "
            f"may use {total // 2**20} MB.",
            hint="Lower their 'max_memory_bytes' or 'max_memory_percent'. Each process "
            "has a cache of its own.",
            id="s3cache.W008",
        )


def _check_cache(path: str, alias: str, model: _Model | None = None) -> list[Error]:
    if alias in settings.CACHES:
        return []
    return [
        Error(
            f"{path} is {alias!r}, which is no CACHES alias.",
            hint=f"Defined are {conf.listed(settings.CACHES)}.",
            obj=model,
            id="s3cache.E006",
        )
    ]


def _check_s3meta(model: type[S3Model]) -> Iterator[CheckMessage]:
    options = model._s3meta
    if options.write_behind:
        yield from _check_write_behind(model)
    if options.cache is not None:
        yield from _check_cache("S3Meta.cache", options.cache, model)
    if options.max_age == 0:
        yield _every_read_pays("S3Meta.max_age", model)
    for partition, names in options.partitions.items():
        for name in names:
            try:
                known = model._meta.get_field(name) in model._meta.concrete_fields
            except FieldDoesNotExist:
                known = False
            if not known:
                fields = [field.name for field in model._meta.concrete_fields]
                yield Error(
                    f"The partition {partition!r} names {name!r}, which is no field "
                    f"of {model._meta.label} with a column.",
                    hint=f"Its fields are {conf.listed(fields)}.",
                    obj=model,
                    id="s3cache.E009",
                )


def _check_kept(model: _Model) -> Iterator[CheckMessage]:
    alias = kept_in(model, "").cache
    why = why_not_kept(model) if alias else "S3CACHE['CACHE'] is None"
    if alias is None or why:
        yield Info(
            f"Reads of {model._meta.label} are not cached: {why}.",
            hint="Each of them is a query on the replica. Silence this check if that "
            "is wanted.",
            obj=model,
            id="s3cache.I001",
        )
        return
    if alias not in settings.CACHES:
        return  # E006 says so
    cache = caches[alias]
    if isinstance(cache, UNSUITABLE):
        yield Warning(
            f"Reads of {model._meta.label} are not cached: CACHES[{alias!r}] is a "
            f"{type(cache).__name__}.",
            hint="A DummyCache keeps nothing, and a DatabaseCache would ask a database "
            "instead of this one. Name another alias in S3CACHE['CACHE'], a "
            "MemoryCache for example; None says that no results are to be kept.",
            obj=model,
            id="s3cache.W009",
        )
        return
    manager = model._default_manager
    if not issubclass(model, S3Model) or not conf.settings().hot_path:
        return  # nobody said that it should be fast
    if why := why_not_hot(type(manager)):
        why = f"of its default manager: {why}"
    elif why := why_not_built(model):
        why = f"but for numbers: {why}"
    if why:
        yield Info(
            f"Reads of {model._meta.label} are cached, but never hot, {why}.",
            hint="They are answered from the cache after their SQL was made, which "
            "takes longer than all the rest.",
            obj=model,
            id="s3cache.I002",
        )


def _check_write_behind(model: type[S3Model]) -> Iterator[CheckMessage]:
    pk = model._meta.pk
    unique = [
        field.name
        for field in model._meta.local_concrete_fields
        if field.unique and not field.primary_key
    ]
    constraints = [
        one.name
        for one in model._meta.constraints
        if isinstance(one, models.UniqueConstraint)
    ]
    reasons = {
        "its primary key is a number that the database gives, which is not known "
        "before the commit is sent": isinstance(pk, models.AutoField),
        f"nobody would be told that a value is taken ({', '.join(unique)})": unique,
        "nobody would be told that a constraint is broken "
        f"({', '.join(constraints)})": constraints or model._meta.unique_together,
        "its rows are in two tables": model._meta.parents,
    }
    for reason, holds in reasons.items():
        if holds:
            yield Error(
                f"{model._meta.label} cannot be written behind: {reason}.",
                hint="Take write_behind out of its S3Meta.",
                obj=model,
                id="s3cache.E021",
            )


def _check_home(model: _Model, alias: str) -> Iterator[CheckMessage]:
    buckets = conf.bucket_aliases()
    if issubclass(model, S3Model) and alias not in buckets:
        yield Error(
            f"{model._meta.label} is an S3Model, but its rows would be written to "
            f"the database {alias!r}, which does not live in a bucket.",
            hint="Add 's3cache.routers.S3Router' to DATABASE_ROUTERS, before routers "
            "that send it elsewhere, and name in its S3Meta.database, if anything, "
            f"one of the databases with the ENGINE {conf.ENGINE!r}. There "
            f"{'are ' + conf.listed(buckets) if buckets else 'is none'}.",
            obj=model,
            id="s3cache.E008",
        )


def _check_decimals(model: _Model, alias: str) -> Iterator[CheckMessage]:
    if alias not in conf.bucket_aliases():
        return
    for field in model._meta.local_concrete_fields:
        if not isinstance(field, models.DecimalField):
            continue
        digits: int | None = field.max_digits  # may be left out since Django 6.1
        if digits is None or digits > EXACT_DIGITS:
            yield Error(
                f"{field} may have {digits or 'any number of'} digits, but "
                f"SQLite keeps {EXACT_DIGITS} and silently rounds the rest.",
                hint=f"Set max_digits to {EXACT_DIGITS} or less, or keep the number in "
                "a BigIntegerField that counts the smallest unit, or in a CharField.",
                obj=field,
                id="s3cache.E010",
            )


def _check_relations(model: _Model, alias: str) -> Iterator[CheckMessage]:
    for field in (*model._meta.local_fields, *model._meta.local_many_to_many):
        target = field.related_model
        if not isinstance(target, type) or not getattr(field, "db_constraint", True):
            continue
        if not issubclass(model, S3Model) and not issubclass(target, S3Model):
            continue
        try:
            other = router.db_for_write(target)
        except ImproperlyConfigured:
            continue  # E012 says so
        if other != alias:
            yield Warning(
                f"{field} leads from the database {alias!r} to {other!r}: it cannot "
                "be joined, and its constraint cannot be checked.",
                hint="Let both models live in one database. A ForeignKey between "
                "databases needs db_constraint=False, and each side is then asked "
                "for apart.",
                obj=field,
                id="s3cache.W004",
            )


def _every_read_pays(path: str, model: _Model | None = None) -> Warning:
    return Warning(
        f"{path} is 0: every read pays a request to the store.",
        hint="At 1, the default, one request a second serves all reads of a host. "
        "fresh() asks for a single query.",
        obj=model,
        id="s3cache.W003",
    )
