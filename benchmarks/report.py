"""The results, for people and for programs."""

from __future__ import annotations

import os
import platform
import sqlite3
from collections.abc import Iterator, Mapping
from typing import Any

import django

import s3cache
from benchmarks.databases import DATABASES, LATENCY, SQLITE, Database
from benchmarks.measuring import Case, Measured, Results
from benchmarks.targets import TARGETS, All

_HEAD = (
    f"{'':15}{'median':>10}{'p90':>10}{'ratio':>8}{'cpu':>10}{'ratio':>8}   requests"
)


def environment() -> dict[str, Any]:
    """What the figures depend on, and the machine's load at this moment."""
    return {
        "s3cache": s3cache.__version__,
        "django": django.get_version(),
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "system": platform.platform(),
        "cpus": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
    }


def head(found: Mapping[str, Any]) -> str:
    """The lines above all cases."""
    return (
        f"s3cache {found['s3cache']}, Django {found['django']}, Python "
        f"{found['python']}, SQLite {found['sqlite']}; {found['cpus']} processors, "
        f"load {found['load']:.1f}.\n"
        f"Medians of interleaved rounds, for one operation; ratios to the SQLite "
        f"file.\nThe delayed store takes {LATENCY * 1000:.0f} ms more for each "
        f"request.\n\n{_HEAD}"
    )


def lines_of(case: Case, results: Results) -> Iterator[str]:
    """The lines of one case."""
    rounds = len(next(iter(results.values())).seconds)
    yield f"{case.name}  (n = {rounds}{_times(case.operations)})"
    base = results.get(SQLITE)
    for database in DATABASES:
        if (measured := results.get(database.name)) is not None:
            yield _line(database, measured, base)


def _times(operations: int) -> str:
    return f" x {operations}" if operations > 1 else ""


def _line(database: Database, measured: Measured, base: Measured | None) -> str:
    ratios = ["", ""]
    if base is not None and base is not measured:
        ratios = [
            f"{measured.median / base.median:.2f}",
            f"{measured.median_cpu / base.median_cpu:.2f}",
        ]
    requests = ", ".join(
        f"{number:.3g} {kind}" for kind, number in measured.mean_requests().items()
    )
    return (
        f"  {database.label:13}{_time(measured.median):>10}{_time(measured.p90):>10}"
        f"{ratios[0]:>8}{_time(measured.median_cpu):>10}{ratios[1]:>8}   {requests}"
    ).rstrip()


def _time(seconds: float) -> str:
    if seconds < 0.001:
        return f"{seconds * 1e6:.0f} us"
    if seconds < 0.1:
        return f"{seconds * 1e3:.2f} ms"
    return f"{seconds * 1e3:,.0f} ms"


def target_lines(results: All) -> Iterator[str]:
    """A line for each target that could be judged."""
    for target in TARGETS:
        if target.can_be_judged(results):
            yield (
                f"{'met   ' if target.is_met(results) else 'MISSED'}  {target.words}: "
                f"{target.figure(results):.2f} (at "
                f"{'least' if target.at_least else 'most'} {target.limit:g})"
            )


def as_json(
    found: Mapping[str, Any], results: All, names: Mapping[type[Case], str]
) -> dict[str, Any]:
    """All of it, for programs; times in seconds."""
    return {
        "environment": dict(found),
        "cases": [
            {
                "name": names[case],
                "databases": {
                    name: {
                        "n": len(measured.seconds),
                        "operations": measured.operations,
                        "median": measured.median,
                        "p90": measured.p90,
                        "median_cpu": measured.median_cpu,
                        "requests": measured.mean_requests(),
                        "first_requests": dict(measured.first_requests),
                    }
                    for name, measured in of_case.items()
                },
            }
            for case, of_case in results.items()
        ],
        "targets": [
            {
                "target": target.words,
                "limit": target.limit,
                "at_least": target.at_least,
                "figure": target.figure(results),
                "met": target.is_met(results),
            }
            for target in TARGETS
            if target.can_be_judged(results)
        ],
    }
