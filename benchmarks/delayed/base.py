"""The database wrapper of ``ENGINE = "benchmarks.delayed"``."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from s3cache.db import base
from s3cache.stores import DirectoryStore
from s3cache.stores.base import Answer, Kind, Store


class DelayedStore(DirectoryStore):
    """A directory whose every request takes ``latency`` seconds more."""

    def __init__(self, root: Path, latency: float) -> None:
        super().__init__(root)
        self._latency = latency

    def _timed(
        self, kind: Kind, key: str, send: Callable[[], Answer], *, sent: int = 0
    ) -> Answer:
        # Here, and not in _get() and _put(): a LIST of a directory gets each
        # of its objects.
        def answer_late() -> Answer:
            time.sleep(self._latency)
            return send()

        return super()._timed(kind, key, answer_late, sent=sent)


class DatabaseWrapper(base.DatabaseWrapper):
    """s3cache's, on the directory ``STORE`` with ``LATENCY`` in seconds."""

    def get_connection_params(self) -> dict[str, Any]:
        """Those of s3cache, with the delayed store."""
        settings = self.settings_dict
        store = delayed_store(Path(settings["STORE"]), settings["LATENCY"])
        return {**super().get_connection_params(), "store": store}


@cache
def delayed_store(root: Path, latency: float) -> Store:
    """One store per directory, as there is one per alias otherwise."""
    return DelayedStore(root, latency)
