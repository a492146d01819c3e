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

__all__ = ["are_open", "mark"]

_NONE: Final[frozenset[str]] = frozenset()


class _Local(threading.local):
    open: frozenset[str] = _NONE


_context: ContextVar[frozenset[str]] = ContextVar("s3cache_open", default=_NONE)
_local = _Local()


def mark(alias: str, *, is_open: bool) -> None:
    """Say that a transaction was begun, or has ended, in this context."""
    if is_open:
        _context.set(_context.get() | {alias})
        _local.open |= {alias}
    else:
        _context.set(_context.get() - {alias})
        _local.open -= {alias}


def are_open(alias: str) -> bool:
    """Whether one may be open for who calls this."""
    return alias in _local.open or alias in _context.get()
