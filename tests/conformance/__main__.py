"""``python -m tests.conformance``: see ``--help``."""

from __future__ import annotations

import argparse
import itertools
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

import django

from tests.conformance import catalogue, sdist
from tests.conformance.execution import Options, run
from tests.conformance.job import MODES
from tests.conformance.report import Report


def parser() -> argparse.ArgumentParser:
    described = argparse.ArgumentParser(
        prog="python -m tests.conformance",
        description=(
            "Run Django's own tests on the engine and on plain SQLite, and "
            "report each test that ends differently. The exit status is 1 if "
            "there is a difference that the engine's features.py does not list."
        ),
    )
    add = described.add_argument
    add(
        "--mode",
        type=int,
        choices=sorted(MODES),
        default=1,
        help="; ".join(f"{number}: {words}" for number, words in MODES.items()),
    )
    add(
        "--apps",
        nargs="+",
        metavar="APP",
        help=(
            "test apps, or dotted names of their tests; 'all' for every app "
            "of Django but gis_tests"
        ),
    )
    add(
        "--subset",
        action="store_true",
        help="the apps that run with every change",
    )
    add(
        "--engine",
        default="s3cache.db",
        help=(
            "s3cache.db (the default); hot: each read made until it is hot; or "
            "hot-locmem, hot-files: in other caches than MemoryCache"
        ),
    )
    add("--parallel", type=int, default=2, metavar="N", help="processes; default: 2")
    add("--seed", type=int, default=1, help="of what is lost when; default: 1")
    add("--json", type=Path, metavar="FILE", help="the result for programs")
    add(
        "--test-timeout",
        type=float,
        default=120.0,
        metavar="SECONDS",
        help="after which a test counts as hung; default: 120",
    )
    add(
        "--no-cache",
        action="store_true",
        help="run plain SQLite again, though its outcomes are known",
    )
    return described


def _stop(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def main(arguments: Sequence[str] | None = None) -> int:
    asked = parser().parse_args(arguments)
    # As Control-C does, so that no child is left running.
    signal.signal(signal.SIGTERM, _stop)
    try:
        tests = sdist.tests_folder()
        subset = itertools.chain(*catalogue.SUBSET[asked.mode])
        default = subset if asked.subset else catalogue.APPS
        apps = catalogue.chosen(asked.apps or default, tests)
    except (sdist.Unavailable, ValueError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    options = Options(
        mode=asked.mode,
        engine=asked.engine,
        seed=asked.seed,
        parallel=asked.parallel,
        use_cache=not asked.no_cache,
        test_timeout=asked.test_timeout,
    )
    report = Report(sys.stdout)
    title = f"Tests of Django {django.get_version()} on {asked.engine}"
    report.begin(title, asked.mode)
    for pair in run(apps, options):
        report.add(pair)
    report.end()
    if asked.json:
        asked.json.write_text(report.to_json())
    return 0 if report.ok else 1


if __name__ == "__main__":
    sys.exit(main())
