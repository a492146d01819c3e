"""What there is to warm: of models, named queries, and recorded traffic."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from django.apps import apps
from django.db import connections, models, router

from s3cache import conf
from s3cache.facade import SAMPLE_SIZE, Facade, cache_of
from s3cache.results.policy import is_kept
from s3cache.warming.registry import Query, queries, query_named
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
    facade = cache_of(model)
    if alias is not None:
        facade = Facade(model._default_manager.db_manager(alias))
    reads = facade.reads(partitions, sample_size)
    return [Step(read, model._meta.label) for read in reads]


def steps_of_query(query: Query, aliases: Iterable[str] | None = None) -> list[Step]:
    """What a named query reads, of some databases or of all in buckets."""
    wanted = set(conf.bucket_aliases() if aliases is None else aliases)
    return [
        Step(read, query.name, query.ttl)
        for read in query.reads()
        if read.queryset.db in wanted
    ]


def check_names(names: Iterable[str]) -> None:
    """Raise `LookupError` for a name of which there is no model, or query."""
    for name in names:
        if "." in name:
            cache_of(name)
        else:
            query_named(name)


def steps_of(
    names: Iterable[str] | None, *, partitions: bool = True, sample_size: int = 0
) -> Iterator[Step]:
    """
    The steps of models, named by their labels, and of named queries.

    None: of all queries. Raise `LookupError` for a name that there is not.
    """
    if names is None:
        for query in queries():
            yield from steps_of_query(query)
        return
    for name in names:
        if "." in name:
            model: Any = cache_of(name).model
            yield from steps_of_model(
                model, partitions=partitions, sample_size=sample_size
            )
        else:
            yield from steps_of_query(query_named(name))
