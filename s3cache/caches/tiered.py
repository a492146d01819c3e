"""Fast caches in front of slow ones."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from s3cache.caches.composed import ComposedCache, read_members
from s3cache.caches.getting import Found
from s3cache.caches.members import Member
from s3cache.conf import boolean, optional

__all__ = ["TieredCache"]

logger = logging.getLogger("s3cache.caches")


class TieredCache(ComposedCache):
    """
    Other caches as tiers, the fastest first: memory, Redis, files, a bucket.

    Writing and deleting reach all tiers. A hit in one fills those before it,
    for no longer than what was found there lives. A tier that fails is passed
    over, and after some failures not asked for a while.
    """

    members_option = "tiers"
    readers = {
        **ComposedCache.readers,
        "tiers": optional(read_members),
        "promote_on_hit": boolean,
    }
    defaults = {**ComposedCache.defaults, "tiers": None, "promote_on_hit": True}

    def _route(self, made: str) -> Sequence[Member]:
        return self.members

    def _find_many(self, names: Sequence[str]) -> dict[str, Found]:
        """Ask each tier once, for what those before it lack."""
        numbers = {made: self._changes.number(made) for made in names}
        found: dict[str, Found] = {}
        asked: list[Member] = []
        for member in self.members:
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
