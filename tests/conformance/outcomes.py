"""How tests ended, and where two engines disagree."""

from __future__ import annotations

import dataclasses
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

#: From best to worst; the worst event of a test is its outcome.
ORDER = (
    "passed",
    "skipped",
    "expected failure",
    "unexpected success",
    "failed",
    "error",
    "hung",
    "crashed",
)
NOT_RUN = "not run"

#: The name under which unittest reports what ``setUpClass`` raised.
CLASS_ID = "setUpClass ({})"


@dataclass(frozen=True)
class Outcome:
    """How one test ended on one engine."""

    state: str
    """One of ``ORDER``, or ``NOT_RUN``."""
    reason: str = ""
    """Why it was skipped, or the exception in one line."""
    traceback: str = ""


@dataclass
class AppRun:
    """One app on one engine, as its child process wrote it down."""

    app: str
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    skips: dict[str, list[str]] = field(default_factory=dict)
    """The engine's ``django_test_skips``."""
    replica_differs: list[tuple[str, str]] = field(default_factory=list)
    """(test, what is different) where a second host saw something else."""
    seconds: float = 0.0
    rebuilds: int = 0
    checks: int = 0
    parts: int = 1
    """In how many processes the tests ran."""
    cached: bool = False

    def outcome(self, test: str) -> Outcome:
        """That of the test, else of its class, which may skip as a whole."""
        of_class = CLASS_ID.format(test.rpartition(".")[0])
        outcomes = self.outcomes
        return outcomes.get(test) or outcomes.get(of_class) or Outcome(NOT_RUN)

    def count(self, *states: str) -> int:
        return sum(outcome.state in states for outcome in self.outcomes.values())

    def add(self, events: Iterable[Mapping[str, Any]]) -> str:
        """Take in what a child wrote; return the test that it died in.

        An empty string if it came to its end, or died outside a test.
        """
        running = ""
        for event in events:
            kind, test = event["kind"], event.get("test", "")
            if kind == "started":
                running = test
            elif kind == "stopped":
                running = ""
            elif kind == "features":
                self.skips = event["skips"]
            elif kind == "parts":
                self.parts = event["count"]
            elif kind == "finished":
                self.rebuilds += event["rebuilds"]
                self.checks += event["checks"]
            elif kind == "replica differs":
                self.replica_differs.append((test, event["reason"]))
            else:
                self._worsen(
                    test,
                    Outcome(kind, event.get("reason", ""), event.get("traceback", "")),
                )
        return running

    def _worsen(self, test: str, outcome: Outcome) -> None:
        known = self.outcomes.get(test)
        if known is None or ORDER.index(outcome.state) > ORDER.index(known.state):
            self.outcomes[test] = outcome

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> AppRun:
        content = json.loads(text)
        outcomes = content.pop("outcomes")
        content["replica_differs"] = [tuple(x) for x in content["replica_differs"]]
        run = cls(**content)
        run.outcomes = {test: Outcome(**outcome) for test, outcome in outcomes.items()}
        return run


class Verdict(Enum):
    """What one disagreement means."""

    DIFFERENT = "different"
    """Not allowed."""
    LISTED = "listed"
    """The engine's ``features.py`` names it with its cause."""
    GAINED = "gained"
    """Plain SQLite skips what the engine passes."""
    OTHER_WORDS = "fails otherwise"
    """Both fail, with different messages of the same exception."""


@dataclass(frozen=True)
class Difference:
    """One test on which the engines disagree."""

    app: str
    test: str
    verdict: Verdict
    reference: Outcome
    engine: Outcome
    cause: str = ""
    """For ``LISTED``: the reason that the engine gives."""


def compare(reference: AppRun, engine: AppRun) -> list[Difference]:
    """The disagreements of one app, in the order in which its tests ran."""
    found = []
    names = {**reference.outcomes, **engine.outcomes}
    classes = {CLASS_ID.format(name.rpartition(".")[0]) for name in names}
    for test in names:
        if test in classes:
            continue  # judged with each of its tests, which ran on one engine
        one, other = reference.outcome(test), engine.outcome(test)
        judged = _judge(one, other, engine)
        if judged is not None:
            verdict, cause = judged
            found.append(Difference(engine.app, test, verdict, one, other, cause))
    for test, what in engine.replica_differs:
        differs = Outcome("replica differs", what)
        found.append(
            Difference(engine.app, test, Verdict.DIFFERENT, Outcome("passed"), differs)
        )
    return found


def _judge(one: Outcome, other: Outcome, engine: AppRun) -> tuple[Verdict, str] | None:
    if one.state == other.state:
        if one.state not in {"failed", "error"}:
            return None
        kind, words = _essence(one.reason)
        other_kind, other_words = _essence(other.reason)
        if kind != other_kind:
            return Verdict.DIFFERENT, ""
        return None if words == other_words else (Verdict.OTHER_WORDS, "")
    if other.state == "skipped" and other.reason in engine.skips:
        return Verdict.LISTED, other.reason
    if other.state == "expected failure":
        return Verdict.LISTED, f"expected: {other.reason.splitlines()[0]}"
    if (one.state, other.state) == ("skipped", "passed"):
        return Verdict.GAINED, one.reason
    return Verdict.DIFFERENT, ""


def _essence(reason: str) -> tuple[str, str]:
    """The exception's class; its first line, less what chance decides."""
    kind, _, words = reason.partition(": ")
    words = words.partition("\n")[0]
    words = re.sub(r"0x[0-9a-f]+|/[\w./ -]+|\d+\.\d+", "_", words)
    return kind, words


def tally(differences: Iterable[Difference]) -> Counter[Verdict]:
    return Counter(difference.verdict for difference in differences)
