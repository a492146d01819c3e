"""Runs the tests in ``site/``, which need the example's settings."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests import uncovered

HERE = Path(__file__).parent


@pytest.mark.timeout(600)
def test_the_site() -> None:
    """One process has one settings module, so these have one of their own."""
    done = subprocess.run(  # noqa: S603  (this Python, with fixed arguments)
        [
            *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"),
            *("--ds=tests.example.settings", str(HERE / "site")),
        ],
        cwd=HERE.parent.parent,
        env=uncovered.environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        pytest.fail(done.stdout + done.stderr, pytrace=False)
