"""What a test needs, and the machine has not."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


def missing(what: str) -> NoReturn:
    """Skip the test, loudly: the end of the run says what to do about it.

    With CI=true it fails, for there nothing may be missing.
    """
    text = f"MISSING: {what}"
    if os.environ.get("CI") == "true":
        pytest.fail(text, pytrace=False)
    pytest.skip(text)
