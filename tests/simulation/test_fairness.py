"""Hosts that write as fast as they can all get their turns."""

from __future__ import annotations

from collections import Counter

import pytest

from s3cache.log.effects import Create, TakeTurn

from .bus import BusFaults
from .host import Hazards
from .mutants import mutant
from .scenario import Scenario, Simulation
from .workload import Increment


def commits(seed, *latencies, bus=None, without_bus=(), sent=None, seconds=30.0):
    """The commits of each host in half a minute, and all that failed.

    The hosts ``without_bus`` get no turns, and do not know that there are
    any. ``sent`` counts effects by their type.
    """
    run = Simulation(seed, busy(len(latencies), bus, seconds))
    perform = run.perform

    def counted(task, effect):
        if sent is not None:
            sent[type(effect)] += 1
        if isinstance(effect, TakeTurn) and task.host.name in without_bus:
            return None
        return perform(task, effect)

    run.perform = counted  # type: ignore[method-assign]
    for host, latency in zip(run.hosts, latencies, strict=True):
        host.latency = latency
    run.play()
    found = Counter(entry.host for entry in run.oracle.log.entries)
    failed = sum(write.status == "failed" for write in run.oracle.writes)
    return [found[host.name] for host in run.hosts], failed


def busy(hosts, bus=None, seconds=30.0):
    return Scenario(
        bus=bus,
        hosts=hosts,
        processes=1,
        think=0.001,
        writes=1.0,
        phases=((0.0, seconds),),
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


@pytest.mark.parametrize("bus", [None, BusFaults()], ids=["alone", "by turns"])
def test_of_ten_hosts_the_slowest_gets_a_tenth_of_its_share_at_least(bus):
    found, failed = commits(1, *[0.015] * 10, bus=bus, seconds=15.0)
    assert not failed
    assert min(found) > 0.1 * sum(found) / 10


def test_with_turns_there_are_no_races_to_lose():
    sent: Counter[type] = Counter()
    found, _failed = commits(1, *[0.015] * 10, bus=BusFaults(), sent=sent, seconds=9.0)
    assert max(found) - min(found) <= 4
    assert sent[Create] < 1.2 * sum(found)


def test_a_host_without_redis_gets_its_share_among_hosts_that_take_turns():
    found, failed = commits(1, *[0.015] * 4, bus=BusFaults(), without_bus="B")
    assert not failed
    assert found[1] > 0.1 * sum(found) / 4


def test_turns_that_nobody_passes_on_hold_nobody_up_for_long():
    found, failed = commits(1, *[0.015] * 3, bus=BusFaults(lost=1.0))
    assert not failed
    assert min(found) > 5
