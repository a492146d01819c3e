"""
What is in a cache under a key.

Keys and values are other people's data: the key of a session is as good as
its password. So there are two rules. Keys of results are shown to whoever may
view the model that they are of; all other keys, and all values, to superusers.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pprint import pformat
from typing import Any, Final

from django.apps import apps
from django.conf import settings
from django.core.cache import BaseCache, caches
from django.utils.translation import gettext as _

from s3cache import conf
from s3cache.caches.base import wildcards
from s3cache.caches.getting import GettingCache
from s3cache.facade.removing import iter_keys_of
from s3cache.results import codec, elsewhere
from s3cache.results.keys import NAMESPACE

logger = logging.getLogger("s3cache.dashboard")

__all__ = [
    "Entry",
    "Found",
    "delete",
    "find",
    "is_of_a_result",
    "may_see_key",
    "usual_cache",
]

#: Keys that are listed at once.
KEYS: Final = 50

#: How many keys that match are looked at for those that somebody may see, and
#: how many are looked at in all, in a cache that does not match them itself.
LOOKED_AT: Final = 2_000
SCANNED: Final = 50_000

#: Rows and characters of a value that are shown.
ROWS: Final = 20
CHARACTERS: Final = 4_000
CELL: Final = 200

#: Bytes beyond which a value is not laid out, which would take seconds.
PRETTY: Final = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """
    One entry. Times are in seconds, ``left`` None: it does not expire.

    ``is_timed``: the cache knows how old it is. ``size`` in bytes, about.
    ``columns`` and ``rows`` are there if the value is a result, ``text`` for
    any other; none of them for whoever may not see it.
    """

    key: str
    kind: str
    size: int
    is_timed: bool = False
    age: float | None = None
    left: float | None = None
    columns: Sequence[str] | None = None
    rows: Sequence[Sequence[str]] = ()
    more: int = 0
    text: str | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """An entry, or the keys that are like what was asked for."""

    entry: Entry | None = None
    keys: Sequence[str] = ()
    more: bool = False
    error: str = ""


def usual_cache() -> str:
    """The CACHES alias that results are kept in, if they are."""
    chosen = conf.settings().cache
    return chosen if chosen in settings.CACHES else "default"


def find(alias: str, text: str, user: Any) -> Found:
    """Look a key up in the cache `alias`, or a pattern with ``*``."""
    if alias not in settings.CACHES:
        return Found(error=_("There is no such cache."))
    if not text:
        return Found()
    cache = caches[alias]
    try:
        if "*" in text:
            return _matching(cache, text, user)
        if not may_see_key(user, text):
            return Found()
        return Found(entry=_entry(cache, text, may_see_value=user.is_superuser))
    except Exception as error:
        # Any backend serves, so any error is possible: a key that it refuses,
        # a server that does not answer. What it says may name that server.
        logger.warning("The cache %r failed: %s", alias, error)
        name = type(error).__name__
        return Found(error=f"{name}: {error}" if user.is_superuser else name)


def delete(alias: str, key: str, user: Any) -> bool:
    """Delete an entry that `user` may see; return whether it was there."""
    if alias not in settings.CACHES or not may_see_key(user, key):
        return False
    return bool(caches[alias].delete(key))


def may_see_key(user: Any, key: str) -> bool:
    """Tell whether `user` may know that there is such a key."""
    if user.is_superuser:
        return True
    label = _label_of(key)
    try:
        options = apps.get_model(label)._meta if label else None
    except (LookupError, ValueError):
        return False
    return options is not None and user.has_perm(
        f"{options.app_label}.view_{options.model_name}"
    )


def is_of_a_result(key: str) -> bool:
    """Tell whether a key names what was read, and is nobody's secret."""
    return bool(_label_of(key))


def _label_of(key: str) -> str:
    """The label of the model that a result is of, or ""."""
    words = key.split(":")
    is_result = words[0] == NAMESPACE or words[0].startswith(f"{NAMESPACE}-")
    if not is_result or len(words) < 4:
        return ""
    return words[2] if words[1] == "hot" else words[1]


def _matching(cache: BaseCache, pattern: str, user: Any) -> Found:
    try:
        found = _keys(cache, pattern)
    except NotImplementedError:
        return Found(error=_("This cache cannot list its keys: give the whole key."))
    seen = [key for key in found if may_see_key(user, key)]
    shown = list(islice(seen, KEYS))
    return Found(keys=shown, more=len(seen) > len(shown))


def _keys(cache: BaseCache, pattern: str) -> list[str]:
    """Keys that match; many, for not everybody may see all of them."""
    if isinstance(cache, GettingCache):
        return cache.keys(pattern, limit=LOOKED_AT)
    matches = wildcards(pattern)
    found = islice(iter_keys_of(cache, pattern.partition("*")[0]), SCANNED)
    return list(islice(filter(matches.fullmatch, found), LOOKED_AT))


def _entry(cache: BaseCache, key: str, *, may_see_value: bool) -> Entry | None:
    age: float | None = None
    left: float | None = None
    is_timed = isinstance(cache, GettingCache)
    if isinstance(cache, GettingCache):
        found = cache.look(key)
        if found is None:
            return None
        value, age, left = found.value, time.time() - found.created, found.ttl
    else:
        nothing = object()
        value = cache.get(key, nothing)
        if value is nothing:
            return None
    shown: dict[str, Any] = _shown(value) if may_see_value else {}
    return Entry(
        key=key,
        kind=type(value).__name__,
        size=_size(value),
        is_timed=is_timed,
        age=age,
        left=left,
        **shown,
    )


def _shown(value: Any) -> dict[str, Any]:
    """A value as a table, if it is a result, else as text."""
    try:
        result = codec.decode(value)
        columns = [column[0] for column in result.description or ()]
        rows = result.rows
    except codec.Undecodable:
        try:
            rows = elsewhere.load(value)
            columns = (
                [str(number + 1) for number in range(len(rows[0]))] if rows else []
            )
        except codec.Undecodable:
            if _size(value) > PRETTY:
                return {"text": _cut(repr(value), CHARACTERS)}
            text = pformat(value, width=100, compact=True)
            return {"text": _cut(text, CHARACTERS)}
    return {
        "columns": columns,
        "rows": [[_cut(str(one), CELL) for one in row] for row in islice(rows, ROWS)],
        "more": max(len(rows) - ROWS, 0),
    }


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[:most]}…"


def _size(value: Any) -> int:
    """Bytes, of what others than results are: of their text."""
    if isinstance(value, bytes | str):
        return len(value if isinstance(value, bytes) else value.encode())
    return len(repr(value).encode())
