"""Interleavings that were thought of, and that chance hardly ever plays.

Each of them is played twice: as things are, and with the one rule switched
off that it is about.
"""

from __future__ import annotations

import pytest

from s3cache.keeper import effects as k
from s3cache.log import effects as e
from s3cache.log.keys import HEAD, LOG, entry_key

from .mutants import mutant
from .script import Script
from .store import DAY, Faults
from .world import Violation

MINUTE = 60.0
HOUR = 3600.0


def an_entry_reappears_between_list_and_get():
    """C sleeps before its PUT, and A between its LIST and its GETs.

    Meanwhile the entry that A has listed is trimmed, and C puts another one
    under the same key, which continues the same entry.
    """
    run = Script()
    run.write("B")
    run.wait()
    run.read("C")
    run.wait_a_day()
    run.keep("B")
    start = run.world.now
    run.stop("C", e.Create, start + 1.2 * DAY, key=entry_key(2))
    run.write("C")
    run.wait()
    run.write("B", key=2)
    run.wait()
    run.stop("A", e.GetMany, start + 1.2 * DAY + 10.0, key=LOG)
    run.read("A")
    run.wait(1.1 * DAY)
    run.keep("B")
    run.wait(0.2 * DAY)
    assert run.oracle.zombies == 1
    run.end()


def two_sleepers_meet():
    """A and C sleep before their PUTs of entry 2, until it is trimmed.

    A wakes first and gets a 200. C gets a 412, and reads what A has put.
    """
    run = asleep_over_a_trim("A", "C")
    run.wait(MINUTE)
    assert run.oracle.zombies == 1
    run.end()


def a_commit_of_yesterday():
    """A sleeps over a trim between running its batch and its PUT."""
    run = asleep_over_a_trim("A")
    run.wait(MINUTE)
    assert run.oracle.zombies == 1
    run.end()


def asleep_over_a_trim(*names):
    """Hosts that have run a batch at 1 wake when 2 and 3 are trimmed."""
    run = Script()
    run.write("B")
    run.wait()
    wakes = run.world.now + DAY + 10 * MINUTE
    for name in names:
        run.read(name)
        run.wait()
        run.stop(name, e.Token, wakes)
        run.write(name, key=2)
        wakes += 5.0
    run.wait()
    for _ in range(2):
        run.write("B", key=3)
        run.wait()
    run.wait_a_day()
    run.keep("B")
    run.wait(9 * MINUTE)
    return run


def asleep_between_the_answer_and_the_head():
    """A's PUT counts. Until A looks at ``_head``, it is trimmed again."""
    run = Script()
    run.write("A")
    run.wait(2 * HOUR)
    run.read("B")
    run.wait()
    run.host("A").shared = e.HostState(host="A", checked_at=run.host("A").clock())
    run.stop("A", e.Get, run.world.now + 1.1 * DAY, key=HEAD)
    late = run.write("A")
    run.wait(MINUTE)
    run.write("B", key=2)
    run.wait_a_day()
    run.keep("B")
    run.wait(0.1 * DAY)
    run.end()
    assert late.numbers == [2]
    assert late.status == "unknown"


def the_trim_passes_a_reader_that_is_behind():
    """A is a day behind, and the trim overtakes it between two entries."""
    run = behind()
    run.stop("A", e.Get, run.world.now + 3 * MINUTE, key=entry_key(3))
    run.read("A")
    run.wait(MINUTE)
    run.keep("B")
    run.wait(3 * MINUTE)
    run.end()


def the_trim_passes_before_the_answer():
    """The trim is fine when A begins to ask, and is not when it has asked."""
    run = behind()
    run.stop("A", e.Get, run.world.now + 3 * MINUTE, key=LOG)
    run.read("A")
    run.wait(MINUTE)
    run.keep("B")
    run.wait(3 * MINUTE)
    run.end()


def behind():
    """A is at 1, the log at 4, and all of it is a day old."""
    run = Script()
    run.write("B")
    run.wait()
    run.read("A")
    run.wait()
    for _ in range(3):
        run.write("B")
        run.wait()
    run.wait_a_day()
    host = run.host("A")
    host.shared = e.HostState(host="A", checked_at=host.clock())
    return run


def the_trim_passes_a_new_replica():
    """C has loaded its packs; before it lists the tail, that is trimmed."""
    run = Script()
    run.write("B")
    run.wait_a_day()
    run.keep("B")
    run.write("B")
    run.wait()
    run.write("B")
    run.wait_a_day()
    run.stop("C", e.ListPage, run.world.now + 3 * MINUTE)
    run.read("C")
    run.wait(MINUTE)
    run.keep("B")
    run.wait(3 * MINUTE)
    assert run.host("C").replica.position.number == 3
    run.end()


def a_store_that_tells_no_time():
    """A slept over a trim, and no answer has a Date."""
    run = Script(faults=Faults(no_date=1.0))
    run.write("B")
    run.wait()
    run.read("A")
    run.wait()
    run.write("B")
    run.wait()
    run.network.faults = Faults()
    run.wait_a_day()
    run.keep("B")
    run.network.faults = Faults(no_date=1.0)
    host = run.host("A")
    host.shared = e.HostState(host="A", checked_at=host.clock())
    run.read("A")
    run.wait()
    run.end()


def packs_are_newer_than_who_lacks_them():
    """C lacks packs at 1. When it loads them there are only those of 3."""
    run = Script(on_demand=True, grace=0.0, target=1)
    run.write("B")
    run.wait()
    run.keep("B")
    run.read("C")
    run.wait()
    assert run.host("C").replica.absent
    for _ in range(2):
        run.write("B")
        run.wait()
    run.keep("B")
    run.load("C")
    run.wait()
    replica = run.host("C").replica
    assert not replica.absent
    assert replica.position.number == 3
    run.end()


