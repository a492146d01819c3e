"""Play seeds for as long as asked: ``python -m tests.simulation --help``."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import count, islice

from .mutants import RULES, mutant
from .scenario import KINDS, Scenario, Simulation, of_kind, scenario
from .world import Violation

CHUNK = 50
BY_NAME = {kind.__name__: kind for kind in KINDS}


@dataclass(frozen=True)
class Days:
    """Which runs to play: of one kind or of all, with or without a rule."""

    kind: str = ""
    without: str = ""

    def plan(self, seed: int) -> Scenario:
        return of_kind(BY_NAME[self.kind], seed) if self.kind else scenario(seed)

    def rules(self) -> AbstractContextManager[None]:
        return mutant(self.without) if self.without else nullcontext()

    def play(self, seed: int, *, tracing: bool = False) -> tuple[Simulation, str]:
        """The run of a seed, and what is wrong with it, or nothing."""
        run = Simulation(seed, self.plan(seed), tracing=tracing)
        with self.rules():
            try:
                run.play()
            except Violation as violation:
                return run, str(violation)
        return run, ""


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
    parser.add_argument("--kind", choices=BY_NAME, default="", help="days of one kind")
    parser.add_argument(
        "--without", choices=RULES, default="", help="switch one rule off"
    )
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count() or 1, help="processes at work"
    )
    asked = parser.parse_args()
    days = Days(asked.kind, asked.without)
    if asked.seed is not None:
        return show(days, asked.seed)
    return search(days, asked.first, asked.seconds, asked.jobs)


def show(days: Days, seed: int) -> int:
    """Play one seed and print what happened."""
    run, failed = days.play(seed, tracing=True)
    sys.stdout.write("\n".join(run.world.trace))
    sys.stdout.write(f"\n\n{run.plan}\n\nseed {seed}: {failed or 'all is well'}\n")
    return 1 if failed else 0


def search(days: Days, first: int, seconds: float, jobs: int) -> int:
    """Play seed after seed; stop at the first that fails."""
    until = time.monotonic() + seconds
    done: Counter[str] = Counter()
    with ProcessPoolExecutor(jobs) as pool:
        starts = count(first, CHUNK)
        while time.monotonic() < until:
            some = islice(starts, 2 * jobs)
            for failed, counts in pool.map(chunk, ((days, start) for start in some)):
                done += counts
                if failed is not None:
                    sys.stderr.write(f"\nseed {failed} fails; its trace:\n")
                    return show(days, failed)
            report(done)
    sys.stderr.write("\n")
    return 0


def report(done: Counter[str]) -> None:
    """Say how far it got, on one line."""
    told = ", ".join(f"{number:,} {name}" for name, number in sorted(done.items()))
    sys.stderr.write(f"\r{told}")
    sys.stderr.flush()


def chunk(asked: tuple[Days, int]) -> tuple[int | None, Counter[str]]:
    """Play some seeds; the first that fails, and what was done."""
    days, start = asked
    done: Counter[str] = Counter()
    for seed in range(start, start + CHUNK):
        run, failed = days.play(seed)
        if failed:
            return seed, done
        done["seeds"] += 1
        done["entries"] += run.oracle.newest
        done["reads"] += run.oracle.reads
        done["zombies"] += run.oracle.zombies
        done.update(write.status for write in run.oracle.writes)
    return None, done


if __name__ == "__main__":
    sys.exit(main())
