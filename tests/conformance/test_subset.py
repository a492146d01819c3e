"""Some of Django's own tests, on the engine and on plain SQLite."""

from __future__ import annotations

import io
import os

import pytest

from tests.conformance import catalogue, sdist
from tests.conformance.execution import Options, run
from tests.conformance.report import Report

pytestmark = [pytest.mark.conformance, pytest.mark.timeout(1800)]

CASES = [
    *(
        (mode, " ".join(group), "s3cache.db")
        for mode, groups in catalogue.SUBSET.items()
        for group in groups
    ),
    *((2, " ".join(group), "hot") for group in catalogue.HOT_SUBSET),
]


@pytest.fixture(scope="module", autouse=True)
def _source() -> None:
    try:
        sdist.tests_folder()
    except sdist.Unavailable as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"Django's own tests were NOT run on the engine. {error}")


@pytest.mark.parametrize(
    ("mode", "apps", "engine"),
    CASES,
    ids=[
        f"mode{mode}-{'-'.join(apps.split())}-{engine}" for mode, apps, engine in CASES
    ],
)
def test_each_test_ends_as_on_plain_sqlite(mode: int, apps: str, engine: str) -> None:
    out = io.StringIO()
    report = Report(out)
    # One process each, where pytest itself already runs several.
    parallel = 1 if "PYTEST_XDIST_WORKER" in os.environ else 2
    options = Options(mode=mode, engine=engine, seed=1, parallel=parallel)
    for pair in run([apps], options):
        report.add(pair)
    report.end()
    assert report.ok, out.getvalue()
