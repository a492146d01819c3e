"""What the clients of a run do: batches of statements, and reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from .database import Draft, Statements

COUNTERS = 3
ACCOUNTS = 5
BALANCE = 10
NAMES = 4


@dataclass(frozen=True, slots=True)
class Increment:
    """``update(value=F("value") + 1)``: two hosts build the same bytes."""

    key: int

    def __call__(self, draft: Draft) -> int:
        row = draft.rows("counter")[self.key]
        draft.put("counter", (row[0], row[1] + 1, *row[2:]))
        return int(row[1]) + 1


@dataclass(frozen=True, slots=True)
class Transfer:
    """Move money between two rows; the sum stays, and none falls below 0."""

    source: int
    target: int
    amount: int

    def __call__(self, draft: Draft) -> bool:
        rows = draft.rows("account")
        source, target = rows[self.source], rows[self.target]
        if source[1] < self.amount:
            return False
        draft.put("account", (source[0], source[1] - self.amount, *source[2:]))
        draft.put("account", (target[0], target[1] + self.amount, *target[2:]))
        return True


@dataclass(frozen=True, slots=True)
class Claim:
    """``get_or_create`` of a unique value, under a new id."""

    value: int

    def __call__(self, draft: Draft) -> tuple[int, bool]:
        for key, row in draft.rows("name").items():
            if row[1] == self.value:
                return key, False
        key = draft.next_id("name")
        draft.put("name", (key, self.value))
        return key, True


@dataclass(frozen=True, slots=True)
class Release:
    """Delete by value; the result is the row count."""

    value: int

    def __call__(self, draft: Draft) -> int:
        keys = [k for k, row in draft.rows("name").items() if row[1] == self.value]
        for key in keys:
            draft.delete("name", key)
        return len(keys)


@dataclass(frozen=True, slots=True)
class AddColumn:
    """A migration that only the first of many hosts really makes."""

    table: str
    column: str

    def __call__(self, draft: Draft) -> bool:
        if self.column in draft.columns(self.table):
            return False
        draft.add_column(self.table, self.column)
        return True


@dataclass(frozen=True, slots=True)
class LookUp:
    """A write that finds nothing to do, and says what it found."""

    key: int

    def __call__(self, draft: Draft) -> Any:
        return draft.rows("counter")[self.key]


@dataclass(eq=False, slots=True)
class Write:
    """One batch: the statements of the callers that commit together.

    ``status`` is what the callers were told: ``acknowledged``, ``failed``,
    ``unknown``, or ``lost`` with their process.
    """

    serial: int
    batch: Sequence[Statements]
    began: int = 0
    """How many entries there were when it was called."""
    status: str = "running"
    results: list[Any] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    """The entries of the true log that came from it."""
    error: Exception | None = None
    resurrected: list[int] = field(default_factory=list)
    """More entries: copies of a request that the network had kept. Their
    places had been taken, and a disaster made them free again."""
    lost_in_disaster: bool = False
    is_stray: bool = False

    def __str__(self) -> str:
        return f"write {self.serial} {list(self.batch)}"


def some_statements(random: Random) -> Statements:
    """What one caller might want."""
    kind = random.random()
    if kind < 0.40:
        return Increment(random.randint(1, COUNTERS))
    if kind < 0.65:
        source, target = random.sample(range(1, ACCOUNTS + 1), 2)
        return Transfer(source, target, random.randint(1, 6))
    if kind < 0.80:
        return Claim(random.randint(1, NAMES))
    if kind < 0.90:
        return Release(random.randint(1, NAMES))
    if kind < 0.97:
        return LookUp(random.randint(1, COUNTERS))
    return AddColumn(
        random.choice(["counter", "account", "name"]), f"c{random.randint(1, 3)}"
    )


def some_batch(random: Random) -> list[Statements]:
    """One to three callers."""
    size = 1 if random.random() < 0.7 else random.randint(2, 3)
    return [some_statements(random) for _ in range(size)]
