"""The protocol keeps its promises, whatever the day is like."""

from __future__ import annotations

import pytest

from .scenario import Simulation, simulate
from .world import Violation

SEEDS = 1200
CHUNK = 50


@pytest.mark.parametrize("start", range(0, SEEDS, CHUNK))
def test_no_seed_violates_an_invariant(start):
    for seed in range(start, start + CHUNK):
        play(seed)


def test_a_seed_always_gives_the_same_run():
    first, second = (Simulation(7, tracing=True) for _ in range(2))
    first.play()
    second.play()
    assert first.world.trace == second.world.trace


def play(seed):
    """Play a seed; where it fails, again for its trace."""
    try:
        simulate(seed)
    except Violation as violation:
        run = Simulation(seed, tracing=True)
        with pytest.raises(Violation):
            run.play()
        tail = "\n".join(run.world.trace[-200:])
        pytest.fail(
            f"{tail}\n\nseed {seed}: {violation}\n"
            f"The whole trace: make simulate SEED={seed}",
            pytrace=False,
        )
