"""The marker of the tests that run Django's own."""

from __future__ import annotations

import pytest


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "conformance: runs Django's own tests, some minutes; needs its source "
        "distribution; `pytest -m 'not conformance'` leaves it out",
    )
