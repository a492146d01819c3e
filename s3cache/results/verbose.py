"""``S3CACHE["VERBOSE"]``: each read and each change, in the log.

Names of models, tables and actions, and numbers; no values of rows, neither
parameters nor primary keys. While it is off it costs nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Final

from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed
from django.dispatch import receiver

from s3cache import conf
from s3cache.results.watching import Read, Watch, watch_always
from s3cache.signals import rows_changed
from s3cache.stores.base import Request

__all__ = ["follow_settings"]

logger = logging.getLogger("s3cache.verbose")

_ID: Final = "s3cache.results.verbose"


class _Log(Watch):
    """Logs what it is told, with level INFO."""

    def __init__(self) -> None:
        self.add = self._add

    def _add(self, read: Read) -> None:
        logger.info("%s", _said(read))

    def measured(self, read: Read, seconds: float, requests: Sequence[Request]) -> None:
        text = f"{_said(read)}; {seconds * 1000:.1f} ms"
        if requests:
            text += ", " + " ".join(f"{one.kind} {one.status}" for one in requests)
        logger.info("%s", text)


def _said(read: Read) -> str:
    """Such as ``hit shop.product get of shop_product: its result was ...``."""
    events = ", ".join([read.event, *sorted(read.beside)])
    tables = ", ".join(read.tables)
    return f"{events}: {read.label} {read.action} of {tables or '?'}: {read.why}"


def _log_change(
    *, table: str, pks: Sequence[object] | None, position: int, local: bool, **_: Any
) -> None:
    logger.info(
        "changed: %s rows of %s at entry %d, by %s host; results of them are "
        "not used any more",
        "all" if pks is None else len(pks),
        table,
        position,
        "this" if local else "another",
    )


_log: Final = _Log()


def follow_settings() -> None:
    """Log from now on what the settings want logged, and no more."""
    try:
        on = conf.settings().verbose
    except ImproperlyConfigured:
        on = False  # a system check says so
    watch_always(_log, on=on)
    if on:
        rows_changed.connect(_log_change, dispatch_uid=_ID)
    else:
        rows_changed.disconnect(dispatch_uid=_ID)


@receiver(setting_changed, dispatch_uid=_ID)
def _follow(*, setting: str, **kwargs: Any) -> None:
    if setting == "S3CACHE":
        # conf forgets its own at the same signal, before or after this.
        conf.settings.cache_clear()
        follow_settings()
