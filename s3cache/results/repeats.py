"""Whether anybody repeats a read, so that its result is worth storing.

To make a key and to store a result costs a good part of what a small query
costs. Of a statement whose results are stored time and again, with other
values each time, and are never asked for again, the next ones are stored only
when somebody asks for them a second time: the doorkeeper of TinyLFU (Einziger,
Friedman and Manes, 2017), but only where storing has been in vain.

Nothing here is exact under threads, and need not be: what is wrong costs one
more query, or one more entry.
"""

from __future__ import annotations

from collections.abc import Set
from typing import Any, Final

__all__ = ["IN_VAIN", "Asked", "Repeats"]

#: So many results of one statement are stored in vain, one after the other.
IN_VAIN: Final = 32

#: So many reads are remembered at least, and at most twice as many.
_REMEMBERED: Final = 8192


class Repeats:
    """What became of the results of one statement, whatever its values."""

    __slots__ = ("in_vain",)

    def __init__(self) -> None:
        #: Results that were stored since one was last asked for again.
        self.in_vain = 0

    def are_rare(self) -> bool:
        """Whether the next result is probably not asked for again."""
        return self.in_vain >= IN_VAIN


class Asked:
    """Reads that were made a while ago, by their hashes; without a lock.

    Two generations: the older one is forgotten when the newer one is full.
    """

    __slots__ = ("_before", "_now")

    def __init__(self) -> None:
        self._before: set[int] = set()
        self._now: set[int] = set()

    def before(self, sql: str, params: Any) -> bool:
        """Whether this read was made before; from now on it was.

        Also for what has no hash: nothing is known of it.
        """
        try:
            if type(params) is not tuple:
                params = tuple(params.items() if type(params) is dict else params)
            read = hash((sql, params))
        except TypeError:
            return True
        now = self._now
        if read in now or read in self._before:
            return True
        now.add(read)
        self._make_room()
        return False

    def those_before(self, reads: Set[int]) -> Set[int]:
        """Which of the reads with these hashes were made before, as above."""
        now = self._now
        found = (reads & now) | (reads & self._before)
        now |= reads
        self._make_room()
        return found

    def _make_room(self) -> None:
        now = self._now
        if len(now) >= _REMEMBERED:
            self._before, self._now = now, set()
