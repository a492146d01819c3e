"""Performing the effects of a protocol: store, replica file, clock, locks."""

from __future__ import annotations

import contextlib
import logging
import secrets
import sqlite3
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any, TypeVar

from django.db import DatabaseError, OperationalError

from s3cache.log import effects
from s3cache.log.catalog import Catalog, Pack
from s3cache.log.drive import drive
from s3cache.log.effects import Effect, Lacking, Position, Staged, Steps
from s3cache.log.entry import Rows
from s3cache.replica import clock
from s3cache.stores.base import Answer

if TYPE_CHECKING:
    from s3cache.replica.file import ReplicaFile
    from s3cache.replica.replica import Replica

T = TypeVar("T")

logger = logging.getLogger("s3cache.replica")

#: Requests of one process that are under way at the same time.
PARALLEL = 8


def _cannot_stage() -> Staged:
    raise OperationalError("this protocol commits nothing")


class Performer:
    """Performs the effects of one run of a protocol on one replica.

    ``stage`` runs the batch that is being committed. With ``has_lock`` the
    caller holds the commit lock already.
    """

    #: Of the files that it makes; see ``beside``.
    kind = "new"

    def __init__(
        self,
        replica: Replica,
        stage: Callable[[], Staged] = _cannot_stage,
        *,
        has_lock: bool = False,
    ) -> None:
        self._replica = replica
        self._store = replica.store
        self._side = replica.side
        self._stage = stage
        self._has_lock = has_lock
        #: What is being made to take the place of the replica's content.
        self._new: ReplicaFile | None = None
        # Another thread may open the replica's file anew meanwhile.
        self._opened = replica.opened()
        self._created_key, self._created_at = "", 0.0
        #: The number of the entry that this run has created, or 0.
        self.created = 0
        #: How often the batch was run, and its transactions.
        self.staged = self.transactions = 0
        self._diverged = False
        self._catalog: Catalog | None = None
        self._asked_at = 0.0
        self._performers: dict[type, Callable[[Any], Any]] = {
            effects.Get: self._get,
            effects.GetMany: self._get_many,
            effects.Create: self._create,
            effects.ListPage: self._list,
            effects.Where: self._where,
            effects.Apply: self._apply,
            effects.Proved: self._proved,
            effects.Stage: self._run_stage,
            effects.KeepPending: self._keep_pending,
            effects.StartOver: self._start_over,
            effects.Load: self._load,
            effects.Loaded: self._loaded,
            effects.Absent: self._absent,
            effects.Repack: self._repack,
            effects.TakeOver: self._take_over,
            effects.Now: self._now,
            effects.Sleep: self._sleep,
            effects.Token: self._token,
            effects.Recall: self._recall,
            effects.Remember: self._remember,
            effects.HoldCommitLock: self._hold_commit_lock,
            effects.HoldRebuildLock: self._hold_rebuild_lock,
            effects.TakeTurn: self._take_turn,
        }

    def run(self, steps: Steps[T]) -> T:
        """Run a protocol to its end."""
        try:
            return drive(steps, self._perform)
        except (DatabaseError, sqlite3.Error):
            raise
        except BaseException:
            self._replica.asking.expect_news()  # it may have been a commit
            raise
        finally:
            if self._new is not None:
                self._new.discard()

    def _perform(self, effect: Effect) -> Any:
        return self._performers[type(effect)](effect)

    # The store.

    def _get(self, effect: effects.Get) -> Answer:
        return self._store.get(effect.key)

    def _get_many(self, effect: effects.GetMany) -> Sequence[Answer]:
        if len(effect.keys) == 1:
            return [self._read(effect.keys[0])]
        # Threads for this one call: none is left when the process forks. Each
        # gets the caller's context, where requests are counted.
        waiting: list[Future[Answer]] = []
        with ThreadPoolExecutor(min(PARALLEL, len(effect.keys))) as pool:
            for key in effect.keys:
                try:
                    one = pool.submit(copy_context().run, self._read, key)
                except RuntimeError:
                    break  # the process ends, and sends its outbox first
                waiting.append(one)
            answers = [one.result() for one in waiting]
        return answers + [self._read(key) for key in effect.keys[len(answers) :]]

    def _read(self, key: str) -> Answer:
        body = self._replica.rest.body(key)
        return self._store.get(key) if body is None else Answer(200, body)

    def _create(self, effect: effects.Create) -> Answer:
        if effect.key != self._created_key:
            # Of a repeated request the first moment counts: when a later one
            # was sent, entries may have followed ours already.
            self._created_key, self._created_at = effect.key, clock.now()
        return self._store.put(effect.key, effect.body, if_none_match=True)

    def _list(self, effect: effects.ListPage) -> Answer:
        return self._store.list(effect.prefix, start_after=effect.start_after)

    # The replica.

    def _in_target(self, ask: Callable[[ReplicaFile], T]) -> T:
        """What ``ask`` says of what is made anew, or else of the replica."""
        return self._replica.in_file(ask) if self._new is None else ask(self._new)

    def _where(self, effect: effects.Where) -> Position:
        if self._new is not None:
            return self._new.position()
        return self._as_proved(self._replica.position())

    def _as_proved(self, position: Position) -> Position:
        """``position`` with what the host learned since it was reached."""
        proved_at = self._side.proved_at(position.number)
        return replace(position, proved_at=proved_at) if proved_at else position

    def _apply(self, effect: effects.Apply) -> Position | effects.Lacking:
        if effect.own:
            self.created = effect.entry.number
        if self._new is not None:
            done = self._new.apply(effect)
            return done if isinstance(done, Lacking) else self._new.position()
        # Who holds the writer has a file that no other thread leaves.
        with self._replica.in_nobodys_way():
            moved = self._replica.file.apply(effect)
            if isinstance(moved, Lacking):
                return moved
            position = self._replica.position()
            if not self._replica.is_current():
                # Another process has made another one, which may lack it.
                self._replica.asking.expect_news()
            elif moved and effect.own:
                # That nobody else was first is as good as a 404.
                self._side.set_asked(self._created_at)
        self._count_changes(effect, moved=moved)
        return self._as_proved(position)

    def _count_changes(self, effect: effects.Apply, *, moved: bool) -> None:
        """Count each entry once on a host, and once as its creator's."""
        events = self._replica.events
        for table in {
            change.table.lower()
            for change in effect.entry.changes
            if isinstance(change, Rows)
        }:
            if effect.own:
                events.count(("changed", table))
            if moved is not effect.own:
                # Another's; or an own one that another process had first.
                events.count(("moved" if moved else "again", table))

    def _proved(self, effect: effects.Proved) -> None:
        if self._new is not None:
            self._new.proved(effect)
            self._asked_at = effect.asked_at
        elif self._replica.is_current(self._opened):
            self._side.proved(effect.number, effect.date)
            self._side.set_asked(effect.asked_at)

    def _run_stage(self, effect: effects.Stage) -> Staged:
        staged = self._stage()
        self.staged += 1
        self.transactions = staged.transactions
        return replace(staged, position=self._as_proved(staged.position))

    def _keep_pending(self, effect: effects.KeepPending) -> None:
        self._replica.asking.expect_news()
        try:
            with self._replica.writing():
                self._replica.file.keep_pending(effect.number, effect.token)
        except (OperationalError, sqlite3.Error):
            # The caller has to be told that the outcome is unknown, and not
            # that the disk is full: that would mean that nothing was done.
            logger.exception(
                "%s cannot keep that the outcome of entry %d, token %s, is unknown.",
                self._replica.path,
                effect.number,
                effect.token,
            )

    def _start_over(self, effect: effects.StartOver) -> effects.Begun:
        logger.log(
            logging.ERROR if effect.diverged else logging.INFO,
            "The replica %s is being made anew: %s.",
            self._replica.path,
            effect.reason,
        )
        self._diverged = effect.diverged
        if self._new is not None:
            self._new.discard()
        self._catalog = effect.catalog
        self._new = self._replica.new_file(effect.head, effect.catalog, kind=self.kind)
        packs = self._packs_to_begin_with(effect)
        return effects.Begun(self._new.position(), packs)

    def _packs_to_begin_with(self, effect: effects.StartOver) -> Sequence[Pack]:
        if effect.catalog is None:
            return ()
        packs, limit = effect.catalog.packs, self._replica.options.load_at_once
        if (
            effect.whole
            or limit is None
            or sum(pack.raw_size for pack in packs) <= limit
            or not self._replica.may_lack()
        ):
            return packs
        return ()

    def _load(self, effect: effects.Load) -> None:
        replica, key = self._replica, effect.pack.key
        if self._new is not None:
            self._new.load(effect)
        else:
            with replica.in_nobodys_way():
                is_cut = replica.file.load(effect)
            if is_cut:
                replica.rest.keep(key, effect.body)
                return
            replica.rest.forget(key)
        if replica.on_load is not None:
            replica.on_load(effect.left)

    def _absent(self, effect: effects.Absent) -> effects.Lacking:
        return self._in_target(lambda file: file.lacking(effect))

    def _repack(self, effect: effects.Repack) -> bool:
        with self._replica.in_nobodys_way():
            return self._replica.file.repack(effect.catalog)

    def _loaded(self, effect: effects.Loaded) -> Position:
        if self._new is not None and self._catalog is not None:
            self._new.complete(self._catalog)
        return self._in_target(lambda file: file.position())

    def _take_over(self, effect: effects.TakeOver) -> bool:
        new, self._new = self._new, None
        if new is None:
            return False
        try:
            with self._replica.in_nobodys_way():
                replaced = self._replica.replace_by(
                    new, effect.replaces, keep_old=self._diverged
                )
        finally:
            new.discard()
        if replaced:
            self._side.set_asked(self._asked_at)
        return replaced

    # The host.

    def _now(self, effect: effects.Now) -> float:
        return clock.now()

    def _sleep(self, effect: effects.Sleep) -> None:
        time.sleep(effect.seconds)

    def _token(self, effect: effects.Token) -> str:
        return secrets.token_hex(16)

    def _recall(self, effect: effects.Recall) -> effects.HostState:
        return self._side.host_state(self._replica.host)

    def _remember(self, effect: effects.Remember) -> None:
        for field in fields(effect):
            value = getattr(effect, field.name)
            if value is not None:
                self._side.remember(field.name, value)

    def _hold_commit_lock(self, effect: effects.HoldCommitLock) -> effects.Held:
        if self._has_lock:
            return contextlib.nullcontext()
        return self._side.commit.held(max(effect.deadline - clock.now(), 0.0))

    def _hold_rebuild_lock(self, effect: effects.HoldRebuildLock) -> effects.Held:
        return self._replica.hold_rebuild_lock(max(effect.deadline - clock.now(), 0.0))

    def _take_turn(self, effect: effects.TakeTurn) -> effects.Turn | None:
        take = self._replica.take_turn
        return None if take is None else take(effect.patience)
