"""The soak, for some seconds: ``make soak`` does it for longer."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.faults.soak import NETWORK


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_bad_days() -> None:
    """Everything at once; a failure says the seed, and where the trace is."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults", "--seconds", "4", "--seed", "1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert " write done" in done.stdout


def test_every_fault_of_the_list_is_among_them() -> None:
    """What a network does, in all the ways that an answer can be missed."""
    said = {fault.status for fault in NETWORK}
    assert said >= {200, 403, 409, 429, 500, 502, 503}
    assert {fault.lost for fault in NETWORK} == {"", "before", "midway", "after"}
    assert any(fault.reset for fault in NETWORK)
    assert any(fault.delay for fault in NETWORK)
