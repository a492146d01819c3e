"""What the soak's processes said that they did, and what has to be there.

Every write carries a token, which is a row of its own in the same commit. So
the database itself says which writes happened; what each of them changed else
has to be there exactly once, and whether it happened has to be what its
caller was told.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

#: "open": nobody has said; its process was killed, perhaps.
Outcome = Literal["open", "done", "failed", "unknown"]

#: What there is of each book in the beginning.
STOCK = 1000


@dataclass(slots=True)
class Write:
    """A write: what it does if it happens.

    ``tokens`` are the rows that it makes, ``gone`` those that it deletes,
    ``added`` what it adds to the numbers of rows, by their names. ``parked``
    is a row that it may not make: it is written behind, and ends there.
    """

    tokens: tuple[str, ...] = ()
    gone: tuple[str, ...] = ()
    added: Mapping[str, int] = field(default_factory=dict)
    parked: str = ""
    outcome: Outcome = "open"


@dataclass(frozen=True, slots=True)
class Found:
    """What the database says in the end: the tokens, and the numbers."""

    tokens: frozenset[str]
    numbers: Mapping[str, int]


class Ledger:
    """All writes by their names. Safe to use from many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.writes: dict[str, Write] = {}
        self.numbers: dict[str, int] = {}
        """What the numbers were in the beginning."""

    def begin(self, name: str, write: Write) -> None:
        """Somebody is about to do this."""
        with self._lock:
            self.writes[name] = write

    def end(self, name: str, outcome: Outcome) -> None:
        """That is what came of it."""
        with self._lock:
            self.writes[name].outcome = outcome

    def counts(self) -> Counter[str]:
        """How many writes ended how."""
        with self._lock:
            return Counter(write.outcome for write in self.writes.values())

    def violations(self, found: Found) -> Iterator[str]:
        """What is not as it has to be, in words."""
        made = {
            token: name for name, write in self.writes.items() for token in write.tokens
        }
        gone = {token: write for write in self.writes.values() for token in write.gone}
        for token in sorted(found.tokens - made.keys()):
            yield f"nobody wrote {token!r}, and it is there"
        happened = []
        for name, write in self.writes.items():
            there = [
                token
                for token in write.tokens
                if token in found.tokens or self._was_deleted(token, gone)
            ]
            if write.tokens and len(there) not in (0, len(write.tokens)):
                yield f"{name} is half done: only {there} of {write.tokens}"
            if write.tokens:
                if write.outcome == "done" and not there:
                    yield f"{name} was acknowledged, and is lost"
                if write.outcome == "failed" and there:
                    yield f"{name} was said to have failed, and is there"
            if there:
                happened.append(write)
            for token in write.gone:
                if write.outcome == "done" and token in found.tokens:
                    yield f"{name} was acknowledged, and {token!r} is still there"
        yield from self._wrong_numbers(found, happened)

    def wrongly_parked(self, parked: Collection[str]) -> Iterator[str]:
        """Which of the commits in all outboxes' parks should not be there.

        ``parked`` are tokens. Those that are missing are told, too.
        """
        expected = {
            write.parked: name for name, write in self.writes.items() if write.parked
        }
        for token, times in Counter(parked).items():
            name = expected.get(token)
            if name is None or self.writes[name].outcome == "failed":
                yield f"{name or 'nobody'} wrote {token!r}, and it is parked"
            if times > 1:
                yield f"{name} is parked {times} times"
        for token in expected.keys() - set(parked):
            if self.writes[expected[token]].outcome == "done":
                yield f"{expected[token]} was acknowledged, and is not parked"

    def _was_deleted(self, token: str, gone: Mapping[str, Write]) -> bool:
        """Whether somebody may have deleted it, who first saw it there."""
        return token in gone and gone[token].outcome != "failed"

    def _wrong_numbers(self, found: Found, happened: list[Write]) -> Iterator[str]:
        least: Counter[str] = Counter(self.numbers)
        most: Counter[str] = Counter(self.numbers)
        for write in happened:
            least.update(write.added)
            most.update(write.added)
        # Increments by one statement alone have no row that tells.
        for write in self.writes.values():
            if write.tokens or write.gone or write.parked:
                continue
            if write.outcome == "done":
                least.update(write.added)
            if write.outcome != "failed":
                most.update(write.added)
        for name, number in found.numbers.items():
            if not least[name] <= number <= most[name]:
                yield (
                    f"{name} is {number}, and has to be "
                    f"between {least[name]} and {most[name]}"
                )
