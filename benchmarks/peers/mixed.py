"""Reads and writes at once, and what went wrong with them."""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from benchmarks.peers.figures import Told
from benchmarks.s3_server import Running

WORKERS = 16
SHARE_OF_WRITES = 0.1

#: Seconds between two reads of the other host.
PAUSE = 0.005

#: What there is of each item, by its key.
Stocks = dict[int, int]

#: What an operation is done in.
Request = Callable[[], AbstractContextManager[object]]


class MixedLoad:
    """Nine reads and a write of ten, by threads, over rows by Zipf's law.

    A read is stale if it says less than the writes that this process was told
    of before it began; an update is lost if it was acknowledged, and the row
    does not have it in the end.
    """

    def __init__(self, objects: Any, request: Request) -> None:
        self._objects = objects
        self._request = request
        with request():
            self.begun: Stocks = dict(objects.order_by("pk").values_list("pk", "stock"))
        self._keys = list(self.begun)
        shares = (1 / n for n in range(1, len(self._keys) + 1))
        self._weights = list(itertools.accumulate(shares))
        self._lock = threading.Lock()
        self._ends_at = 0.0
        self._runs = 0
        self._counts: Counter[str] = Counter()
        #: How many updates of a row were acknowledged, and which ones when.
        self.acknowledged: Counter[int] = Counter()
        self.history: list[tuple[float, int]] = []

    def run(self, seconds: float, server: Running) -> Told:
        """Have all threads at it for so long."""
        self._runs += 1
        ready = threading.Barrier(WORKERS + 1)
        threads = [
            threading.Thread(target=self._work, args=(number, ready))
            for number in range(WORKERS)
        ]
        for thread in threads:
            thread.start()
        counts = self._counts = Counter[str]()
        before = server.counts()
        started = time.perf_counter()
        self._ends_at = started + seconds
        ready.wait()
        for thread in threads:
            thread.join()
        passed = time.perf_counter() - started
        requests = server.counts() - before
        return {"counts": counts, "seconds": passed, "requests": requests}

    def lost(self, ended: Stocks) -> int:
        """How many acknowledged updates are not in ``ended``."""
        return sum(
            max(self.begun[key] + count - ended[key], 0)
            for key, count in self.acknowledged.items()
        )

    def choose(self, rng: random.Random) -> int:
        """The key of a row, by Zipf's law."""
        return rng.choices(self._keys, cum_weights=self._weights)[0]

    def _work(self, number: int, ready: threading.Barrier) -> None:
        from django.db import connections

        rng = random.Random(f"{self._runs} {number}")
        counted: Counter[str] = Counter()
        ready.wait()
        while time.perf_counter() < self._ends_at:
            key = self.choose(rng)
            try:
                if rng.random() < SHARE_OF_WRITES:
                    self._write(key)
                    counted["writes"] += 1
                else:
                    counted["stale"] += self._read(key)
                    counted["reads"] += 1
            except Exception as error:  # whatever a peer raises under load
                counted["errors"] += 1
                counted[f"error: {type(error).__name__}"] += 1
        with self._lock:
            self._counts.update(counted)
        connections.close_all()

    def _write(self, key: int) -> None:
        from django.db.models import F

        with self._request():
            self._objects.filter(pk=key).update(stock=F("stock") + 1)
        with self._lock:
            self.acknowledged[key] += 1
            self.history.append((time.perf_counter(), key))

    def _read(self, key: int) -> bool:
        """Whether it was stale."""
        least = self.begun[key] + self.acknowledged[key]
        with self._request():
            return bool(self._objects.get(pk=key).stock < least)


class OtherHost:
    """One that reads what those of a `MixedLoad` write.

    What they were told of ``max_age`` seconds before a read began, or
    earlier, is to be in it.
    """

    def __init__(self, load: MixedLoad, objects: Any, max_age: float) -> None:
        self._load = load
        self._objects = objects
        self._max_age = max_age
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._work)
        self.reads = 0
        self.stale = 0

    def __enter__(self) -> OtherHost:
        self._objects.count()  # it has all rows before the others begin
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._ended.set()
        self._thread.join()

    def _work(self) -> None:
        from django.db import connections

        rng = random.Random("another host")
        least = Counter(self._load.begun)
        known = 0
        # It shares a processor with those that are measured, as no host would.
        while not self._ended.wait(PAUSE):
            history = self._load.history
            until = time.perf_counter() - self._max_age
            while known < len(history) and history[known][0] <= until:
                least[history[known][1]] += 1
                known += 1
            key = self._load.choose(rng)
            self.stale += self._objects.get(pk=key).stock < least[key]
            self.reads += 1
        connections.close_all()
