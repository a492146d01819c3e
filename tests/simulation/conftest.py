"""Fixtures of the simulator's tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.uncovered import uncovered


@pytest.fixture(autouse=True)
def _uncovered() -> Iterator[None]:
    """What a thousand days reach says little about what is tested."""
    with uncovered():
        yield
