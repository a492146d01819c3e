"""Taking SQLite's write lock from a block that keeps it for too long.

A block of a process that is alone may leave its rows laid out between its
statements, which saves laying them again, and with them SQLite's write lock.
When another process opens the replica meanwhile, the block may be anywhere:
in a slow request, or asleep. So while rows are laid out, a thread looks now
and then, and takes them away. Nothing depends on it but the wait of others.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from s3cache.replica.writer import Writer

#: Seconds between two looks.
INTERVAL = 0.1

#: The thread ends after so many looks at which nothing was laid out.
IDLE_LOOKS = 20


class Watch:
    """Watches one writer; ``is_alone`` tells if no other process waits."""

    def __init__(self, writer: Writer, is_alone: Callable[[], bool]) -> None:
        self._writer = writer
        self._is_alone = is_alone
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = False

    def start(self) -> None:
        """See to it that somebody looks, from now on."""
        if self._thread is not None:
            return
        with self._lock:
            if self._is_wanted():
                self._thread = threading.Thread(
                    target=self._look, name="s3cache-watch", daemon=True
                )
                self._thread.start()

    def _is_wanted(self) -> bool:
        return self._thread is None and not self._closed

    def close(self) -> None:
        """Look no more."""
        self._closed = True

    def _look(self) -> None:
        idle = 0
        while not self._closed:
            time.sleep(INTERVAL)
            if self._writer.owner is not None:
                idle = 0
                if not self._is_alone():
                    self._writer.roll_back_idle()
                continue
            idle += 1
            if idle >= IDLE_LOOKS:
                with self._lock:
                    # A block that starts now finds no thread, and starts one.
                    self._thread = None
                if self._writer.owner is None:
                    return
                self.start()
                return
