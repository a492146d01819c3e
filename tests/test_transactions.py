from __future__ import annotations

import asyncio
import inspect
import random
import threading
import time
from typing import Any

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.db import NotSupportedError, connection, transaction
from django.test import TestCase

from s3cache import transactions
from s3cache.exceptions import CommitOutcomeUnknown, RowChanged, TransactionConflict
from s3cache.transactions import retry_on_conflict, serializable
from tests.databases import databases
from tests.testapp.models import Gear


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses that were made, and no time lost."""
    made: list[float] = []

    async def sleep(seconds: float) -> None:
        made.append(seconds)

    monkeypatch.setattr(time, "sleep", made.append)
    monkeypatch.setattr(asyncio, "sleep", sleep)
    return made


class Conflicts:
    """Callable that writes a row, and then meets this many conflicts."""

    def __init__(self, number: int, error: type[Exception] = TransactionConflict):
        self.left, self.calls, self.error = number, 0, error

    def __call__(self, name: str = "gear", *, weight: int = 0) -> Gear:
        self.calls += 1
        assert connection.in_atomic_block
        gear = Gear.objects.create(name=name, weight=weight)
        self.meet()
        return gear

    async def acall(self, name: str = "gear", *, weight: int = 0) -> Gear:
        self.calls += 1
        assert await sync_to_async(lambda: connection.in_atomic_block)()
        gear = await Gear.objects.acreate(name=name, weight=weight)
        self.meet()
        return gear

    def meet(self) -> None:
        self.left -= 1
        if self.left >= 0:
            raise self.error("somebody else was first")


# retry_on_conflict


@pytest.mark.django_db(transaction=True)
def test_a_conflict_is_tried_again_and_leaves_nothing_behind(
    pauses: list[float],
) -> None:
    function = Conflicts(2)

    gear = retry_on_conflict(function)("anvil", weight=100)

    assert list(Gear.objects.all()) == [gear]
    assert (gear.name, gear.weight) == ("anvil", 100)
    assert function.calls == 3
    assert len(pauses) == 2


@pytest.mark.django_db(transaction=True)
def test_the_last_conflict_is_raised(pauses: list[float]) -> None:
    function = Conflicts(10)

    with pytest.raises(TransactionConflict):
        retry_on_conflict(attempts=3)(function)()

    assert (function.calls, len(pauses)) == (3, 2)
    assert not Gear.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_a_changed_row_is_a_conflict(pauses: list[float]) -> None:
    retry_on_conflict(Conflicts(1, RowChanged))()

    assert len(pauses) == 1


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
@pytest.mark.django_db(transaction=True)
def test_nothing_else_is_tried_again(error: Any, pauses: list[float]) -> None:
    function = Conflicts(1, error)

    with pytest.raises(error):
        retry_on_conflict(function)()

    assert function.calls == 1
    assert not Gear.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_a_commit_that_may_have_happened_is_not_tried_again() -> None:
    @retry_on_conflict
    def function() -> None:
        calls.append(1)
        raise CommitOutcomeUnknown("no answer", position=1, token="t")

    calls: list[int] = []
    with pytest.raises(CommitOutcomeUnknown):
        function()
    assert calls == [1]


@pytest.mark.django_db(transaction=True)
def test_a_conflict_of_the_commit_itself_is_tried_again(
    pauses: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    commit, conflicts = connection.commit, [TransactionConflict("at the commit")]

    def conflict_once() -> None:
        if conflicts:
            raise conflicts.pop()
        commit()

    monkeypatch.setattr(connection, "commit", conflict_once)

    retry_on_conflict(lambda: Gear.objects.create(name="anvil"))()

    assert Gear.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_it_refuses_to_sit_inside_another_block() -> None:
    function = Conflicts(0)

    with transaction.atomic(), pytest.raises(RuntimeError, match="durable"):
        retry_on_conflict(function)()

    assert function.calls == 0


class WithinTestCase(TestCase):
    def test_a_test_cases_own_block_does_not_count(self) -> None:
        function = Conflicts(1)

        retry_on_conflict(function)()
        serializable()(function)()

        assert function.calls == 3
        assert Gear.objects.count() == 2

    async def test_nor_for_async_functions(self) -> None:
        await retry_on_conflict(Conflicts(1).acall)()

        assert await Gear.objects.acount() == 1


@pytest.mark.django_db(transaction=True)
def test_an_async_function_runs_in_a_transaction_too(pauses: list[float]) -> None:
    function = Conflicts(2)

    gear = async_to_sync(retry_on_conflict(function.acall))("anvil", weight=100)

    assert (gear.name, gear.weight) == ("anvil", 100)
    assert list(Gear.objects.all()) == [gear]
    assert function.calls == 3
    assert len(pauses) == 2


@pytest.mark.django_db(transaction=True)
def test_other_tasks_are_not_drawn_into_an_async_functions_transaction() -> None:
    inside = asyncio.Event()

    @retry_on_conflict
    async def function() -> None:
        await Gear.objects.acreate(name="anvil")
        inside.set()
        await asyncio.sleep(0.05)

    async def other() -> bool:
        await inside.wait()
        return await sync_to_async(lambda: connection.in_atomic_block)()

    async def both() -> list[Any]:
        return list(await asyncio.gather(function(), other()))

    assert async_to_sync(both)() == [None, False]


def test_pauses_grow_at_random_up_to_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    ranges = []

    class Longest(random.Random):
        def uniform(self, a: float, b: float) -> float:
            ranges.append((a, b))
            return b

    monkeypatch.setattr(transactions, "_random", Longest())

    assert list(transactions._pauses(8)) == [0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.0]
    assert {start for start, _ in ranges} == {0}


@pytest.mark.parametrize("attempts", [0, -1])
def test_attempts_must_be_positive(attempts: int) -> None:
    with pytest.raises(
        ValueError, match=f"^attempts is {attempts}, but must be 1 or more.$"
    ):
        retry_on_conflict(attempts=attempts)


def test_a_decorated_function_looks_like_itself() -> None:
    @retry_on_conflict(attempts=2)
    def function() -> None:
        """Do it."""

    @retry_on_conflict
    async def coroutine() -> None:
        """Do it."""

    assert (function.__name__, function.__doc__) == ("function", "Do it.")
    assert (coroutine.__name__, coroutine.__doc__) == ("coroutine", "Do it.")
    assert inspect.iscoroutinefunction(coroutine)


def test_the_database_is_by_default_the_one_in_a_bucket() -> None:
    block = transactions._Durable(None)

    assert block.alias == "default"
    with databases(default="sqlite", s3="bucket"):
        assert block.alias == "s3"
        assert transactions._Durable("default").alias == "default"


# serializable


@pytest.fixture
def demanded(db: None, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function that tells whether the connection is to be serializable."""
    monkeypatch.setattr(connection, "serializable_block", False, raising=False)
    return lambda: connection.serializable_block  # type: ignore[attr-defined]


