"""Fast caches in front of slow ones."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from s3cache.caches.broadcast import Broadcast, broadcast_for
from s3cache.caches.composed import ComposedCache, read_members
from s3cache.caches.getting import Found
from s3cache.caches.members import Member
from s3cache.caches.times import Times
from s3cache.conf import boolean, optional, text

__all__ = ["TieredCache"]

logger = logging.getLogger("s3cache.caches")


class TieredCache(ComposedCache):
    """
    Other caches as tiers, the fastest first: memory, Redis, files, a bucket.

    Writing and deleting reach all tiers. A hit in one fills those before it,
    for no longer than what was found there lives. A tier that fails is passed
    over, and after some failures not asked for a while.

    With ``broadcast``, the alias of a Redis, what one host changes is dropped
    from the tiers that only the others see: memory and files. While nothing
    is heard from that Redis they are not used.
    """

    members_option = "tiers"
    readers = {
        **ComposedCache.readers,
        "tiers": optional(read_members),
        "promote_on_hit": boolean,
        "broadcast": optional(text),
    }
    defaults = {
        **ComposedCache.defaults,
        "tiers": None,
        "promote_on_hit": True,
        "broadcast": None,
    }

    def __init__(self, location: str, params: dict[str, Any]) -> None:
        super().__init__(location, params)
        self._params = params
        self._broadcast: Broadcast | None = None

    def _route(self, made: str) -> Sequence[Member]:
        broadcast = self.broadcast
        if broadcast is None or broadcast.hears:
            return self.members
        return [member for member in self.members if member.spans_hosts]

    # What other hosts are told, and what they tell

    @property
    def broadcast(self) -> Broadcast | None:
        """What tells other hosts of changes, with that option."""
        alias: str | None = self.options["broadcast"]
        if alias is None:
            return None
        if self._broadcast is None or not self._broadcast.is_current:
            location, params = self.location, self._params
            names = "+".join(listed.alias for listed in self.listed)
            self._broadcast = broadcast_for(
                alias,
                f"s3cache:cache:tiers:{location}:{names}",
                lambda: type(self)(location, params),
            )
        return self._broadcast

    def hear(self, kind: str, what: Any) -> None:
        """Drop what another host has changed from what it cannot reach."""
        with self._changes.changing(what if kind == "key" else None):
            for member in self._own_members():
                if kind == "all":
                    member.clear()
                elif kind == "pattern" and member.lists_keys:
                    member.delete_pattern(what)
                elif kind == "pattern":
                    member.distrust()
                else:
                    member.remove(what)

    def distrust(self) -> None:
        """Believe nothing of what only this host sees."""
        with self._changes.changing(None):
            for member in self._own_members():
                member.distrust()

    def _own_members(self) -> list[Member]:
        return [member for member in reversed(self.members) if not member.spans_hosts]

    def _tell(self, kind: str, what: Any = None) -> None:
        if (broadcast := self.broadcast) is not None:
            broadcast.tell(kind, what)

    def clear(self) -> None:
        super().clear()
        self._tell("all")

    def delete_pattern(self, pattern: str, version: int | None = None) -> int:
        deleted = super().delete_pattern(pattern, version)
        self._tell("pattern", self.make_key(pattern, version))
        return deleted

    def _put(self, made: str, value: Any, times: Times) -> None:
        super()._put(made, value, times)
        self._tell_of_value(made)

    def _add(self, made: str, value: Any, times: Times) -> bool:
        if not self._route(made):
            return True  # there is nothing, and nothing is kept
        added = super()._add(made, value, times)
        if added:
            self._tell_of_value(made)
        return added

    def _touch(self, made: str, left: float | None) -> bool:
        touched = super()._touch(made, left)
        self._tell_of_value(made)
        return touched

    def _incr(self, made: str, delta: int) -> int | None:
        result = super()._incr(made, delta)
        self._tell_of_value(made)
        return result

    def _remove(self, made: str) -> bool:
        removed = super()._remove(made)
        self._tell("key", made)
        return removed

    def _tell_of_value(self, made: str) -> None:
        """Have others drop what they have, if they find the new value.

        Where no tier is common to all hosts each keeps values of its own: to
        drop those because another host has stored one would help nobody.
        """
        if self.options["broadcast"] is not None and any(
            member.spans_hosts for member in self.members
        ):
            self._tell("key", made)

    def _find_many(self, names: Sequence[str]) -> dict[str, Found]:
        """Ask each tier once, for what those before it lack."""
        numbers = {made: self._changes.number(made) for made in names}
        found: dict[str, Found] = {}
        asked: list[Member] = []
        for member in self._route(""):
            lacking = [made for made in names if made not in found]
            if not lacking:
                break
            here = member.find_many(lacking)
            member.counted_many(len(here), len(lacking) - len(here))
            for made, one in here.items():
                self._promote(made, one, asked, numbers[made])
            found.update(here)
            asked.append(member)
        return {made: found[made] for made in names if made in found}

    def _promote(
        self, made: str, found: Found, to: Sequence[Member], number: int | None
    ) -> None:
        if not to or number is None or not self.options["promote_on_hit"]:
            return
        for member in to:
            try:
                stored = member.add(made, *found)
            except Exception as error:
                # The value is fine where it is; this tier's serializer, say,
                # does not take it.
                member.health.counters.count("rejected")
                logger.warning("The cache %r refused %r: %s", member.alias, made, error)
                continue
            if stored:
                member.health.counters.count("promoted")
                if self._changes.number(made) != number:
                    member.remove(made)  # it was changed meanwhile

    def _deleted(self, numbers: Sequence[int]) -> int:
        return max(numbers)
