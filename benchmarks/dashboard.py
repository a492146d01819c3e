"""``python -m benchmarks.dashboard``: what the statistics page costs.

Server time of each page for 200 models, 20 hosts and a month of history, with
the project's middleware, the session and the user, but without reading those
figures, which is timed by itself: processor time, so that it is the same
beside others.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import django

TARGET = 0.050
RUNS = 20
PAGES = [
    "",
    "?period=day",
    "?period=month",
    "models/",
    "models/shop1.thing1/",
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

    from tests.dashboard import sample
    from tests.dashboard.pages import ROOT

    call_command("migrate", verbosity=0, run_syncdb=True)
    client = Client()
    client.force_login(User.objects.create_superuser("root"))
    sample.install(_Setter())
    slowest = 0.0
    for page in PAGES:
        took = []
        for _ in range(RUNS):
            start = time.process_time()
            response = client.get(ROOT + page)
            took.append(time.process_time() - start)
        median = statistics.median(took)
        slowest = max(slowest, median)
        size = len(response.content) / 1024
        sys.stdout.write(
            f"{page or '(overview)':24} {median * 1e3:5.1f} ms {size:5.0f} KB\n"
        )
    if slowest > TARGET:
        raise SystemExit(f"The target is {TARGET * 1e3:.0f} ms.")


class _Setter:
    """As pytest's ``monkeypatch``, and for good."""

    def setattr(self, target: Any, name: str, value: Any) -> None:
        setattr(target, name, value)


if __name__ == "__main__":
    main()
