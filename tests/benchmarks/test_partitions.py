"""What the documentation says of partitions, in short."""

from __future__ import annotations

import subprocess
import sys


def test_partitions_find_five_times_as_many_results_again() -> None:
    """In a process of its own, with settings of its own; the seed is fixed."""
    run = subprocess.run(  # noqa: S603 (our own module)
        [sys.executable, "-m", "benchmarks.partitions"]
        + ["--check", "--operations", "300"],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "by region" in run.stdout
