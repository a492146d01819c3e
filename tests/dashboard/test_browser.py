"""Runs the tests in ``browser/``, beside which nothing else should run.

Playwright has an event loop of its own in the thread of the tests, in which
Django then refuses to touch a database.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.mark.timeout(600)
def test_in_a_browser(require_program: Callable[[str, str], str]) -> None:
    require_program("chromium", "looks at the statistics page")
    done = subprocess.run(  # noqa: S603  (this Python, with fixed arguments)
        [
            *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"),
            *("-p", "no:xdist", str(HERE / "browser"), "--override-ini"),
            "python_files=check_*.py",
        ],
        cwd=HERE.parent.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        pytest.fail(done.stdout + done.stderr, pytrace=False)
