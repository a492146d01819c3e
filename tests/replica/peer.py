"""Another process on a side file, for the tests of locks."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

from s3cache.replica.side_file import SideFile

#: What another process does with its side file.
Task = Callable[[SideFile], object]

#: Processes that are forked from one that has imported this module already.
_context = multiprocessing.get_context("forkserver")
# One server serves all tests of a run, and loads what it is told first.
_context.set_forkserver_preload(["tests.db.preloaded"])


class Peer:
    """A process that has done its task, and waits until ``end``."""

    def __init__(self, path: Path, task: Task) -> None:
        self._pipe, theirs = _context.Pipe()
        self._process = _context.Process(target=_run, args=(theirs, path, task))
        self._process.start()
        theirs.close()
        assert self._pipe.recv() == "ready"

    def end(self) -> None:
        """Have it end, and wait for that."""
        self._pipe.close()
        self._process.join()

    def kill(self) -> None:
        """End it in the middle of whatever it does."""
        self._process.kill()
        self._process.join()


@contextmanager
def peers(path: Path) -> Iterator[Callable[[Task], Peer]]:
    """A function that starts peers; in the end none is left."""
    started: list[Peer] = []

    def start(task: Task) -> Peer:
        started.append(Peer(path, task))
        return started[-1]

    try:
        yield start
    finally:
        for peer in started:
            peer.end()


def _run(pipe: Connection, path: Path, task: Task) -> None:
    side = SideFile(path)  # its end would be the end of its locks
    task(side)
    pipe.send("ready")
    try:
        pipe.recv()
    except EOFError:
        pass


# The tasks; another process has to find them by name.


def nothing(side: SideFile) -> None:
    """Be there."""


def move(side: SideFile) -> None:
    """Say that the replica is at 42, and was asked at 7."""
    side.moved_to(42)
    side.set_asked(7.0)


def hold_commit(side: SideFile) -> None:
    """Hold the commit lock."""
    side.commit.acquire(1.0)


def hold_turn(side: SideFile) -> None:
    """Hold the turn, and ask."""
    side.turn.acquire(1.0)
    side.asking.acquire(1.0)


def hold_beginning(side: SideFile) -> None:
    """Begin with the side file, and take long."""
    side.beginning.acquire(1.0)


def hold_opening(side: SideFile) -> None:
    """Open the replica, and take long."""
    side.opening.acquire(1.0)


def look_for_others(side: SideFile) -> None:
    """See that there is another user."""
    assert not side.is_sole_user()
