"""Threads, processes and hosts that read and write: nothing is ever stale.

``MIXED_SECONDS=600 python -m pytest tests/results/test_mixed.py -s`` goes on
for ten minutes, and says what happened.
"""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.db.hosts import MakeProcess, Process
from tests.engine import MakeHost
from tests.library.models import Author
from tests.results.mixed import Job, Ledger, play
from tests.results.seen import directory
from tests.testapp.models import Category

SECONDS = float(os.environ.get("MIXED_SECONDS", "3"))

#: The host of each process, which writes the counter of its number.
HOSTS = (0, 0, 1, 1)
MAX_AGE = 0.3

#: Seconds between two looks at what they do.
_ROUND = 15.0

MEMORY: dict[str, Any] = {
    "BACKEND": "s3cache.caches.MemoryCache",
    "OPTIONS": {"MAX_ENTRIES": 2_000},
}


@directory
@pytest.mark.timeout(SECONDS + 300)
def test_no_read_is_older_than_max_age(
    hosts: MakeHost, processes: MakeProcess, tmp_path: Path
) -> None:
    """Half of the processes share a cache in files, across hosts.

    Whoever is killed meanwhile leaves nothing behind that others trip over.
    """
    names = [str(counter) for counter in range(len(HOSTS))]
    with hosts(max_age=MAX_AGE):
        for name in names:
            Author.objects.create(name=name, born=0)
        keys = tuple(str(Category.objects.create(name="0").pk) for _ in names)
    shared: dict[str, Any] = {
        "BACKEND": "django.core.cache.backends.filebased.FileBasedCache",
        "LOCATION": str(tmp_path / "shared"),
        "OPTIONS": {"MAX_ENTRIES": 500},
    }
    ledger = tmp_path / "ledger"
    Ledger(ledger, len(HOSTS)).close()

    def job(counter: int) -> Job:
        cache = MEMORY if counter % 2 else shared
        return Job(ledger, HOSTS, counter, MAX_AGE, seed, cache, keys)

    def start(counter: int) -> Process:
        return processes(f"host-{HOSTS[counter]}", max_age=MAX_AGE)

    seed = random.randrange(1_000_000)
    running = [start(counter) for counter in range(len(HOSTS))]
    total: Counter[str] = Counter()
    end = time.monotonic() + SECONDS
    while (left := end - time.monotonic()) > 0:
        for counter, process in enumerate(running):
            process.start(play, job(counter), min(left, _ROUND))
        if left > _ROUND / 2:
            time.sleep(random.uniform(1, _ROUND / 2))
            victim = random.randrange(len(HOSTS))
            running[victim].kill()
            running[victim] = start(victim)
            running[victim].start(play, job(victim), 1)
            total["killed"] += 1
        for process in running:
            total.update(process.result())
    print(f"seed {seed}: {dict(total)}")  # noqa: T201
    assert total["read"] > 0
    assert total["written"] > 0
    assert total["hit"] > 0
