"""UUIDv7 (RFC 9562, section 5.7): primary keys whose order is that of time."""

from __future__ import annotations

import os
import threading
import time
import uuid

__all__ = ["uuid7"]

_RANDOM_BITS = 74  # rand_a and rand_b: all that is neither time nor a constant
_STEP_BITS = 32  # how far apart two ids of one millisecond are, at most

_lock = threading.Lock()
_last = 0  # the newest id's 48 bits of time and 74 random bits, as one number


def uuid7() -> uuid.UUID:
    """
    Return a new UUIDv7, greater than any that this process returned before.

    Ids of one millisecond go on from one another in random steps (the RFC's
    method 2), as do those that are asked for after the clock was set back.
    Safe for threads, and in the child of a fork, which starts afresh.

    Python 3.14's ``uuid.uuid7`` is not used where it exists: it takes no
    lock, and migrations refer to a default by its path, which must not depend
    on the release of Python that wrote them.
    """
    global _last
    randomness = int.from_bytes(os.urandom(14))
    number = (time.time_ns() // 1_000_000) << _RANDOM_BITS
    number |= randomness >> (112 - _RANDOM_BITS)
    step = (randomness & ((1 << _STEP_BITS) - 1)) + 1
    with _lock:
        # A step over the last random bit carries into the milliseconds.
        number = _last = number if number > _last else _last + step
    high, rand_b = number >> 62, number & ((1 << 62) - 1)
    milliseconds, rand_a = high >> 12, high & 0xFFF
    return uuid.UUID(
        int=milliseconds << 80 | 7 << 76 | rand_a << 64 | 0b10 << 62 | rand_b
    )


def _start_afresh() -> None:
    # Another thread may have held the lock at the moment of the fork.
    global _lock, _last
    _lock = threading.Lock()
    _last = 0


if hasattr(os, "register_at_fork"):  # Windows is refused by a check, later
    os.register_at_fork(after_in_child=_start_afresh)
