"""Named queries and models are warmed in a thread, when somebody asks."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from django.db import connections

from s3cache.warming.named import warm_names
from s3cache.warming.registry import queries
from s3cache.warming.steps import Report

__all__ = ["Background", "background", "warm_after_changes"]

logger = logging.getLogger("s3cache.warming")

#: Seconds to the end of which changes are waited for that come in a row.
_PAUSE: Final = 0.05


class Background:
    """
    Warms what is asked for, in a thread that lives as long as there is work.

    What is asked for twice before its turn comes is warmed once; what is
    asked for while it is being warmed is warmed again.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._wanted: dict[str, None] = {}
        self._held: dict[str, None] = {}
        self._holders: set[object] = set()
        self._thread: threading.Thread | None = None
        #: Of what was warmed last; for people, and for tests.
        self.last: Report | None = None

    def ask(self, names: Iterable[str]) -> None:
        """Have models (by label) and queries (by name) warmed, soon."""
        with self._lock:
            wanted = self._held if self._holders else self._wanted
            wanted.update(dict.fromkeys(names))
            self._begin()

    def _begin(self) -> None:
        if self._wanted and self._thread is None:
            self._thread = threading.Thread(
                target=self._run, name="s3cache-warming", daemon=True
            )
            self._thread.start()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Begin nothing meanwhile; what is asked for is done afterwards."""
        holder = object()
        with self._lock:
            self._holders.add(holder)
        try:
            yield
        finally:
            with self._lock:
                # The child of a fork within has forgotten it.
                self._holders.discard(holder)
                if not self._holders:
                    self._wanted.update(self._held)
                    self._held = {}
                    self._begin()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until all is warm; False if it is not in so many seconds."""
        thread = self._thread
        if thread is not None:
            thread.join(timeout)
        return self._thread is None

    def _run(self) -> None:
        try:
            while names := self._next():
                self._warm(names)
        finally:
            connections.close_all()

    def _next(self) -> list[str]:
        time.sleep(_PAUSE)
        with self._lock:
            names, self._wanted = list(self._wanted), {}
            if not names:
                self._thread = None
            return names

    def _warm(self, names: list[str]) -> None:
        for name in names:
            self.last = warm_names([name])
            logger.info("%s: %d results warmed", name, self.last.stored)


#: That of this process.
background: Final = Background()

# The thread is not in the child.
os.register_at_fork(after_in_child=background.__init__)  # type: ignore[misc]


def warm_after_changes(sender: Any, **kwargs: Any) -> None:
    """Warm the queries again that a change of ``sender`` concerns.

    A receiver of ``rows_changed``.
    """
    if sender is None:
        return
    label = sender._meta.label_lower
    background.ask(one.name for one in queries() if label in one.after)
