"""Processes that fork while they have the database open.

All of it happens in processes of their own: the one that runs the tests has
threads, and would rather not fork.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.db import DatabaseError, OperationalError, connection, transaction
from django.db.models import F

from tests.db.hosts import MakeProcess, each_on, in_child, on, outcomes
from tests.engine import Host
from tests.library.models import Author, Tag

FORKED = "This process was forked while"


def increment() -> int:
    return Author.objects.filter(name="counter").update(born=F("born") + 1)


def value() -> int:
    return Author.objects.get(name="counter").born


def in_block(job: Callable[[], Any]) -> Any:
    with transaction.atomic():
        return job()


@pytest.fixture(autouse=True)
def counter(host: Host) -> Author:
    return Author.objects.create(name="counter", born=0)


# A child goes on where its parent was


def parent_and_child_write() -> list[int]:
    found = [increment(), value()]
    for _ in range(3):
        found += [in_child(value), in_child(increment), value(), increment(), value()]
    return found


def test_parent_and_child_see_each_others_writes(processes: MakeProcess) -> None:
    found = processes().call(parent_and_child_write)
    assert found == [1, 1, *[1, 1, 2, 1, 3], *[3, 1, 4, 1, 5], *[5, 1, 6, 1, 7]]


def a_child_in_blocks() -> list[Any]:
    def locks() -> int:
        Author.objects.select_for_update().get(name="counter")
        return increment()

    in_block(increment)
    found = [in_child(lambda: in_block(locks)), in_block(locks)]
    made = in_child(lambda: in_block(lambda: Author.objects.create(name="child").pk))
    mine = in_block(lambda: Author.objects.create(name="parent").pk)
    return [*found, made != mine, value()]


def test_a_childs_blocks_and_ids_are_its_own(processes: MakeProcess) -> None:
    assert processes().call(a_child_in_blocks) == [1, 1, True, 3]


def children_at_once(count: int) -> int:
    """Children and grandchildren that write at the same time."""
    increment()
    children = []
    for _ in range(count):
        child = os.fork()
        if child == 0:
            try:
                done = increment() + in_child(increment)
                os._exit(0 if done == 2 else 1)
            except BaseException:
                os._exit(2)
        children.append(child)
    statuses = [os.waitpid(child, 0)[1] for child in children]
    if any(statuses):
        raise AssertionError(statuses)
    return value()


def test_children_and_grandchildren_write_at_once(
    host: Host, processes: MakeProcess
) -> None:
    assert processes().call(children_at_once, 4) == 9
    host.catch_up()
    assert value() == 9


def with_multiprocessing(method: str) -> list[int]:
    increment()
    context = multiprocessing.get_context(method)
    with context.Pool(2) as pool:
        done = [pool.apply_async(increment) for _ in range(6)]
        return [sum(one.get(30) for one in done), value()]


def test_multiprocessing(processes: MakeProcess) -> None:
    assert processes().call(_allowed, with_multiprocessing, "fork") == [6, 7]


def _allowed(function: Callable[..., Any], *args: object) -> Any:
    # A daemon may not have children: so says multiprocessing, for no reason
    # that concerns us.
    multiprocessing.process.current_process()._config["daemon"] = False  # type: ignore[attr-defined]
    return function(*args)


def a_child_that_never_used_it() -> int:
    """The parent has not opened anything: there is nothing to inherit."""
    return in_child(value)


def test_a_child_of_a_process_that_has_not_opened_it(processes: MakeProcess) -> None:
    assert processes().call(a_child_that_never_used_it) == 0


def closes_first() -> list[int]:
    """As servers do: all connections are closed before a fork."""
    increment()
    connection.close()
    return [in_child(increment), value()]


def test_a_child_of_a_parent_that_closed_its_connections(
    processes: MakeProcess,
) -> None:
    assert processes().call(closes_first) == [1, 2]


def without_hooks() -> list[int]:
    """A server written in C forks without telling Python."""
    import ctypes

    increment()
    fork = ctypes.CDLL(None).fork
    reading, writing = os.pipe()
    child = fork()
    if child == 0:
        try:
            increment()
            os.write(writing, b"%d" % value())
        except BaseException as error:
            os.write(writing, repr(error).encode())
        os._exit(0)
    os.close(writing)
    said = os.read(reading, 1000)
    os.close(reading)
    os.waitpid(child, 0)
    return [increment(), value(), said.decode()]  # type: ignore[list-item]


def test_a_fork_without_pythons_hooks(processes: MakeProcess) -> None:
    done, found, said = processes().call(without_hooks)
    assert (done, found) == (1, 2)
    assert FORKED in said
    assert "py-call-uwsgi-fork-hooks" in said


# Inside a block


def forks_in_a_block(prepare: str) -> tuple[str, str, int]:
    """What a child of a process in a block is told; and the block goes on."""

    def outcome(job: Callable[[], Any]) -> str:
        try:
            return repr(in_child(job))
        except DatabaseError as error:
            return f"{type(error).__name__}: {error}"

    def anew() -> int:
        settings = connection.settings_dict
        with on(Host(Path(settings["NAME"]), dict(settings["OPTIONS"]))):
            return value()

    increment()
    with transaction.atomic():
        if prepare in ("reads", "writes after reading"):
            value()
        if "writes" in prepare:
            increment()
        inherited = outcome(value)
        of_its_own = outcome(anew)
        Tag.objects.create(name="parent")
    return inherited, of_its_own, value()


@pytest.mark.parametrize("prepare", ["reads", "writes", "writes after reading"])
def test_a_fork_in_a_block_gives_the_documented_error(
    processes: MakeProcess, prepare: str
) -> None:
    inherited, of_its_own, found = processes().call(forks_in_a_block, prepare)
    assert FORKED in inherited
    # Without an open snapshot the child may use the file by itself.
    assert FORKED in of_its_own or (prepare != "reads" and of_its_own == "1")
    assert found == 1 + ("writes" in prepare)


def the_child_leaves_the_block_too() -> tuple[int, str]:
    """It must not commit what is its parent's."""
    error = ""
    reading, writing = os.pipe()
    try:
        with transaction.atomic():
            increment()
            child = os.fork()
    except BaseException as found:
        error = repr(found)
    if child == 0:
        os.write(writing, error.encode() or b"none")
        os._exit(0)
    os.close(writing)
    said = os.read(reading, 1000).decode()
    os.close(reading)
    os.waitpid(child, 0)
    if error:
        raise AssertionError(error)
    return value(), said


