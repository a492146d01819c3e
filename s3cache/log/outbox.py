"""Sending what waits in an outbox: whole commits, in order, each of them once.

A commit is taken by a host, which has it on its disk, and sent later with
those that follow it. Whoever sends may die at any moment, and the answer of
the store may be lost. So with the changes of the commits a **mark** is
committed, which says up to which of them this outbox has been sent. It is
read in the same attempt, on the state that the entry is judged by: what has
been sent before is left out, whoever sent it, and however that ended.

Nothing here reads or writes: ``send`` asks for it, and ``judge`` is what an
attempt does with the commits on the state that it is to be committed on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Generic, Protocol, TypeVar

from s3cache.log.effects import OtherEffect, Steps

__all__ = [
    "Commit",
    "HoldOutbox",
    "Mark",
    "Newest",
    "NextCommits",
    "OldCopy",
    "Outset",
    "Park",
    "Part",
    "Sent",
    "Settle",
    "Submit",
    "judge",
    "send",
]


class Commit(Protocol):
    """A commit that waits.

    ``id`` counts those of one outbox, and is given once. ``token`` tells it
    from another one of that number, in a copy of the outbox; ``database`` is
    the id of the one that it is for.
    """

    @property
    def id(self) -> int: ...

    @property
    def database(self) -> str: ...

    @property
    def token(self) -> str: ...


C = TypeVar("C", bound=Commit)


@dataclass(frozen=True, slots=True)
class Outset:
    """What an outbox is called, and which commit it settled last."""

    identity: str
    settled: int = 0
    token: str = ""


@dataclass(frozen=True, slots=True)
class Mark:
    """Up to which commit an outbox has been sent, as the database says.

    All of them are done but those that were ``parked``, each with what was
    wrong with it.
    """

    last: int = 0
    token: str = ""
    parked: Sequence[tuple[int, str]] = ()


class OldCopy:
    """The database has seen commits of this outbox that it does not know."""

    def __str__(self) -> str:
        return (
            "the database has got later commits of this outbox: it is an old copy, "
            "or the copy of another host's, and nobody knows what of it was sent"
        )


@dataclass(slots=True)
class Sent:
    """What was sent: commits, in so many entries, and those parked."""

    commits: int = 0
    entries: int = 0
    parked: int = 0


# What sending asks for


@dataclass(frozen=True, slots=True)
class HoldOutbox(OtherEffect):
    """Be the only one on this host that sends; the result is a context."""


@dataclass(frozen=True, slots=True)
class Newest(OtherEffect):
    """The number of the last commit that waits; 0: there is none."""


@dataclass(frozen=True, slots=True)
class NextCommits(OtherEffect):
    """The next commits that wait, in order, as many as make an entry."""


@dataclass(frozen=True, slots=True)
class Submit(OtherEffect, Generic[C]):
    """Have commits of one database committed, by what ``judge`` says.

    The result is the ``Mark`` then, or an ``OldCopy``. None if there is
    another database where theirs was: nothing has been done. Raises what a
    commit raises.
    """

    commits: Sequence[C]


@dataclass(frozen=True, slots=True)
class Settle(OtherEffect):
    """Forget what a mark says is sent, and park what it says is parked."""

    mark: Mark


@dataclass(frozen=True, slots=True)
class Park(OtherEffect):
    """Keep a commit, and do not send it."""

    number: int
    error: str


@dataclass(frozen=True, slots=True)
class Part(OtherEffect):
    """Park all that waits, and give the outbox another name.

    The result is how many those were.
    """

    error: str


def send(done: Sent) -> Steps[None]:
    """Send all that waits now, and count it in ``done`` as it is done.

    Not what comes meanwhile: that might never end. Raises what a commit
    raises; what was not sent waits on.
    """
    with (yield HoldOutbox()):
        newest: int = yield Newest()
        while True:
            commits: Sequence[Commit] = yield NextCommits()
            if not commits or commits[0].id > newest:
                return
            yield from send_some(commits, done)


def send_some(commits: Sequence[Commit], done: Sent) -> Steps[None]:
    """Send the first commits, of one database, or park them."""
    database = commits[0].database
    some = list(takewhile(lambda one: one.database == database, commits))
    outcome: Mark | OldCopy | None = yield Submit(some)
    if outcome is None:
        # The settings name another bucket than when they were taken, or
        # there is another database in it.
        for one in some:
            yield Park(one.id, f"it belongs to another database, {database}")
        done.parked += len(some)
    elif isinstance(outcome, OldCopy):
        parted: int = yield Part(str(outcome))
        done.parked += parted
    else:
        yield Settle(outcome)
        done.entries += 1
        done.commits += sum(one.id <= outcome.last for one in some)
        done.commits -= len(outcome.parked)
        done.parked += len(outcome.parked)


def judge(
    mark: Mark, outset: Outset, commits: Sequence[C], run: Callable[[C], str]
) -> Mark | OldCopy:
    """Run what is left to do of ``commits``, on the state that has ``mark``.

    ``run`` runs one of them whole, or does nothing and returns what is wrong
    with it. The result is the mark to set with their changes; if its ``last``
    is that of ``mark`` there was nothing to do.
    """
    if not is_known(mark, outset, commits):
        return OldCopy()
    # Of an attempt that could not settle them: they are still there.
    here = {one.id for one in commits}
    parked = [(number, error) for number, error in mark.parked if number in here]
    left = [one for one in commits if one.id > mark.last]
    for one in left:
        if error := run(one):
            parked.append((one.id, error))
    # Who dies before it has settled this learns it from the mark.
    last = left[-1] if left else None
    return Mark(
        last.id if last else mark.last, last.token if last else mark.token, parked
    )


def is_known(mark: Mark, outset: Outset, commits: Sequence[Commit]) -> bool:
    """Whether it was this outbox that ``mark`` was set by.

    A mark that is behind is of a database that was put back.
    """
    if mark.last <= outset.settled:
        return mark.last < outset.settled or mark.token == outset.token
    return any(one.id == mark.last and one.token == mark.token for one in commits)
