"""Which requests something happens to, and what may happen to them.

One list of rules, for whatever stands before a store: moto's server
(``tests.s3_server``), a proxy (``tests.faults.proxy``), another store
(``tests.db.hosts.FaultyStore``).
"""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import formatdate, parsedate_to_datetime
from typing import Generic, Literal, TypeVar

#: A rule that nothing uses up.
ALWAYS = 1_000_000_000

Lost = Literal["", "before", "midway", "after"]

T = TypeVar("T")


@dataclass(eq=False)
class Rule(Generic[T]):
    """``what`` happens to requests of a kind whose name contains ``part``.

    So many times, and each time only with a probability of ``chance``. An
    empty ``kind`` is any.
    """

    what: T
    kind: str = ""
    part: str = ""
    times: int = ALWAYS
    chance: float = 1.0

    def is_about(self, kind: str, name: str) -> bool:
        """Whether it may strike such a request."""
        return self.times > 0 and self.kind in ("", kind) and self.part in name


class Rules(Generic[T]):
    """Rules in the order in which they came; the first that strikes counts.

    Safe to use from many threads. With a ``seed`` the chances are the same in
    every run that makes the same requests in the same order.
    """

    def __init__(self, seed: object = 0) -> None:
        self._lock = threading.Lock()
        self._rules: list[Rule[T]] = []
        self._random = random.Random(repr(seed))
        self.struck: Counter[str] = Counter()
        """How often each has struck, by ``str`` of what happened."""

    def add(self, rule: Rule[T]) -> None:
        """From now on."""
        with self._lock:
            self._rules.append(rule)

    def remove(self, rule: Rule[T]) -> None:
        """No more; that it is there no longer does not matter."""
        with self._lock:
            self._rules = [kept for kept in self._rules if kept is not rule]

    def replace(self, rules: Sequence[Rule[T]]) -> None:
        """These, and no others."""
        with self._lock:
            self._rules = list(rules)

    def strike(self, kind: str, name: str) -> T | None:
        """What happens to a request, if anything does."""
        with self._lock:
            for rule in self._rules:
                if not rule.is_about(kind, name):
                    continue
                if rule.chance < 1.0 and self._random.random() >= rule.chance:
                    continue
                rule.times -= 1
                self.struck[str(rule.what)] += 1
                return rule.what
        return None

    @contextmanager
    def during(self, rule: Rule[T]) -> Iterator[None]:
        """A rule for as long as the context lasts."""
        self.add(rule)
        try:
            yield
        finally:
            self.remove(rule)


@dataclass(frozen=True)
class Fault:
    """What happens to a request over HTTP.

    ``delay`` in seconds comes first. Then the connection is lost: before or
    after the request has its effect, or midway in its answer's body; with
    ``reset`` the other side learns of it at once by a RST. Else ``status`` and
    S3's error ``code`` (or a ``body`` of one's own) answer in the place of
    the store, which sees nothing of it. Else it is the store that answers.
    ``date`` takes the place of the Date header of either, ``skew`` moves it
    by so many seconds.
    """

    status: int = 200
    code: str = ""
    body: bytes | None = None
    lost: Lost = ""
    reset: bool = False
    delay: float = 0.0
    date: str = ""
    skew: float = 0.0

    def __str__(self) -> str:
        words = [
            f"{self.delay:g} s late" if self.delay else "",
            f"lost {self.lost}" if self.lost else "",
            "by a reset" if self.reset else "",
            f"says {self.status}" if self.answers else "",
            "with another Date" if self.date or self.skew else "",
        ]
        return ", ".join(filter(None, words)) or "nothing"

    @property
    def answers(self) -> bool:
        """Whether it takes the place of the store."""
        return not self.lost and (self.status != 200 or self.body is not None)

    @property
    def answer(self) -> bytes:
        """The body that it answers with."""
        if self.body is not None:
            return self.body
        return b"<Error><Code>%s</Code><Message>injected</Message></Error>" % (
            self.code.encode()
        )

    def dated(self, date: str) -> str:
        """What is said in the place of a Date header."""
        if self.date:
            return self.date
        if not self.skew:
            return date
        told = parsedate_to_datetime(date).timestamp()
        return formatdate(told + self.skew, usegmt=True)
