"""Django's own tests of a cache backend pass on each of ours."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests import uncovered
from tests.caches.django_suite import BACKENDS
from tests.conformance import sdist


@pytest.fixture(scope="module", autouse=True)
def _source() -> None:
    try:
        sdist.tests_folder()
    except sdist.Unavailable as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"Django's own tests were NOT run on the caches. {error}")


REDIS = sorted(name for name in BACKENDS if "redis" in name)
OTHERS = sorted(BACKENDS.keys() - set(REDIS))


@pytest.mark.slow
@pytest.mark.parametrize("backends", [REDIS, OTHERS], ids=["redis", "others"])
def test_djangos_own_tests_pass(
    backends: list[str], request: pytest.FixtureRequest
) -> None:
    if backends is REDIS:
        request.getfixturevalue("redis_program")
    # At once: most of the time they wait for entries to expire.
    with ThreadPoolExecutor(len(backends)) as pool:
        outcomes = list(pool.map(run, backends))
    assert outcomes == [""] * len(backends), "\n".join(outcomes)


def run(backend: str) -> str:
    """What it said, unless all went well."""
    done = subprocess.run(  # noqa: S603 - our own words
        [sys.executable, "-m", "tests.caches.django_suite", backend],
        env=uncovered.environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    # There are 54 in 5.2, more later; a handful is a mistake.
    ran = re.search(r"^Ran (\d+) tests", done.stderr, re.MULTILINE)
    if done.returncode == 0 and ran and int(ran[1]) > 50:
        return ""
    return f"{backend}:\n{done.stderr}"
