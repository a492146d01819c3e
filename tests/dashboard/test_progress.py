"""Long work, on an event loop, too."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from typing import cast

import pytest
from django.test import AsyncRequestFactory, RequestFactory
from django.utils import translation

from s3cache.dashboard import progress
from s3cache.dashboard.progress import Step, Tell


def show(step: Step) -> str:
    return f"<{step.outcome or step.done}>"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "PACE", 0.0)
    monkeypatch.setattr(progress, "SILENCE", 0.01)


def test_steps_come_while_the_work_goes_on() -> None:
    seen = threading.Event()

    def work(tell: Tell) -> str:
        tell(Step(7))
        assert seen.wait(30)
        return str(translation.get_language())

    with translation.override("de"):
        response = progress.respond(RequestFactory().get("/"), work, "(", ")", show)
        pieces = cast("Iterator[bytes]", response.streaming_content)
        assert next(pieces) == b"("
        while next(pieces) != b"<7>":
            pass  # said again, as nothing has happened yet
        seen.set()
        rest = b"".join(pieces)
    assert rest.endswith(b"<de>)")
    assert response["X-Accel-Buffering"] == "no"


def test_on_an_event_loop() -> None:
    async def answer() -> str:
        request = AsyncRequestFactory().get("/")
        response = progress.respond(request, lambda tell: "done", "(", ")", show)
        assert response.is_async
        pieces = cast("AsyncIterator[bytes]", response.streaming_content)
        return b"".join([piece async for piece in pieces]).decode()

    text = asyncio.run(answer())
    assert text.startswith("(")
    assert text.endswith("<done>)")


def test_work_goes_on_when_the_page_is_closed() -> None:
    may_end, has_ended = threading.Event(), threading.Event()

    def work(tell: Tell) -> str:
        may_end.wait(30)
        has_ended.set()
        return ""

    response = progress.respond(RequestFactory().get("/"), work, "(", ")", show)
    pieces = cast("Iterator[bytes]", response.streaming_content)
    next(pieces)
    del pieces, response  # nobody reads on
    may_end.set()
    assert has_ended.wait(30)
