"""Driving a protocol by hand: what it asks for, and what it is told."""

from __future__ import annotations

from typing import Any

from s3cache.log.drive import drive
from s3cache.log.effects import Effect, Steps


def play(steps: Steps[Any], *lines: tuple[Effect, Any]) -> Any:
    """Run ``steps``, which have to ask for exactly these effects.

    Each line is an effect and its result; an exception as a result is raised.
    """
    waiting = list(lines)

    def perform(effect: Effect) -> Any:
        assert waiting, f"nothing more was expected, but: {effect}"
        expected, result = waiting.pop(0)
        assert effect == expected
        if isinstance(result, BaseException):
            raise result
        return result

    try:
        return drive(steps, perform)
    finally:
        assert not waiting, f"never asked for: {waiting}"
