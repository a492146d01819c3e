"""``python -m benchmarks``: see ``--help``."""

from __future__ import annotations

import argparse
import gc
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.databases import DATABASES, Sizes, configure, fill

#: What --quick does: nothing that its figures could be quoted for.
QUICK = Sizes(large=10_000, bulk=10_000, delete=500, foreign=50, cold=5_000)
_QUICK_SHARE = 5


def parser() -> argparse.ArgumentParser:
    """The arguments."""
    described = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=(
            "Measure s3cache.db on a directory and on a store with latency, next "
            "to Django on a SQLite file, in one run."
        ),
    )
    add = described.add_argument
    add(
        "--check",
        action="store_true",
        help="end with status 1 if a target is missed",
    )
    add(
        "--quick",
        action="store_true",
        help="fewer rounds and smaller tables: to see that all works",
    )
    add(
        "--case",
        action="append",
        metavar="WORDS",
        help="only cases whose names have these words; may be given again",
    )
    add("--json", type=Path, metavar="FILE", help="the result for programs")
    add(
        "--directory",
        type=Path,
        metavar="DIR",
        help=(
            "where the databases are made, and removed at the end; all on the same "
            "file system, which should be a disk (default: the system's directory "
            "for temporary files)"
        ),
    )
    return described


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmarks; return the exit status."""
    options = parser().parse_args(arguments)
    with tempfile.TemporaryDirectory(
        prefix="s3cache-benchmarks-", dir=options.directory
    ) as directory:
        configure(Path(directory))
        return _run(options)


def _run(options: argparse.Namespace) -> int:
    # Models cannot be imported before Django has settings.
    from django.db import connections

    from benchmarks import report
    from benchmarks.cases import CASES
    from benchmarks.measuring import measure
    from benchmarks.targets import TARGETS

    sizes = QUICK if options.quick else Sizes()
    chosen = [made for case in CASES if _is_wanted(made := case(sizes), options.case)]
    if not chosen:
        print("No case has a name like that.", file=sys.stderr)
        return 2
    for database in DATABASES:
        fill(sizes, database)
    # What is here stays: collecting it between rounds would be for nothing.
    gc.collect()
    gc.freeze()
    environment = report.environment()
    print(report.head(environment), flush=True)
    results = {}
    for case in chosen:
        rounds = max(case.rounds // (_QUICK_SHARE if options.quick else 1), 3)
        results[type(case)] = measure(case, rounds)
        print("\n".join(report.lines_of(case, results[type(case)])), flush=True)
    print()
    print("\n".join(report.target_lines(results)))
    if options.json is not None:
        names = {type(case): case.name for case in chosen}
        found = report.as_json(environment, results, names)
        options.json.write_text(json.dumps(found, indent=2) + "\n")
    connections.close_all()
    judged = [target for target in TARGETS if target.can_be_judged(results)]
    missed = [target for target in judged if not target.is_met(results)]
    return int(bool(missed) and options.check)


def _is_wanted(case: object, words: Sequence[str] | None) -> bool:
    name: str = case.name  # type: ignore[attr-defined]
    return words is None or any(one in name for one in words)


if __name__ == "__main__":
    sys.exit(main())
