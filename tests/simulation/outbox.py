"""What is written behind: outboxes of hosts, and what is in them.

A commit adds its number to the chain of its host, a row of the database: so
each state of the database says which commits were sent, how often and in
which order. Some commits cannot be committed.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from s3cache.log import outbox as o

from .database import Draft, State, Table
from .world import Violation

if TYPE_CHECKING:
    from .host import Host, Lock, Task

IMPOSSIBLE = "it cannot be committed"

#: The most commits that one entry gets.
AT_ONCE = 3


def with_outboxes(state: State, hosts: int) -> State:
    """``state`` with an empty chain for each host, and with marks."""
    chains = {number: (number, "") for number in range(1, hosts + 1)}
    tables = {
        "chain": Table(("id", "numbers"), chains),
        "mark": Table(("id", "last", "token", "parked")),
    }
    return State({**state.tables, **tables}, state.sequences)


@dataclass(frozen=True, slots=True)
class Waiting:
    """A commit: ``number`` counts those of its host, in all its outboxes."""

    id: int
    database: str
    token: str
    host: int
    number: int
    is_possible: bool

    def run(self, draft: Draft) -> str:
        """Add it to its host's chain, or say what is wrong."""
        if not self.is_possible:
            return IMPOSSIBLE
        key, numbers = draft.rows("chain")[self.host][:2]
        draft.put("chain", (key, f"{numbers} {self.number}"))
        return ""


@dataclass(frozen=True, slots=True)
class SendBatch:
    """What is run in a batch to send commits."""

    outset: o.Outset
    commits: tuple[Waiting, ...]

    def __call__(self, draft: Draft) -> o.Mark | str:
        before = self.mark(draft)
        after = o.judge(before, self.outset, self.commits, lambda one: one.run(draft))
        if isinstance(after, o.OldCopy):
            return str(after)
        if after.last != before.last:
            self.set(draft, after)
        return after

    def set(self, draft: Draft, mark: o.Mark) -> None:
        """Have the state say how far it has come."""
        key, parked = int(self.outset.identity), json.dumps(mark.parked)
        draft.put("mark", (key, mark.last, mark.token, parked))

    def mark(self, draft: Draft) -> o.Mark:
        """How far the state that it is run on has come."""
        row = draft.rows("mark").get(int(self.outset.identity))
        if row is None:
            return o.Mark()
        _key, last, token, parked = row[:4]
        return o.Mark(
            last, token, [(number, why) for number, why in json.loads(parked)]
        )


@dataclass(slots=True)
class Content:
    """What is on the disk; never changed but as a whole."""

    identity: int
    settled: int = 0
    token: str = ""
    next_id: int = 1
    waiting: tuple[Waiting, ...] = ()
    parked: tuple[Waiting, ...] = ()


class Outbox:
    """The outbox of a host, which survives its processes and its replica."""

    def __init__(
        self, host: Host, index: int, lock: Lock, names: Callable[[], int]
    ) -> None:
        self.host = host
        self.index = index
        self._names = names
        self.content = Content(names())
        #: What was ever taken, and what of it the disk has lost.
        self.taken: list[Waiting] = []
        self.torn: set[int] = set()
        self.was_put_back = False
        self.lock = lock

    def take(self, *, is_possible: bool) -> None:
        """Take a commit; it is safe when this returns."""
        run, content = self.host.run, self.content
        one = Waiting(
            content.next_id,
            "db",
            f"c{run.world.random.getrandbits(48):x}",
            self.index,
            len(self.taken) + 1,
            is_possible,
        )
        self.taken.append(one)
        self.content = replace(
            content, next_id=one.id + 1, waiting=(*content.waiting, one)
        )
        run.world.note(self.host, f"takes commit {one.number}")

    def put_back(self, copy: Content) -> None:
        """Be what it was when it was copied."""
        known = {one.number for one in (*copy.waiting, *copy.parked)}
        self.torn |= {
            one.number
            for one in (*self.content.waiting, *self.content.parked)
            if one.number not in known
        }
        self.content = copy
        self.was_put_back = True

    def outset(self) -> o.Outset:
        """What the marks are compared with."""
        content = self.content
        return o.Outset(str(content.identity), content.settled, content.token)

    def settle(self, mark: o.Mark) -> None:
        content = self.content
        bad = {number for number, _error in mark.parked}
        last = [one for one in content.waiting if one.id == mark.last]
        self.content = replace(
            content,
            settled=mark.last if last else content.settled,
            token=last[0].token if last else content.token,
            waiting=tuple(one for one in content.waiting if one.id > mark.last),
            parked=(
                *content.parked,
                *(one for one in content.waiting if one.id in bad),
            ),
        )

    def park(self, number: int) -> None:
        content = self.content
        self.content = replace(
            content,
            waiting=tuple(one for one in content.waiting if one.id != number),
            parked=(
                *content.parked,
                *(one for one in content.waiting if one.id == number),
            ),
        )

    def part(self) -> int:
        content = self.content
        self.content = replace(
            content,
            identity=self._names(),
            settled=0,
            token="",
            waiting=(),
            parked=(*content.parked, *content.waiting),
        )
        return len(content.waiting)


#: Performs what sending asks for, but ``HoldOutbox`` and ``Submit``.
PERFORMERS: dict[type, Callable[[Task, Any], Any]] = {
    o.Newest: lambda task, effect: max(
        (one.id for one in outbox_of(task).content.waiting), default=0
    ),
    o.NextCommits: lambda task, effect: outbox_of(task).content.waiting[:AT_ONCE],
    o.Settle: lambda task, effect: outbox_of(task).settle(effect.mark),
    o.Park: lambda task, effect: outbox_of(task).park(effect.number),
    o.Part: lambda task, effect: outbox_of(task).part(),
}


def outbox_of(task: Task) -> Outbox:
    """The outbox of the host of ``task``."""
    outbox = task.host.outbox
    if outbox is None:
        raise Violation(f"{task} has no outbox")
    return outbox


def chain_of(state: State, outbox: Outbox) -> list[int]:
    """The commits of ``outbox`` that a state has, in its order."""
    return [int(one) for one in state.tables["chain"].rows[outbox.index][1].split()]


def check_chain(state: State, outbox: Outbox) -> None:
    """Each commit once, in the order in which they were taken."""
    chain = chain_of(state, outbox)
    if any(one >= other for one, other in zip(chain, chain[1:], strict=False)):
        raise Violation(f"commits of {outbox.host} were sent as {chain}")


def check_all_sent(state: State, outbox: Outbox) -> None:
    """What was taken is there, or parked; and nothing else is."""
    sent = set(chain_of(state, outbox))
    parked = {one.number for one in outbox.content.parked}
    if outbox.content.waiting:
        raise Violation(f"{outbox.host} has not sent {outbox.content.waiting}")
    for one in outbox.taken:
        if one.number in outbox.torn:
            continue
        if one.number not in sent | parked:
            raise Violation(f"commit {one.number} of {outbox.host} is lost")
        if one.number in sent and not one.is_possible:
            raise Violation(f"commit {one.number} of {outbox.host} was impossible")
        if one.number in parked and one.is_possible and not outbox.was_put_back:
            raise Violation(f"commit {one.number} of {outbox.host} is parked")
