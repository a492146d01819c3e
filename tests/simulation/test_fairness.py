"""Hosts that write as fast as they can all get their turns."""

from __future__ import annotations

from collections import Counter

import pytest

from .host import Hazards
from .mutants import mutant
from .scenario import Scenario, Simulation
from .workload import Increment


def commits(seed, *latencies):
    """The commits of each host in half a minute, and all that failed."""
    run = Simulation(seed, busy(len(latencies)))
    for host, latency in zip(run.hosts, latencies, strict=True):
        host.latency = latency
    run.play()
    found = Counter(entry.host for entry in run.oracle.log.entries)
    failed = sum(write.status == "failed" for write in run.oracle.writes)
    return [found[host.name] for host in run.hosts], failed


def busy(hosts):
    return Scenario(
        hosts=hosts,
        processes=1,
        think=0.001,
        writes=1.0,
        phases=((0.0, 30.0),),
        keepers=False,
        hazards=Hazards(switch=0.02),
        batch=lambda random: [Increment(1)],
    )


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("hosts", [2, 3, 4])
def test_equal_hosts_have_equal_shares(seed, hosts):
    found, failed = commits(seed, *[0.015] * hosts)
    assert not failed
    assert min(found) > 0.4 * sum(found) / hosts


@pytest.mark.parametrize("seed", range(3))
def test_a_host_that_is_farther_away_is_not_starved(seed):
    found, failed = commits(seed, 0.010, 0.020)
    assert not failed
    assert min(found) > 10


def test_a_lone_host_hardly_waits():
    [found], failed = commits(1, 0.015)
    with mutant("no_turns"):
        [without], _failed = commits(1, 0.015)
    assert not failed
    assert found > 0.9 * without


def test_without_turns_one_host_has_it_all():
    with mutant("no_turns"):
        found, failed = commits(1, 0.015, 0.015, 0.015)
    assert failed
    assert max(found) > 0.9 * sum(found)
