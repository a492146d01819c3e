"""Many changes at once: results change once, and are warm afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from django.db import connections, models, router, transaction

from s3cache.exceptions import S3CacheError, TransactionConflict
from s3cache.warming.background import background
from s3cache.warming.named import warm_names
from s3cache.warming.planning import check_names
from s3cache.warming.steps import Report

__all__ = ["Batch", "NotTried", "Outcome", "bulk"]

T = TypeVar("T")


class NotTried(Exception):
    """
    The job had ended before this item: nothing was done for it.

    ``__cause__`` is the error of the item that ended it.
    """


@dataclass(slots=True)
class Outcome(Generic[T]):
    """What became of an item: its `error`, or None, and the `result`."""

    item: T
    error: Exception | None = None
    result: Any = None

    @property
    def ok(self) -> bool:
        """Whether it was done."""
        return self.error is None


class Batch(Generic[T]):
    """The items of a bulk job; `warmed` is known when it is over."""

    def __init__(self, using: str, *, is_atomic: bool) -> None:
        self._using = using
        self._is_atomic = is_atomic
        self.outcomes: list[Outcome[T]] = []
        self.warmed: Report | None = None

    @contextmanager
    def item(self, item: T) -> Iterator[Outcome[T]]:
        """
        Do one item; an error in it is noted, and goes no further.

        What it has written until then is undone, and nothing else is; after
        a `CommitOutcomeUnknown` it may be there all the same. An error that
        is not the item's ends the whole job, and is raised: a `StoreError`, a
        `CommitOutcomeUnknown`, or a log that cannot be followed, for the next
        item would wait as long to be told the same; and, where the job is
        one commit, a `TransactionConflict`.
        """
        outcome = Outcome(item)
        self.outcomes.append(outcome)
        try:
            with transaction.atomic(using=self._using):
                yield outcome
        except Exception as error:
            outcome.error = error
            if self.is_ended_by(error):
                raise

    def is_ended_by(self, error: Exception) -> bool:
        """Whether an item that meets `error` is the last of the job."""
        if isinstance(error, TransactionConflict):
            return self._is_atomic
        return isinstance(error, S3CacheError)

    def run(self, work: Callable[[T], Any], items: Iterable[T]) -> list[Outcome[T]]:
        """
        Do ``work(item)`` with each; return what became of them.

        If an item ends the job, `items` is read to its end all the same:
        those that are left are in `not_tried`. Raises what `item` raises.
        """
        begin = len(self.outcomes)
        left = iter(items)
        for item in left:
            try:
                with self.item(item) as outcome:
                    outcome.result = work(item)
            except Exception as error:
                self._give_up(left, error)
                raise
        return self.outcomes[begin:]

    def _give_up(self, left: Iterable[T], cause: Exception) -> None:
        for item in left:
            error = NotTried(f"The job ended before this item: {cause}")
            error.__cause__ = cause
            self.outcomes.append(Outcome(item, error))

    def warm(self, names: Sequence[str], using: str | None = None) -> None:
        """Warm models and queries, when nothing is open any more."""

        def warm() -> None:
            self.warmed = warm_names(names, using=using)

        # At once, unless the caller has a transaction of its own.
        transaction.on_commit(warm, using=self._using)

    @property
    def failed(self) -> list[Outcome[T]]:
        """The items that were not done, `not_tried` among them."""
        return [outcome for outcome in self.outcomes if not outcome.ok]

    @property
    def not_tried(self) -> list[Outcome[T]]:
        """The items that the job did not come to: it is safe to do them."""
        return [one for one in self.outcomes if isinstance(one.error, NotTried)]


@contextmanager
def bulk(
    model: type[models.Model],
    *,
    warm: bool | str | Sequence[str] = True,
    atomic: bool = True,
    using: str | None = None,
) -> Iterator[Batch[Any]]:
    """
    Change many rows, and have what is read of them warm afterwards.

    With `atomic` all is one commit: results become unreachable once, and
    nobody sees half of it; an item that fails is undone alone. Without, each
    item is a commit of its own. Queries that are warmed after changes wait
    for the end. Then `warm` names what is warmed: models and queries, True
    for `model`. If the caller has a transaction open, that is after it.
    `using` is the database that is written, and of which models are warmed;
    None: as routers say.

    If the block raises, or its commit fails, so does this; nothing of an
    atomic one is left then, and all of its outcomes say so. The first failure
    of the store ends both, see `Batch.item`, and nothing is warmed. What
    cannot be warmed is no error: that the changes were made is what counts.
    It is logged, and counted in `Batch.warmed`.
    """
    names = _names(model, warm)
    check_names(names, using)
    alias = using or router.db_for_write(model)
    # On an event loop no transaction can be, which is said before the work.
    connections[alias].ensure_connection()
    batch: Batch[Any] = Batch(alias, is_atomic=atomic)
    with background.held():
        try:
            with ExitStack() as stack:
                if atomic:
                    stack.enter_context(transaction.atomic(using=alias))
                yield batch
        except Exception as error:
            if atomic:
                for outcome in batch.outcomes:
                    outcome.error = outcome.error or error
            elif not batch.is_ended_by(error):
                batch.warm(names, using)
            raise
        batch.warm(names, using)


def _names(model: type[models.Model], warm: bool | str | Sequence[str]) -> list[str]:
    """What is to be warmed, by name."""
    if isinstance(warm, bool):
        return [model._meta.label] if warm else []
    return [warm] if isinstance(warm, str) else list(warm)
