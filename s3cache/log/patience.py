"""Asking again when the store does not answer a question."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from s3cache.log.drive import with_other_steps
from s3cache.log.effects import Effect, Get, GetMany, ListPage, Now, Sleep, Steps
from s3cache.log.proof import is_unclear
from s3cache.stores.base import Answer

T = TypeVar("T")

#: Seconds for which a question that was not answered is asked again, from
#: when it was first asked. A store that is silent for longer is down, and
#: readers have a replica to go on with.
PATIENCE = 1.0

#: Pauses between attempts at the same request, in seconds; the last repeats.
BACKOFF = (0.05, 0.1, 0.2, 0.4, 0.8, 1.0)


def backoff(attempt: int) -> float:
    """Seconds to wait after attempt number ``attempt``, counted from 0."""
    return BACKOFF[min(attempt, len(BACKOFF) - 1)]


def patiently(steps: Steps[T], deadline: float = 0.0) -> Steps[T]:
    """Run ``steps``, and repeat each of their reads that got no answer.

    Until ``deadline``, or for ``PATIENCE`` if that is later. Reads are safe
    to repeat; what writes is left to ``steps`` themselves.
    """

    def ask(effect: Effect) -> Steps[object] | None:
        if isinstance(effect, (Get, GetMany, ListPage)):
            return _ask(effect, deadline)
        return None

    return with_other_steps(steps, ask)


def _ask(effect: Get | GetMany | ListPage, deadline: float) -> Steps[object]:
    asked_at: float = yield Now()
    last = max(deadline, asked_at + PATIENCE)
    result = yield effect
    attempt = 0
    while _lacks_answers(result) and (yield Now()) < last:
        yield Sleep(backoff(attempt))
        attempt += 1
        if isinstance(effect, GetMany):
            result = yield from _complete(effect, result)
        else:
            result = yield effect
    return result


def _lacks_answers(result: Answer | Sequence[Answer]) -> bool:
    if isinstance(result, Answer):
        return is_unclear(result)
    return any(map(is_unclear, result))


def _complete(effect: GetMany, answers: Sequence[Answer]) -> Steps[Sequence[Answer]]:
    """Ask again for what is missing, and not for what is there.

    Of many requests one fails nearly always, if the store fails now and then.
    """
    missing = [at for at, answer in enumerate(answers) if is_unclear(answer)]
    later = yield GetMany([effect.keys[at] for at in missing])
    complete = list(answers)
    for at, answer in zip(missing, later, strict=True):
        complete[at] = answer
    return complete
