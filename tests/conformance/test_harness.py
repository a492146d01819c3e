"""A harness that overlooks a difference is worse than none."""

from __future__ import annotations

import io
import sqlite3
import unittest
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conformance import catalogue, verify
from tests.conformance.execution import Pair
from tests.conformance.outcomes import AppRun, Outcome, Verdict, compare
from tests.conformance.report import Report
from tests.conformance.runner import in_parts

TEST = "app.tests.Case.test"


def ran(state: str, reason: str = "", **more: Any) -> AppRun:
    return AppRun("app", {TEST: Outcome(state, reason)}, **more)


def verdicts(reference: AppRun, engine: AppRun) -> list[Verdict]:
    return [found.verdict for found in compare(reference, engine)]


@pytest.mark.parametrize("state", ["passed", "skipped", "failed", "error"])
def test_the_same_outcome_is_no_difference(state):
    assert verdicts(ran(state, "E: 1"), ran(state, "E: 1")) == []


@pytest.mark.parametrize(
    "state",
    ["failed", "error", "hung", "crashed", "skipped", "unexpected success"],
)
def test_what_passes_on_sqlite_has_to_pass(state):
    assert verdicts(ran("passed"), ran(state)) == [Verdict.DIFFERENT]


def test_a_test_that_did_not_run_is_a_difference():
    assert verdicts(ran("passed"), AppRun("app")) == [Verdict.DIFFERENT]


def test_a_pass_where_sqlite_fails_is_a_difference():
    assert verdicts(ran("failed"), ran("passed")) == [Verdict.DIFFERENT]


def test_failing_with_another_exception_is_a_difference():
    found = verdicts(ran("error", "A: x"), ran("error", "B: x"))
    assert found == [Verdict.DIFFERENT]


def test_failing_in_other_words_is_told():
    found = verdicts(ran("failed", "A: 1 != 2"), ran("failed", "A: 1 != 3"))
    assert found == [Verdict.OTHER_WORDS]


def test_addresses_and_paths_are_not_words():
    one = ran("failed", "A: <object at 0x7f01> in /dev/shm/one/x")
    other = ran("failed", "A: <object at 0x7f02> in /dev/shm/two/x")
    assert verdicts(one, other) == []


def test_a_skip_that_the_engine_lists_carries_its_cause():
    engine = ran("skipped", "Files only.", skips={"Files only.": [TEST]})
    (found,) = compare(ran("passed"), engine)
    assert (found.verdict, found.cause) == (Verdict.LISTED, "Files only.")


def test_a_skip_for_a_missing_feature_is_not_listed():
    engine = ran("skipped", "no chunked reads", skips={"Files only.": [TEST]})
    assert verdicts(ran("passed"), engine) == [Verdict.DIFFERENT]


def test_an_expected_failure_is_listed():
    found = verdicts(ran("passed"), ran("expected failure", "E: no"))
    assert found == [Verdict.LISTED]


def test_passing_what_sqlite_skips_is_a_gain():
    assert verdicts(ran("skipped"), ran("passed")) == [Verdict.GAINED]


def test_failing_what_sqlite_skips_is_a_difference():
    assert verdicts(ran("skipped"), ran("failed")) == [Verdict.DIFFERENT]


def test_a_class_that_sqlite_skips_as_a_whole():
    skipped = AppRun("app", {"setUpClass (app.tests.Case)": Outcome("skipped")})
    assert verdicts(skipped, ran("passed")) == [Verdict.GAINED]
    assert verdicts(skipped, ran("error")) == [Verdict.DIFFERENT]


def test_a_class_that_does_not_start_on_the_engine():
    broken = AppRun("app", {"setUpClass (app.tests.Case)": Outcome("error")})
    assert verdicts(ran("passed"), broken) == [Verdict.DIFFERENT]


def test_a_replica_that_differs_is_a_difference():
    engine = ran("passed", replica_differs=[(TEST, "rows of t")])
    assert verdicts(ran("passed"), engine) == [Verdict.DIFFERENT]


def test_the_worst_event_of_a_test_is_its_outcome():
    run = AppRun("app")
    died_in = run.add(
        [
            {"kind": "started", "test": TEST},
            {"kind": "error", "test": TEST, "reason": "in a subtest"},
            {"kind": "passed", "test": TEST},
            {"kind": "stopped", "test": TEST},
        ]
    )
    assert run.outcomes[TEST] == Outcome("error", "in a subtest")
    assert died_in == ""


def test_a_test_that_takes_the_process_along_is_known():
    assert AppRun("app").add([{"kind": "started", "test": TEST}]) == TEST


def test_parts_do_not_break_classes():
    class One(unittest.TestCase):
        def test(self):
            pass

    class Other(One):
        pass

    tests = [One("test"), One("test"), One("test"), Other("test"), One("test")]
    assert in_parts(tests, 2) == [tests[:3], tests[3:]]
    assert in_parts(tests, 0) == [tests]
    assert in_parts([], 2) == []


def test_a_run_survives_the_cache():
    run = ran("failed", "why", replica_differs=[(TEST, "rows")], seconds=1.5)
    assert AppRun.from_json(run.to_json()) == run


def test_the_report_shows_the_traceback_of_a_difference():
    out = io.StringIO()
    report = Report(out)
    broken = AppRun("app", {TEST: Outcome("error", "E: x", "File ...\nE: x")})
    report.add(Pair(ran("passed"), broken))
    report.end()
    assert not report.ok
    assert f"1. {TEST}" in out.getvalue()
    assert "   | File ...\n   | E: x" in out.getvalue()


def test_an_unknown_app_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no test app 'basics'"):
        catalogue.chosen(["basics"], tmp_path)


@pytest.fixture
def replicas(tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    paths = tmp_path / "one", tmp_path / "other"
    for path in paths:
        connection = sqlite3.connect(path)
        connection.executescript(
            "CREATE TABLE t (id integer PRIMARY KEY AUTOINCREMENT, v numeric);"
            "CREATE TABLE k (k text PRIMARY KEY);"
            "CREATE TABLE w (k text PRIMARY KEY) WITHOUT ROWID;"
            "INSERT INTO t (v) VALUES (1), (2); INSERT INTO k VALUES ('a'), ('b');"
        )
        connection.close()
    yield paths


def test_equal_replicas(replicas):
    assert verify.differences(*replicas) == []


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ("INSERT INTO w VALUES ('x')", "rows of w: 0 of them, not 1"),
        ("UPDATE k SET rowid = 9 WHERE k = 'a'", "rows of k: "),
        ("UPDATE t SET v = '1.5' WHERE id = 1", "rows of t: "),
        ("DELETE FROM t WHERE id = 2", "rows of t: 2 of them, not 1"),
        ("UPDATE sqlite_sequence SET seq = 7", "sequence of t: 2, not 7"),
        ("CREATE INDEX i ON t (v)", "schema of index i: None, not "),
        ("CREATE TABLE _s3cache_own (n)", ""),
    ],
)
def test_replicas_that_differ(replicas, change, found):
    with sqlite3.connect(replicas[1]) as connection:
        connection.execute(change)
    connection.close()
    told = verify.differences(*replicas)
    assert [line[: len(found)] for line in told] == ([found] if found else [])
