"""What settings and models say about the results of a statement."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, NamedTuple

from django.apps import apps
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed
from django.db.migrations.recorder import MigrationRecorder
from django.db.models import Model
from django.dispatch import receiver

from s3cache import conf

__all__ = [
    "Policy",
    "counted_label",
    "is_kept",
    "keeps_elsewhere",
    "kept_in",
    "policy_for",
    "unknown_labels",
    "why_not_kept",
]

#: Models that keep house, beside those of sessions: what is read of them is
#: seldom read again, and changes all the time.
_HOUSEKEEPING: Final = frozenset({"admin.logentry", "migrations.migration"})


@dataclass(frozen=True, slots=True)
class Policy:
    """How a result is kept.

    ``label`` names the model, for people; ``cache`` is the CACHES alias, and
    ``ttl`` in seconds. ``key_version`` is a part of the key; ``namespace``
    begins it, "" for results of no namespace.
    """

    label: str
    cache: str
    ttl: float
    key_version: int | str
    namespace: str = ""

    @property
    def counted(self) -> str:
        """The label that events are counted under."""
        return counted_label(self.label, self.namespace)


def counted_label(label: str, namespace: str) -> str:
    """The label that counters have for a model in a namespace."""
    return f"{label}@{namespace}" if namespace else label


@cache
def policy_for(
    model: type[Model] | None, tables: tuple[str, ...], namespace: str = ""
) -> Policy | None:
    """How a result of ``tables`` is kept, None: not at all.

    ``model`` is that of the queryset, or None for SQL that was written by
    hand: then all tables have to belong to models that may be kept. A table
    of a model that may not be kept keeps the result out in any case. Raises
    ``ImproperlyConfigured`` if the settings name a model that there is not.
    """
    settings = conf.settings()
    models = _models()
    read = [models[table] for table in tables if table in models]
    if any(_is_excluded(one) for one in (model, *read) if one):
        return None
    asked = [model] if model is not None else [models.get(t) for t in tables]
    if settings.include is not None and not all(
        one and _is_included(one) for one in asked
    ):
        return None
    alias, ttl = kept_in(model, namespace)
    if alias is None:
        return None
    return Policy(
        label=model._meta.label_lower if model is not None else "sql",
        cache=alias,
        ttl=ttl,
        key_version=settings.key_version,
        namespace=namespace,
    )


class KeptIn(NamedTuple):
    """The CACHES alias for results, None: nowhere; and seconds."""

    cache: str | None
    ttl: float


def kept_in(model: type[Model] | None, namespace: str) -> KeptIn:
    """Where results of a model are kept, and for how long.

    A namespace has a cache of its own, or that of ``S3CACHE``.
    """
    settings = conf.settings()
    said = settings.namespaces[namespace] if namespace else _options(model)
    alias = getattr(said, "cache", None) or settings.cache
    # None: nothing is kept, whatever a model says.
    return KeptIn(
        None if settings.cache is None and not namespace else alias,
        getattr(said, "ttl", None) or settings.ttl,
    )


def _options(model: type[Model] | None) -> object:
    return getattr(model, "_s3meta", None)


def is_kept(model: type[Model]) -> bool:
    """Whether results of a model are kept, as far as it alone says so."""
    return not why_not_kept(model)


def why_not_kept(model: type[Model]) -> str:
    """What says that results of a model are not kept, in words; or ""."""
    if why := _why_excluded(model):
        return why
    if conf.settings().include is not None and not _is_included(model):
        return "S3CACHE['INCLUDE'] does not name it"
    return ""


def _is_excluded(model: type[Model]) -> bool:
    """Whether nothing that is read of a model may be kept."""
    return bool(_why_excluded(model))


def _why_excluded(model: type[Model]) -> str:
    """Why nothing that is read of a model may be kept, or "".

    ``EXCLUDE`` wins. Then the model itself may say so; one that keeps house
    is excluded unless it, or ``INCLUDE``, says otherwise.
    """
    if _is_named(model, _labels("EXCLUDE")):
        return "S3CACHE['EXCLUDE'] names it"
    said = _says(model)
    if said is not None:
        return "" if said else "its S3Meta.cached is False"
    if _keeps_house(model) and not _is_named(model, _labels("INCLUDE")):
        return "it keeps house, and S3CACHE['INCLUDE'] does not name it"
    return ""


def _is_included(model: type[Model]) -> bool:
    return _says(model) is True or _is_named(model, _labels("INCLUDE"))


def _says(model: type[Model]) -> bool | None:
    """``S3Meta.cached`` of the model that has the rows."""
    said: bool | None = getattr(_options(_owner(model)), "cached", None)
    return said


def _keeps_house(model: type[Model]) -> bool:
    # A model, if an abstract one: not before the apps are there.
    from django.contrib.sessions.base_session import AbstractBaseSession

    concrete: Any = _owner(model)._meta.concrete_model
    return concrete._meta.label_lower in _HOUSEKEEPING or issubclass(
        concrete, AbstractBaseSession
    )


def _owner(model: type[Model]) -> type[Model]:
    # The table of a many-to-many relation belongs to the model that has it.
    owner: Any = model._meta.auto_created or model
    return owner  # type: ignore[no-any-return]


def _all_models() -> list[type[Model]]:
    history: Any = MigrationRecorder.Migration
    return [*apps.get_models(include_auto_created=True), history]


def keeps_elsewhere(tables: Iterable[str]) -> bool:
    """Whether one of ``tables`` is of a model with a cache of its own."""
    models, usual = _models(), conf.settings().cache
    return any(
        getattr(_options(models.get(table)), "cache", None) not in (None, usual)
        for table in tables
    )


@cache
def _models() -> Mapping[str, type[Model]]:
    """The models by the lower-case names of their tables."""
    return {
        model._meta.db_table.lower(): model
        for model in _all_models()
        if not model._meta.proxy
    }


def _is_named(model: type[Model], wanted: Collection[str]) -> bool:
    if not wanted:
        return False
    owner = _owner(model)
    concrete: Any = owner._meta.concrete_model
    return any(
        name in wanted
        for one in (model, owner, concrete)
        for name in (one._meta.label_lower, one._meta.app_label.lower())
    )


@cache
def _labels(option: str) -> frozenset[str]:
    """The labels that a setting names, in lower case."""
    given: Iterable[str] | None = getattr(conf.settings(), option.lower())
    if unknown := unknown_labels(given or ()):
        raise ImproperlyConfigured(
            f"S3CACHE[{option!r}] names {conf.listed(unknown)}: no installed app, "
            f"and no model of one. Known are {conf.listed(sorted(_known()))}."
        )
    return frozenset(label.lower() for label in given or ())


def unknown_labels(labels: Iterable[str]) -> list[str]:
    """Those that name neither an installed app nor a model of one."""
    known = {name.lower() for name in _known()}
    return [label for label in labels if label.lower() not in known]


def _known() -> set[str]:
    models = _all_models()
    return {
        *(model._meta.label for model in models),
        *(model._meta.app_label for model in models),
        *(config.label for config in apps.get_app_configs()),
    }


@receiver(setting_changed, dispatch_uid="s3cache.results.policy")
def _forget(*, setting: str, **kwargs: Any) -> None:
    if setting in ("S3CACHE", "INSTALLED_APPS"):
        policy_for.cache_clear()
        _models.cache_clear()
        _labels.cache_clear()
