"""Running a protocol for real, or within another one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from s3cache.log.effects import Effect, Steps

T = TypeVar("T")


def drive(steps: Steps[T], perform: Callable[[Effect], Any]) -> T:
    """Perform each effect that ``steps`` yields; return its result.

    What ``perform`` raises is raised inside the protocol, at the point that
    asked.
    """
    try:
        effect = next(steps)
        while True:
            try:
                result = perform(effect)
            except BaseException as error:
                effect = steps.throw(error)
            else:
                effect = steps.send(result)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]
    finally:
        steps.close()


def with_other_steps(
    steps: Steps[T], instead: Callable[[Effect], Steps[Any] | None]
) -> Steps[T]:
    """Run ``steps``, and other steps for some of the effects that they yield.

    ``instead`` returns them, or None: the effect is yielded as it is. What
    they return is its result; what they raise is raised where it was asked.
    """
    try:
        effect = next(steps)
        while True:
            try:
                others = instead(effect)
                result = (yield effect) if others is None else (yield from others)
            except Exception as error:
                effect = steps.throw(error)
            else:
                effect = steps.send(result)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]
    finally:
        steps.close()
