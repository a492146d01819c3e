"""What settings and models say about the results of a statement."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from django.apps import apps
from django.core.signals import setting_changed
from django.db.models import Model
from django.dispatch import receiver

from s3cache import conf

__all__ = ["Policy", "policy_for"]


@dataclass(frozen=True, slots=True)
class Policy:
    """How a result is kept.

    ``label`` names the model, for people; ``cache`` is the CACHES alias, and
    ``ttl`` in seconds. ``key_version`` is a part of the key.
    """

    label: str
    cache: str
    ttl: float
    key_version: int | str


@cache
def policy_for(model: type[Model] | None, tables: tuple[str, ...]) -> Policy | None:
    """How a result of ``tables`` is kept, None: not at all.

    ``model`` is that of the queryset, or None for SQL that was written by
    hand: then all tables have to belong to models that may be kept. A table
    of a model that may not be kept keeps the result out in any case.
    """
    settings = conf.settings()
    if settings.cache is None:
        return None
    models = _models()
    read = [models[table] for table in tables if table in models]
    if any(_is_named(one, settings.exclude) for one in (model, *read) if one):
        return None
    if settings.include is not None:
        asked = [model] if model is not None else [models.get(t) for t in tables]
        if not all(one and _is_named(one, settings.include) for one in asked):
            return None
    options = getattr(model, "_s3meta", None)
    return Policy(
        label=model._meta.label_lower if model is not None else "sql",
        cache=getattr(options, "cache", None) or settings.cache,
        ttl=getattr(options, "ttl", None) or settings.ttl,
        key_version=settings.key_version,
    )


@cache
def _models() -> Mapping[str, type[Model]]:
    """The models by the lower-case names of their tables."""
    return {
        model._meta.db_table.lower(): model
        for model in apps.get_models(include_auto_created=True)
        if not model._meta.proxy
    }


def _is_named(model: type[Model], labels: Iterable[str]) -> bool:
    # The table of a many-to-many relation belongs to the model that has it.
    owner: Any = model._meta.auto_created or model
    wanted = {label.lower() for label in labels}
    return any(
        name in wanted
        for one in (model, owner, owner._meta.concrete_model)
        for name in (one._meta.label_lower, one._meta.app_label.lower())
    )


@receiver(setting_changed, dispatch_uid="s3cache.results.policy")
def _forget(*, setting: str, **kwargs: Any) -> None:
    if setting in ("S3CACHE", "INSTALLED_APPS"):
        policy_for.cache_clear()
        _models.cache_clear()
