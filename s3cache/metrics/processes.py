"""What each process of a host says of itself."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import msgspec

from s3cache.caches.machine import Machine
from s3cache.metrics.book import Page
from s3cache.metrics.series import sums_of
from s3cache.metrics.tally import CacheState, Tally, cache_states, grouped

__all__ = [
    "ProcessPage",
    "caches_of",
    "decode",
    "encode",
    "gone",
    "page_of",
    "read_processes",
    "together",
]

#: Seconds after which a process that is gone is not shown any more, and one of
#: which nothing was heard, whose id may mean nothing here.
_GONE_AFTER: Final = 30.0
_UNHEARD_AFTER: Final = 600.0


class ProcessPage(msgspec.Struct, frozen=True):
    """What a process says of itself."""

    pid: int
    command: str
    started: float
    reads: dict[str, int]
    requests: int
    memory: int | None
    caches: list[CacheState]


encode: Final = msgspec.msgpack.Encoder().encode
decode: Final = msgspec.msgpack.Decoder(ProcessPage).decode


def page_of(pid: int, started: float, tally: Tally) -> ProcessPage:
    """What this process has to say."""
    reads, requests = sums_of(grouped(tally))
    return ProcessPage(
        pid=pid,
        command=_command(),
        started=started,
        reads=reads,
        requests=requests,
        memory=Machine().resident(),
        caches=cache_states(),
    )


def read_processes(pages: Iterable[Page], now: float) -> list[tuple[Page, ProcessPage]]:
    """Those that are alive, as far as is known.

    Without those of another release, which say it in another way.
    """
    pages = list(pages)
    ended = set(gone(pages, now))
    found = []
    for one in pages:
        if one.name not in ended:
            with contextlib.suppress(msgspec.MsgspecError):
                found.append((one, decode(one.content)))
    return found


def caches_of(processes: Iterable[tuple[Page, ProcessPage]]) -> list[CacheState]:
    """The caches of some processes of one host."""
    states = [(page.seen, one) for page, its in processes for one in its.caches]
    return together(states, lambda one: one.is_own)


def together(
    states: Iterable[tuple[float, CacheState]], adds_up: Callable[[CacheState], bool]
) -> list[CacheState]:
    """Each cache and tier once, by what was said of it, and when.

    What each has for itself adds up; what they share is there once.
    """
    found: dict[tuple[str, str], list[tuple[float, CacheState]]] = {}
    for told in states:
        found.setdefault((told[1].alias, told[1].tier), []).append(told)
    return [_sum_of(found[key], adds_up) for key in sorted(found)]


def _sum_of(
    told: Sequence[tuple[float, CacheState]], adds_up: Callable[[CacheState], bool]
) -> CacheState:
    _seen, newest = max(told, key=lambda one: one[0])
    each = [one for _, one in told] if adds_up(newest) else [newest]

    def sum_of(numbers: Iterable[int | None]) -> int | None:
        known = [one for one in numbers if one is not None]
        return sum(known) if known else None

    return replace(
        newest,
        counts={},  # which totals are for
        size=sum_of(one.size for one in each),
        max_size=sum_of(one.max_size for one in each),
        memory=sum_of(one.memory for one in each),
        max_memory=sum_of(one.max_memory for one in each),
    )


def gone(pages: Iterable[Page], now: float) -> list[str]:
    """The names of those that have ended, as far as is known."""
    found = []
    for page in pages:
        age = abs(now - page.seen)  # the clock may have been ahead
        pid = int(page.name.partition("-")[0])
        if age > _UNHEARD_AFTER or (age > _GONE_AFTER and not _is_there(pid)):
            found.append(page.name)
    return found


def _is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass  # somebody else's
    return True


def _command() -> str:
    """What runs here, without arguments that may be secrets."""
    if not sys.argv or not sys.argv[0]:
        return "python"
    name = Path(sys.argv[0]).name
    if name in ("manage.py", "django-admin", "__main__.py") and len(sys.argv) > 1:
        return f"{name} {sys.argv[1]}"
    return name
