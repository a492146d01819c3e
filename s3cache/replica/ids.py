"""AUTOINCREMENT ids in chunks.

A block cannot let SQLite choose ids: two blocks would choose the same ones.
So it takes them from a chunk that an entry of the log has reserved for this
process. Chunks grow; what is left of them at the end is a gap.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

FIRST_CHUNK = 100
LARGEST_CHUNK = 100_000

_NONE = range(0)


@dataclass(slots=True)
class _Chunk:
    ids: range
    #: Chunks of before the ids were reset (by a flush, say) are worth nothing.
    reset_at: int


class IdChunks:
    """The chunks of one process; ``reserve(table, column, count, above)``."""

    def __init__(self, reserve: Callable[[str, str, int, int], range]) -> None:
        self._reserve = reserve
        self._lock = threading.Lock()
        self._chunks: dict[str, _Chunk] = {}
        self._sizes: dict[str, int] = {}

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
            taken = self._from_chunk(
                table, count, reset_at, largest_in, fewer_will_do=must
            )
        missing = count - len(taken)
        if not missing:
            return taken
        if not must:
            return None
        grown = min(LARGEST_CHUNK, 2 * self._sizes.get(table, FIRST_CHUNK // 2))
        size = self._sizes[table] = max(grown, missing + wanted - count)
        largest = largest_in(0, 2**63 - 1) or 0
        ids = self._reserve(table, column, size, largest)
        with self._lock:
            self._chunks[table] = _Chunk(ids[missing:], reset_at)
        return [*taken, *ids[:missing]]

    def _from_chunk(
        self,
        table: str,
        count: int,
        reset_at: int,
        largest_in: Callable[[int, int], int | None],
        *,
        fewer_will_do: bool,
    ) -> range:
        chunk = self._chunks.get(table)
        if chunk is None or chunk.reset_at != reset_at or not chunk.ids:
            return _NONE
        start, stop = chunk.ids.start, chunk.ids.stop
        used = largest_in(start, stop - 1)
        if used is not None:
            start = used + 1
        end = start + count
        if end > stop:
            if not fewer_will_do:
                return _NONE
            end = stop
        chunk.ids = range(end, stop)
        return range(start, end)

    def has_chunk(self, table: str) -> bool:
        """Whether there may be ids that need not be reserved."""
        chunk = self._chunks.get(table)
        return chunk is not None and bool(chunk.ids)

    def forget(self) -> None:
        """Give up all chunks."""
        with self._lock:
            self._chunks.clear()
