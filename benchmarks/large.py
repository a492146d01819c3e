"""``python -m benchmarks.large``: a table of a million rows.

It is loaded, packed, and begun with on a new host, each in a process of its
own, whose memory is measured; next to it the same rows in a SQLite file. The
store is a directory: what counts are requests, bytes and ratios. But for the
first page of a new host, next to which its packs are only downloaded, over
HTTP: for that all is copied to ``benchmarks.s3_server``.
"""

from __future__ import annotations

import argparse
import itertools
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from benchmarks.databases import (
    DIRECTORY,
    LATENCY,
    SQLITE,
    configure,
    create_tables,
    items,
    rows,
)
from benchmarks.s3_server import running, storage

if TYPE_CHECKING:
    from s3cache.db.base import DatabaseWrapper
    from s3cache.stores.base import Store

ROWS = 1_000_000
FEW = 1_000
BATCH = 10_000
PAGE = 50
READS = 1_000

#: A second host of the same store.
OTHER = f"{DIRECTORY}_other"

#: The copy of the store, in a server; and how many new hosts begin with it.
BUCKET = "large"
NEW_HOSTS = 3

#: Chunks of ids that are reserved by an entry of their own; later ones come
#: with the rows of a batch.
CHUNKS = 2

#: Bytes that a process may come to need.
MEMORY = 300_000_000

Figures = dict[str, Any]


def parser() -> argparse.ArgumentParser:
    """The arguments."""
    described = argparse.ArgumentParser(
        prog="python -m benchmarks.large",
        description="Load, pack and read a table of many rows.",
    )
    add = described.add_argument
    add("--rows", type=int, default=ROWS, metavar="N", help=f"default: {ROWS:,}")
    add(
        "--directory",
        type=Path,
        metavar="DIR",
        help="where the databases are made, and removed at the end",
    )
    add("--check", action="store_true", help="end with status 1 if a target is missed")
    add("--step", choices=sorted(STEPS), help=argparse.SUPPRESS)
    add("--server", help=argparse.SUPPRESS)
    return described


def main(arguments: Sequence[str] | None = None) -> int:
    """Do all steps, or the one that is asked for; return the exit status."""
    options = parser().parse_args(arguments)
    if options.step:
        configure(options.directory)
        _add_server(options.server)
        figures = STEPS[options.step](options.rows)
        print(json.dumps(figures | {"memory": _peak_memory()}))
        return 0
    with (
        tempfile.TemporaryDirectory(
            prefix="s3cache-large-", dir=options.directory
        ) as directory,
        running(LATENCY) as server,
    ):
        server.create_bucket(BUCKET)
        found = {}
        for step in STEPS:
            found[step] = _run(step, options.rows, directory, server.address)
            print(f"{step:12}{_words(found[step])}", flush=True)
    print()
    missed = False
    for words, is_met in targets(found):
        missed |= not is_met
        print(f"{'met   ' if is_met else 'MISSED'}  {words}")
    return int(missed and options.check)


def _run(step: str, count: int, directory: str, server: str) -> Figures:
    done = subprocess.run(  # noqa: S603 - our own words
        [
            *(sys.executable, "-m", "benchmarks.large", "--step", step),
            *("--rows", str(count), "--directory", directory, "--server", server),
        ],
        stdout=subprocess.PIPE,
        check=True,
    )
    return cast("Figures", json.loads(done.stdout))


def _words(figures: Figures) -> str:
    requests = ", ".join(f"{n} {kind}" for kind, n in figures.get("asked", {}).items())
    return (
        f"{figures['seconds']:8.2f} s{figures['memory'] / 1e6:8.0f} MB   {requests}"
    ).rstrip()


