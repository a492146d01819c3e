"""The queue of callers that wait to have something committed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pytest
from django.db import IntegrityError, OperationalError

from s3cache.exceptions import CommitOutcomeUnknown
from s3cache.replica.batch import Committer
from s3cache.replica.requests import Request, Stage

HANGS_AFTER = 20.0


class Numbered(Request):
    """A request; its outcome is its number."""

    def __init__(self, number: int) -> None:
        self.number = number

    def run(self, stage: Stage) -> Any:
        raise NotImplementedError


class Queue:
    """A committer whose commits ``during`` may stop or let fail."""

    def __init__(self, timeout: float = HANGS_AFTER) -> None:
        self.batches: list[list[int]] = []
        self.during: Callable[[list[int]], object] = lambda numbers: None
        self.committer = Committer(self._commit, lambda: timeout)
        self.results: dict[int, Any] = {}
        self.threads: list[threading.Thread] = []

    def _commit(self, batch: Sequence[Request]) -> None:
        numbers = [one.number for one in batch if isinstance(one, Numbered)]
        self.batches.append(numbers)
        self.during(numbers)
        for number, request in zip(numbers, batch, strict=True):
            request.outcome = number

    def submit(self, number: int) -> None:
        try:
            self.results[number] = self.committer.submit(Numbered(number))
        except BaseException as error:
            self.results[number] = error

    def start(self, *numbers: int) -> None:
        """Submit in threads of their own, in this order."""
        for number in numbers:
            before, is_first = len(self.committer._waiting), not self.batches
            thread = threading.Thread(target=self.submit, args=[number], daemon=True)
            thread.start()
            self.threads.append(thread)
            if is_first:
                until(lambda: bool(self.batches))
            else:
                until(partial(self._has_more_than, before))

    def _has_more_than(self, before: int) -> bool:
        return len(self.committer._waiting) > before

    def join(self) -> None:
        for thread in self.threads:
            thread.join(HANGS_AFTER)
            assert not thread.is_alive()


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + HANGS_AFTER
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.001)


class Gate:
    """Holds the first commit up until it is opened."""

    def __init__(self, queue: Queue) -> None:
        self._open = threading.Event()
        queue.during = self._pass

    def _pass(self, numbers: list[int]) -> None:
        assert self._open.wait(HANGS_AFTER)

    def open(self) -> None:
        self._open.set()


def test_who_waits_is_committed_together_in_order() -> None:
    queue = Queue()
    gate = Gate(queue)
    queue.start(1, 2, 3, 4)
    gate.open()
    queue.join()
    assert queue.batches == [[1], [2, 3, 4]]
    assert queue.results == {1: 1, 2: 2, 3: 3, 4: 4}
    assert queue.committer.submit(Numbered(5)) == 5


def test_each_caller_of_a_batch_gets_an_error_of_its_own() -> None:
    queue = Queue()
    gate = Gate(queue)
    queue.start(1, 2, 3)

    def fail(numbers: list[int]) -> None:
        raise OperationalError("down")

    opened = queue.during
    queue.during = fail
    gate.open()
    queue.join()
    assert opened is not fail
    assert queue.results[1] == 1
    told = [queue.results[2], queue.results[3]]
    assert [str(one) for one in told] == ["down", "down"]
    assert told[0] is not told[1]


def test_a_request_s_own_error_is_raised() -> None:
    queue = Queue()
    request = Numbered(1)
    request.error = IntegrityError("taken")
    with pytest.raises(IntegrityError, match="taken"):
        queue.committer.submit(request)


def test_whose_turn_does_not_come_is_not_committed() -> None:
    queue = Queue(timeout=0.05)
    gate = Gate(queue)
    queue.start(1, 2)
    until(lambda: 2 in queue.results)
    assert str(queue.results[2]) == (
        "database is locked: other commits took 0.1 s. Nothing of this one was done."
    )
    gate.open()
    queue.join()
    assert queue.batches == [[1]]
    assert queue.committer.submit(Numbered(3)) == 3


def test_who_is_in_a_batch_waits_for_its_end_however_long() -> None:
    queue = Queue(timeout=0.1)
    gate = Gate(queue)
    queue.start(1, 2, 3)
    slow = threading.Event()
    queue.during = lambda numbers: slow.wait(HANGS_AFTER)
    gate.open()
    until(lambda: len(queue.batches) == 2)
    time.sleep(0.3)
    slow.set()
    queue.join()
    assert queue.results == {1: 1, 2: 2, 3: 3}


def test_the_next_one_leads_after_a_leader_that_was_interrupted() -> None:
    queue = Queue()
    gate = Gate(queue)
    queue.start(1, 2, 3)

    def interrupt(numbers: list[int]) -> None:
        queue.during = lambda numbers: None
        raise KeyboardInterrupt

    queue.during = interrupt
    gate.open()
    queue.join()
    assert isinstance(queue.results[2], KeyboardInterrupt)
    assert isinstance(queue.results[3], CommitOutcomeUnknown)
    assert queue.committer.submit(Numbered(4)) == 4


def test_who_is_interrupted_before_it_leads_lets_the_next_one() -> None:
    queue = Queue()
    gate = Gate(queue)
    queue.start(1, 2, 3)
    gather = queue.committer._gather

    def interrupt() -> Any:
        queue.committer._gather = gather  # type: ignore[method-assign]
        raise KeyboardInterrupt

    queue.committer._gather = interrupt  # type: ignore[method-assign]
    gate.open()
    queue.join()
    assert isinstance(queue.results[2], KeyboardInterrupt)
    assert queue.results[3] == 3
    assert queue.batches == [[1], [3]]


def test_who_is_interrupted_while_it_waits_leaves_the_queue() -> None:
    queue = Queue()
    gate = Gate(queue)
    queue.start(1)
    member_wait = queue.committer._wait

    def interrupt(member: Any) -> None:
        raise KeyboardInterrupt

    queue.committer._wait = interrupt  # type: ignore[method-assign]
    queue.submit(2)
    queue.committer._wait = member_wait  # type: ignore[method-assign]
    queue.start(3)
    gate.open()
    queue.join()
    assert isinstance(queue.results[2], KeyboardInterrupt)
    assert queue.batches == [[1], [3]]


def test_many_threads() -> None:
    queue = Queue()
    queue.during = lambda numbers: time.sleep(0.002)

    def many(first: int) -> None:
        for number in range(first, first + 50):
            queue.submit(number)

    queue.threads = [
        threading.Thread(target=many, args=[1000 * n], daemon=True) for n in range(8)
    ]
    for thread in queue.threads:
        thread.start()
    queue.join()
    assert all(queue.results[number] == number for number in queue.results)
    committed = [number for batch in queue.batches for number in batch]
    assert len(committed) == len(set(committed)) == len(queue.results) == 400
    assert len(queue.batches) < 200
