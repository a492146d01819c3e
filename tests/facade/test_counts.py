"""Hits and misses are exact, over threads and over processes."""

from __future__ import annotations

import io
import json
import threading
import time

from django.core.management import call_command
from django.db import connections

from s3cache.metrics import keeping
from tests.db.hosts import MakeProcess
from tests.engine import MakeHost
from tests.results.seen import directory
from tests.testapp.models import Gear

pytestmark = directory

THREADS = 8


def read_in_threads() -> tuple[int, int, float]:
    """Three hits and a miss of each of eight threads: what `stats()` says."""
    start = threading.Barrier(THREADS)

    def read(number: int) -> None:
        try:
            start.wait(60)
            for _ in range(4):
                Gear.objects.filter(weight=number).count()
        finally:
            connections.close_all()

    threads = [threading.Thread(target=read, args=(one,)) for one in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    while not keeping.flush():  # as each process does every few seconds
        time.sleep(0.01)
    told = Gear.objects.cache.stats()
    return told["hits"], told["misses"], told["hit_rate"]


def test_three_quarters_in_each_process_and_in_all_of_them(
    hosts: MakeHost, processes: MakeProcess
) -> None:
    several = [processes("host") for _ in range(2)]
    for process in several:
        process.start(read_in_threads)
    assert [process.result() for process in several] == [(24, 8, 0.75)] * 2
    # And what yet another process says of them.
    out = io.StringIO()
    with hosts("host"):
        call_command("s3cache_stats", "--json", "--scope", "host", stdout=out)
    told = json.loads(out.getvalue())
    [count] = [one for one in told["reads"] if one["model"] == Gear._meta.label_lower]
    assert (count["action"], count["hit_rate"]) == ("count", 0.75)
    assert (count["reads"]["hit"], count["reads"]["miss"]) == (48, 16)
