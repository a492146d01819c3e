"""Some of Django's own tests, on the engine and on plain SQLite."""

from __future__ import annotations

import io
import os

import pytest

from tests.conformance import catalogue, sdist
from tests.conformance.execution import Options, run
from tests.conformance.report import Report

pytestmark = [pytest.mark.conformance, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module", autouse=True)
def _source() -> None:
    try:
        sdist.tests_folder()
    except sdist.Unavailable as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"Django's own tests were NOT run on the engine. {error}")


@pytest.mark.parametrize("mode", catalogue.SUBSET)
def test_each_test_ends_as_on_plain_sqlite(mode: int) -> None:
    out = io.StringIO()
    report = Report(out)
    options = Options(mode=mode, engine="s3cache.db", seed=mode, parallel=2)
    for pair in run(catalogue.SUBSET[mode], options):
        report.add(pair)
    report.end()
    assert report.ok, out.getvalue()
