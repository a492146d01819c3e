"""
Which entry has to go: S3-FIFO, LRU, FIFO.

A policy orders nodes and never looks at what they hold. All of its methods are
called under the lock of the cache, except that S3-FIFO's and FIFO's hits need
none: the first only raises a small counter of the node, the second does
nothing.

S3-FIFO is from Yang, Zhang, Qiu, Yue and Vinayak, "FIFO queues are all you
need for cache eviction" (SOSP 2023). New entries enter a small queue, a tenth
of the cache. Those that are used again while they wait there move to the main
queue; the others, most of what a scan brings, leave early, and only their hash
is remembered, in the ghost queue. A key that comes back while its ghost is
there enters the main queue at once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Hashable, Iterator
from typing import ClassVar, Final

__all__ = ["FIFO", "LRU", "POLICIES", "S3FIFO", "Ghosts", "Node", "Policy", "Queue"]

MOST_USES: Final = 3
"""S3-FIFO counts uses in two bits."""

_SMALL: Final = 0.1
"""The small queue's share of the cache."""

_PROMOTED: Final = 2
"""Uses in the small queue that move an entry to the main queue."""


class Node:
    """An entry, as a policy sees it."""

    __slots__ = ("key", "newer", "older", "queue", "size", "uses")

    key: Hashable
    older: Node
    newer: Node
    queue: Queue | None
    """Where it is; None once it was removed."""

    def __init__(self, key: Hashable, size: int) -> None:
        self.key = key
        self.size = size
        """In the unit of the cache's limit: bytes, or 1."""
        self.uses = 0
        self.queue = None


class Queue:
    """Nodes from the oldest to the newest; operations take constant time."""

    __slots__ = ("_end", "count", "size")

    def __init__(self) -> None:
        self._end = Node(None, 0)
        self._end.older = self._end.newer = self._end
        self.count = 0
        self.size = 0

    def __iter__(self) -> Iterator[Node]:
        node = self._end.newer
        while node is not self._end:
            yield node
            node = node.newer

    @property
    def oldest(self) -> Node | None:
        node = self._end.newer
        return None if node is self._end else node

    def add(self, node: Node) -> None:
        """Make `node` the newest."""
        end = self._end
        last = end.older
        node.older = last
        node.newer = end
        last.newer = end.older = node
        node.queue = self
        self.count += 1
        self.size += node.size

    def remove(self, node: Node) -> None:
        node.older.newer = node.newer
        node.newer.older = node.older
        # A removed node refers to no other, so that no chain of garbage forms.
        node.older = node.newer = node
        node.queue = None
        self.count -= 1
        self.size -= node.size

    def replace(self, old: Node, new: Node) -> None:
        """Remove `old`, which is in this queue, and make `new` the newest."""
        older, newer = old.older, old.newer
        older.newer = newer
        newer.older = older
        old.older = old.newer = old
        old.queue = None
        end = self._end
        last = end.older
        new.older = last
        new.newer = end
        last.newer = end.older = new
        new.queue = self
        self.size += new.size - old.size

    def renew(self, node: Node) -> None:
        """Make a `node` of this queue the newest."""
        self.remove(node)
        self.add(node)


class Policy(ABC):
    """The order in which entries have to go."""

    locks_hits: ClassVar[bool] = False
    """Whether ``used`` has to be called, under the lock, at each hit."""

    @abstractmethod
    def add(self, node: Node) -> None:
        """Take a new node in."""

    @abstractmethod
    def replace(self, old: Node, new: Node) -> None:
        """Take `new` in for `old`, whose key it has."""

    @abstractmethod
    def victim(self) -> Node | None:
        """Remove and return the node that has to go next; None: empty."""

    @abstractmethod
    def queues(self) -> tuple[Queue, ...]:
        """All queues, for those who look from the outside."""

    def remove(self, node: Node) -> None:
        """Remove a node that was deleted or has expired."""
        if node.queue is not None:
            node.queue.remove(node)

    def used(self, node: Node) -> None:  # noqa: B027 - most have nothing to do
        """Note a hit."""

    def clear(self) -> None:
        """Remove all nodes."""
        for queue in self.queues():
            for node in list(queue):
                queue.remove(node)


class FIFO(Policy):
    """What was written first goes first; a hit changes nothing."""

    def __init__(self) -> None:
        self._queue = Queue()

    def add(self, node: Node) -> None:
        self._queue.add(node)

    def replace(self, old: Node, new: Node) -> None:
        self._queue.replace(old, new)

    def victim(self) -> Node | None:
        node = self._queue.oldest
        if node is not None:
            self._queue.remove(node)
        return node

    def queues(self) -> tuple[Queue, ...]:
        return (self._queue,)


class LRU(FIFO):
    """What was neither read nor written for the longest time goes first."""

    locks_hits = True

    def used(self, node: Node) -> None:
        if node.queue is not None:  # else removed since it was found
            self._queue.renew(node)


class S3FIFO(Policy):
    """A small queue, a main queue, and ghosts of what left the small one."""

    def __init__(self) -> None:
        self.small = Queue()
        self.main = Queue()
        self.ghosts = Ghosts()

    def add(self, node: Node) -> None:
        if self.ghosts.take(node.key):
            self.main.add(node)
        else:
            self.small.add(node)

    def replace(self, old: Node, new: Node) -> None:
        # Whoever writes a key again is using it.
        new.uses = old.uses + 1 if old.uses < MOST_USES else MOST_USES
        (old.queue or self.small).replace(old, new)

    def victim(self) -> Node | None:
        small, main = self.small, self.main
        while True:
            node = small.oldest
            if node is not None and (
                main.oldest is None or small.size >= _SMALL * (small.size + main.size)
            ):
                small.remove(node)
                if node.uses >= _PROMOTED:
                    node.uses = 0
                    main.add(node)
                    continue
                self.ghosts.add(node.key, limit=small.count + main.count)
                return node
            node = main.oldest
            if node is None:
                return None
            if node.uses:
                node.uses -= 1
                main.renew(node)
                continue
            main.remove(node)
            return node

    def queues(self) -> tuple[Queue, ...]:
        return (self.small, self.main)

    def clear(self) -> None:
        super().clear()
        self.ghosts.clear()


class Ghosts:
    """Hashes of the keys that left the small queue last."""

    __slots__ = ("_first", "_numbers", "_order")

    def __init__(self) -> None:
        self._order: deque[int] = deque()
        self._numbers: dict[int, int] = {}
        self._first = 0

    def __len__(self) -> int:
        return len(self._order)

    def __contains__(self, key: Hashable) -> bool:
        return hash(key) in self._numbers

    def add(self, key: Hashable, *, limit: int) -> None:
        """Remember `key`, and forget the oldest beyond `limit`."""
        number = hash(key)
        self._numbers[number] = self._first + len(self._order)
        self._order.append(number)
        while len(self._order) > limit:
            oldest = self._order.popleft()
            # Unless it was taken since, and has become a ghost again.
            if self._numbers.get(oldest) == self._first:
                del self._numbers[oldest]
            self._first += 1

    def take(self, key: Hashable) -> bool:
        """Forget `key`; tell whether it was remembered."""
        return self._numbers.pop(hash(key), None) is not None

    def clear(self) -> None:
        self._order.clear()
        self._numbers.clear()


POLICIES: Final[dict[str, type[Policy]]] = {"s3fifo": S3FIFO, "lru": LRU, "fifo": FIFO}
