"""What the buttons do, to what, and what the reader is asked before."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, cast

from django.apps import apps
from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import connections
from django.db.models import Model
from django.http import QueryDict
from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from s3cache import conf
from s3cache.dashboard import inspector, numbers
from s3cache.dashboard.progress import Step, Tell
from s3cache.db.base import DatabaseWrapper
from s3cache.facade import Read, cache_of
from s3cache.keeper.rounds import KeeperOptions
from s3cache.keeper.run import keep_now
from s3cache.records.run import record_now
from s3cache.stores.base import Request, observe

__all__ = ["ACTIONS", "Action", "Refused", "Target"]

#: Seconds to wait for another process of this host that keeps the database.
WAIT: Final = 60.0


class Refused(Exception):
    """What was asked for makes no sense; the message is for people."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What something is done to: a model or part of it, a database, a key."""

    name: str
    """As the admin's log has it."""
    shown: str
    """For people, within a sentence."""
    logged: str = ""
    """What the admin's log has in its place, if it must not have that."""
    given: Mapping[str, str]
    """What a form sends to name it again."""
    model: type[Model] | None = None
    partition: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    database: str = ""
    cache: str = ""
    key: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """
    One button.

    ``read`` makes a target of a form, or raises ``Refused``. ``run`` does it,
    and returns what came of it; ``is_long``: while a page shows its progress.
    """

    label: str | Promise
    question: str | Promise
    """With ``%(what)s`` for the target."""
    read: Callable[[QueryDict, Any], Target]
    run: Callable[[Target, Tell, Any], str]
    is_long: bool = False
    is_destructive: bool = False


def target_of_model(form: QueryDict, user: Any) -> Target:
    """The model ``model``, or the part of it that ``partition`` names."""
    label = form.get("model", "")
    try:
        model = apps.get_model(label)
    except (LookupError, ValueError) as error:
        raise Refused(_("There is no model %(name)s.") % {"name": label}) from error
    if model._base_manager.db not in conf.bucket_aliases():
        raise Refused(_("%(name)s lives in no bucket.") % {"name": model._meta.label})
    shown = str(model._meta.verbose_name_plural)
    given = {"model": label}
    partition: dict[str, dict[str, Any]] = {}
    if name := form.get("partition"):
        values = _values(model, name, form)
        partition = {name: values}
        written = ", ".join(f"{field} = {value}" for field, value in values.items())
        shown = f"{shown} ({written})"
        given["partition"] = name
        given |= {f"value-{one}": form.get(f"value-{one}", "") for one in values}
    return Target(
        name=model._meta.label_lower,
        shown=shown,
        given=given,
        model=model,
        partition=partition,
        database=model._base_manager.db,
    )


def _values(model: type[Model], name: str, form: QueryDict) -> dict[str, Any]:
    partitions = getattr(getattr(model, "_s3meta", None), "partitions", {})
    if name not in partitions:
        raise Refused(_("There is no partition %(name)s.") % {"name": name})
    values = {}
    for one in partitions[name]:
        text = form.get(f"value-{one}", "")
        of_model: Any = model._meta.get_field(one)
        # A relation is asked for by its key.
        of_model = getattr(of_model, "target_field", of_model)
        try:
            values[one] = of_model.to_python(text)
        except ValidationError as error:
            raise Refused(f"{one}: {' '.join(map(str, error.messages))}") from error
        if text == "" and not of_model.empty_strings_allowed:
            raise Refused(_("%(name)s lacks a value.") % {"name": one})
    return values


def target_of_database(form: QueryDict, user: Any) -> Target:
    """The database ``database``, or that of the model ``model``."""
    if "model" in form:
        alias = target_of_model(form, user).database
    else:
        alias = form.get("database", "")
    if alias not in conf.bucket_aliases():
        raise Refused(_("There is no database %(name)s.") % {"name": alias})
    return Target(
        name=f"database {alias}",
        shown=alias,
        given={"database": alias},
        database=alias,
    )


def target_of_key(form: QueryDict, user: Any) -> Target:
    """The entry ``key`` of the cache ``cache``."""
    cache, key = form.get("cache", ""), form.get("key", "")
    if cache not in settings.CACHES or not inspector.may_see_key(user, key):
        raise Refused(_("There is no such entry."))
    # More people read the admin's log than may see the key of a session, which
    # outlives its entry where sessions are in a database, too.
    logged = key
    if not inspector.is_of_a_result(key):
        logged = f"sha256:{hashlib.sha256(key.encode()).hexdigest()}"
    return Target(
        name=f"cache {cache}: {logged}"[:250],
        shown=key,
        logged=logged,
        given={"cache": cache, "key": key},
        cache=cache,
        key=key,
    )


