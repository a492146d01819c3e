"""Asking again."""

from __future__ import annotations

import pytest

from s3cache.log.drive import drive
from s3cache.log.effects import Create, Get, GetMany, ListPage, Now, Sleep
from s3cache.log.patience import BACKOFF, PATIENCE, backoff, patiently
from s3cache.stores.base import Answer

from .script import play

GOOD, BAD = Answer(200), Answer(503)


def asking(*effects):
    results = []
    for effect in effects:
        results.append((yield effect))
    return results


def test_a_good_answer_costs_one_request():
    effect = Get("a")
    assert play(patiently(asking(effect)), (Now(), 5.0), (effect, GOOD)) == [GOOD]


@pytest.mark.parametrize("effect", [Get("a"), ListPage("a")])
def test_a_question_is_asked_again(effect):
    told = play(
        patiently(asking(effect)),
        (Now(), 5.0),
        (effect, BAD),
        (Now(), 5.1),
        (Sleep(0.05), None),
        (effect, Answer(0)),
        (Now(), 5.3),
        (Sleep(0.1), None),
        (effect, GOOD),
    )
    assert told == [GOOD]


def test_of_many_only_those_without_an_answer_are_asked_again():
    first, second = Answer(200, b"first"), Answer(200, b"second")
    told = play(
        patiently(asking(GetMany(["a", "b", "c", "d"]))),
        (Now(), 5.0),
        (GetMany(["a", "b", "c", "d"]), [first, BAD, second, Answer(0)]),
        (Now(), 5.0),
        (Sleep(0.05), None),
        (GetMany(["b", "d"]), [BAD, GOOD]),
        (Now(), 5.1),
        (Sleep(0.1), None),
        (GetMany(["b"]), [GOOD]),
    )
    assert told == [[first, GOOD, second, GOOD]]


def test_patience_ends():
    effect = Get("a")
    told = play(
        patiently(asking(effect)),
        (Now(), 5.0),
        (effect, BAD),
        (Now(), 5.0 + PATIENCE),
    )
    assert told == [BAD]


def test_a_deadline_makes_it_longer():
    effect = Get("a")
    told = play(
        patiently(asking(effect), deadline=10.0),
        (Now(), 5.0),
        (effect, BAD),
        (Now(), 9.9),
        (Sleep(0.05), None),
        (effect, BAD),
        (Now(), 10.0),
    )
    assert told == [BAD]


@pytest.mark.parametrize("status", [200, 304, 403, 404, 412])
def test_an_answer_is_an_answer(status):
    told = play(patiently(asking(Get("a"))), (Now(), 5.0), (Get("a"), Answer(status)))
    assert told == [Answer(status)]


def test_what_writes_is_never_repeated():
    effect = Create("a", b"")
    assert play(patiently(asking(effect)), (effect, BAD)) == [BAD]


def test_errors_reach_the_protocol_where_it_asked():
    def steps():
        with pytest.raises(ValueError, match="no clock"):
            yield Now()
        return "went on"

    assert play(patiently(steps()), (Now(), ValueError("no clock"))) == "went on"


def test_what_is_held_is_given_back_when_the_protocol_is_closed():
    given_back = []

    def steps():
        try:
            yield Now()
        finally:
            given_back.append(True)

    running = patiently(steps())
    next(running)
    running.close()
    assert given_back == [True]


def test_an_interrupt_is_raised_inside_the_protocol():
    given_back = []

    def steps():
        try:
            yield Now()
        finally:
            given_back.append(True)

    def interrupt(effect):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        drive(patiently(steps()), interrupt)
    assert given_back == [True]


def test_pauses_grow_up_to_a_second():
    assert [backoff(n) for n in range(8)] == [*BACKOFF, 1.0, 1.0]
