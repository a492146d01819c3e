"""What processes on one replica share."""

from __future__ import annotations

import errno
import os
import re
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from django.db import OperationalError

from s3cache.log.effects import HostState
from s3cache.replica import clock, side_file
from s3cache.replica.side_file import SideFile
from tests.replica import peer

Other = Callable[[peer.Task], peer.Peer]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the side file is going to be."""
    return tmp_path / "replica.sqlite3-s3cache"


@pytest.fixture
def side(path: Path) -> Iterator[SideFile]:
    """A new side file."""
    made = SideFile(path)
    yield made
    made.delete()


@pytest.fixture
def other(path: Path) -> Iterator[Other]:
    """A function that starts another process on the side file."""
    with peer.peers(path) as start:
        yield start


def locked(side: SideFile, timeout: float = 0.0) -> bool:
    try:
        side.commit.acquire(timeout)
    except OperationalError:
        return True
    side.commit.release()
    return False


# Numbers.


def test_a_new_file_knows_nothing_and_is_private(side: SideFile) -> None:
    assert (side.asked_at, side.number, side.generation) == (0.0, 0, 0.0)
    assert stat.S_IMODE(side.path.stat().st_mode) == 0o600
    assert side.host_state("me").host == "me"


def test_the_last_question_counts(side: SideFile) -> None:
    side.set_asked(5.0)
    side.set_asked(3.0)
    assert side.asked_at == 5.0
    side.forget_asked()
    assert side.asked_at == 0.0


def test_a_proof_is_of_one_position(side: SideFile) -> None:
    side.proved(7, 1000.0)
    assert side.proved_at(7) == 1000.0
    assert side.proved_at(8) == 0.0


def test_the_state_of_the_host_is_kept(side: SideFile) -> None:
    assert side.host_state("me") == HostState(host="me")
    state = HostState(
        checked_at=1.5,
        checked_number=12,
        foreign_at=2.5,
        foreign_round_trip=0.25,
        turn_at=3.5,
        won_at=4.5,
        round_trip=0.125,
    )
    for name, value in asdict(state).items():
        if name != "host":
            side.remember(name, value)
    assert side.host_state("me") == replace(state, host="me")
    side.reset(1.0)
    assert side.host_state("me") == HostState(host="me")


def test_a_replica_that_was_made_anew_starts_from_nothing(side: SideFile) -> None:
    side.set_asked(5.0)
    side.moved_to(9)
    side.proved(9, 1000.0)
    side.reset(2.0**47 + 1)
    assert side.generation == 2.0**47 + 1
    assert (side.asked_at, side.number, side.proved_at(9)) == (0.0, 0, 0.0)


def test_a_position_that_comes_again_is_a_move_as_well(side: SideFile) -> None:
    """Of processes that move it the first one may be the last to say so."""
    side.reset(3.0)
    side.moved_to(8)
    seen = side.seen()
    side.moved_to(9)
    side.moved_to(8)
    assert side.number == 8
    assert side.seen() != seen


def test_where_it_moves_is_said_before_it_is_there(side: SideFile) -> None:
    side.reset(3.0)
    side.moved_to(8)
    seen = side.seen()
    side.moves_to(9)
    assert side.is_moving()
    assert (side.number, side.seen()) == (8, seen)  # nobody has seen it yet
    side.moved_to(9)
    assert not side.is_moving()
    side.moves_to(10)
    side.reset(4.0)
    assert not side.is_moving()


def test_a_replica_that_is_made_anew_at_once_is_another(side: SideFile) -> None:
    side.reset(3.0)
    seen = side.seen()
    side.reset(3.0)
    assert side.seen() != seen


def test_numbers_reach_other_processes(side: SideFile, other: Other) -> None:
    other(peer.move)
    assert (side.number, side.asked_at) == (42, 7.0)


def test_numbers_outlive_the_processes(path: Path, other: Other) -> None:
    other(peer.move).end()
    again = SideFile(path)
    assert again.number == 42
    again.delete()


def test_moments_of_another_boot_are_forgotten(
    path: Path, other: Other, monkeypatch: pytest.MonkeyPatch
) -> None:
    other(peer.move).end()
    monkeypatch.setattr(clock, "boot_identity", lambda: b"another boot id!")
    again = SideFile(path)
    assert (again.number, again.asked_at) == (0, 0.0)
    again.delete()


# Locks.


def test_a_lock_excludes_other_processes(side: SideFile, other: Other) -> None:
    process = other(peer.hold_commit)
    assert locked(side)
    process.end()
    assert not locked(side, timeout=5.0)


def test_the_wait_has_an_end_and_a_message(side: SideFile, other: Other) -> None:
    other(peer.hold_turn)
    started = time.monotonic()
    with pytest.raises(
        OperationalError,
        match=r"database is locked: another block holds rows by "
        r"select_for_update\(\) \(waited 0.1 s\)",
    ):
        side.turn.acquire(0.1)
    assert 0.1 <= time.monotonic() - started < 5


def test_a_process_that_is_killed_holds_nothing(side: SideFile, other: Other) -> None:
    process = other(peer.hold_commit)
    process.kill()
    assert not locked(side, timeout=5.0)


def test_who_comes_while_the_replica_is_made_waits_for_that_as_long_as_it_takes(
    path: Path, other: Other, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not for the side file, on which one waits for half a minute."""
    other(peer.hold_opening)
    monkeypatch.setattr(side_file, "_PATIENCE", 0.0)
    late = SideFile(path)
    with pytest.raises(OperationalError, match="another process opens it"):
        late.opening.acquire(0)
    late.close()


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc")
def test_who_waits_in_vain_leaves_no_file_open(
    path: Path, other: Other, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who tries again and again would run out of them."""
    other(peer.hold_beginning)
    monkeypatch.setattr(side_file, "_PATIENCE", 0.0)
    with pytest.raises(OperationalError, match="another process begins to use it"):
        SideFile(path)
    for one in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # another thread has closed it
            assert one.readlink() != path.resolve()


def test_locks_do_not_disturb_each_other(side: SideFile, other: Other) -> None:
    other(peer.hold_turn)
    assert not locked(side)


def test_a_lock_excludes_other_threads(side: SideFile) -> None:
    found: list[bool] = []
    with side.commit.held(1.0):
        thread = threading.Thread(target=lambda: found.append(locked(side, 0.05)))
        thread.start()
        thread.join()
    assert found == [True]
    assert not locked(side)


def test_any_thread_may_give_a_lock_back(side: SideFile) -> None:
    side.commit.acquire(1.0)
    thread = threading.Thread(target=side.commit.release)
    thread.start()
    thread.join()
    assert not locked(side)


def test_an_error_gives_the_lock_back(side: SideFile) -> None:
    with pytest.raises(KeyError), side.commit.held(1.0):
        raise KeyError
    assert not locked(side)


def test_a_wait_in_vain_leaves_the_lock_usable(side: SideFile, other: Other) -> None:
    process = other(peer.hold_commit)
    assert locked(side, timeout=0.01)
    process.end()
    assert not locked(side, timeout=5.0)


# Users.


def test_the_sole_user_knows(side: SideFile, other: Other) -> None:
    assert side.is_sole_user()
    process = other(peer.nothing)
    assert not side.is_sole_user()
    process.end()
    assert side.is_sole_user()


def test_looking_for_others_does_not_keep_them_out(
    side: SideFile, other: Other
) -> None:
    assert side.is_sole_user()
    other(peer.look_for_others)
    assert not side.is_sole_user()


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_child_holds_what_a_process_holds_and_no_lock(side: SideFile) -> None:
    side.commit.acquire(1.0)
    child = os.fork()
    if not child:  # pragma: no cover  (it ends here)
        side.after_fork_in_child()
        os._exit(0 if locked(side) and not side.is_sole_user() else 1)
    assert os.waitpid(child, 0)[1] == 0
    side.commit.release()


# The clock.


def test_the_clock_goes_on() -> None:
    first = clock.now()
    assert 0 < first <= clock.now()


def test_a_boot_has_one_identity() -> None:
    assert len(clock.boot_identity()) == 16
    assert clock.boot_identity() == clock.boot_identity()


@pytest.mark.parametrize("boot", ["one\n", "another\n"])
def test_each_boot_has_its_own(monkeypatch: pytest.MonkeyPatch, boot: str) -> None:
    real = clock.boot_identity()
    monkeypatch.setattr(Path, "read_text", lambda path: boot)
    assert clock.boot_identity() != real


def test_without_a_boot_id_it_is_always_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def missing(path: Path) -> str:
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_text", missing)
    assert clock.boot_identity() == clock.boot_identity()


def test_where_boottime_is_missing_sleep_counts_and_nothing_goes_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    larger = clock._LargerOfTwo()
    times = {"monotonic": 10.0, "time": 1000.0}
    monkeypatch.setattr(time, "monotonic", lambda: times["monotonic"])
    monkeypatch.setattr(time, "time", lambda: times["time"])
    assert larger() == 1000.0
    times.update(monotonic=11.0, time=1500.0)  # it slept
    assert larger() == 1500.0
    times.update(monotonic=12.0, time=900.0)  # somebody set the clock back
    assert larger() == 1501.0


@pytest.mark.skipif(sys.platform != "linux", reason="macOS has no posix_fallocate")
def test_it_has_its_blocks_before_it_is_mapped(path: Path) -> None:
    """Else a full disk would end every process by SIGBUS."""
    path.touch()
    os.truncate(path, 4096)  # as it was made once
    assert path.stat().st_blocks == 0
    SideFile(path)
    assert path.stat().st_blocks * 512 >= 4096


def test_a_place_where_it_cannot_be_is_an_error_of_the_database(tmp_path: Path) -> None:
    path = tmp_path / "missing" / "side"
    message = f"^No such file or directory: {re.escape(str(path))}$"
    with pytest.raises(OperationalError, match=message):
        SideFile(path)


def test_a_full_disk_is_told_in_the_words_of_sqlite(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    message = f"^database or disk is full: {re.escape(str(path))}$"
    with pytest.raises(OperationalError, match=message):
        SideFile(path)
