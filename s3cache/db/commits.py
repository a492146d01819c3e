"""Which databases a request, a task or a thread has committed to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

from s3cache.log.effects import Position
from s3cache.replica.replica import Replica

#: By alias, a position with the newest commit. The same dictionary in the
#: threads and tasks that a context is copied to, as ``sync_to_async`` does.
Commits = dict[str, Position]

_commits: Final[ContextVar[Commits | None]] = ContextVar("commits", default=None)


@contextmanager
def watch_commits() -> Iterator[Commits]:
    """Gather what is committed inside, by whatever is called from there.

    What is gathered around it has that too, as soon as this is over.
    """
    outer = _commits.get()
    commits: Commits = {}
    token = _commits.set(commits)
    try:
        yield commits
    finally:
        _commits.reset(token)
        if outer is not None:
            outer.update(commits)


def note_commit(alias: str, replica: Replica) -> None:
    """A write to the database ``alias`` has returned."""
    commits = _commits.get()
    if commits is not None:
        commits[alias] = replica.position()
