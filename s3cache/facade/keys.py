"""Keys that callers make for entries of their own."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Final

from django.db.models import Model

from s3cache.caches.base import portable
from s3cache.results.keys import label_in_key, prefix_of

__all__ = ["KeyBuilder", "own_key", "own_prefix"]

#: Characters of a word in a key; longer ones are hashed.
_LONGEST: Final = 100


class KeyBuilder:
    """
    Keys for any Django cache: of items, lists and counts of a model.

    They are readable, at most 250 characters long and safe for memcached.
    Filters mean the same in any order; values count as what their ``repr()``
    says. `prefix` is the application's own::

        keys = KeyBuilder("shop")
        cache.set(keys.list(Product, region="EU", kind="x"), rows)
        cache.delete_pattern(keys.pattern(Product))
    """

    def __init__(self, prefix: str = "app") -> None:
        self.prefix = _word(prefix)

    def item(self, model: type[Model] | str, pk: object) -> str:
        """The key of one object."""
        return f"{self._begin(model)}:item:{_word(str(pk))}"

    def list(self, model: type[Model] | str, **filters: object) -> str:
        """The key of a list of objects."""
        return f"{self._begin(model)}:list:{_filters(filters)}"

    def count(self, model: type[Model] | str, **filters: object) -> str:
        """The key of a number of objects."""
        return f"{self._begin(model)}:count:{_filters(filters)}"

    def pattern(self, model: type[Model] | str, kind: str = "*") -> str:
        """
        What ``delete_pattern()`` takes for all keys of a model.

        `kind` is "item", "list" or "count", or "*" for all of them.
        """
        if kind not in ("*", "item", "list", "count"):
            raise ValueError(
                f"{kind!r} is no kind of key. Kinds are 'item', 'list', 'count', '*'."
            )
        return (
            f"{self._begin(model)}:{kind}:*"
            if kind != "*"
            else (f"{self._begin(model)}:*")
        )

    def _begin(self, model: type[Model] | str) -> str:
        label = model if isinstance(model, str) else model._meta.label_lower
        return f"{self.prefix}:{_word(label.lower())}"


def own_prefix(label: str, namespace: str) -> str:
    """What the keys of a caller's own entries of a model begin with."""
    return f"{prefix_of(namespace)}:own:{_label(label)}:"


def own_key(label: str, namespace: str, key: str) -> str:
    """The key of a caller's own entry, whatever `key` is made of."""
    return own_prefix(label, namespace) + _word(key)


def _label(label: str) -> str:
    # Shortened, two labels could be the same.
    return label if label == label_in_key(label) else _hashed(label)


def _filters(filters: Mapping[str, Any]) -> str:
    if not filters:
        return "all"
    return _word(",".join(f"{name}={filters[name]!r}" for name in sorted(filters)))


def _word(text: str) -> str:
    """`text` as a part of a key; no two are the same."""
    is_plain = portable(text) and len(text) <= _LONGEST
    if (
        text
        and is_plain
        and not text.startswith("~")
        and not set(":*?[]\\") & set(text)
    ):
        return text
    return _hashed(text)


def _hashed(text: str) -> str:
    data = text.encode("utf-8", "surrogatepass")
    return f"~{hashlib.blake2b(data, digest_size=16).hexdigest()}"
