"""``python -m benchmarks.load``: many users of one page, which reads twice.

The page is ``count()`` and ``list(10)`` of a table of 2,000 rows in a bucket
that answers after 20 ms. Two servers serve it, each a gunicorn of several
workers: one has s3cache as it comes; the other has no caches, and reads the
rows from objects, one for each. The other also has the page from a replica
alone: no results are kept, and with `max_age` 0 each read asks the store for
what is new before it is answered. wrk is the users. They visit all in turns,
so that what else the machine does is everybody's. A page that reads nothing
shows what no cache can be faster than.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from benchmarks import documents
from benchmarks.load.site import BUCKET, Setup, configure
from benchmarks.missing import IS_MISSING, Missing
from benchmarks.s3_server import Running, running

ROWS = 2_000
LATENCY = 0.020

#: One for each processor: with caches they compute, and do not wait.
WORKERS = os.cpu_count() or 1
USERS = 100
ROUNDS = 5

#: Seconds of a round. Without caches a request takes long: some hundreds are
#: needed for a P95.
WITH, WITHOUT = "with caches", "without caches"
REPLICA = "from a replica alone"
NOTHING = "a page that reads nothing"
SECONDS = {WITH: 5, WITHOUT: 20, REPLICA: 20, NOTHING: 5}

#: What is to be shown: ratios of the averages and of the P95, and the share
#: of requests to the store that is saved, also next to a replica alone.
LEAST_AVERAGE, LEAST_P95, LEAST_SAVED = 105, 150, 0.999


@dataclass
class Measured:
    """What the users of a page met, by round; times in seconds."""

    mean: list[float] = field(default_factory=list)
    median: list[float] = field(default_factory=list)
    p95: list[float] = field(default_factory=list)
    p99: list[float] = field(default_factory=list)
    longest: list[float] = field(default_factory=list)
    per_second: list[float] = field(default_factory=list)
    requests: int = 0
    errors: int = 0
    at_the_store: int = 0

    def add(self, wrk: dict[str, float], at_the_store: int) -> None:
        """Add a round."""
        for name in ("mean", "median", "p95", "p99", "longest"):
            getattr(self, name).append(wrk[name])
        self.per_second.append(wrk["requests"] / wrk["seconds"])
        self.requests += int(wrk["requests"])
        self.errors += int(wrk["errors"])
        self.at_the_store += at_the_store

    @property
    def per_ten_thousand(self) -> float:
        """Requests to the store for 10,000 visits."""
        return 10_000 * self.at_the_store / max(self.requests, 1)


def fill(setup: Setup) -> None:
    """Make the table; in a process of its own."""
    configure(setup)
    from django.db import connection

    from benchmarks.bucket_models import BucketItem
    from benchmarks.databases import create_tables, items

    create_tables("default")
    with connection.schema_editor() as editor:
        editor.create_model(BucketItem)
    BucketItem.objects.bulk_create(items(BucketItem, ROWS))


def fill_objects() -> None:
    """Write the rows as objects, too."""
    from benchmarks.bucket_models import BucketItem
    from benchmarks.load import objects, urls

    objects.write(urls.shown(item) for item in BucketItem.objects.all())


@contextmanager
def gunicorn(setup: Setup, workers: int, threads: int) -> Iterator[str]:
    """Serve the site; its address."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    process = subprocess.Popen(  # noqa: S603 - our own words
        [
            *(sys.executable, "-m", "gunicorn", "--bind", f"127.0.0.1:{port}"),
            *("--workers", str(workers), "--threads", str(threads)),
            *("--log-level", "warning", "benchmarks.load.site:application()"),
        ],
        env=setup.environment(),
    )
    address = f"http://127.0.0.1:{port}/"
    try:
        _wait_for(address, process)
        yield address
    finally:
        process.terminate()
        process.wait()


