"""What there is to warm: of models, named queries, and recorded traffic."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from django.apps import apps
from django.db import connections, models, router

from s3cache import conf
from s3cache.facade import SAMPLE_SIZE, Facade, cache_of
from s3cache.facade.reads import require_bucket
from s3cache.results.policy import is_kept
from s3cache.warming.registry import Query, query_named
from s3cache.warming.steps import Step

__all__ = ["check_names", "models_in", "steps_of", "steps_of_model", "steps_of_query"]


def models_in(alias: str) -> list[type[models.Model]]:
    """The models with rows in a database whose results are kept."""
    tables = set(connections[alias].introspection.table_names())
    return [
        model
        for model in apps.get_models()
        if not model._meta.proxy
        and model._meta.db_table in tables
        and router.allow_migrate_model(alias, model)
        and is_kept(model)
    ]


def steps_of_model(
    model: type[models.Model],
    alias: str | None = None,
    *,
    partitions: bool = True,
    sample_size: int = SAMPLE_SIZE,
) -> list[Step]:
    """What ``Model.objects.cache.warm()`` would make."""
    manager = model._default_manager.db_manager(alias)
    require_bucket(model, manager.db)
    reads = Facade(manager).reads(partitions, sample_size)
    return [Step(read, model._meta.label) for read in reads]


def steps_of_query(query: Query, aliases: Iterable[str] | None = None) -> list[Step]:
    """What a named query reads, of some databases or of all in buckets."""
    wanted = set(conf.bucket_aliases() if aliases is None else aliases)
    return [
        Step(read, query.name, query.ttl)
        for read in query.reads()
        if read.queryset.db in wanted
    ]


def check_names(names: Iterable[str], using: str | None = None) -> None:
    """
    Raise an error for a name of which nothing can be warmed.

    `LookupError`: there is no such model, or query. `ImproperlyConfigured`:
    the model is read from a database, or from `using`, that is in no bucket.
    """
    for name in names:
        if "." in name:
            model = cache_of(name).model
            require_bucket(model, using or model._default_manager.db)
        else:
            query_named(name)


def steps_of(
    names: Iterable[str],
    *,
    using: str | None = None,
    partitions: bool = True,
    sample_size: int = 0,
) -> Iterator[Step]:
    """
    The steps of models, named by their labels, and of named queries.

    `using` is the database of which models are read, None: as their managers
    do. Raise `LookupError` for a name that there is not.
    """
    for name in names:
        if "." in name:
            model: Any = cache_of(name).model
            yield from steps_of_model(
                model, using, partitions=partitions, sample_size=sample_size
            )
        else:
            yield from steps_of_query(query_named(name))
