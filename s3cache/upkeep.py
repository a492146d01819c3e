"""What ordinary operations do every now and then, so that no thread has to.

A process that has nothing to do does none of it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final

__all__ = ["every", "upkeep"]

logger = logging.getLogger("s3cache.upkeep")


class _Chore:
    """Something that is done at most once in so many seconds."""

    __slots__ = ("due", "seconds", "work")

    def __init__(self, seconds: float, work: Callable[[], object]) -> None:
        self.seconds = seconds
        self.work = work
        self.due = 0.0


_chores: Final[list[_Chore]] = []


class _Next:
    """When the first of them is due, by the monotonic clock."""

    due = float("inf")


def every(seconds: float, work: Callable[[], object]) -> None:
    """Have ``work`` done by whatever calls ``upkeep``, once for good.

    It may run in several threads at once. What it raises is logged.
    """
    if all(one.work != work for one in _chores):
        _chores.append(_Chore(seconds, work))
        _Next.due = 0.0


def upkeep() -> None:
    """Do what is due; called where no lock is held, and nobody is in a hurry.

    Takes a tenth of a microsecond when nothing is.
    """
    now = time.monotonic()
    if now < _Next.due:
        return
    for chore in _chores:
        if now >= chore.due:
            chore.due = now + chore.seconds
            try:
                chore.work()
            except Exception:
                # Whoever calls this came for something else.
                logger.exception("What is to be done beside other work failed")
    _Next.due = min((chore.due for chore in _chores), default=float("inf"))