def targets(found: dict[str, Figures]) -> Iterator[tuple[str, bool]]:
    """What has to be, in words with figures, and whether it is."""
    ratio = found["load"]["seconds"] / found["sqlite"]["seconds"]
    yield f"bulk_create takes {ratio:.2f} times SQLite's time (at most 4)", ratio <= 4
    puts, batches = found["load"]["asked"]["PUT _log"], found["load"]["batches"]
    yield (
        f"{puts} PUTs of the log for {batches} batches (one each, and {CHUNKS} for "
        f"the first ids)",
        puts <= batches + CHUNKS,
    )
    first = sum(found["first get"]["asked"].values()) - found["first get"]["tail"]
    yield f"a new host's first get(pk): {first} requests (at most 5)", first <= 5
    for order, page in (("key", found["first page"]), ("sku", found["by sku"])):
        ratio, megabytes = page["seconds"] / page["download"], page["bytes"] / 1e6
        yield (
            f"a new host's first page by {order} takes {ratio:.2f} times the download "
            f"of the {megabytes:.1f} MB of packs, {page['download']:.2f} s (at most 1; "
            f"so it is where a line takes {8 * megabytes / page['seconds']:.0f} Mbit a "
            f"second)",
            ratio <= 1,
        )
    packs = found["one row"]["asked"]["PUT _packs"]
    yield f"one changed row: {packs} pack is written (1)", packs == 1
    ratio = found["reads"]["seconds"] / found["reads"]["few"]
    yield f"get(pk) takes {ratio:.2f} times that of {FEW:,} rows (1.2)", ratio <= 1.2
    most = max(figures["memory"] for figures in found.values())
    yield (
        f"a process needs {most / 1e6:.0f} MB (at most {MEMORY / 1e6:.0f})",
        most <= MEMORY,
    )


# The steps


def fill_sqlite(count: int) -> Figures:
    """All rows in a SQLite file."""
    create_tables(SQLITE)
    return _fill(SQLITE, count)


def fill_bucket(count: int) -> Figures:
    """All rows in a store."""
    create_tables(DIRECTORY)
    with _asked() as asked:
        figures = _fill(DIRECTORY, count)
    return figures | {"asked": asked}


def pack(count: int) -> Figures:
    """What ``s3cache_compact`` does."""
    from benchmarks.models import LargeItem

    rows(LargeItem, DIRECTORY).first()
    return _kept()


