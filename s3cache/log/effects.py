"""What a protocol may ask of the world, one small class each.

A protocol is a generator (``Steps``) that yields these and is sent their
results. Whoever performs them decides what time, network and disk are.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from s3cache.log.entry import Change, Entry
from s3cache.log.head import Head
from s3cache.stores.base import Answer

if TYPE_CHECKING:
    from s3cache.log.catalog import Catalog, Pack

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Position:
    """Where a replica is: the last entry that it has applied.

    ``proved_at`` is a moment, by the store's clock (epoch seconds), at which
    no entry after this one existed. Too early a moment costs requests; too
    late a one costs correctness. A host without a replica is at
    ``Position("")``.
    """

    database: str
    number: int = 0
    token: str = ""
    etag: str = ""
    proved_at: float = 0.0

    def is_at(self, other: Position) -> bool:
        """Whether both stand after the same entry of the same log."""
        return (self.database, self.number, self.token) == (
            other.database,
            other.number,
            other.token,
        )


@dataclass(frozen=True, slots=True)
class Staged:
    """What a batch would change, and the position that it was run at.

    ``changes`` is empty when there is nothing to commit.
    """

    position: Position
    changes: Sequence[Change]
    transactions: int


@dataclass(frozen=True, slots=True)
class HostState:
    """What the processes on one replica tell each other outside of it.

    Moments are of the host's own clock (``Now``), durations in seconds; 0
    means never. All of it ends with the boot that the clock counts from.

    ``checked_at``: the log was last compared with the replica, up to entry
    ``checked_number``. ``foreign_at``: an entry of another host was met;
    ``foreign_round_trip``: of the slowest one of those. ``turn_at``: others
    last had a turn. ``won_at``: this host last created an entry;
    ``round_trip``: of its last PUT. ``host``: what this replica calls itself
    in entries (``CommitOptions.host``).
    """

    checked_at: float = 0.0
    checked_number: int = 0
    foreign_at: float = 0.0
    foreign_round_trip: float = 0.0
    turn_at: float = 0.0
    won_at: float = 0.0
    round_trip: float = 0.0
    host: str = ""


# The store. Each is one request, and its result an ``Answer``.


@dataclass(frozen=True, slots=True)
class Get:
    """Read an object."""

    key: str


@dataclass(frozen=True, slots=True)
class GetMany:
    """Read several objects at the same time; the result is in their order."""

    keys: Sequence[str]


@dataclass(frozen=True, slots=True)
class Create:
    """Put an object if there is none: ``PUT If-None-Match: *``."""

    key: str
    body: bytes


@dataclass(frozen=True, slots=True)
class ListPage:
    """One page of the keys below ``prefix``, from after ``start_after``."""

    prefix: str
    start_after: str = ""


# The replica.


@dataclass(frozen=True, slots=True)
class Where:
    """The replica's ``Position``."""


@dataclass(frozen=True, slots=True)
class Apply:
    """Apply the entry if it is the next one, in one transaction.

    ``modified`` is the store's time of the entry, which becomes the
    position's ``proved_at``. If the entry does not follow the replica's
    position (``Entry.follows``) nothing happens: another process may have
    applied it, or replaced the replica. The result is the ``Position`` after
    that. A ``KeepPending`` of this number is settled by the token.

    Nor does anything happen if the replica lacks packs without which the
    entry cannot be applied. Then the result is a ``Lacking``.
    """

    entry: Entry
    etag: str
    modified: float
    own: bool = False


@dataclass(frozen=True, slots=True)
class Proved:
    """The position was the newest at ``date`` (the store's clock).

    The question was asked at ``asked_at`` (the host's clock). If the replica
    is not at ``number`` any more nothing happens. Else ``date`` becomes the
    position's ``proved_at``, unless it is 0.0: then the store did not tell.
    """

    number: int
    asked_at: float
    date: float


@dataclass(frozen=True, slots=True)
class Stage:
    """Run the batch on the replica as it is now, and roll it back again.

    The result is a ``Staged``.
    """


@dataclass(frozen=True, slots=True)
class KeepPending:
    """Remember a commit whose outcome is not known.

    Whoever applies entry ``number`` learns from its token what became of it.
    """

    number: int
    token: str


@dataclass(frozen=True, slots=True)
class StartOver:
    """Begin a new replica beside the one in use.

    Until ``TakeOver`` or the end of this protocol its ``Where``, ``Apply``
    and ``Proved`` mean the new one, of which at most one exists at a time.
    With a ``catalog`` it has that one's
    tables, whose rows come by ``Load`` and ``Loaded``; else it is empty, at
    the beginning of the log of ``head``.

    The result says which packs have to be loaded before ``Loaded``. The
    others of the catalog the new replica lacks for the time being. Those are
    none if it has to be ``whole``, and if the one in use is: for who uses
    that one has found out that it lacks nothing, and asks no more.

    ``diverged`` says that the log is no longer the one that the replica in
    use has followed: commits that it holds may exist nowhere else. It is to
    be kept aside when it is replaced, and people are to be told.
    """

    head: Head
    reason: str
    diverged: bool = False
    catalog: Catalog | None = None
    whole: bool = True