def _wait_for(address: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            with urllib.request.urlopen(address, timeout=60):  # noqa: S310 - ours
                return
        except urllib.error.URLError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("gunicorn does not serve the site") from None
            time.sleep(0.05)


def visit(address: str, users: int, seconds: float) -> dict[str, float]:
    """Have so many users visit an address again and again."""
    done = subprocess.run(  # noqa: S603 - our own words
        [
            *("wrk", "--threads", "1", "--connections", str(users)),
            *("--duration", f"{seconds:.0f}s", "--timeout", "60s"),
            *("--script", str(Path(__file__).with_name("report.lua")), address),
        ],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def measure(
    rounds: int, users: int, workers: int, threads: int, scale: float
) -> dict[str, Measured]:
    """All figures; rounds take ``scale`` times as long as usual."""
    if shutil.which("wrk") is None:
        raise Missing("wrk: make bench-deps")
    if find_spec("gunicorn") is None:
        raise Missing("gunicorn: pip install gunicorn")
    found = {name: Measured() for name in SECONDS}
    with (
        tempfile.TemporaryDirectory(prefix="s3cache-load-") as folder,
        running() as server,
        ExitStack() as servers,
    ):
        server.create_bucket(BUCKET)
        setups = {
            name: Setup(
                store=server.address,
                location=location,
                replica=str(Path(folder) / f"{name}.sqlite3"),
                caches=name == WITH,
            )
            for location in [secrets.token_hex(4)]
            for name in (WITH, REPLICA)
        }
        subprocess.run(
            [sys.executable, "-m", "benchmarks.load", "--fill"],
            env=setups[WITH].environment(),
            check=True,
        )
        addresses = {
            name: servers.enter_context(gunicorn(setup, workers, threads))
            for name, setup in setups.items()
        }
        addresses[WITHOUT] = f"{addresses[REPLICA]}objects"
        addresses[NOTHING] = f"{addresses[WITH]}nothing"
        server.be_late(LATENCY)
        for address in addresses.values():  # the first visits are the slowest
            visit(address, users, max(2 * scale, 1))
            _wait_for_turn(address)
        for _ in range(rounds):
            for name, address in addresses.items():
                seconds = max(SECONDS[name] * scale, 1)
                _visit(server, address, users, seconds, found[name])
    return found


def _visit(
    server: Running, address: str, users: int, seconds: float, measured: Measured
) -> None:
    before = server.counts()
    figures = visit(address, users, seconds)
    measured.add(figures, (server.counts() - before).total())
    _wait_for_turn(address)


def _wait_for_turn(address: str) -> None:
    """Let gunicorn do what users have left who did not wait for an answer.

    Connections are accepted in the order in which they came, so that this one
    is the last.
    """
    with urllib.request.urlopen(address, timeout=600):  # noqa: S310 - ours
        pass


def ratios(slow: Measured, fast: Measured) -> dict[str, list[float]]:
    """How many times as long a page takes as another, by round."""
    return {
        figure: [
            longer / shorter
            for longer, shorter in zip(
                getattr(slow, figure), getattr(fast, figure), strict=True
            )
        ]
        for figure in ("mean", "p95")
    }


def saved(slow: Measured, fast: Measured) -> float:
    """The share of requests to the store that the second saves, by visit."""
    return 1 - fast.per_ten_thousand / slow.per_ten_thousand


def lines(found: dict[str, Measured]) -> Iterator[str]:
    """The table, as Markdown."""
    middle = statistics.median
    yield (
        "| | average, ms | median | P95 | P99 | longest | visits a second "
        "| requests to the store for 10,000 visits | visits | errors |"
    )
    yield "|---|" + "---|" * 9
    for name, one in found.items():
        times = (one.mean, one.median, one.p95, one.p99, one.longest)
        cells = [
            *(f"{1000 * middle(figures):,.2f}" for figures in times),
            f"{middle(one.per_second):,.0f}",
            f"{one.per_ten_thousand:,.1f}",
            f"{one.requests:,}",
            str(one.errors),
        ]
        yield f"| {name} | {' | '.join(cells)} |"
    for slow, fast in (
        *((WITHOUT, WITH), (REPLICA, WITH)),
        *((WITHOUT, NOTHING), (REPLICA, NOTHING)),
    ):
        both = ratios(found[slow], found[fast])
        yield (
            f"| {slow} / {fast}, median (least, most) of {len(both['mean'])} rounds | "
            f"{_spread(both['mean'])} | | {_spread(both['p95'])} | | | | "
            f"{100 * saved(found[slow], found[fast]):.3f} % fewer | | |"
        )


def _spread(figures: Sequence[float]) -> str:
    middle = statistics.median(figures)
    return f"{middle:,.0f} ({min(figures):,.0f}, {max(figures):,.0f})"


def missed(found: dict[str, Measured]) -> list[str]:
    """What is not as it is to be."""
    both = ratios(found[WITHOUT], found[WITH])
    average, p95 = statistics.median(both["mean"]), statistics.median(both["p95"])
    wrong = []
    if average < LEAST_AVERAGE:
        wrong.append(f"average: {average:.0f} times, not {LEAST_AVERAGE}")
    if p95 < LEAST_P95:
        wrong.append(f"P95: {p95:.0f} times, not {LEAST_P95}")
    for name in (WITHOUT, REPLICA):
        share = saved(found[name], found[WITH])
        if share <= LEAST_SAVED:
            wrong.append(
                f"requests to the store: only {100 * share:.2f} % fewer than {name}"
            )
    wrong += [
        f"{one.errors} errors {name}" for name, one in found.items() if one.errors
    ]
    return wrong


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print; return 1 if ``--check`` finds a target missed."""
    described = argparse.ArgumentParser(
        prog="python -m benchmarks.load",
        description="Measure a site with caches and without, as its users meet it.",
    )
    add = described.add_argument
    add("--users", type=int, default=USERS, help=f"at once; default: {USERS}")
    add("--workers", type=int, default=WORKERS, help=f"default: {WORKERS}")
    add("--threads", type=int, default=1, help="of each worker; default: 1")
    add("--rounds", type=int, default=ROUNDS, help=f"default: {ROUNDS}")
    add("--quick", action="store_true", help="only to see that all works")
    add("--check", action="store_true", help="fail if a target is missed")
    documents.add_outputs(described)
    add("--fill", action="store_true", help=argparse.SUPPRESS)
    options = described.parse_args(arguments)
    if options.fill:
        fill(Setup.from_environment())
        fill_objects()
        return 0
    load = os.getloadavg()[0]
    rounds, scale = (1, 0.1) if options.quick else (options.rounds, 1.0)
    try:
        found = measure(rounds, options.users, options.workers, options.threads, scale)
    except Missing as error:
        print(f"MISSING: {error}")
        return IS_MISSING
    threads = f" of {options.threads} threads" if options.threads > 1 else ""
    about = (
        f"{documents.circumstances(load)}; gunicorn {version('gunicorn')} with "
        f"{options.workers} workers{threads}, {options.users} users at once, "
        f"{rounds} rounds of each.\n"
    )
    table = "\n".join([about, *lines(found)])
    figures = {name: asdict(one) for name, one in found.items()}
    documents.give(options, "load", table, figures)
    wrong = missed(found)
    for one in wrong:
        print(f"missed: {one}")
    return int(options.check and bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
