"""What each process of a host says of itself."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import msgspec

from s3cache.caches.machine import Machine
from s3cache.metrics.book import Page
from s3cache.metrics.series import sums_of
from s3cache.metrics.tally import CacheState, Tally, cache_states, grouped

__all__ = ["ProcessPage", "decode", "encode", "gone", "page_of", "read_processes"]

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
