"""Telling readers whether what they read has been changed meanwhile."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

__all__ = ["Changes"]

_SLOTS: Final = 256


class Changes:
    """
    Which keys this process is changing, so that no old value is stored after.

    A reader that finds a value in one place, and stores it in another, could
    do so after somebody has changed both. So it looks whether the key was
    changed between its first step and its last. Keys share 256 slots: it may
    be told of a change too many.
    """

    def __init__(self) -> None:
        self.reset()
        _all.add(self)

    def reset(self) -> None:
        self._lock = threading.Lock()
        self._active = [0] * _SLOTS
        self._number = [0] * _SLOTS

    @contextmanager
    def changing(self, made: str | None) -> Iterator[None]:
        """Inside of this, `made` is changed; None: every key."""
        slots = range(_SLOTS) if made is None else (hash(made) % _SLOTS,)
        with self._lock:
            for slot in slots:
                self._active[slot] += 1
        try:
            yield
        finally:
            with self._lock:
                for slot in slots:
                    self._active[slot] -= 1
                    self._number[slot] += 1

    def number(self, made: str) -> int | None:
        """Return what differs after a change; None during one."""
        slot = hash(made) % _SLOTS
        number = self._number[slot]
        return None if self._active[slot] else number


_all: Final[weakref.WeakSet[Changes]] = weakref.WeakSet()


def _forked() -> None:
    for changes in list(_all):
        changes.reset()  # those who were changing are not in this process


os.register_at_fork(after_in_child=_forked)
