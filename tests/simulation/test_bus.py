"""Whatever a bus between the hosts does, the log decides alone."""

from __future__ import annotations

import pytest

from .scenario import Simulation, of_kind, told

SEEDS = 80
CHUNK = 40


@pytest.mark.parametrize("start", range(0, SEEDS, CHUNK))
def test_no_message_that_is_lost_late_or_wrong_does_any_harm(start):
    given = 0
    for seed in range(start, start + CHUNK):
        run = Simulation(seed, of_kind(told, seed))
        run.play()
        given += run.turns.given
    assert given > 100
