"""Transactions that run again on a conflict, and serializable ones."""

from __future__ import annotations

import asyncio
import functools
import inspect
import random
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, ContextDecorator
from types import TracebackType
from typing import Any, ClassVar, Final, ParamSpec, TypeVar, cast, overload

from asgiref.sync import async_to_sync, sync_to_async
from django.db import DEFAULT_DB_ALIAS, NotSupportedError, connections, transaction

from s3cache.exceptions import TransactionConflict
from s3cache.routers import bucket_alias

__all__ = ["retry_on_conflict", "serializable", "write_behind"]

ATTEMPTS: Final = 8
FIRST_PAUSE: Final = 0.02
"""Seconds: about one commit; twice as long after each attempt."""
LONGEST_PAUSE: Final = 1.0

# Not the random module's own generator: processes that were forked from one
# another would wait in step.
_random: Final = random.SystemRandom()

_P = ParamSpec("_P")
_R = TypeVar("_R")


@overload
def retry_on_conflict(function: Callable[_P, _R], /) -> Callable[_P, _R]: ...


@overload
def retry_on_conflict(
    *, attempts: int = ..., using: str | None = ..., serializable: bool = ...
) -> Callable[[Callable[_P, _R]], Callable[_P, _R]]: ...


def retry_on_conflict(
    function: Callable[_P, _R] | None = None,
    /,
    *,
    attempts: int = ATTEMPTS,
    using: str | None = None,
    serializable: bool = False,
) -> Callable[_P, _R] | Callable[[Callable[_P, _R]], Callable[_P, _R]]:
    """
    Run a function in a transaction, and again when that meets a conflict.

    A decorator, with or without arguments; ``retry_on_conflict(f)(...)``
    wraps a single call. The function, sync or async, is called up to
    `attempts` times, with random pauses in between that grow to a second, so
    whatever it does beside the database must bear repetition. The last
    `TransactionConflict` is raised. Nothing else is retried, and
    `CommitOutcomeUnknown` least of all: that commit may have happened.

    `using` is the database, by default the one that lives in a bucket (see
    `s3cache.routers.bucket_alias`), else ``default``. With `serializable`
    each transaction is as `s3cache.transactions.serializable` makes it.

    Raise `RuntimeError` inside another ``atomic`` block: only the outermost
    one can begin anew. That of Django's `TestCase` does not count, as for
    ``atomic(durable=True)``.

    An async function keeps the thread of its database connection until it
    is done, and must not wait for a task that needs the same thread.
    """
    if attempts < 1:
        raise ValueError(f"attempts is {attempts!r}, but must be 1 or more.")
    block = _Serializable(using) if serializable else _Durable(using)

    def decorate(function: Callable[_P, _R]) -> Callable[_P, _R]:
        run = block(function)
        if inspect.iscoroutinefunction(function):
            return cast("Callable[_P, _R]", _retry_async(run, attempts))
        return _retry(run, attempts)

    return decorate if function is None else decorate(function)


@overload
def serializable(using: Callable[_P, _R], /) -> Callable[_P, _R]: ...


@overload
def serializable(using: str | None = ...) -> _Serializable: ...


def serializable(
    using: Callable[_P, _R] | str | None = None,
) -> Callable[_P, _R] | _Serializable:
    """
    Open a transaction whose outcome is as if it had been alone.

    A context manager and a decorator, of async functions too. Whatever the
    block reads is read again at its commit, and unless each answer is still
    the same, `TransactionConflict` is raised and nothing is written: no write
    skew, at the price of more conflicts. See `retry_on_conflict`, which takes
    ``serializable=True``.

    `using` is the database, by default the one that lives in a bucket. Plain
    SQLite will do, since its transactions are serializable anyway; for any
    other raise `NotSupportedError`. Raise `RuntimeError` inside another
    ``atomic`` block: only the outermost one commits.
    """
    if callable(using):
        return _Serializable(None)(using)
    return _Serializable(using)


@overload
def write_behind(using: Callable[_P, _R], /) -> Callable[_P, _R]: ...


@overload
def write_behind(using: str | None = ...) -> _Behind: ...