@dataclass(frozen=True, slots=True)
class Begun:
    """A new replica: its ``Position``, and ``packs`` that it begins with."""

    position: Position
    packs: Sequence[Pack] = ()


@dataclass(frozen=True, slots=True)
class Load:
    """Put the rows of a pack into the replica, in one transaction.

    Into the new one, if there is one. Rows that entries have changed since
    then are left out, for those are there already; and nothing happens if
    the replica does not lack the pack any more. ``left`` packs are to be
    loaded after this one.

    If ``first`` says which rows somebody waits for, it may be only those that
    are put there, and the replica goes on lacking the others of the pack.
    """

    pack: Pack
    body: bytes
    left: int = 0
    first: Any = None


@dataclass(frozen=True, slots=True)
class Loaded:
    """The packs that it begins with are loaded: make the new replica usable.

    The result is its ``Position``, that of the catalog.
    """


@dataclass(frozen=True, slots=True)
class Absent:
    """What the replica lacks of the packs ``keys``; None: of all packs.

    The result is a ``Lacking`` with at most ``limit`` of them.
    """

    keys: frozenset[str] | None = None
    limit: int = 1


@dataclass(frozen=True, slots=True)
class Lacking:
    """Some of the packs that a replica lacks, and ``left`` more of them."""

    packs: Sequence[Pack]
    left: int = 0


@dataclass(frozen=True, slots=True)
class Repack:
    """Take what the replica lacks from the packs of a newer catalog.

    The result is False, and nothing has changed, if that is newer than the
    replica itself: it has to catch up first. What the replica has done to
    the rows of its catalog it would do to newer ones again.
    """

    catalog: Catalog


@dataclass(frozen=True, slots=True)
class TakeOver:
    """Put the new replica in the place of the one in use, in one step.

    Only if that one is still where it was when its end was decided
    (``replaces``, compared with ``Position.is_at``); else the new one is
    dropped, for the host must not go back. The result tells which.
    """

    replaces: Position


# The host.


@dataclass(frozen=True, slots=True)
class Now:
    """Seconds of a clock that never goes back and that counts sleep."""


@dataclass(frozen=True, slots=True)
class Sleep:
    """Wait for so many seconds."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Token:
    """A random string that nobody else ever gets."""


@dataclass(frozen=True, slots=True)
class Recall:
    """The ``HostState``."""


@dataclass(frozen=True, slots=True)
class Remember:
    """Change the fields of the ``HostState`` that are not None."""

    checked_at: float | None = None
    checked_number: int | None = None
    foreign_at: float | None = None
    foreign_round_trip: float | None = None
    turn_at: float | None = None
    won_at: float | None = None
    round_trip: float | None = None


@dataclass(frozen=True, slots=True)
class HoldCommitLock:
    """Become the only process of this replica that commits.

    The result is a context manager that gives the lock back. Raises
    ``django.db.OperationalError`` when it is not to be had by ``deadline``.
    """

    deadline: float


@dataclass(frozen=True, slots=True)
class HoldRebuildLock:
    """Become the only process of this replica that builds a new one.

    The result is a context manager that gives the lock back. Raises
    ``django.db.OperationalError`` when it is not to be had by ``deadline``.
    """

    deadline: float


class Turn(AbstractContextManager[None]):
    """A host's turn to write, which it passes on at the end of the context.

    ``number`` is the entry that the host before it has come to, as that one
    says; 0: it is not known.
    """

    number: int = 0


@dataclass(frozen=True, slots=True)
class TakeTurn:
    """Wait for this host's turn among those that write at the same time.

    For ``patience`` seconds at most; the result is a ``Turn``, or None: there
    is none to be had. That is no reason not to write.
    """

    patience: float


class OtherEffect:
    """An effect of a protocol that builds on this one, as the keeper's do."""


Effect = (
    OtherEffect
    | Get
    | GetMany
    | Create
    | ListPage
    | Where
    | Apply
    | Proved
    | Stage
    | KeepPending
    | StartOver
    | Load
    | Loaded
    | Absent
    | Repack
    | TakeOver
    | Now
    | Sleep
    | Token
    | Recall
    | Remember
    | HoldCommitLock
    | HoldRebuildLock
    | TakeTurn
)

Steps = Generator[Effect, Any, T]
Held = AbstractContextManager[None]

__all__ = [
    "Absent",
    "Answer",
    "Apply",
    "Begun",
    "Create",
    "Effect",
    "Get",
    "GetMany",
    "Held",
    "HoldCommitLock",
    "HoldRebuildLock",
    "HostState",
    "KeepPending",
    "Lacking",
    "ListPage",
    "Load",
    "Loaded",
    "Now",
    "OtherEffect",
    "Position",
    "Proved",
    "Recall",
    "Remember",
    "Repack",
    "Sleep",
    "Stage",
    "Staged",
    "StartOver",
    "Steps",
    "TakeOver",
    "TakeTurn",
    "Token",
    "Turn",
    "Where",
]
