"""Records are what the rows are, whoever writes them and whatever fails."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from unittest.mock import patch

import pytest

from s3cache.keeper import effects as k
from s3cache.log import effects as e
from s3cache.records import effects as r
from s3cache.records import form, writing

from .host import Hazards, Run
from .records import RecordPerformers
from .scenario import Simulation, calm, of_kind, recording
from .store import Request
from .world import Violation

SEEDS = 100
CHUNK = 25


@pytest.mark.parametrize("start", range(0, SEEDS, CHUNK))
def test_no_seed_violates_an_invariant(start):
    for seed in range(start, start + CHUNK):
        play(seed)


def play(seed):
    """Play a seed; where it fails, again for its trace."""
    plan = of_kind(recording, seed)
    try:
        Simulation(seed, plan).play()
    except Violation as violation:
        run = Simulation(seed, plan, tracing=True)
        with pytest.raises(Violation):
            run.play()
        tail = "\n".join(run.world.trace[-200:])
        pytest.fail(f"{tail}\n\nseed {seed}: {violation}", pytrace=False)


# Each rule as a switch: what would do without it


def older_over_newer():
    """What was written at a later entry is not left alone."""

    def judge_there(this, one, answer):
        there = form.open_record(
            answer.body, key=one.row.key, database=this.here.database
        )
        if there is not None and there.entry > one.entry:
            return writing.request_for(this, one, answer.etag)
        return original(this, one, answer)

    original = writing.judge_there
    return patch.object(writing, "judge_there", judge_there)


def over_what_others_wrote():
    """What somebody else wrote is replaced like any other."""

    def judge_there(this, one, answer):
        return original(this, replace(one, known=answer.etag), answer)

    original = writing.judge_there
    return patch.object(writing, "judge_there", judge_there)


def not_done_again():
    """Who finds that ``_records`` has moved leaves its rows at that."""

    def begin(options, held, recorded, again):
        return (yield from original(options, held, recorded, {}))

    original = writing.begin
    return patch.object(writing, "begin", begin)


def moved_first():
    """``_records`` moves before the records are written."""

    def work(this):
        here = this.here
        tables = sorted({*this.state.tables, *this.due})
        yield from writing.move(
            this, number=here.number, token=here.token, tables=tables
        )
        yield from original(this)

    original = writing.work
    return patch.object(writing, "work", work)


def without_conditions():
    """Records are put and deleted whatever is there."""

    def send_many(self, task, effect):
        requests = []
        for one in effect.requests:
            there = self.run.store.objects.get(one.key)
            if isinstance(one, e.Create) and there is not None:
                one = k.Replace(one.key, one.body, there.etag)
            elif isinstance(one, (k.Replace, r.Remove)) and there is not None:
                one = replace(one, etag=there.etag)
            requests.append(one)
        return original(self, task, r.SendMany(requests))

    original = RecordPerformers._send_many
    return patch.object(RecordPerformers, "_send_many", send_many)


def moved_blindly():
    """``_records`` is replaced, whoever has replaced it since."""

    def replaced(self, task, effect):
        there = self.store.objects.get(effect.key)
        if effect.key == "_records" and there is not None:
            effect = replace(effect, etag=there.etag)
        request = Request("REPLACE", effect.key, effect.body, effect.etag)
        return self._send(task, request)

    return patch.object(Run, "_replace", replaced)


def crowded(seed):
    """Four hosts write records all the time, and are slow."""
    return replace(
        of_kind(calm, seed),
        hosts=4,
        processes=1,
        threads=1,
        think=0.1,
        writes=0.9,
        records=True,
        keep_every=0.05,
        latency=(0.005, 0.3),
        phases=((0.0, 2.0),),
        hazards=Hazards(switch=0.3, pause=0.01, pauses=(0.1, 0.5)),
    )


def test_who_comes_second_does_it_again():
    Simulation(CROWDED, crowded(CROWDED)).play()
    with not_done_again(), pytest.raises(Violation):
        Simulation(CROWDED, crowded(CROWDED)).play()


#: A crowded seed that notices.
CROWDED = 319

#: Seeds that notice.
PINNED: dict[Callable[[], AbstractContextManager[object]], int] = {
    older_over_newer: 1,
    over_what_others_wrote: 4,
    moved_first: 29,
    without_conditions: 4,
    moved_blindly: 8,
}


@pytest.mark.parametrize("mutant", PINNED, ids=lambda one: one.__name__)
def test_it_does_not_without_the_rule(mutant):
    seed = PINNED[mutant]
    play(seed)
    with mutant(), pytest.raises(Violation):
        Simulation(seed, of_kind(recording, seed)).play()
