"""What runs without a note of which lines are executed.

Noting them takes two to three times as long as a simulation or a site itself.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import coverage


def environment() -> dict[str, str]:
    """This process's environment, for others that are not to be measured."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("COVERAGE_")
    }


@contextmanager
def uncovered() -> Iterator[None]:
    """Measure no coverage in this thread meanwhile."""
    measured = coverage.Coverage.current()
    if measured is None:
        yield
        return
    measured.stop()
    try:
        yield
    finally:
        measured.start()
