"""The host's clock: seconds that never go back and that count sleep.

CLOCK_MONOTONIC stands still while a Linux machine sleeps, so an answer of
yesterday would look fresh this morning. CLOCK_BOOTTIME does not. Where it is
missing (macOS), the larger of wall and monotonic progress is taken.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

_BOOTTIME: int | None = getattr(time, "CLOCK_BOOTTIME", None)


class _LargerOfTwo:
    """The clock where there is no CLOCK_BOOTTIME."""

    def __init__(self) -> None:
        self._offset = 0.0

    def __call__(self) -> float:
        # Wall time is kept at or above monotonic time plus the largest lead
        # that it ever had in this process.
        monotonic = time.monotonic()
        self._offset = max(self._offset, time.time() - monotonic)
        return monotonic + self._offset


if _BOOTTIME is not None:
    #: Seconds since some moment before this boot's first process; asked by
    #: every read, so not wrapped in a function.
    now: Callable[[], float] = partial(time.clock_gettime, _BOOTTIME)

else:  # pragma: no cover
    now = _LargerOfTwo()


def boot_identity() -> bytes:
    """16 bytes that are others after a reboot, when ``now`` starts again."""
    try:
        text = Path("/proc/sys/kernel/random/boot_id").read_text()
    except OSError:
        # Without a boot id the clock is wall time, which survives a reboot.
        text = "wall"
    return hashlib.blake2b(text.encode(), digest_size=16).digest()
