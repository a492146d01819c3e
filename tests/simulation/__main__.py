"""Play seeds for as long as asked: ``python -m tests.simulation --help``."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from itertools import count, islice

from .scenario import Simulation, simulate
from .world import Violation

CHUNK = 50


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.simulation",
        description="Play the protocol of s3cache.log on bad days.",
    )
    parser.add_argument(
        "--seconds", type=float, default=60.0, help="how long to go on (60)"
    )
    parser.add_argument(
        "--seed", type=int, help="play this one only, and print its trace"
    )
    parser.add_argument(
        "--first", type=int, default=0, help="the first of many seeds (0)"
    )
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count() or 1, help="processes at work"
    )
    asked = parser.parse_args()
    if asked.seed is not None:
        return show(asked.seed)
    return search(asked.first, asked.seconds, asked.jobs)


def show(seed: int) -> int:
    """Play one seed and print what happened."""
    run = Simulation(seed, tracing=True)
    failed = explain(run)
    sys.stdout.write("\n".join(run.world.trace))
    sys.stdout.write(f"\n\n{run.plan}\n\nseed {seed}: {failed or 'all is well'}\n")
    return 1 if failed else 0


def explain(run: Simulation) -> str:
    """What is wrong with a run, or nothing."""
    try:
        run.play()
    except Violation as violation:
        return str(violation)
    return ""


def search(first: int, seconds: float, jobs: int) -> int:
    """Play seed after seed; stop at the first that fails."""
    until = time.monotonic() + seconds
    done: Counter[str] = Counter()
    with ProcessPoolExecutor(jobs) as pool:
        starts = count(first, CHUNK)
        while time.monotonic() < until:
            for failed, counts in pool.map(chunk, islice(starts, 2 * jobs)):
                done += counts
                if failed is not None:
                    sys.stderr.write(f"\nseed {failed} fails; its trace:\n")
                    return show(failed)
            report(done)
    sys.stderr.write("\n")
    return 0


def report(done: Counter[str]) -> None:
    """Say how far it got, on one line."""
    told = ", ".join(f"{number:,} {name}" for name, number in sorted(done.items()))
    sys.stderr.write(f"\r{told}")
    sys.stderr.flush()


def chunk(start: int) -> tuple[int | None, Counter[str]]:
    """Play some seeds; the first that fails, and what was done."""
    done: Counter[str] = Counter()
    for seed in range(start, start + CHUNK):
        try:
            run = simulate(seed)
        except Violation:
            return seed, done
        done["seeds"] += 1
        done["entries"] += run.oracle.newest
        done["reads"] += run.oracle.reads
        done["zombies"] += run.oracle.zombies
        done.update(write.status for write in run.oracle.writes)
    return None, done


if __name__ == "__main__":
    sys.exit(main())
