"""Which databases have a transaction open here, to be asked in no time.

``connections[alias].in_atomic_block`` would do, but takes longer than all the
rest of a hit, and on an event loop it is that of the loop's thread: a task
that was started within a block (``async_to_sync``) has the block's context.
Code that a block runs in a context of its own is in the block's thread.
"""

from __future__ import annotations

import threading
from contextvars import ContextVar
from typing import Final

__all__ = ["are_open", "mark", "somewhere_open"]

_NONE: Final[frozenset[str]] = frozenset()


class _Local(threading.local):
    open: frozenset[str] = _NONE


#: By thread the aliases of those that are open in this process; mostly none,
#: and then nobody has to be asked. What a thread leaves open when it dies is
#: here for ever, and costs the asking.
somewhere_open: Final[set[tuple[int, str]]] = set()

_context: ContextVar[frozenset[str]] = ContextVar("s3cache_open", default=_NONE)
_local = _Local()


def mark(alias: str, *, is_open: bool) -> None:
    """Say that a transaction was begun, or has ended, in this context."""
    where = threading.get_ident(), alias
    if is_open:
        somewhere_open.add(where)
        _context.set(_context.get() | {alias})
        _local.open |= {alias}
    else:
        _context.set(_context.get() - {alias})
        _local.open -= {alias}
        somewhere_open.discard(where)


def are_open(alias: str) -> bool:
    """Whether one may be open for who calls this."""
    return alias in _local.open or alias in _context.get()
