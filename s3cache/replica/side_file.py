"""What the processes on one replica share beside it: a few numbers and locks.

The numbers lie in a memory map, so that reading them costs no system call.
The locks are POSIX record locks on bytes behind the numbers: a child does not
inherit them over ``fork``, and the system frees them when a process dies. The
file is opened once by a process and never closed before its end, because
closing any descriptor of it would drop them all.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from random import SystemRandom
from typing import NamedTuple

from django.db import OperationalError

from s3cache.log.effects import HostState
from s3cache.mapped import map_file
from s3cache.replica import clock

_MAGIC = b"s3cache4"
_SIZE = 4096
_HEADER = struct.Struct("=8s16s")

#: What the protocol keeps for the host.
_STATE = tuple(one.name for one in fields(HostState) if one.name != "host")

#: The numbers, doubles from offset 64 on.
_FIELDS = (
    *("asked_at", "proved_number", "proved_at", "number", "generation", "move"),
    *_STATE,
    "moving",
    "pending",
)
_FIRST_OF_STATE = 6
_MOVING = len(_FIELDS) - 2
_PENDING = len(_FIELDS) - 1
_OFFSET = 64

_NUMBERS = struct.Struct(f"={_FIRST_OF_STATE}d")
_END_OF_NUMBERS = _OFFSET + _NUMBERS.size

#: The gate of the lock on a byte is this far behind it.
_GATES = 64

#: The byte, behind the numbers, on which every process holds a shared lock.
_USERS = 8

#: The bytes that ``try_flight`` locks, behind all others.
_FLIGHTS = 4096
_MOST_FLIGHTS = 1 << 20

#: Not of a generator that a fork would copy, or a seed make say things again.
_unique = SystemRandom().random

#: Seconds to wait for processes that are in the way of one that comes.
_PATIENCE = 30.0

#: Seconds between two tries to get a lock that another process holds.
_POLL = (0.0005, 0.001, 0.002, 0.005)


class Numbers(NamedTuple):
    """What tells whether anything has changed; see ``SideFile``."""

    asked_at: float
    proved_number: float
    proved_at: float
    number: float
    generation: float
    move: float


class SideFile:
    """The side file of one replica, as this process sees it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._descriptor, self._map = map_file(path, _SIZE)
        except OSError as error:
            # In SQLite's own words, where it has any.
            is_full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
            reason = "database or disk is full" if is_full else error.strerror
            raise OperationalError(f"{reason}: {path}") from error
        self._numbers = memoryview(self._map)[
            _OFFSET : _OFFSET + 8 * len(_FIELDS)
        ].cast("d")
        self._seen = memoryview(self._map)[_OFFSET:_END_OF_NUMBERS]
        self.commit = ProcessLock(self._descriptor, 1, "another process commits")
        self.turn = ProcessLock(
            self._descriptor, 2, "another block holds rows by select_for_update()"
        )
        self.asking = ProcessLock(self._descriptor, 3, "another process asks the store")
        self.opening = ProcessLock(self._descriptor, 4, "another process opens it")
        self.rebuilding = ProcessLock(
            self._descriptor, 5, "another process makes the replica anew"
        )
        self.keeping = ProcessLock(self._descriptor, 6, "another process keeps")
        self.recording = ProcessLock(
            self._descriptor, 7, "another process writes records"
        )
        self.flushing = ProcessLock(
            self._descriptor, 9, "another process sends the outbox"
        )
        self.beginning = ProcessLock(
            self._descriptor, 10, "another process begins to use it"
        )
        try:
            self._begin()
            self._join()
        except BaseException:
            self.close()
            raise

    def _begin(self) -> None:
        header = _HEADER.pack(_MAGIC, clock.boot_identity())
        # Not the lock of opening: who holds that may be making the replica.
        with self.beginning.held(_PATIENCE):
            if self._map[: _HEADER.size] != header:
                # Moments of another boot mean nothing now.
                self._numbers[:] = memoryview(bytes(8 * len(_FIELDS))).cast("d")
                self._map[: _HEADER.size] = header

    def _join(self) -> None:
        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                fcntl.lockf(
                    self._descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB, 1, _SIZE + _USERS
                )
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(_POLL[0])
            else:
                return

    def is_sole_user(self) -> bool:
        """Whether no other process has the replica open."""
        try:
            fcntl.lockf(
                self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _SIZE + _USERS
            )
        except (BlockingIOError, PermissionError):
            return False
        fcntl.lockf(self._descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB, 1, _SIZE + _USERS)
        return True

    def try_flight(self, key: str) -> int | None:
        """Be the one process that computes what ``key`` names.

        What it returns is for ``end_flight``; None: another process does.
        Threads of this process have to agree among themselves before. It
        ends with the process, too; two keys may stand in each other's way.
        """
        byte = _SIZE + _FLIGHTS + zlib.crc32(key.encode()) % _MOST_FLIGHTS
        try:
            fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, byte)
        except (BlockingIOError, PermissionError):
            return None
        return byte

    def end_flight(self, byte: int) -> None:
        """Let another process compute it."""
        fcntl.lockf(self._descriptor, fcntl.LOCK_UN, 1, byte)

    def seen(self) -> bytes:
        """All of ``Numbers`` at once, to be compared with what was seen."""
        return self._seen.tobytes()

    @staticmethod
    def read(seen: bytes) -> Numbers:
        """What ``seen`` said."""
        return Numbers(*_NUMBERS.unpack(seen))

    @property
    def asked_at(self) -> float:
        """When the store was last asked with success (the host's clock)."""
        return self._numbers[0]

    @property
    def number(self) -> int:
        """The replica's position, as the last process that moved it said."""
        return int(self._numbers[3])

    def moves_to(self, number: int) -> None:
        """From now on a read may see the replica at ``number``.

        Said before a transaction of the replica ends, and within it: two
        processes do not say it at once. Who dies then has said it, too.
        """
        self._numbers[_MOVING] = number

    def is_moving(self) -> bool:
        """Whether a read may see a position that nobody was told of."""
        return self._numbers[_MOVING] > self._numbers[3]

    def moved_to(self, number: int) -> None:
        """Tell the other processes that the replica moved.

        Of several that moved it one after the other, any may be the last to
        say so: the number may go back to one that was seen before. So each
        time something is said that never was.
        """
        self._numbers[3] = number
        self._numbers[5] = _unique()

    def set_asked(self, asked_at: float) -> None:
        """The store was asked at ``asked_at``, and all is applied."""
        if asked_at > self._numbers[0]:
            self._numbers[0] = asked_at

    def forget_asked(self) -> None:
        """Make the next read ask the store."""
        self._numbers[0] = 0.0

    def proved(self, number: int, date: float) -> None:
        """Position ``number`` was the newest at ``date`` (store's clock)."""
        self._numbers[1] = 0.0
        self._numbers[2] = date
        self._numbers[1] = number

    def proved_at(self, number: int) -> float:
        """The latest such date for ``number``, or 0."""
        date = self._numbers[2]
        return date if self._numbers[1] == number else 0.0

    def host_state(self, host: str) -> HostState:
        """What the protocol keeps for the host, which is called ``host``."""
        kept = self._numbers[_FIRST_OF_STATE:_MOVING]
        state = dict(zip(_STATE, kept, strict=True))
        checked_number = int(state.pop("checked_number"))
        return HostState(host=host, checked_number=checked_number, **state)

    def remember(self, name: str, value: float) -> None:
        """Set one number, a field of the ``HostState`` for example."""
        self._numbers[_FIELDS.index(name)] = value

    @property
    def pending(self) -> float:
        """The tables of commits that wait in the outbox; see ``bits_of``."""
        return self._numbers[_PENDING]

    @property
    def generation(self) -> float:
        """Which file it is that the numbers are about."""
        return self._numbers[4]

    def reset(self, generation: float) -> None:
        """Forget everything: the replica was made anew."""
        for index in range(_PENDING):  # an outbox is about no replica
            self._numbers[index] = 0.0
        self._numbers[4] = generation
        self._numbers[5] = _unique()

    def close(self) -> None:
        """Close the file: this process does not use the replica any more."""
        self._seen.release()
        self._numbers.release()
        self._map.close()
        os.close(self._descriptor)

    def delete(self) -> None:
        """Close the file, and delete it: nobody uses the replica any more."""
        self.close()
        self.path.unlink(missing_ok=True)

    def _locks(self) -> tuple[ProcessLock, ...]:
        return (
            self.commit,
            self.turn,
            self.asking,
            self.opening,
            self.rebuilding,
            self.keeping,
            self.recording,
            self.flushing,
            self.beginning,
        )

    def after_fork_in_child(self) -> None:
        """Hold what a process holds, and nothing that the parent held."""
        for lock in self._locks():
            lock.after_fork_in_child()
        self._join()


