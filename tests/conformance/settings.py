"""Settings of the child process: those of Django's tests, with our engine.

Read by Django's ``runtests.py``, which changes some of them itself.
"""

from __future__ import annotations

import importlib
from pathlib import Path

from django.utils.module_loading import import_string

from tests.conformance.engines import Engine
from tests.conformance.job import Job


def _public(module: str) -> dict[str, object]:
    found = vars(importlib.import_module(module))
    return {name: value for name, value in found.items() if name.isupper()}


_job = Job.current()
_engine: Engine = import_string(_job.engine)()

# "test_sqlite" lies beside runtests.py and differs between releases.
globals().update(_public("test_sqlite"))
globals().update(_engine.settings(Path(_job.folder)))

TEST_RUNNER = "tests.conformance.runner.Runner"
