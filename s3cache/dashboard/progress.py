"""
How far long work has come, told in the response to the request that began it.

Nothing is kept for later requests: those might reach another process, or
another host. So there is neither a queue nor a table of jobs, and a page that
is sent piece by piece shows its progress without a script, too. Whoever closes
it does not end the work.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Final

from django.core.handlers.asgi import ASGIRequest
from django.db import connections
from django.http import HttpRequest, StreamingHttpResponse
from django.utils import translation

__all__ = ["Step", "Tell", "Work", "respond"]

logger = logging.getLogger("s3cache.dashboard")

#: Seconds between two pieces of the page, at least.
PACE: Final = 0.2

#: Seconds after which what has been said last is said again, or proxies give
#: the connection up.
SILENCE: Final = 10.0


@dataclass(frozen=True, slots=True)
class Step:
    """
    How far the work is; ``whole`` is None if nobody knows of how much.

    The last one has an ``outcome`` for people, ``has_failed`` or not.
    """

    done: int = 0
    whole: int | None = None
    text: str = ""
    outcome: str = ""
    has_failed: bool = False


Tell = Callable[[Step], object]
Work = Callable[[Tell], str]
"""Does it, tells how far it is, and returns what came of it."""


class _Working:
    """Work in a thread of its own, and its newest step."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._steps: queue.SimpleQueue[Step] = queue.SimpleQueue()
        self._language = translation.get_language()
        self._last = Step()
        # What is done is safe to interrupt at any moment: it does not keep a
        # process from ending.
        threading.Thread(target=self._run, name="s3cache-work", daemon=True).start()

    def _run(self) -> None:
        try:
            with translation.override(self._language):
                outcome = self._work(self._steps.put)
            self._steps.put(Step(outcome=outcome or "-"))
        except Exception as error:
            logger.exception("What the statistics page was asked to do failed.")
            said = f"{type(error).__name__}: {error}"
            self._steps.put(Step(outcome=said, has_failed=True))
        finally:
            connections.close_all()

    def next(self) -> Step:
        """Wait for the next step; return the newest one that there is."""
        until = time.monotonic() + PACE
        try:
            self._last = self._steps.get(timeout=SILENCE)
            while not self._last.outcome:
                left = until - time.monotonic()
                self._last = self._steps.get(timeout=max(left, 0.001))
        except queue.Empty:
            pass
        return self._last


def respond(
    request: HttpRequest,
    work: Work,
    before: str,
    after: str,
    show: Callable[[Step], str],
) -> StreamingHttpResponse:
    """
    Begin the work, and answer with its steps between `before` and `after`.

    `show` makes HTML of a step.
    """
    working = _Working(work)

    def pieces() -> Iterator[str]:
        yield before
        while not (step := working.next()).outcome:
            yield show(step)
        yield show(step)
        yield after

    async def pieces_on_the_loop() -> AsyncIterator[str]:
        yield before
        while not (step := await asyncio.to_thread(working.next)).outcome:
            yield show(step)
        yield show(step)
        yield after

    response = StreamingHttpResponse(
        pieces_on_the_loop() if isinstance(request, ASGIRequest) else pieces()
    )
    response.headers["X-Accel-Buffering"] = "no"
    return response
