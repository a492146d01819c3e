"""AUTOINCREMENT ids in chunks.

A block cannot let SQLite choose ids: two blocks would choose the same ones.
So it takes them from a chunk that an entry of the log has reserved for this
process. Chunks grow; what is left of them at the end is a gap.

Who goes on taking them does not wait for that entry each time: from its second
chunk on the next one is reserved along with what a block commits, as soon as
less is left than that block has taken.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

FIRST_CHUNK = 100
LARGEST_CHUNK = 100_000

#: How many chunks a process has had that is going to need more of them.
IS_A_HABIT = 2


@dataclass(slots=True)
class _Chunks:
    """What is left of the chunks of one table, in their order."""

    left: list[range] = field(default_factory=list)
    #: Chunks of before the ids were reset (by a flush, say) are worth nothing.
    reset_at: int = 0
    #: How large the last one was, and how many there have been.
    size: int = FIRST_CHUNK // 2
    number: int = 0

    def grow(self, needed: int) -> int:
        """How many to reserve now, where ``needed`` have to be."""
        self.size = max(min(LARGEST_CHUNK, 2 * self.size), needed)
        self.number += 1
        return self.size


class IdChunks:
    """The chunks of one process; ``reserve(table, column, count, above)``."""

    def __init__(self, reserve: Callable[[str, str, int, int], range]) -> None:
        self._reserve = reserve
        self._lock = threading.Lock()
        self._chunks: defaultdict[str, _Chunks] = defaultdict(_Chunks)

    def take(
        self,
        table: str,
        column: str,
        count: int,
        *,
        wanted: int,
        reset_at: int,
        largest_in: Callable[[int, int], int | None],
        must: bool,
    ) -> Sequence[int] | None:
        """``count`` ids of ``table``, which nobody else gets, in their order.

        The caller is going to take ``wanted`` in all, so that no more than
        one chunk has to be reserved for them. ``reset_at`` is the position at
        which the ids were reset last. ``largest_in`` tells the largest id
        between two that the caller sees: ids that somebody gave by hand are
        skipped. Without ``must`` None is returned when there are not enough:
        let SQLite choose.
        """
        with self._lock:
            chunks = self._chunks[table]
            taken = self._from(chunks, count, reset_at, largest_in, fewer_will_do=must)
        missing = count - len(taken)
        if not missing:
            return taken
        if not must:
            return None
        with self._lock:
            size = chunks.grow(missing + wanted - count)
        largest = largest_in(0, 2**63 - 1) or 0
        ids = self._reserve(table, column, size, largest)
        self.keep(table, ids[missing:], reset_at)
        return [*taken, *ids[:missing]]

    def _from(
        self,
        chunks: _Chunks,
        count: int,
        reset_at: int,
        largest_in: Callable[[int, int], int | None],
        *,
        fewer_will_do: bool,
    ) -> list[int]:
        if chunks.reset_at != reset_at:
            return []
        taken: list[int] = []
        while chunks.left and len(taken) < count:
            ids = chunks.left[0]
            used = largest_in(ids.start, ids.stop - 1)
            if used is not None:
                ids = range(used + 1, ids.stop)
            missing = count - len(taken)
            if missing > len(ids) and not fewer_will_do:
                return []
            taken += ids[:missing]
            chunks.left[0] = ids[missing:]
            if not chunks.left[0]:
                del chunks.left[0]
        return taken

    def ahead(self, table: str, count: int) -> int:
        """How many to reserve with the commit of who took ``count``; often 0.

        Who is told a number reserves as many, and has them kept.
        """
        with self._lock:
            chunks = self._chunks[table]
            left = sum(map(len, chunks.left))
            if left >= count or chunks.number < IS_A_HABIT:
                return 0
            return chunks.grow(count)

    def keep(self, table: str, ids: range, reset_at: int) -> None:
        """Have ids to give that this process has reserved."""
        with self._lock:
            chunks = self._chunks[table]
            if chunks.reset_at != reset_at:
                chunks.left, chunks.reset_at = [], reset_at
            if ids:
                chunks.left.append(ids)

    def has_chunk(self, table: str) -> bool:
        """Whether there may be ids that need not be reserved."""
        chunks = self._chunks.get(table)
        return chunks is not None and bool(chunks.left)

    def forget(self) -> None:
        """Give up all chunks."""
        with self._lock:
            for chunks in self._chunks.values():
                chunks.left = []
