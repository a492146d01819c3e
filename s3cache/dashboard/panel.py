"""
A panel for django-debug-toolbar: what a request has read, and from where.

    DEBUG_TOOLBAR_PANELS = [..., "s3cache.dashboard.panel.ReadsPanel"]
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any, Final

from debug_toolbar.panels import Panel
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext

from s3cache.results.watching import Read, Watch, watch
from s3cache.stores.base import Request

__all__ = ["ReadsPanel"]

#: Reads that are listed one by one; all of them are counted.
LISTED: Final = 500


class _Seen(Watch):
    """Each read of a context, in order; threads may add to it at once."""

    def __init__(self) -> None:
        super().__init__()
        self.list: list[dict[str, Any]] = []
        self.number = self.hits = self.requests = 0
        self.seconds = 0.0
        self._lock = threading.Lock()
        self.add = self._add

    def _add(self, read: Read) -> None:
        self.measured(read, 0.0, ())

    def measured(self, read: Read, seconds: float, requests: Sequence[Request]) -> None:
        with self._lock:
            self.number += 1
            self.hits += read.event in ("hit", "wait")
            self.requests += len(requests)
            self.seconds += seconds
            if len(self.list) < LISTED:
                self.list.append(_told(read, seconds, requests))


def _told(read: Read, seconds: float, requests: Sequence[Request]) -> dict[str, Any]:
    """What the toolbar can keep: nothing but texts and numbers."""
    return {
        "model": read.label,
        "action": read.action,
        "event": " ".join([read.event, *sorted(read.beside)]),
        "is_hit": read.event in ("hit", "wait"),
        "why": str(read.why),
        "tables": ", ".join(read.tables),
        "milliseconds": round(1000 * seconds, 3),
        "requests": [str(request) for request in requests],
    }


class ReadsPanel(Panel):
    """Shows the reads of a request: hit or miss, why, and what they took."""

    is_async = True
    nav_title = _("S3 cache")
    title = _("Reads of databases in buckets")
    template = "s3cache/reads_panel.html"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._seen = _Seen()
        self._watching = ExitStack()

    @property
    def nav_subtitle(self) -> str:
        stats = self.get_stats()
        number = stats.get("number", 0)
        return ngettext(
            "%(number)d read, %(hits)d hits, %(requests)d store requests",
            "%(number)d reads, %(hits)d hits, %(requests)d store requests",
            number,
        ) % {
            "number": number,
            "hits": stats.get("hits", 0),
            "requests": stats.get("requests", 0),
        }

    def enable_instrumentation(self) -> None:
        self.disable_instrumentation()
        self._watching.enter_context(watch(self._seen))

    def disable_instrumentation(self) -> None:
        self._watching.close()

    def generate_stats(self, request: HttpRequest, response: HttpResponseBase) -> None:
        seen = self._seen
        self.record_stats(
            {
                "reads": seen.list,
                "number": seen.number,
                "more": seen.number - len(seen.list),
                "hits": seen.hits,
                "requests": seen.requests,
                "milliseconds": round(1000 * seen.seconds, 1),
            }
        )

    def generate_server_timing(
        self, request: HttpRequest, response: HttpResponseBase
    ) -> None:
        stats = self.get_stats()
        title = f"{stats['number']} reads, {stats['hits']} hits"
        self.record_server_timing("reads", title, stats["milliseconds"])
