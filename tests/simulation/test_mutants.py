"""Every rule of the protocol is needed: without it, a pinned seed fails.

When the protocol or a scenario changes, seeds mean other runs. A new one is
found by ``python -m tests.simulation --kind KIND --without RULE``.
"""

from __future__ import annotations

import pytest

from . import test_rare
from .mutants import RULES, mutant
from .scenario import (
    behindhand,
    crashing,
    disastrous,
    dormant,
    dropped,
    lacking,
    of_kind,
    remade,
    rough,
    simulate,
    sleepy,
)
from .world import Violation

#: For each rule the kind of days, and the seed among them, that notices.
PINNED = {
    "ours_by_content": (rough, 1),
    "lost_by_412": (rough, 2),
    "lost_to_own_reader": (crashing, 17),
    "thawed_body": (rough, 1),
    "token_of_the_batch": (rough, 1),
    "failed_by_404": (rough, 45),
    "conflict_is_failure": (rough, 1),
    "error_is_failure": (rough, 15),
    "refused_is_failure": (rough, 52),
    "unknown_is_failure": (rough, 12),
    "failed_by_a_question": (rough, 12),
    "failed_by_apply": (rough, 2),
    "not_run_again": (rough, 1),
    "empty_unproved": (crashing, 3),
    "settled_by_number": (rough, 52),
    "applied_twice": (crashing, 0),
    "always_believed": (dormant, 0),
    "taken_over_blindly": (sleepy, 0),
    "never_compared": (disastrous, 13),
    "compared_newest_only": (disastrous, 13),
    "lost_silently": (disastrous, 1),
    "chain_ignored": (disastrous, 1),
    "packs_of_another_log": (disastrous, 102),
    "trimmed_young": (sleepy, 181),
    "deleted_first": (dormant, 34),
    "packs_of_old_rows": (sleepy, 0),
    "packs_of_several_states": (sleepy, 21),
    "head_replaced_blindly": (dormant, 2),
    "tidied_without_the_lease": (dormant, 113),
    "not_read_back": (disastrous, 0),
    "trimmed_unpacked": (dormant, 1),
    "blobs_by_age": (sleepy, 29),
    "loaded_over": (lacking, 2),
    "untouched": (lacking, 2),
    "altered_in_part": (lacking, 15),
    "lacking_again": (lacking, 2),
    "rest_forgotten": (lacking, 9),
    "packed_in_part": (lacking, 28),
    "repacked_whole": (lacking, 51),
    "lost_to_the_end": (dropped, 43),
    "ended_below_the_trim": (remade, 1144),
    "head_deleted": (remade, 12),
    "made_over_another": (remade, 11),
    "begun_at_0": (remade, 0),
    "mark_ignored": (behindhand, 4),
    "mark_read_before": (behindhand, 54),
    "mark_not_set": (behindhand, 4),
    "parked_unmarked": (behindhand, 4),
    "settled_first": (behindhand, 0),
    "unknown_is_sent": (behindhand, 54),
    "old_copy_believed": (behindhand, 5),
}

#: Rules that other modules of this package test.
ELSEWHERE = {rule for _play, rule in test_rare.CASES} | {"no_turns"}


@pytest.mark.parametrize("rule", PINNED)
def test_the_day_ends_well(rule):
    kind, seed = PINNED[rule]
    simulate(seed, of_kind(kind, seed))


@pytest.mark.parametrize("rule", PINNED)
def test_it_does_not_without_the_rule(rule):
    kind, seed = PINNED[rule]
    with mutant(rule), pytest.raises(Violation):
        simulate(seed, of_kind(kind, seed))


def test_every_rule_has_its_test():
    assert PINNED.keys() | ELSEWHERE == RULES.keys()
