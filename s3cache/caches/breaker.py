"""When to leave a place alone that has failed, and when to try it again."""

from __future__ import annotations

import os
import threading
import time
import weakref
from typing import Final, Literal, TypeAlias

__all__ = ["Breaker", "State"]

State: TypeAlias = Literal["closed", "open", "half-open"]

now = time.monotonic

_all: Final[weakref.WeakSet[Breaker]] = weakref.WeakSet()


class Breaker:
    """
    A circuit breaker (Nygard, "Release It!").

    Closed, it lets everybody through. After `failures` failures in a row it
    opens: nobody gets through for `pause` seconds, so that requests do not
    wait for what does not answer. Then it lets one through, and another each
    `pause` seconds, until one succeeds.
    """

    def __init__(self, failures: int, pause: float) -> None:
        self._most = failures
        self._pause = pause
        self._failed = 0
        self._try_at = 0.0
        self._lock = threading.Lock()
        _all.add(self)

    @property
    def state(self) -> State:
        if self._failed < self._most:
            return "closed"
        return "open" if now() < self._try_at else "half-open"

    def allows(self) -> bool:
        """Whether the caller may try; it then tells how that ended."""
        if self._failed < self._most:
            return True
        moment = now()
        with self._lock:
            if moment < self._try_at:
                return False
            # Whoever comes while the caller tries is sent away; should it
            # never tell, the next one tries after the same pause.
            self._try_at = moment + self._pause
            return True

    def succeeded(self) -> None:
        """Note an answer; returns at once while there is nothing to reset."""
        if self._failed:
            self._failed = 0

    def failed(self) -> bool:
        """Note a failure; return whether it has just opened the breaker."""
        with self._lock:
            self._failed += 1
            self._try_at = now() + self._pause
            return self._failed == self._most


def _forked() -> None:
    for breaker in list(_all):
        # A thread that the child does not have may have held it.
        breaker._lock = threading.Lock()


os.register_at_fork(after_in_child=_forked)
