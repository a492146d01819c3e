"""The test runner of the child process: Django's, which also writes down how
each test ended."""

from __future__ import annotations

import faulthandler
import itertools
import json
import time
import unittest
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO, TypeAlias

from django.db import connections
from django.test.runner import DiscoverRunner
from django.utils.module_loading import import_string

from tests.conformance.job import Job
from tests.conformance.modes import Checker, Mode

ExcInfo: TypeAlias = (
    tuple[type[BaseException], BaseException, TracebackType] | tuple[None, None, None]
)


class Events:
    """A file with one JSON object a line, whole up to the last line even when
    the process is killed."""

    def __init__(self, path: Path) -> None:
        self._file: TextIO = path.open("a")

    def write(self, kind: str, **content: object) -> None:
        self._file.write(json.dumps({"kind": kind, **content}) + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()


class Recorder(unittest.TextTestResult):
    """Notes each outcome as an event under the test's dotted name.

    One test can have several: a failed subtest each, or an error in its
    teardown after a success. Whoever reads the events takes the worst.
    """

    job: Job
    events: Events
    mode: Mode

    def startTest(self, test: unittest.TestCase) -> None:
        super().startTest(test)
        self._began = time.perf_counter()
        self.mode.next_test(test.id())
        self.events.write("started", test=test.id())
        # Ends the process, with the stack of each thread on stderr: nothing
        # else stops a test that waits for a lock in C.
        faulthandler.dump_traceback_later(self.job.test_timeout, exit=True)

    def stopTest(self, test: unittest.TestCase) -> None:
        faulthandler.cancel_dump_traceback_later()
        seconds = time.perf_counter() - self._began
        self.events.write("stopped", test=test.id(), seconds=round(seconds, 4))
        super().stopTest(test)

    def addSuccess(self, test: unittest.TestCase) -> None:
        super().addSuccess(test)
        self.events.write("passed", test=test.id())

    def addFailure(self, test: unittest.TestCase, err: ExcInfo) -> None:
        super().addFailure(test, err)
        self._raised("failed", test, err, self.failures[-1][1])

    def addError(self, test: unittest.TestCase, err: ExcInfo) -> None:
        super().addError(test, err)
        self._raised("error", test, err, self.errors[-1][1])

    def addSubTest(
        self,
        test: unittest.TestCase,
        subtest: unittest.TestCase,
        err: ExcInfo | None,
    ) -> None:
        super().addSubTest(test, subtest, err)
        if err is not None and err[0] is not None:
            failed = issubclass(err[0], test.failureException)
            kind, listed = (
                ("failed", self.failures) if failed else ("error", self.errors)
            )
            self._raised(kind, test, err, listed[-1][1])

    def addSkip(self, test: unittest.TestCase, reason: str) -> None:
        super().addSkip(test, reason)
        # A subtest may skip too.
        whole = getattr(test, "test_case", test)
        self.events.write("skipped", test=whole.id(), reason=reason)

    def addExpectedFailure(self, test: unittest.TestCase, err: ExcInfo) -> None:
        super().addExpectedFailure(test, err)
        self._raised("expected failure", test, err, self.expectedFailures[-1][1])

    def addUnexpectedSuccess(self, test: unittest.TestCase) -> None:
        super().addUnexpectedSuccess(test)
        self.events.write("unexpected success", test=test.id())

    def _raised(
        self, kind: str, test: unittest.TestCase, err: ExcInfo, traceback: str
    ) -> None:
        reason = ""
        if err[0] is not None:
            reason = f"{err[0].__module__}.{err[0].__qualname__}: {err[1]}"
        self.events.write(kind, test=test.id(), reason=reason, traceback=traceback)


class Runner(DiscoverRunner):
    """Runs one job, in its mode; chosen by ``settings.TEST_RUNNER``."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.job = Job.current()
        self.events = Events(self.job.events)
        self.engine = import_string(self.job.engine)()
        self.checker = Checker(self.engine, self.job, self.events.write)
        self.mode = Mode(self.engine, self.job, self.checker)

    def get_resultclass(self) -> type[Recorder]:
        shared = {"job": self.job, "events": self.events, "mode": self.mode}
        return type("JobRecorder", (Recorder,), shared)

    def build_suite(self, *args: Any, **kwargs: Any) -> unittest.TestSuite:
        suite: unittest.TestSuite = super().build_suite(*args, **kwargs)
        parts = in_parts(_cases(suite), self.job.part_size)
        self.events.write("parts", count=len(parts))
        chosen = parts[self.job.part] if parts else []
        return self.test_suite(
            test for test in chosen if test.id() not in self.job.without
        )

    def setup_databases(self, **kwargs: Any) -> Any:
        if self.job.mode > 2:
            for connection in connections.all():
                features = connection.features
                features.django_test_skips |= getattr(
                    features, "test_skips_after_loss", {}
                )
        old_config = super().setup_databases(**kwargs)
        features = connections["default"].features
        self.events.write(
            "features",
            skips={
                reason: sorted(tests)
                for reason, tests in features.django_test_skips.items()
            },
            expected_failures=sorted(features.django_test_expected_failures),
        )
        return old_config

    def run_suite(self, suite: unittest.TestSuite, **kwargs: Any) -> Any:
        with self.mode:
            return super().run_suite(suite, **kwargs)

    def teardown_databases(self, old_config: Any, **kwargs: Any) -> None:
        if self.job.mode > 1:
            self.checker.at_the_end({connection for connection, _, _ in old_config})
        super().teardown_databases(old_config, **kwargs)
        self.events.write("finished", **self.mode.counts())
        self.events.close()


def in_parts(
    tests: Iterable[unittest.TestCase], size: int
) -> list[list[unittest.TestCase]]:
    """Parts of at least ``size`` tests but for the last, classes unbroken."""
    parts: list[list[unittest.TestCase]] = []
    for _, of_class in itertools.groupby(tests, type):
        if not parts or (size and len(parts[-1]) >= size):
            parts.append([])
        parts[-1] += of_class
    return parts


def _cases(suite: Iterable[Any]) -> Iterable[unittest.TestCase]:
    for test in suite:
        if isinstance(test, unittest.TestCase):
            yield test
        else:
            yield from _cases(test)
