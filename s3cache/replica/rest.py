"""The rest of packs of which a few rows were loaded first."""

from __future__ import annotations

import logging
import sqlite3
import threading
from typing import TYPE_CHECKING

from django.db import OperationalError

if TYPE_CHECKING:
    from s3cache.replica.replica import Replica

logger = logging.getLogger("s3cache.replica")


class Rest:
    """Packs that are loaded in part, and the thread that loads what is left.

    Their bodies are kept until then: neither the thread, nor a reader of this
    process that needs more of them before, reads them from the store again.
    What nobody comes to, for the process is killed, the replica lacks as it
    lacks all else, and whoever needs it loads it.
    """

    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        self._lock = threading.Lock()
        self._bodies: dict[str, bytes] = {}
        self._thread: threading.Thread | None = None

    def keep(self, key: str, body: bytes) -> None:
        """Keep the body of a pack, of which rows are still to be loaded."""
        with self._lock:
            self._bodies[key] = body

    def body(self, key: str) -> bytes | None:
        """The body of a pack, if it is kept."""
        return self._bodies.get(key)

    def forget(self, key: str) -> None:
        """Drop the body of a pack that is loaded."""
        with self._lock:
            self._bodies.pop(key, None)

    def load_soon(self) -> None:
        """Have a thread load all that is kept, unless one does.

        Not a daemon: a process that ends loads it first, which takes less
        time than to read it once more.
        """
        with self._lock:
            if not self._bodies or self._thread is not None:
                return
            thread = threading.Thread(target=self._load, name="s3cache-load")
            try:
                thread.start()
            except RuntimeError:  # the interpreter is ending
                self._bodies.clear()
            else:
                self._thread = thread

    def wait(self) -> None:
        """Wait until the thread has ended, if there is one."""
        thread = self._thread
        if thread is not None:
            thread.join()

    def _load(self) -> None:
        while keys := self._next():
            try:
                self._replica.load(keys)
            except (OperationalError, sqlite3.Error) as error:
                logger.info("The rest of %s is loaded later: %s", sorted(keys), error)
            except Exception:
                logger.exception("The rest of %s could not be loaded", sorted(keys))
            finally:
                for key in keys:
                    self.forget(key)

    def _next(self) -> frozenset[str]:
        with self._lock:
            if not self._bodies:
                self._thread = None
            return frozenset(self._bodies)
