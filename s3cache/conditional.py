"""
ETags from versions: status 304 without a view, where nothing has changed.

For views whose content depends on nothing but models in buckets::

    @depends_on(Product, "shop.Category")
    def catalogue(request): ...

    class Catalogue(DependsOnMixin, ListView):
        depends_on = [Product]

Loggers: ``s3cache.conditional`` names what a view has read besides.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, cast

from asgiref.sync import iscoroutinefunction, sync_to_async
from django.apps import apps
from django.conf import settings
from django.core.exceptions import EmptyResultSet, ImproperlyConfigured
from django.db import DatabaseError, connections, router
from django.db.models import Manager, Model, QuerySet
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.utils.cache import get_conditional_response, patch_vary_headers
from django.utils.timezone import get_current_timezone_name
from django.utils.translation import get_language

from s3cache import conf
from s3cache.db.elsewhere import observe_all, watch_elsewhere
from s3cache.db.moments import Moment, Tables, look
from s3cache.middleware.base import (
    has_credentials,
    is_of_one_time,
    is_settled,
    meta_name,
    tables_of,
    vary_of,
    who_asks,
)
from s3cache.middleware.cookies import see_cookies, values_of
from s3cache.results.watching import (
    Read,
    Watch,
    Why,
    read_of,
    watch,
    watchers,
    watching,
)

if TYPE_CHECKING:
    from s3cache.db.base import DatabaseWrapper

__all__ = ["DependsOnMixin", "depends_on"]

logger = logging.getLogger("s3cache.conditional")

#: A model, its label, or a queryset or manager with all that it joins.
Dependency: TypeAlias = "type[Model] | str | QuerySet[Any] | Manager[Any]"

_View = TypeVar("_View", bound=Callable[..., Any])


def depends_on(
    *what: Dependency, credentials: bool = False, version: str = ""
) -> Callable[[_View], _View]:
    """
    Answer 304 where nothing of `what` has changed, without calling the view.

    Other responses to GET and HEAD with status 200 get an `ETag` from the
    versions of the tables, the language, the time zone, the cookies that the
    view reads, `version` and `S3CACHE["KEY_VERSION"]`: change one of the last
    two when the view or its templates change.

    There is no ETag, and the view is called, for requests with credentials
    (with `credentials` there is one, of the visitor's own), in a transaction
    (`ATOMIC_REQUESTS`), and if the view reads what is not in `what`: another
    table, which is logged, another database, `fresh()`, `random()`. There is
    none, either, where the response sets cookies, or has a CSRF token or a
    CSP's nonce in it: a 304 brings no new ones.

    A queryset stands for the tables that it reads; what `prefetch_related()`
    loads must be named. Raise `ImproperlyConfigured`, at the first request,
    for a model that lives in no bucket.
    """
    if not what:
        raise ValueError("depends_on() needs a model at least.")
    condition = _Condition(what, credentials=credentials, version=version)
    observe_all()

    def decorate(view: _View) -> _View:
        if iscoroutinefunction(view):

            @wraps(view)
            async def conditional(request: HttpRequest, *args: Any, **kw: Any) -> Any:
                if not condition.concerns(request):
                    return await view(request, *args, **kw)
                tag, early = await sync_to_async(condition.before)(request)
                if early is not None:
                    return early
                with watch(Watch()) as seen, watch_elsewhere() as elsewhere:
                    response = await view(request, *args, **kw)
                return condition.after(response, tag, seen, elsewhere)

        else:

            @wraps(view)
            def conditional(request: HttpRequest, *args: Any, **kw: Any) -> Any:
                if not condition.concerns(request):
                    return view(request, *args, **kw)
                tag, early = condition.before(request)
                if early is not None:
                    return early
                with watch(Watch()) as seen, watch_elsewhere() as elsewhere:
                    response = view(request, *args, **kw)
                return condition.after(response, tag, seen, elsewhere)

        return cast("_View", conditional)

    return decorate


class DependsOnMixin:
    """`depends_on` for class-based views; the attributes are its arguments."""

    depends_on: Sequence[Dependency] = ()
    depends_on_credentials = False
    depends_on_version = ""

    @classmethod
    def as_view(cls, **initkwargs: Any) -> Callable[..., Any]:
        """Wrap the view that Django makes."""
        made: Callable[..., Any] = super().as_view(**initkwargs)  # type: ignore[misc]
        return depends_on(
            *initkwargs.get("depends_on", cls.depends_on),
            credentials=initkwargs.get(
                "depends_on_credentials", cls.depends_on_credentials
            ),
            version=initkwargs.get("depends_on_version", cls.depends_on_version),
        )(made)


@dataclass(frozen=True, slots=True)
class _Tag:
    """What an ETag is made of, but for headers and cookies.

    It is of before the view was called: content that is newer than its tag
    costs another request, content that is older would stay.
    """

    request: HttpRequest
    tables: Tables
    moment: Moment
    who: Sequence[object]


class _Condition:
    """What ``depends_on`` was told, of one view."""

    def __init__(
        self, what: Iterable[Dependency], *, credentials: bool, version: str
    ) -> None:
        self._what = tuple(what)
        self._credentials = credentials
        self._version = version
        #: Headers that a response has named in its ``Vary``.
        self._vary: frozenset[str] = frozenset()
        #: Cookies that were read for a response.
        self._cookies: frozenset[str] = frozenset()
        self._told: set[str] = set()

    def concerns(self, request: HttpRequest) -> bool:
        return request.method in ("GET", "HEAD") and (
            self._credentials or not has_credentials(request)
        )

    def before(
        self, request: HttpRequest
    ) -> tuple[_Tag | None, HttpResponseBase | None]:
        """What tags the view's response, and 304 if the client has that."""
        see_cookies(request)
        tables = self._tables()
        try:
            moment = look(tables)
        except DatabaseError:
            return None, None  # the view will say so
        if moment is None:
            return None, None
        tag = _Tag(request, tables, moment, who_asks(request))
        etag = self._etag(tag)
        early = get_conditional_response(request, etag=etag)
        if early is None:
            return tag, None
        early.headers["ETag"] = etag
        if self._vary:
            patch_vary_headers(early, sorted(self._vary))
        if watchers:
            beside = frozenset(["stale"] if moment.is_stale else [])
            for alias, names in tables.items():
                what = alias, "response", "get", "hit", Why.CURRENT, names
                watching().add(read_of(*what, beside))
        return tag, early

    def after(
        self, response: Any, tag: _Tag | None, seen: Watch, elsewhere: set[str]
    ) -> Any:
        """``response``, which gets its ETag as soon as it is rendered."""
        if tag is None:
            return response
        render = getattr(response, "render", None)
        if not callable(render) or response.is_rendered:
            self._mark(response, tag, seen.reads, elsewhere)
            return response

        def watched() -> Any:
            # A template's querysets are read here, not in the view.
            with watch(Watch()) as rendering, watch_elsewhere() as used:
                rendered = render()
            del response.render
            self._mark(rendered, tag, seen.reads | rendering.reads, elsewhere | used)
            return rendered

        response.render = watched
        return response

    def _mark(
        self,
        response: HttpResponseBase,
        tag: _Tag,
        reads: set[Read],
        elsewhere: set[str],
    ) -> None:
        vary = vary_of(response)
        if (
            response.status_code == 200
            and not response.streaming
            and not response.has_header("ETag")
            and "*" not in vary
            # A 304 brings none of these, and the body has what goes with them.
            and not (response.cookies or response.has_header("Set-Cookie"))
            and not is_of_one_time(tag.request, response)
            # The view may have found out who it is by means unknown here.
            and has_credentials(tag.request) is bool(tag.who)
            and not elsewhere
            and all(map(_is_settled, reads))
            and not self._unnamed(tag, reads)
        ):
            # Whoever does not know them yet makes tags that nobody has.
            self._vary |= {*vary}
            self._cookies |= see_cookies(tag.request).asked
            response.headers["ETag"] = self._etag(tag)

    def _unnamed(self, tag: _Tag, reads: set[Read]) -> set[str]:
        """What was read besides, which is logged once."""
        unnamed = {
            name
            for alias, names in tables_of(reads).items()
            for name in names
            if name not in tag.tables.get(alias, ())
        }
        if unnamed - self._told:
            self._told |= unnamed
            logger.warning(
                "%s has no ETag, for it was made of %s, too: name that in "
                "depends_on().",
                tag.request.path,
                ", ".join(sorted(unnamed)),
            )
        return unnamed

    def _tables(self) -> Tables:
        found: dict[str, set[str]] = {}
        for one in self._what:
            alias, names = _tables_of(one)
            found.setdefault(alias, set()).update(names)
        return {alias: tuple(sorted(names)) for alias, names in sorted(found.items())}

    def _etag(self, tag: _Tag) -> str:
        meta = tag.request.META
        words = (
            [(alias, at.schema, at.versions) for alias, at in tag.moment.at.items()],
            [(name, meta.get(meta_name(name))) for name in sorted(self._vary)],
            values_of(tag.request, self._cookies),
            get_language(),
            get_current_timezone_name(),
            conf.settings().key_version,
            self._version,
            [*tag.who],
        )
        digest = hashlib.blake2b(
            repr(words).encode("utf-8", "surrogatepass"),
            # Who sees it must not be able to try what it was made of.
            key=hashlib.blake2b(settings.SECRET_KEY.encode()).digest(),
            digest_size=16,
        )
        # Weak: the same content, perhaps compressed in another way.
        return f'W/"{digest.hexdigest()}"'


def _is_settled(read: Read) -> bool:
    # What is excluded from the result cache has versions all the same.
    return is_settled(read) or read.why in (Why.EXCLUDED, Why.SKIPPED)


def _tables_of(one: Dependency) -> tuple[str, set[str]]:
    """Where it is, and its tables in lower case."""
    if isinstance(one, Manager):
        one = one.all()
    if isinstance(one, QuerySet):
        alias, model = one.db, one.model
    else:
        model = apps.get_model(one) if isinstance(one, str) else one
        alias = router.db_for_read(model)
    if not conf.lives_in_bucket(alias):
        raise ImproperlyConfigured(
            f"depends_on() names {model._meta.label}, which lives in no bucket."
        )
    tables = _tables_of_model(model)
    if isinstance(one, QuerySet):
        tables |= _tables_of_query(one, cast("DatabaseWrapper", connections[alias]))
    return alias, tables


def _tables_of_model(model: type[Model]) -> set[str]:
    """Those of all its fields, many-to-many relations of its own included."""
    options = model._meta
    models: set[Any] = {field.model for field in options.concrete_fields} | {model}
    throughs: list[Any] = [field.remote_field.through for field in options.many_to_many]
    models |= {one for one in throughs if one._meta.auto_created}
    return {one._meta.db_table.lower() for one in models}


def _tables_of_query(
    queryset: QuerySet[Any], connection: DatabaseWrapper
) -> frozenset[str]:
    try:
        sql, params = queryset.query.get_compiler(connection.alias).as_sql()
    except EmptyResultSet:
        return frozenset()
    return frozenset(connection.tables_of(sql, params))