class ProcessLock:
    """A lock among threads and processes; any thread may give it back.

    ``held_by`` says, for people, what its owner does.
    """

    def __init__(self, descriptor: int, byte: int, held_by: str) -> None:
        self._descriptor = descriptor
        self._byte = _SIZE + byte
        self._gate = _SIZE + _GATES + byte
        self._held_by = held_by
        self._threads = threading.Lock()

    def acquire(self, timeout: float) -> None:
        """Take the lock; ``OperationalError`` if it is not free in time.

        ``timeout`` is in seconds; 0 tries once.
        """
        deadline = time.monotonic() + timeout
        if not self._threads.acquire(timeout=max(timeout, 0.0)):
            raise self._locked(timeout)
        try:
            # Who waits holds the gate: a process that has just had the lock
            # does not get it again before one that waits for it.
            self._wait_for(self._gate, deadline, timeout)
            try:
                self._wait_for(self._byte, deadline, timeout)
            finally:
                self._unlock(self._gate)
        except BaseException:
            self._threads.release()
            raise

    def _wait_for(self, byte: int, deadline: float, timeout: float) -> None:
        tries = 0
        while not self._try(byte):
            if time.monotonic() >= deadline:
                raise self._locked(timeout)
            time.sleep(_POLL[min(tries, len(_POLL) - 1)])
            tries += 1

    def _try(self, byte: int) -> bool:
        try:
            fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, byte)
        except (BlockingIOError, PermissionError):
            return False
        return True

    def _unlock(self, byte: int) -> None:
        fcntl.lockf(self._descriptor, fcntl.LOCK_UN, 1, byte)

    def _locked(self, timeout: float) -> OperationalError:
        return OperationalError(
            f"database is locked: {self._held_by} (waited {timeout:g} s)"
        )

    def after_fork_in_child(self) -> None:
        """Be free: record locks stay with the parent."""
        self._threads = threading.Lock()

    def release(self) -> None:
        """Give the lock back."""
        self._unlock(self._byte)
        self._threads.release()

    @contextmanager
    def held(self, timeout: float) -> Iterator[None]:
        """Hold the lock within the context, as by ``acquire``."""
        self.acquire(timeout)
        try:
            yield
        finally:
            self.release()
