"""The statistics in a site's admin: addresses, permissions, responses."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import update_wrapper
from typing import Any, ClassVar, Final
from urllib.parse import urlencode

from django.conf import settings
from django.contrib import admin, messages
from django.contrib.admin.utils import quote, unquote
from django.core.exceptions import PermissionDenied
from django.db import DatabaseError
from django.http import (
    Http404,
    HttpRequest,
    HttpResponse,
    HttpResponseNotAllowed,
    HttpResponseRedirect,
)
from django.http.response import HttpResponseBase
from django.template.loader import render_to_string
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.functional import Promise
from django.utils.safestring import mark_safe
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from s3cache import conf
from s3cache.dashboard import inspector, pages
from s3cache.dashboard.actions import ACTIONS, Action, Refused, Target
from s3cache.dashboard.commits import last_commits
from s3cache.dashboard.model import Statistics
from s3cache.dashboard.progress import Step, respond
from s3cache.dashboard.selection import Selection

__all__ = ["StatisticsAdmin"]

logger = logging.getLogger("s3cache.dashboard")

View = Callable[..., HttpResponseBase]

_TEMPLATES: Final = "admin/s3cache/statistics/"

#: Sent by the script that keeps a page new: it needs only what changes.
LIVE_HEADER: Final = "X-S3cache-Live"

_TABS: Final[dict[str, str | Promise]] = {
    "changelist": gettext_lazy("Overview"),
    "models": gettext_lazy("Models"),
    "caches": gettext_lazy("Caches"),
    "hosts": gettext_lazy("Hosts"),
    "commits": gettext_lazy("Commits"),
    "queries": gettext_lazy("Queries"),
    "keys": gettext_lazy("Keys"),
}

#: What there is to choose on a page, beside the database.
_CHOICES: Final[dict[str, tuple[str, ...]]] = {
    "overview": ("scopes", "periods"),
    "models": ("scopes",),
    "model": ("scopes", "long_periods"),
    "caches": ("scopes",),
    "hosts": ("scopes",),
}

#: What may be done to a page.
SAFE: Final = ["GET", "HEAD"]

#: Where the steps of long work go in its page.
_HERE: Final = "<!-- steps -->"


class StatisticsAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    """
    The statistics page.

    It is there for users with the permission ``view_statistics``, and its
    buttons for those with ``change_statistics``. A subclass may show it on an
    AdminSite of its own, and more or less often.
    """

    #: Seconds between two looks for newer figures, while a page is shown.
    live_seconds: ClassVar[float] = 5

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    # Addresses

    def get_urls(self) -> list[URLPattern]:
        return [
            self._path("", self.changelist_view, "changelist"),
            self._path("models/", self.models_view, "models"),
            # "change" is where the admin's log leads to.
            self._path("models/<path:object_id>/", self.model_view, "change"),
            self._path("caches/", self.caches_view, "caches"),
            self._path("hosts/", self.hosts_view, "hosts"),
            self._path("commits/", self.commits_view, "commits"),
            self._path("queries/", self.queries_view, "queries"),
            self._path("keys/", self.keys_view, "keys"),
            self._path("do/<slug:name>/", self.do_view, "do"),
        ]

    def _path(self, route: str, view: View, name: str) -> URLPattern:
        def guarded(request: HttpRequest, **kwargs: Any) -> HttpResponseBase:
            if not self.has_view_permission(request):
                raise PermissionDenied
            if request.method not in (methods := ["POST"] if name == "do" else SAFE):
                return HttpResponseNotAllowed(methods)
            request.current_app = self.admin_site.name
            return view(request, **kwargs)

        wrapped = self.admin_site.admin_view(update_wrapper(guarded, view))
        return path(route, wrapped, name=f"s3cache_statistics_{name}")

    def address(self, name: str, *args: str) -> str:
        """Return the path of one of the views."""
        return reverse(
            f"admin:s3cache_statistics_{name}",
            args=[quote(arg) for arg in args],
            current_app=self.admin_site.name,
        )

    # Pages

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        overview = pages.overview(
            Selection.of(request.GET), with_table="table" in request.GET
        )
        return self._page(
            request,
            "overview",
            "changelist",
            _("Statistics"),
            {**overview, **(extra_context or {})},
        )

    def models_view(self, request: HttpRequest) -> HttpResponse:
        context = pages.models(Selection.of(request.GET), request.GET)
        return self._page(request, "models", "models", _("Models"), context)

    def model_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        label = unquote(object_id)
        # The admin's log leads here, whatever something was done to.
        for kind, tab in (("database ", "hosts"), ("cache ", "keys")):
            if label.startswith(kind):
                return HttpResponseRedirect(self.address(tab))
        context = pages.model(
            Selection.of(request.GET), label, with_table="table" in request.GET
        )
        if context is None:
            raise Http404
        if context["is_in_a_bucket"]:
            context["buttons"] = self._buttons("warm", "refresh", "clear", "compact")
        return self._page(request, "model", "models", context["name"], context)

    def caches_view(self, request: HttpRequest) -> HttpResponse:
        context = pages.caches(Selection.of(request.GET))
        return self._page(request, "caches", "caches", _("Caches"), context)

    def hosts_view(self, request: HttpRequest) -> HttpResponse:
        context = pages.hosts(Selection.of(request.GET))
        context["aliases"] = conf.bucket_aliases()
        context["buttons"] = self._buttons("catch_up", "compact")
        return self._page(request, "hosts", "hosts", _("Hosts"), context)

    def queries_view(self, request: HttpRequest) -> HttpResponse:
        context = pages.queries(Selection.of(request.GET))
        return self._page(request, "queries", "queries", _("Queries"), context)

    def commits_view(self, request: HttpRequest) -> HttpResponse:
        database = Selection.of(request.GET).database
        has_times = "times" in request.GET
        context = {
            "databases": list(last_commits(database, with_times=has_times)),
            "has_times": has_times,
        }
        return self._page(
            request, "commits", "commits", _("Commits"), context, is_live=not has_times
        )

    def keys_view(self, request: HttpRequest) -> HttpResponse:
        alias = request.GET.get("cache", "") or inspector.usual_cache()
        text = request.GET.get("key", "")
        found = inspector.find(alias, text, request.user)
        here = self.address("keys")
        context = {
            "aliases": list(settings.CACHES),
            "cache": alias,
            "text": text,
            "entry": found.entry,
            "keys": [
                (key, f"{here}?{urlencode({'cache': alias, 'key': key})}")
                for key in found.keys
            ],
            "more": found.more,
            "error": found.error,
        }
        return self._page(request, "keys", "keys", _("Keys"), context, is_live=False)

    # Buttons

    def _buttons(self, *names: str) -> list[tuple[str, str | Promise, str]]:
        return [(one, ACTIONS[one].label, self.address("do", one)) for one in names]

    def do_view(self, request: HttpRequest, name: str) -> HttpResponseBase:
        """Ask whether it is meant; if it is said to be, do it."""
        action = ACTIONS.get(name)
        if action is None:
            raise Http404
        if not self.has_change_permission(request):
            raise PermissionDenied
        try:
            target = action.read(request.POST, request.user)
        except Refused as error:
            self.message_user(request, str(error), messages.ERROR)
            return HttpResponseRedirect(self.address("changelist"))
        if "confirmed" not in request.POST:
            return self._confirm(request, action, target)
        asked = f"{action.label}: {target.shown}"
        # Before it is begun: whoever stops a process does not erase a trace.
        try:
            traced = f"{action.label}: {target.logged or target.shown}"
            self.log_change(request, Statistics(name=target.name), traced)
        except DatabaseError as error:
            return self._failed(request, name, asked, error, target)
        if action.is_long:
            return self._work(request, action, target)
        try:
            outcome = action.run(target, lambda step: None, request.user)
        except Refused as error:
            self.message_user(request, str(error), messages.ERROR)
        except Exception as error:
            # Any cache serves, and any store, so any error is possible.
            return self._failed(request, name, asked, error, target)
        else:
            self.message_user(request, f"{asked}. {outcome}", messages.SUCCESS)
        return HttpResponseRedirect(self._back(target))

    def _failed(
        self,
        request: HttpRequest,
        name: str,
        asked: str,
        error: Exception,
        target: Target,
    ) -> HttpResponse:
        logger.warning("%s failed", name, exc_info=error)
        said = f"{asked}: {type(error).__name__}: {error}"
        self.message_user(request, said, messages.ERROR)
        return HttpResponseRedirect(self._back(target))

    def _back(self, target: Target) -> str:
        """Where something is to be seen."""
        if target.model is not None:
            return self.address("change", target.name)
        return self.address("keys" if target.cache else "hosts")

    def _confirm(
        self, request: HttpRequest, action: Action, target: Target
    ) -> HttpResponse:
        context = {
            "question": action.question % {"what": target.shown},
            "yes": _("Yes: %(action)s") % {"action": action.label},
            "given": target.given.items(),
            "is_destructive": action.is_destructive,
            "back": self._back(target),
        }
        return self._page(
            request, "confirm", "", str(action.label), context, is_live=False
        )

    def _work(
        self, request: HttpRequest, action: Action, target: Target
    ) -> HttpResponseBase:
        title = f"{action.label}: {target.shown}"
        context = {"steps_go_here": mark_safe(_HERE), "back": self._back(target)}  # noqa: S308
        page = self._page(request, "progress", "", title, context, is_live=False)
        before, _here, after = page.render().text.partition(_HERE)

        def show(step: Step) -> str:
            return render_to_string(
                f"{_TEMPLATES}_step.html", {"step": step, "title": title}
            )

        return respond(
            request,
            lambda tell: action.run(target, tell, request.user),
            before,
            after,
            show,
        )

    def _page(
        self,
        request: HttpRequest,
        template: str,
        tab: str,
        title: str,
        context: dict[str, Any],
        *,
        is_live: bool = True,
    ) -> TemplateResponse:
        selection = Selection.of(request.GET)
        given: dict[str, Any] = {
            "title": title,
            "opts": self.opts,
            "selection": selection,
            "may_change": self.has_change_permission(request),
            **context,
        }
        if LIVE_HEADER in request.headers:
            given["layout"] = f"{_TEMPLATES}live.html"
        else:
            given |= self.admin_site.each_context(request)
            given["title"] = title
            given["layout"] = f"{_TEMPLATES}base.html"
            given["live_seconds"] = self.live_seconds if is_live else 0
            given["at_start"] = template == "overview"
            given["choices"] = _CHOICES.get(template, ())
            given["tabs"] = [
                (label, self.address(name) + selection.query, name == tab)
                for name, label in _TABS.items()
            ]
        return TemplateResponse(request, f"{_TEMPLATES}{template}.html", given)
