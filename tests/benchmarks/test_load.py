"""What the load test compares with is what it says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from benchmarks.load.site import BUCKET, Setup
from benchmarks.s3_server import running

VISITS = 20

#: The site, in a process of its own, with settings of its own. It says how
#: many requests the visits took.
VISIT = f"""
from benchmarks.load.__main__ import fill
from benchmarks.load.site import Setup
from benchmarks.s3_server import Running

setup = Setup.from_environment()
fill(setup)

from django.test import Client

first = Client().get("/").json()
assert (first["count"], len(first["first"])) == (2_000, 10), first
server = Running(setup.store)
before = server.counts()
for _ in range({VISITS}):
    assert Client().get("/").json() == first
print((server.counts() - before).total())
"""


def test_without_caches_each_read_asks_the_store(tmp_path: Path) -> None:
    with running() as server:
        server.create_bucket(BUCKET)
        replica = str(tmp_path / "replica.sqlite3")
        setup = Setup(server.address, "site", replica, caches=False)
        run = subprocess.run(  # noqa: S603 (our own words)
            [sys.executable, "-c", VISIT],
            env=setup.environment(),
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
    assert run.returncode == 0, run.stderr
    assert int(run.stdout) == 2 * VISITS
