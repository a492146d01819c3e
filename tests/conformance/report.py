"""The report of a run, for people and for programs."""

from __future__ import annotations

import dataclasses
import json
import textwrap
from collections import Counter
from collections.abc import Iterable
from typing import TextIO

from tests.conformance.execution import Pair
from tests.conformance.job import MODES
from tests.conformance.outcomes import (
    NOT_RUN,
    AppRun,
    Difference,
    Verdict,
    compare,
    tally,
)

HEAD = (
    f"{'app':<28}{'tests':>7}{'passed':>8}{'failed':>8}{'skipped':>9}"
    f"{'differ':>8}{'listed':>8}{'gained':>8}{'SQLite':>10}{'engine':>9}"
)


class Report:
    """Prints a line for each pair as it comes, the differences at the end."""

    def __init__(self, out: TextIO) -> None:
        self.pairs: list[Pair] = []
        self.differences: list[Difference] = []
        self._out = out

    def begin(self, title: str, mode: int) -> None:
        self._line(f"{title}; mode {mode}: {MODES[mode]}")
        self._line()
        self._line(HEAD)

    def add(self, pair: Pair) -> None:
        found = compare(pair.reference, pair.engine)
        self.pairs.append(pair)
        self.differences += found
        self._row(pair.engine.app, [pair], found)

    def end(self) -> None:
        self._row("together", self.pairs, self.differences)
        runs = [pair.engine for pair in self.pairs]
        self._line()
        rebuilds, checks = _sum(runs, "rebuilds"), _sum(runs, "checks")
        if rebuilds or checks:
            self._line(
                f"The replica was lost and rebuilt {rebuilds} times, and compared "
                f"with a second host's {checks} times."
            )
        self._listed()
        self._other_words()
        self._different()

    @property
    def ok(self) -> bool:
        """Whether each difference is a named exception."""
        return not tally(self.differences)[Verdict.DIFFERENT]

    def to_json(self) -> str:
        return json.dumps(
            {
                "apps": [
                    {
                        "app": pair.engine.app,
                        "tests": len(pair.engine.outcomes),
                        "seconds": pair.engine.seconds,
                        "reference_seconds": pair.reference.seconds,
                        "rebuilds": pair.engine.rebuilds,
                        "checks": pair.engine.checks,
                    }
                    for pair in self.pairs
                ],
                "differences": [
                    {**dataclasses.asdict(found), "verdict": found.verdict.value}
                    for found in self.differences
                ],
            },
            indent=1,
        )

    def _of(self, verdict: Verdict) -> list[Difference]:
        return [found for found in self.differences if found.verdict is verdict]

    def _listed(self) -> None:
        causes: dict[str, list[Difference]] = {}
        for found in self._of(Verdict.LISTED):
            causes.setdefault(found.cause, []).append(found)
        for cause, differences in causes.items():
            self._line(f"\nListed in features.py: {cause}")
            for found in differences:
                self._line(f"  {found.test}")

    def _other_words(self) -> None:
        others = self._of(Verdict.OTHER_WORDS)
        if others:
            self._line("\nFail on both, in other words:")
        for found in others:
            self._line(f"  {found.test}")
            self._line(f"    SQLite: {_short(found.reference.reason)}")
            self._line(f"    engine: {_short(found.engine.reason)}")

    def _different(self) -> None:
        different = self._of(Verdict.DIFFERENT)
        shown = self._without_absent(different)
        for number, found in enumerate(shown, 1):
            self._line(f"\n{number}. {found.test}")
            self._line(
                f"   SQLite: {found.reference.state}, engine: {found.engine.state}"
            )
            for outcome in (found.reference, found.engine):
                text = outcome.traceback or outcome.reason
                if text:
                    self._line(textwrap.indent(text.rstrip(), "   | "))
        if different:
            self._line(f"\n{len(different)} differences that are not listed.")
        else:
            self._line("\nNo difference that is not listed.")

    def _without_absent(self, differences: list[Difference]) -> list[Difference]:
        """Those that ran on both; the others are told in a line for each app.

        They have one cause, which is shown as a difference of its own.
        """
        absent = [
            d for d in differences if NOT_RUN in (d.reference.state, d.engine.state)
        ]
        told = [
            d
            for d in absent
            if {"crashed", "hung", "error"} & {d.reference.state, d.engine.state}
        ]
        counts = Counter(
            (d.app, "SQLite" if d.reference.state == NOT_RUN else "the engine")
            for d in absent
            if d not in told
        )
        for (app, where), count in counts.items():
            self._line(f"\n{app}: {count} tests did not run on {where}.")
        return [d for d in differences if d not in absent or d in told]

    def _row(
        self, name: str, pairs: Iterable[Pair], differences: Iterable[Difference]
    ) -> None:
        runs = [pair.engine for pair in pairs]
        references = [pair.reference for pair in pairs]
        verdicts = tally(differences)
        cached = "*" if any(reference.cached for reference in references) else " "
        failed = sum(run.count("failed", "error", "hung", "crashed") for run in runs)
        self._line(
            f"{name:<28}"
            f"{sum(len(run.outcomes) for run in runs):>7}"
            f"{sum(run.count('passed') for run in runs):>8}"
            f"{failed:>8}"
            f"{sum(run.count('skipped') for run in runs):>9}"
            f"{verdicts[Verdict.DIFFERENT]:>8}"
            f"{verdicts[Verdict.LISTED]:>8}"
            f"{verdicts[Verdict.GAINED]:>8}"
            f"{_sum(references, 'seconds'):>8.1f}s{cached}"
            f"{_sum(runs, 'seconds'):>7.1f}s"
        )

    def _line(self, text: str = "") -> None:
        self._out.write(text + "\n")
        self._out.flush()


def _sum(runs: Iterable[AppRun], name: str) -> float:
    total: float = sum(getattr(run, name) for run in runs)
    return total


def _short(reason: str) -> str:
    return textwrap.shorten(reason, 150)