def write_behind(
    using: Callable[_P, _R] | str | None = None,
) -> Callable[_P, _R] | _Behind:
    """
    Open a transaction that ends when this host has it on its disk.

    A context manager and a decorator, of async functions too. What the block
    writes is sent to the bucket a little later, whole and in order, whatever
    happens to this process. Its statements are run again then, on the newest
    state: ``F()`` adds up, and of two that write a row the last one wins.
    What they say is what they say today.

    `using` is the database, by default the one that lives in a bucket; for
    any other raise `NotSupportedError`, as for tables with unique values
    beside the primary key. Raise `RuntimeError` inside another ``atomic``
    block.
    """
    if callable(using):
        return _Behind(None)(using)
    return _Behind(using)


class _Durable(ContextDecorator):
    """
    An outermost ``atomic`` block, which may decorate async functions too.

    One object serves any number of blocks and threads: what it needs to know
    about a block is kept by Django, with the connection.
    """

    def __init__(self, using: str | None) -> None:
        self._using = using

    @property
    def alias(self) -> str:
        # Not when decorators run: settings may be overridden by then.
        return self._using or bucket_alias() or DEFAULT_DB_ALIAS

    def __enter__(self) -> None:
        self._atomic().__enter__()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._atomic().__exit__(exc_type, exc_value, traceback)

    def __call__(self, function: Callable[_P, _R]) -> Callable[_P, _R]:  # type: ignore[override]
        if not inspect.iscoroutinefunction(function):
            return super().__call__(function)

        # Connections belong to threads. All that the function asks of the
        # database runs in the thread that waits for it here, in the block.
        def run(*args: _P.args, **kwargs: _P.kwargs) -> Any:
            with self:
                return async_to_sync(function)(*args, **kwargs)

        @functools.wraps(function)
        async def decorated(*args: _P.args, **kwargs: _P.kwargs) -> Any:
            return await sync_to_async(run)(*args, **kwargs)

        return cast("Callable[_P, _R]", decorated)

    def _atomic(self) -> AbstractContextManager[None]:
        return transaction.atomic(using=self.alias, durable=True)


class _Asking(_Durable):
    """Tells the connection what is asked of it while the block is open."""

    asked: ClassVar[str]

    def __enter__(self) -> None:
        connection: Any = connections[self.alias]
        if not self._can(connection):
            raise NotSupportedError(
                f"{self.asked.removesuffix('_block')}() is for databases in a bucket; "
                f"the database {self.alias!r} is {connection.display_name}."
            )
        before = getattr(connection, self.asked, False)
        setattr(connection, self.asked, True)
        try:
            super().__enter__()
        except BaseException:
            setattr(connection, self.asked, before)
            raise

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        connection: Any = connections[self.alias]
        try:
            super().__exit__(exc_type, exc_value, traceback)
        finally:
            setattr(connection, self.asked, False)

    def _can(self, connection: Any) -> bool:
        """Whether that database has it."""
        return bool(connection.vendor == "sqlite")


class _Serializable(_Asking):
    asked = "serializable_block"


class _Behind(_Asking):
    asked = "write_behind_block"

    def _can(self, connection: Any) -> bool:
        return hasattr(connection, self.asked)


def _retry(run: Callable[_P, _R], attempts: int) -> Callable[_P, _R]:
    @functools.wraps(run)
    def retried(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        for pause in _pauses(attempts):
            try:
                return run(*args, **kwargs)
            except TransactionConflict:
                time.sleep(pause)
        return run(*args, **kwargs)

    return retried


def _retry_async(run: Callable[_P, Any], attempts: int) -> Callable[_P, Awaitable[Any]]:
    @functools.wraps(run)
    async def retried(*args: _P.args, **kwargs: _P.kwargs) -> Any:
        for pause in _pauses(attempts):
            try:
                return await run(*args, **kwargs)
            except TransactionConflict:
                await asyncio.sleep(pause)
        return await run(*args, **kwargs)

    return retried


def _pauses(attempts: int) -> Iterator[float]:
    """Yield the seconds to wait after each attempt but the last."""
    for number in range(attempts - 1):
        # "Full jitter": whoever met at one commit should not meet at the next.
        yield _random.uniform(0, min(FIRST_PAUSE * 2**number, LONGEST_PAUSE))