# What they do


def _warm(target: Target, tell: Tell, user: Any) -> str:
    facade = cache_of(_model_of(target))
    if target.partition:
        stored = facade.warm_partition(target.partition)
    else:
        stored = facade.warm(each=partial(_telling, tell))
    return ngettext(
        "%(number)s result has been stored.",
        "%(number)s results have been stored.",
        stored,
    ) % {"number": numbers.number(stored)}


def _telling(tell: Tell, reads: Sequence[Read]) -> Iterator[Read]:
    """The reads, and how many of them are behind."""
    for number, read in enumerate(reads):
        tell(Step(number, len(reads), str(read.action)))
        yield read


def _clear(target: Target, tell: Tell, user: Any) -> str:
    try:
        removed = cache_of(_model_of(target)).clear(target.partition or None)
    except NotImplementedError as error:
        # The cache does not know its keys; it says what else there is to do.
        raise Refused(str(error)) from error
    return ngettext(
        "%(number)s entry has been removed.",
        "%(number)s entries have been removed.",
        removed,
    ) % {"number": numbers.number(removed)}


def _model_of(target: Target) -> type[Model]:
    if target.model is None:
        raise Refused(_("There is no such model."))
    return target.model


def _refresh(target: Target, tell: Tell, user: Any) -> str:
    connection = cast(DatabaseWrapper, connections[target.database])
    before = connection.position
    connection.catch_up()
    position = connection.position
    if position == before:
        return _("Nobody has committed anything since.")
    return _("The replica has come to entry %(number)s.") % {"number": position}


def _compact(target: Target, tell: Tell, user: Any) -> str:
    connection = cast(DatabaseWrapper, connections[target.database])
    requests = 0

    def count(request: Request) -> None:
        nonlocal requests
        requests += 1
        tell(Step(requests, text=_("store requests")))

    with observe(count):
        connection.catch_up()
        kept = keep_now(connection.replica, KeeperOptions(pack_after=1), wait=WAIT)
        recorded = record_now(connection.replica, wait=WAIT)
    if kept.busy or recorded.busy:
        return _("Another host is at it already.")
    return _(
        "Packed to entry %(number)s: %(packs)s packs written, %(deleted)s objects "
        "deleted, %(records)s records written."
    ) % {
        "number": kept.catalog,
        "packs": kept.packs_written,
        "deleted": kept.deleted,
        "records": recorded.written,
    }


def _delete(target: Target, tell: Tell, user: Any) -> str:
    if inspector.delete(target.cache, target.key, user):
        return _("The entry is gone.")
    return _("The entry was gone already.")


ACTIONS: Final[Mapping[str, Action]] = {
    "warm": Action(
        label=gettext_lazy("Warm"),
        question=gettext_lazy(
            "Read what is usually asked of %(what)s, and keep the results?"
        ),
        read=target_of_model,
        run=_warm,
        is_long=True,
    ),
    "refresh": Action(
        label=gettext_lazy("Refresh"),
        question=gettext_lazy(
            "Ask the store for what others have committed to the database of %(what)s?"
        ),
        read=target_of_model,
        run=_refresh,
    ),
    "clear": Action(
        label=gettext_lazy("Clear"),
        question=gettext_lazy(
            "Remove what the cache has of %(what)s? It is read again when it is "
            "asked for."
        ),
        read=target_of_model,
        run=_clear,
        is_destructive=True,
    ),
    "catch_up": Action(
        label=gettext_lazy("Refresh"),
        question=gettext_lazy(
            "Ask the store for what others have committed to %(what)s?"
        ),
        read=target_of_database,
        run=_refresh,
    ),
    "compact": Action(
        label=gettext_lazy("Compact"),
        question=gettext_lazy(
            "Pack the rows of %(what)s, trim its log, and write its records?"
        ),
        read=target_of_database,
        run=_compact,
        is_long=True,
    ),
    "delete": Action(
        label=gettext_lazy("Delete"),
        question=gettext_lazy("Delete the entry %(what)s?"),
        read=target_of_key,
        run=_delete,
        is_destructive=True,
    ),
}
