"""Interleavings that were thought of, and that chance hardly ever plays."""

from __future__ import annotations

import pytest

from s3cache.log import effects as e
from s3cache.log.keys import entry_key

from .mutants import mutant
from .script import Script
from .store import DAY
from .world import Violation


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
    run.stop("A", e.GetMany, start + 1.2 * DAY + 10.0)
    run.read("A")
    run.wait(1.1 * DAY)
    run.keep("B")
    run.wait(0.2 * DAY)
    assert run.oracle.zombies == 1
    run.end()


def test_an_entry_reappears_between_list_and_get():
    an_entry_reappears_between_list_and_get()
    with mutant("any_object_of_that_name"), pytest.raises(Violation, match="not count"):
        an_entry_reappears_between_list_and_get()
