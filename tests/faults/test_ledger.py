"""What the soak's ledger says of a database."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.faults.ledger import Found, Ledger, Outcome, Write


def violations(
    *writes: tuple[Write, Outcome],
    tokens: tuple[str, ...] = (),
    **numbers: int,
) -> list[str]:
    """Those of a database with these tokens and numbers."""
    ledger = Ledger()
    ledger.numbers = {"n": 10}
    for number, (write, outcome) in enumerate(writes):
        ledger.begin(f"write {number}", replace(write))
        if outcome != "open":
            ledger.end(f"write {number}", outcome)
    return list(ledger.violations(Found(frozenset(tokens), numbers)))


BLOCK = ("a", "b")


@pytest.mark.parametrize(
    ("outcome", "tokens", "number"),
    [
        ("done", BLOCK, 11),
        ("failed", (), 10),
        ("unknown", BLOCK, 11),
        ("unknown", (), 10),
        ("open", BLOCK, 11),
        ("open", (), 10),
    ],
)
def test_what_may_be(outcome: Outcome, tokens: tuple[str, ...], number: int) -> None:
    block = Write(BLOCK, added={"n": 1})
    assert violations((block, outcome), tokens=tokens, n=number) == []


@pytest.mark.parametrize(
    ("outcome", "tokens", "number", "words"),
    [
        ("done", (), 10, "write 0 was acknowledged, and is lost"),
        ("failed", BLOCK, 11, "write 0 was said to have failed, and is there"),
        ("unknown", ("a",), 11, "write 0 is half done: only ['a'] of ('a', 'b')"),
        ("done", BLOCK, 12, "n is 12, and has to be between 11 and 11"),
        ("done", BLOCK, 10, "n is 10, and has to be between 11 and 11"),
        ("done", (*BLOCK, "c"), 11, "nobody wrote 'c', and it is there"),
    ],
)
def test_what_may_not(
    outcome: Outcome, tokens: tuple[str, ...], number: int, words: str
) -> None:
    block = Write(BLOCK, added={"n": 1})
    assert violations((block, outcome), tokens=tokens, n=number) == [words]


def test_one_statement_without_a_token_has_bounds() -> None:
    one = Write(added={"n": 1})
    writes: list[tuple[Write, Outcome]] = [
        (one, "done"),
        (one, "unknown"),
        (one, "failed"),
    ]
    assert violations(*writes, n=11) == violations(*writes, n=12) == []
    said = "n is 13, and has to be between 11 and 12"
    assert violations(*writes, n=13) == [said]


def test_what_was_deleted_was_there() -> None:
    made = Write(("a",), added={"n": 1})
    gone = Write(gone=("a",))
    assert violations((made, "done"), (gone, "done"), n=11) == []
    assert violations((made, "done"), (gone, "open"), n=11) == []
    assert violations((made, "done"), (gone, "failed"), n=10) == [
        "write 0 was acknowledged, and is lost"
    ]
    assert violations((made, "done"), (gone, "done"), tokens=("a",), n=11) == [
        "write 1 was acknowledged, and 'a' is still there"
    ]


@pytest.mark.parametrize(
    ("outcome", "parked", "words"),
    [
        ("done", ["a"], []),
        ("open", ["a"], []),
        ("open", [], []),
        ("failed", [], []),
        ("done", [], ["write was acknowledged, and is not parked"]),
        ("failed", ["a"], ["write wrote 'a', and it is parked"]),
        ("done", ["a", "a"], ["write is parked 2 times"]),
        ("done", ["a", "b"], ["nobody wrote 'b', and it is parked"]),
    ],
)
def test_what_is_parked(outcome: Outcome, parked: list[str], words: list[str]) -> None:
    ledger = Ledger()
    ledger.begin("write", Write(parked="a"))
    ledger.end("write", outcome)
    assert list(ledger.wrongly_parked(parked)) == words
