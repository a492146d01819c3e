"""Which models live in a bucket database, and in which one."""

from __future__ import annotations

from typing import Any

from django.apps import apps
from django.core.exceptions import ImproperlyConfigured
from django.db import DEFAULT_DB_ALIAS
from django.db.models import Model

from s3cache import conf

__all__ = ["InBucket", "S3Router", "bucket_alias", "lives_in_bucket"]


class InBucket:
    """
    The mark of models that live in a bucket, as a base class.

    Migrations record it among a model's ``bases``, so that the router knows
    a model by its state in a migration when the class itself is long gone:
    the migration that deletes a model has to reach the database it was in.
    """


class S3Router:
    """
    Send every `S3Model` to the bucket database, and nothing else there.

    For ``DATABASE_ROUTERS``; not needed when ``default`` is the bucket. With
    several bucket databases a model takes the one that its ``S3Meta.database``
    names, else ``default`` if that is one of them; an instance stays in the
    one that it was read from. Put a router that decides otherwise (a database
    per tenant, say) before this one.

    The table of a `ManyToManyField` lives with the model that declares it.
    """

    def db_for_read(self, model: type[Model], **hints: Any) -> str | None:
        return _database(model, hints.get("instance"))

    def db_for_write(self, model: type[Model], **hints: Any) -> str | None:
        return _database(model, hints.get("instance"))

    def allow_relation(self, obj1: Model, obj2: Model, **hints: Any) -> bool | None:
        """Allow relations within a bucket; of others say nothing."""
        first = _database(type(obj1), obj1)
        if first is not None and first == _database(type(obj2), obj2):
            return True
        return None

    def allow_migrate(
        self, db: str, app_label: str, model_name: str | None = None, **hints: Any
    ) -> bool | None:
        """
        Keep the tables of S3Models in bucket databases, and others out.

        An operation that names no model (RunPython, RunSQL) runs where the
        models of its app live; if these live in both, Django's default holds,
        and it runs in both unless its ``hints`` name a ``model_name``.
        """
        buckets = conf.bucket_aliases()
        if not buckets:
            return None
        model = hints.get("model") or _registered(app_label, model_name)
        if model is None:
            kinds = {lives_in_bucket(model) for model in _models_of(app_label)}
            if len(kinds) != 1:
                return None
            in_bucket, named = kinds.pop(), None
        else:
            in_bucket = lives_in_bucket(model)
            named = _named_database(model)
        if in_bucket:
            return db == named if named else db in buckets
        if db in buckets and db != DEFAULT_DB_ALIAS:
            return False
        return None


def lives_in_bucket(model: type[Model]) -> bool:
    """
    Tell whether `model` is an `S3Model` or the table of a relation of one.

    A class from the state of a migration is what the project's class of that
    name is; if there is none any more, what it was.
    """
    return issubclass(_current(model), InBucket)


def bucket_alias(model: type[Model] | None = None) -> str | None:
    """
    Return the alias of the bucket database of `model`, or of the project.

    None if no database of the project lives in a bucket. Raise
    `ImproperlyConfigured` if several do and nothing says which one is meant.
    """
    if model is not None and (named := _named_database(model)):
        return named
    aliases = conf.bucket_aliases()
    if len(aliases) < 2:
        return aliases[0] if aliases else None
    if DEFAULT_DB_ALIAS in aliases:
        return DEFAULT_DB_ALIAS
    listed = ", ".join(repr(alias) for alias in aliases)
    if model is None:
        raise ImproperlyConfigured(
            f"Several databases live in a bucket: {listed}. Say which one is meant "
            f"(using=...)."
        )
    raise ImproperlyConfigured(
        f"{model._meta.label} could live in several databases: {listed}. Name one in "
        f"its S3Meta (database = ...), or in .using(...)."
    )


def _database(model: type[Model], instance: Model | None) -> str | None:
    if not lives_in_bucket(model):
        return None
    if (
        instance is not None
        and conf.lives_in_bucket(instance._state.db)
        # A model that names a database is nowhere else, but where a row of
        # its own was read on purpose.
        and (isinstance(instance, model) or not _named_database(model))
    ):
        return instance._state.db
    return bucket_alias(model)


def _named_database(model: type[Model]) -> str | None:
    model = _current(model)
    if (named := getattr(model, "_s3meta", None)) and named.database:
        return str(named.database)
    # A child of multi-table inheritance can only be where its parent is.
    for parent in model._meta.parents:
        if alias := _named_database(parent):
            return alias
    return None


def _current(model: type[Model]) -> type[Model]:
    # The table of a many-to-many relation belongs to the declaring model.
    if isinstance(owner := model._meta.auto_created, type):
        model = owner
    if model._meta.apps is apps:
        return model
    return _registered(model._meta.app_label, model._meta.model_name) or model


def _registered(app_label: str, model_name: str | None) -> type[Model] | None:
    if model_name is None:
        return None
    try:
        return apps.get_model(app_label, model_name)
    except LookupError:
        return None


def _models_of(app_label: str) -> list[type[Model]]:
    try:
        return list(apps.get_app_config(app_label).get_models())
    except LookupError:
        return []
