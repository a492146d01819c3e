"""At which versions a read of some tables would be made now."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

from django.db import connections

from s3cache.replica.replica import Replica
from s3cache.results.versions import At

if TYPE_CHECKING:
    from s3cache.db.base import DatabaseWrapper

__all__ = ["Moment", "Tables", "look"]

#: By alias, sorted names of tables, in lower case.
Tables = Mapping[str, tuple[str, ...]]


@dataclass(slots=True)
class Moment:
    """What tables of some databases are at, by alias.

    ``left`` are the seconds until a read of them asks the store, 0 or less
    if the next one does; ``is_stale``: it should have been asked already,
    but is down.
    """

    at: dict[str, At] = field(default_factory=dict)
    replicas: dict[str, Replica] = field(default_factory=dict)
    left: float = math.inf
    is_stale: bool = False

    def is_as_at(self, before: Mapping[Replica, tuple[float, int]]) -> bool:
        """Whether nothing of this was changed since ``before``.

        That is what `s3cache.replica.replica.positions` returned, so that
        whatever was read in between is what one would read now.
        """
        for alias, at in self.at.items():
            replica = self.replicas[alias]
            generation, number = before.get(replica, (math.nan, 0))
            if generation != replica.side.generation:
                return False
            if any(version > number for version, _token in at.versions):
                return False
        return True


def look(tables: Tables, *, ask: bool = True) -> Moment | None:
    """What ``tables`` are at, as fresh as a read of them would be.

    None if that cannot be said: in a transaction, which has a snapshot of
    its own, or while a replica is being replaced. Without ``ask`` the store
    is not asked. Raises what a read would raise.
    """
    moment = Moment()
    for alias, names in tables.items():
        connection = cast("DatabaseWrapper", connections[alias])
        if not connection.look(names, moment, ask=ask):
            return None
    return moment