def a_host_is_behind_when_the_database_is_dropped():
    """A has not heard of 2, and asks for its place afterwards."""
    run = one_behind()
    run.drop("B")
    run.wait()
    told = run.write("A")
    run.wait()
    assert told.status == "failed"
    run.end()


def a_host_is_at_the_end_when_the_database_is_dropped():
    """B has the newest entry, and does not know that there is no more."""
    run = one_behind()
    run.drop("A")
    run.wait()
    told = run.write("B")
    run.wait()
    assert told.status == "failed"
    run.end()


def a_host_sleeps_when_the_database_is_dropped():
    """A has not heard of 2 for hours, and asks while it is being dropped."""
    run = one_behind()
    run.wait(3 * HOUR)
    host = run.host("A")
    host.shared = e.HostState(host="A", checked_at=host.clock())
    run.stop("B", k.Replace, run.world.now + 2 * MINUTE, key=HEAD)
    run.drop("B")
    run.wait(MINUTE)
    told = run.write("A")
    run.wait(2 * MINUTE)
    assert told.status == "failed"
    run.end()


def who_drops_wakes_when_there_is_another():
    """B sleeps before it deletes, until A has dropped, and C made another."""
    run = asleep_while_dropping()
    run.make("C")
    run.wait()
    written = run.write("D")
    run.wait(2 * MINUTE)
    run.end()
    assert written.numbers == [4]


def who_drops_wakes_while_another_is_made():
    """C has created the catalog, and sleeps before it writes ``_head``."""
    run = asleep_while_dropping()
    run.stop("C", k.Replace, run.world.now + 2 * MINUTE, key=HEAD)
    run.make("C")
    run.wait(3 * MINUTE)
    written = run.write("D")
    run.wait()
    run.end()
    assert written.numbers == [4]


def asleep_while_dropping():
    """B and A drop 2 entries; B sleeps for a minute, and A is ready."""
    run = one_behind()
    run.stop("B", k.Replace, run.world.now + MINUTE, key=LOG)
    run.drop("B")
    run.wait()
    run.drop("A")
    run.wait()
    return run


def who_ends_the_log_is_late():
    """B finds 3 taken, and sleeps before it looks again for the last entry.

    Meanwhile A drops the database, and there is another one with entries.
    """
    run = one_behind()
    run.stop("B", e.Create, run.world.now + 5.0, key=entry_key(3))
    run.drop("B")
    run.wait(1.0)
    run.write("D")
    run.wait(1.0)
    run.stop("B", e.ListPage, run.world.now + MINUTE)
    run.wait()
    run.drop("A")
    run.wait()
    run.make("C")
    run.wait()
    written = run.write("C")
    run.wait(2 * MINUTE)
    run.end()
    assert len(written.numbers) == 1


def one_behind():
    """B is at 2, and A at 1."""
    run = Script(disaster="dropped")
    run.write("B")
    run.wait()
    run.read("A")
    run.wait()
    run.write("B", key=2)
    run.wait()
    return run


CASES = [
    (an_entry_reappears_between_list_and_get, "any_object_of_that_name"),
    (two_sleepers_meet, "zombie_believed"),
    (a_commit_of_yesterday, "void_is_won"),
    (asleep_between_the_answer_and_the_head, "void_for_certain"),
    (the_trim_passes_a_reader_that_is_behind, "proved_by_reading"),
    (the_trim_passes_before_the_answer, "head_before_answer"),
    (the_trim_passes_a_new_replica, "tail_believed"),
    (a_store_that_tells_no_time, "dateless_believed"),
    (packs_are_newer_than_who_lacks_them, "repacked_ahead"),
    (a_host_is_behind_when_the_database_is_dropped, "places_freed"),
    (a_host_is_at_the_end_when_the_database_is_dropped, "never_ended"),
    (a_host_sleeps_when_the_database_is_dropped, "head_replaced_last"),
    (who_drops_wakes_when_there_is_another, "dropped_blindly"),
    (who_drops_wakes_while_another_is_made, "catalog_dropped"),
    (who_ends_the_log_is_late, "looked_before_the_list"),
]


@pytest.mark.parametrize(("play", "rule"), CASES)
def test_it_ends_well(play, rule):
    play()


@pytest.mark.parametrize(("play", "rule"), CASES)
def test_it_does_not_without_the_rule(play, rule):
    with mutant(rule), pytest.raises(Violation):
        play()


def test_a_trim_that_reaches_the_position_is_no_reason_to_start_over():
    run = Script()
    run.write("A")
    run.wait_a_day()
    run.keep("A")
    head = run.oracle.head()
    assert head is not None
    assert head.trimmed == run.host("A").replica.position.number == 1
    before = run.host("A").replica
    run.read("A")
    run.wait()
    run.write("A")
    run.wait()
    assert run.host("A").replica is before
    run.end()


def test_who_loads_packs_that_go_begins_again():
    """C has read ``_head``, and its packs are replaced and deleted."""
    run = Script()
    run.write("B")
    run.wait_a_day()
    run.keep("B")
    run.stop("C", e.StartOver, run.world.now + 4 * DAY)
    run.read("C")
    for _ in range(3):
        run.write("B")
        run.wait_a_day()
        run.keep("B")
    assert run.host("C").replica.position.database == ""
    run.wait(DAY)
    assert run.host("C").replica.position.number == run.oracle.newest
    run.end()
