"""A book of statistics as a large installation has it after a month."""

from __future__ import annotations

import time
from typing import Final

__all__ = ["ACTIONS", "HOSTS", "MODELS", "fill"]

MODELS: Final = 200
HOSTS: Final = 20
PROCESSES: Final = 8
ACTIONS: Final = ("get", "list", "page", "count", "exists")

_OF_REQUESTS: Final = frozenset({"failed", "seconds", "sent", "received"})


def fill(database: str) -> None:
    """Write the book of this host, which has no gap then."""
    import msgspec

    from s3cache.metrics import book as pages
    from s3cache.metrics import fleet, keeping
    from s3cache.metrics.processes import encode
    from s3cache.metrics.series import CACHES
    from s3cache.results.queries import MOST_SLOW, MOST_STATEMENTS, Slow, Statement

    keeping.flush()
    book = keeping.book()
    if book is None:
        raise RuntimeError("there is no book")
    now = time.time()
    names = [f"shop{number % 7}.thing{number}" for number in range(MODELS)]
    numbers = {
        "hit": 900.0,
        "miss": 50.0,
        "bypass": 5.0,
        "wait": 2.0,
        "stale": 1.0,
        "GET": 60.0,
        "PUT": 3.0,
        "LIST": 1.0,
        "DELETE": 1.0,
        "failed": 1.0,
        "seconds": 2.0,
        "sent": 9e4,
        "received": 9e5,
        "commits": 3.0,
        "changed": 4.0,
        "moved": 9.0,
        "retries": 1.0,
        **{f"b{bucket}": 2.0 for bucket in range(60, 90)},
    }
    models = {
        name: {"hit": 7.0, "miss": number % 9, "moved": 1.0, "changed": 1.0}
        for number, name in enumerate(names)
    }
    tally: dict[tuple[str, ...], float] = {
        ("read", database, name, action, "", event): 1000.0 + number
        for number, name in enumerate(names)
        for action in ACTIONS
        for event in ("hit", "miss", "bypass")
    }
    for kind in ("GET", "PUT", "LIST", "DELETE"):
        for name, number in numbers.items():
            if name in _OF_REQUESTS or name[1:].isdigit():
                tally["request", database, kind, name] = number
        tally["request", database, kind, "number"] = 60.0
    for name in names:
        tally["event", database, "changed", name.replace(".", "_")] = 30.0
    with book.writing(now) as writer:
        writer.mark("since", now - pages.MONTH)
        for scope in ("host", "others"):
            writer.add(scope, tally)
            for width, kept in pages.WIDTHS.items():
                for start in _starts(now, width, kept):
                    packed = pages._pack(numbers)
                    writer._write_bucket(scope, width, database, start, packed)
                    packed = pages._pack({"evictions": 5.0})
                    writer._write_bucket(scope, width, CACHES, start, packed)
            for width, kept in pages.MODEL_WIDTHS.items():
                of = f"{database}{pages._MODELS}"
                for start in _starts(now, width, kept):
                    packed = pages._pack(models)
                    writer._write_bucket(scope, width, of, start, packed)
        _, own = keeping.own_process()
        for number in range(PROCESSES - 1):
            writer.write_page("process", f"1-{number}", encode(own))
        writer.add_statements(
            Statement(
                database,
                names[number % MODELS],
                "list",
                f"SELECT {', '.join(names[:20])} FROM t{number} WHERE x = ?",  # noqa: S608
                (f"t{number}",),
                {"hit": number, "miss": 3},
                0.1,
                0.2,
            )
            for number in range(MOST_STATEMENTS)
        )
        writer.add_slow(
            Slow(database, f"SELECT {number}", ("a", "b"), False, 1.5, 9, now)
            for number in range(MOST_SLOW)
        )
    page = fleet._own_page(book)
    with book.writing(now) as writer:
        for number in range(HOSTS - 1):
            name = f"host-{number}"
            its = msgspec.structs.replace(page, host=name)
            writer.write_page("told", name, fleet._encode(its))
            its = msgspec.structs.replace(its, totals=b"")
            writer.write_page("host", name, fleet._encode(its))


def _starts(now: float, width: int, kept: int) -> range:
    newest = int(now // width) * width
    return range(newest - kept + width, newest + 1, width)
