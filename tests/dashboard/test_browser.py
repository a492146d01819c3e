"""Runs the tests in ``browser/``, beside which nothing else should run.

Playwright has an event loop of its own in the thread of the tests, in which
Django then refuses to touch a database; and the site has its own settings.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

SITE = Path(__file__).parent / "browser"


@pytest.mark.timeout(600)
def test_in_a_browser(require_program: Callable[[str, str], str]) -> None:
    require_program("chromium", "looks at the statistics page")
    done = subprocess.run(  # noqa: S603  (this Python, with fixed arguments)
        [
            *(sys.executable, "-m", "pytest", "-q", "-c", str(SITE / "pytest.ini")),
            *("-p", "no:xdist", "-p", "no:hypothesispytest", str(SITE)),
        ],
        cwd=SITE.parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        pytest.fail(done.stdout + done.stderr, pytrace=False)
