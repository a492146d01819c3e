"""Keys spread over several caches."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from s3cache.caches.composed import ComposedCache, read_members
from s3cache.caches.getting import Found
from s3cache.caches.members import Member
from s3cache.conf import optional

__all__ = ["ShardedCache"]


class ShardedCache(ComposedCache):
    """
    Other caches as shards: each key lives in one of them.

    Which one is decided by rendezvous hashing over the aliases (Thaler and
    Ravishankar, 1998): another shard takes its share from all and moves
    nothing else, and a shard that is taken away gives its keys to all the
    others. The order of the list does not matter. The keys of a shard that
    fails are misses; they do not move.
    """

    members_option = "shards"
    readers = {**ComposedCache.readers, "shards": optional(read_members)}
    defaults = {**ComposedCache.defaults, "shards": None}

    def _route(self, made: str) -> Sequence[Member]:
        return (max(self.members, key=lambda member: _score(member.alias, made)),)

    def _find_many(self, names: Sequence[str]) -> dict[str, Found]:
        """Ask each shard once."""
        by_shard: dict[str, list[str]] = {}
        for made in names:
            by_shard.setdefault(self._route(made)[0].alias, []).append(made)
        found: dict[str, Found] = {}
        for member in self.members:
            if asked := by_shard.get(member.alias):
                here = member.find_many(asked)
                member.counted_many(len(here), len(asked) - len(here))
                found.update(here)
        return {made: found[made] for made in names if made in found}


def _score(alias: str, made: str) -> bytes:
    # The alias ends at the first NUL, so no other pair makes the same bytes.
    pair = alias.encode() + b"\0" + made.encode(errors="surrogatepass")
    return hashlib.blake2b(pair, digest_size=8).digest()