def first_get(count: int) -> Figures:
    """A new host begins, and gets one row."""
    from benchmarks.models import LargeItem

    with _asked() as asked:
        started = time.perf_counter()
        rows(LargeItem, OTHER).get(pk=count // 2)
        seconds = time.perf_counter() - started
        _wait_for_rest(OTHER)
    return {"seconds": seconds, "asked": asked, "tail": asked.get("GET _log", 0)}


def copy(count: int) -> Figures:
    """All objects are put into the server."""
    source, target = _store(DIRECTORY), _store(BUCKET)
    started, after = time.perf_counter(), ""
    while page := source.list("", start_after=after).keys:
        for one in page:
            target.put(one.key, source.get(one.key).body)
        after = page[-1].key
    return {"seconds": time.perf_counter() - started}


def first_page(count: int, order: str = "pk") -> Figures:
    """A new host shows a page, ordered by the key or an indexed column.

    Before it a client like that of the host downloads the packs, as many at
    once, and does nothing with them. The median of several hosts.
    """
    from benchmarks.models import LargeItem

    downloads, pages, size = [], [], 0
    for number in range(NEW_HOSTS):
        alias = _new_host(f"{order}_{number}")
        started = time.perf_counter()
        size = _download_packs()
        downloads.append(time.perf_counter() - started)
        with _asked() as asked:
            started = time.perf_counter()
            list(rows(LargeItem, alias).order_by(order)[:PAGE])
            pages.append(time.perf_counter() - started)
            _wait_for_rest(alias)
    return {
        "seconds": statistics.median(pages),
        "download": statistics.median(downloads),
        "bytes": size,
        "asked": asked,
    }


def one_row(count: int) -> Figures:
    """A row is changed, and packed."""
    from benchmarks.models import LargeItem

    rows(LargeItem, DIRECTORY).filter(pk=count // 2).update(stock=1)
    return _kept()


def reads(count: int) -> Figures:
    """Rows by their keys, of the large table and of a small one."""
    from benchmarks.models import LargeItem, SmallItem

    rows(SmallItem, DIRECTORY).bulk_create(items(SmallItem, FEW))
    large, few = _median_gets((LargeItem, count), (SmallItem, FEW))
    return {"seconds": large, "few": few}


STEPS: dict[str, Callable[[int], Figures]] = {
    "sqlite": fill_sqlite,
    "load": fill_bucket,
    "pack": pack,
    "first get": first_get,
    "copy": copy,
    "first page": first_page,
    "by sku": partial(first_page, order="sku"),
    "one row": one_row,
    "reads": reads,
}


def _fill(alias: str, count: int) -> Figures:
    """Seconds are those of ``bulk_create``: both make their objects alike."""
    from benchmarks.models import LargeItem

    made, seconds, batches = items(LargeItem, count), 0.0, 0
    while batch := list(itertools.islice(made, BATCH)):
        started = time.perf_counter()
        rows(LargeItem, alias).bulk_create(batch)
        seconds += time.perf_counter() - started
        batches += 1
    return {"seconds": seconds, "batches": batches}


def _add_server(address: str) -> None:
    """Have the copy of the store as a storage."""
    from django.core.files.storage import storages

    backends: dict[str, Any] = storages.backends
    backends[BUCKET] = storage(address, BUCKET, "copy")


def _new_host(name: str) -> str:
    """The alias of a database that reads the copy, with a new replica."""
    from django.db import connections

    alias, like = f"{BUCKET}_{name}", connections.settings[DIRECTORY]
    connections.settings[alias] = {
        **like,
        "NAME": like["NAME"].with_name(f"{alias}.sqlite3"),
        "OPTIONS": {**like["OPTIONS"], "storage": BUCKET},
    }
    return alias


def _wrapper(alias: str) -> DatabaseWrapper:
    from django.db import connections

    return cast("DatabaseWrapper", connections[alias])


def _wait_for_rest(alias: str) -> None:
    """Let a host load what is left of a pack, which costs no request.

    It does while it goes on: here the next thing that is measured begins.
    """
    _wrapper(alias).replica.rest.wait()


def _store(alias: str) -> Store:
    from s3cache.stores import store_for

    return store_for(alias)


def _download_packs() -> int:
    """Read all packs as a host does, and forget them; return their size."""
    from s3cache.log.catalog import open_catalog
    from s3cache.log.cold_start import PACKS_AT_ONCE
    from s3cache.log.head import decode_head
    from s3cache.log.keys import HEAD

    store = _store(BUCKET)
    head = decode_head(store.get(HEAD).body)
    packs = open_catalog(store.get(head.catalog).body, key=head.catalog).packs
    with ThreadPoolExecutor(PACKS_AT_ONCE) as pool:
        return sum(pool.map(lambda pack: len(store.get(pack.key).body), packs))


def _kept() -> Figures:
    from s3cache.keeper.rounds import KeeperOptions
    from s3cache.keeper.run import keep_now

    wrapper = _wrapper(DIRECTORY)
    wrapper.ensure_connection()
    with _asked() as asked:
        started = time.perf_counter()
        keep_now(wrapper.replica, KeeperOptions(pack_after=1))
        seconds = time.perf_counter() - started
    return {"seconds": seconds, "asked": asked}


def _median_gets(*tables: tuple[Any, int]) -> list[float]:
    """Of rows that were read before, in seconds, by table.

    Taken in turn, so that what else the machine does is everybody's.
    """
    gets = [
        [partial(rows(model, DIRECTORY).get, pk=key) for key in _spread(count)]
        for model, count in tables
    ]
    for get in itertools.chain(*gets):
        get()
    found: list[list[float]] = [[] for _ in tables]
    for turn in zip(*gets, strict=False):
        for get, seconds in zip(turn, found, strict=True):
            started = time.perf_counter()
            get()
            seconds.append(time.perf_counter() - started)
    return list(map(statistics.median, found))


def _spread(count: int) -> range:
    """Some keys of so many rows."""
    return range(1, count + 1, max(count // READS, 1))


@contextmanager
def _asked() -> Iterator[Counter[str]]:
    """Count requests by their kind and the folder that they are about."""
    from s3cache.stores.base import Request, observe

    asked: Counter[str] = Counter()

    def tell(request: Request) -> None:
        asked[f"{request.kind} {request.key.split('/')[0]}"] += 1

    with observe(tell):
        yield asked


def _peak_memory() -> int:
    """The most bytes that this process ever had in memory."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024)


if __name__ == "__main__":
    sys.exit(main())