@pytest.mark.django_db(transaction=True)
def test_the_connection_knows_until_its_commit_is_done(
    demanded: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    commit = connection.commit

    def note_and_commit() -> None:
        seen.append(demanded())
        commit()

    monkeypatch.setattr(connection, "commit", note_and_commit)

    with serializable():
        seen.append(demanded())
        assert connection.in_atomic_block

    assert seen == [True, True]
    assert not demanded()
    assert not connection.in_atomic_block


@pytest.mark.django_db(transaction=True)
def test_the_connection_forgets_after_an_error(demanded: Any) -> None:
    with pytest.raises(ValueError, match="^no$"), serializable():
        Gear.objects.create(name="anvil")
        raise ValueError("no")

    assert not demanded()
    assert not Gear.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_the_connection_forgets_after_a_conflict(
    demanded: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def conflict() -> None:
        raise TransactionConflict("at the commit")

    with pytest.raises(TransactionConflict), serializable():
        monkeypatch.setattr(connection, "commit", conflict)

    assert not demanded()


@pytest.mark.django_db(transaction=True)
def test_only_the_outermost_block_can_be_serializable(demanded: Any) -> None:
    with transaction.atomic():
        with pytest.raises(RuntimeError, match="durable"), serializable():
            pass
        assert not demanded()

    with serializable():
        with pytest.raises(RuntimeError, match="durable"), serializable():
            pass
        assert demanded()
        with transaction.atomic():
            assert demanded()


@pytest.mark.django_db(transaction=True)
def test_it_decorates_functions_of_both_kinds(demanded: Any) -> None:
    @serializable
    def bare() -> bool:
        return bool(demanded())

    @serializable()
    def called() -> bool:
        return bool(demanded())

    @serializable(using="default")
    async def coroutine() -> bool:
        return await sync_to_async(lambda: bool(demanded()))()

    assert bare()
    assert called()
    assert async_to_sync(coroutine)()
    assert not demanded()


@pytest.mark.django_db(transaction=True)
def test_retries_can_be_serializable(demanded: Any, pauses: list[float]) -> None:
    conflicts, seen = Conflicts(1), []

    @retry_on_conflict(serializable=True)
    def function() -> None:
        seen.append(demanded())
        conflicts()

    function()

    assert seen == [True, True]
    assert not demanded()


@pytest.mark.django_db(transaction=True)
def test_one_decorator_serves_many_threads(demanded: Any) -> None:
    block, together, seen = serializable(), threading.Barrier(2, timeout=10), []

    def work() -> None:
        try:
            with block:
                together.wait()
                seen.append(connection.serializable_block)  # type: ignore[attr-defined]
                together.wait()
            seen.append(connection.serializable_block)  # type: ignore[attr-defined]
        finally:
            # Django keeps in-memory databases open, since they would be gone.
            connection.connection.close()

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert seen == [True, True, False, False]


def test_other_databases_cannot_promise_it(
    db: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "vendor", "postgresql")
    monkeypatch.setattr(connection, "display_name", "PostgreSQL")

    with (
        pytest.raises(
            NotSupportedError,
            match=r"^serializable\(\) is for databases in a bucket; the database "
            "'default' is PostgreSQL.$",
        ),
        serializable(),
    ):
        pass