def test_a_block_is_not_committed_twice(host: Host, processes: MakeProcess) -> None:
    found, said = processes().call(the_child_leaves_the_block_too)
    assert found == 1
    assert FORKED in said
    host.catch_up()
    assert value() == 1


def forks_with_the_turn() -> list[int]:
    """The child does not inherit it, and does not give it back either."""
    with transaction.atomic():
        Author.objects.select_for_update().get(name="counter")
        child = os.fork()
        if child == 0:
            os._exit(0)
        os.waitpid(child, 0)
        turn = connection.replica.side.turn  # type: ignore[attr-defined]
        try:
            turn.acquire(0.0)
        except OperationalError:
            pass
        else:
            raise AssertionError("the turn is free")
        increment()
    return [in_child(lambda: in_block(increment)), value()]


def test_a_fork_in_a_block_that_holds_rows(processes: MakeProcess) -> None:
    assert processes().call(forks_with_the_turn) == [1, 2]


def forks_in_a_migration() -> list[str]:
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("CREATE TABLE new_one (a)")
        try:
            said = repr(in_child(value))
        except OperationalError as error:
            said = str(error)
        with connection.cursor() as cursor:
            cursor.execute("INSERT INTO new_one VALUES (1)")
    with connection.cursor() as cursor:
        cursor.execute("SELECT a FROM new_one")
        return [said, cursor.fetchone()[0]]


def test_a_fork_in_a_migration(processes: MakeProcess) -> None:
    said, found = processes().call(forks_in_a_migration)
    assert FORKED in said
    assert found == 1


# With threads


def forks_beside_busy_threads(forks: int) -> tuple[int, int, list[str]]:
    """Threads read, write and run blocks while another one forks."""
    settings = connection.settings_dict
    host = Host(Path(settings["NAME"]), dict(settings["OPTIONS"]))
    stop = threading.Event()
    done = []

    def work() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            if number % 3 == 0:
                done.append(in_block(lambda: (value(), increment())[1]))
            else:
                done.append(increment())
            value()

    refused = []

    def fork() -> None:
        try:
            for _ in range(forks):
                try:
                    done.append(in_child(increment))
                except OperationalError as error:
                    refused.append(str(error))
        finally:
            stop.set()

    found = outcomes([*each_on(host, work, 3), *each_on(host, fork, 1)])
    for one in found:
        # A block that read before it wrote may meet a conflict.
        if one is not None and "nothing of it was committed" not in str(one):
            raise AssertionError(repr(one))
    return sum(done), value(), refused


def test_forks_beside_busy_threads(host: Host, processes: MakeProcess) -> None:
    """None of the threads is hurt; a child works, or says why it does not."""
    process = processes()
    acknowledged, found, refused = process.call(forks_beside_busy_threads, 15)
    assert found == acknowledged
    assert not [said for said in refused if FORKED not in said]
    host.catch_up()
    assert value() == found
    with host.connection.cursor() as cursor:
        cursor.execute("PRAGMA integrity_check")
        assert cursor.fetchone() == ("ok",)
