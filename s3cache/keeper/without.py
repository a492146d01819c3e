"""Running what needs a store, and no replica."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any, TypeVar

from s3cache.keeper.beginning import Describe
from s3cache.keeper.effects import Delete, Replace
from s3cache.log.drive import drive
from s3cache.log.effects import Create, Effect, Get, ListPage, Steps, Token
from s3cache.replica.founding import described
from s3cache.stores.base import Store

__all__ = ["on"]

T = TypeVar("T")


def on(store: Store, steps: Steps[T]) -> T:
    """Run a protocol of ``ending`` or ``beginning`` on ``store``.

    Each request is made once. Who calls it again goes on.
    """
    performers: dict[type, Callable[[Any], Any]] = {
        Get: lambda effect: store.get(effect.key),
        ListPage: lambda effect: store.list(
            effect.prefix, start_after=effect.start_after
        ),
        Create: lambda effect: store.put(effect.key, effect.body, if_none_match=True),
        Replace: lambda effect: store.put(
            effect.key, effect.body, if_match=effect.etag
        ),
        Delete: lambda effect: store.delete_many(effect.keys),
        Token: lambda effect: secrets.token_hex(16),
        Describe: lambda effect: described(effect.head, store),
    }

    def perform(effect: Effect) -> Any:
        return performers[type(effect)](effect)

    return drive(steps, perform)
