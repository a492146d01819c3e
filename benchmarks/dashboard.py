"""``python -m benchmarks.dashboard``: what the statistics page costs.

Server time of each page for 200 models, 20 hosts and a month of history, all
in the book of a host: with the project's middleware, the session and the user.
Processor time, so that it is the same beside others. No page may ask the
store, which a read would not do either.
"""

from __future__ import annotations

import cProfile
import os
import pstats
import statistics
import sys
import tempfile
import time
from pathlib import Path

import django

from benchmarks.book import fill

TARGET = 0.050
RUNS = 20
PAGES = [
    "",
    "?period=day",
    "?period=month",
    "?period=month&table=1",
    "?scope=host",
    "?scope=process",
    "models/",
    "models/?order=saved&p=9",
    "models/shop1.thing1/",
    "models/shop1.thing1/?period=month",
    "caches/",
    "hosts/",
    "commits/",
    "queries/",
    "keys/",
]


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.environ["S3CACHE_TEST_FOLDER"] = folder
        os.environ["DJANGO_SETTINGS_MODULE"] = "tests.library.settings"
        django.setup()
        measure(Path(folder))


def measure(folder: Path) -> None:
    from django.contrib.auth.models import User
    from django.core.management import call_command
    from django.test import Client

    from s3cache.stores.base import Request, observe
    from tests.dashboard.pages import ROOT

    call_command("migrate", verbosity=0, run_syncdb=True)
    client = Client()
    client.force_login(User.objects.create_superuser("root"))
    fill("default")
    size = (folder / "replica.sqlite3-metrics").stat().st_size
    sys.stdout.write(f"{'the book':36} {size / 1024:8.0f} KB\n")
    only = sys.argv[1:]
    slowest = 0.0
    for page in only or PAGES:
        client.get(ROOT + page)
        asked: list[Request] = []
        took = []
        profile = cProfile.Profile(time.process_time)
        with observe(asked.append):
            for _ in range(RUNS):
                start = time.process_time()
                response = client.get(ROOT + page)
                took.append(time.process_time() - start)
            if only:
                profile.runcall(client.get, ROOT + page)
        # The best quarter: who else computes on this machine slows the rest.
        least = statistics.quantiles(took, n=4)[0]
        slowest = max(slowest, least)
        size = len(response.content) / 1024
        sys.stdout.write(
            f"{page or '(overview)':36} {least * 1e3:5.1f} ms {size:5.0f} KB, "
            f"{len(asked)} requests\n"
        )
        if only:
            pstats.Stats(profile).sort_stats("tottime").print_stats(40)
    if slowest > TARGET:
        raise SystemExit(f"The target is {TARGET * 1e3:.0f} ms.")


if __name__ == "__main__":
    main()
