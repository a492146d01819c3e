"""Records of the model's database: how their effects are performed, and what
must hold of every one of them at every moment."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from s3cache.keeper import effects as k
from s3cache.log import effects as e
from s3cache.log.entry import Rows, Statement
from s3cache.records import effects as r
from s3cache.records.form import open_record
from s3cache.records.keys import record_key
from s3cache.stores.base import Answer

from .database import State
from .packs import touched_by
from .store import Object, Request
from .world import Violation

if TYPE_CHECKING:
    from .host import Run, Task

#: Rows of a page: few, so that commits come between two of them.
PAGE = 3


def is_record(key: str) -> bool:
    return "/rows/" in key


def content_of(state: State, table: str, key: int) -> dict[str, Any] | None:
    """What a record says of a row, or None."""
    row = state.tables[table].rows.get(key)
    if row is None:
        return None
    fields = dict(zip(state.tables[table].columns, row, strict=True))
    return {"model": table, "pk": key, "fields": fields}


def all_contents(state: State) -> dict[str, dict[str, Any]]:
    """What all records say, by key."""
    return {
        record_key(name, (key,)): content
        for name, table in state.tables.items()
        for key in table.rows
        if (content := content_of(state, name, key)) is not None
    }


class RecordOracle:
    """No record is replaced by an older one, and none of somebody else's."""

    def __init__(self, database: str) -> None:
        self.database = database
        #: What somebody else has written, by key.
        self.edited: dict[str, bytes] = {}
        #: Records that a request has reached late, or whose sender was dead.
        self.haunted: set[str] = set()

    def check_put(self, key: str, before: Object | None, after: Object | None) -> None:
        """``after`` (None: nothing) takes the place of ``before``."""
        if not is_record(key) or before is None:
            return
        if key in self.edited and before.body == self.edited[key]:
            raise Violation(f"{key} of somebody else was replaced")
        old = open_record(before.body, key=key, database=self.database)
        new = None
        if after is not None:
            new = open_record(after.body, key=key, database=self.database)
        if old and new and new.content is not None and new.entry < old.entry:
            raise Violation(f"{key} of {old.entry} was replaced by one of {new.entry}")

    def wrong(self, objects: Mapping[str, Object], state: State) -> set[str]:
        """The keys of records that are not what the rows are."""
        wanted: dict[str, Any] = dict(all_contents(state))
        there = {}
        for key, one in objects.items():
            if is_record(key):
                opened = open_record(one.body, key=key, database=self.database)
                there[key] = opened.content if opened else json.dumps("edited")
        found = {key for key in wanted if there.get(key) != wanted[key]}
        return found | {k for k, told in there.items() if told and k not in wanted}


class RecordPerformers:
    """Performs the effects of writing records for tasks of a run."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.by_effect: dict[type, Callable[[Task, Any], Any]] = {
            r.SendMany: self._send_many,
            r.FindTables: self._find_tables,
            r.KeysOf: self._keys_of,
            r.ReadRows: self._read_rows,
            r.ReadPage: self._read_page,
            r.RecallETags: self._recall,
            r.RememberETags: self._remember,
        }

    def _send_many(self, task: Task, effect: r.SendMany) -> Any:
        answers: dict[int, Answer] = {}
        requests = list(enumerate(effect.requests))

        def reply_for(index: int) -> Callable[[Answer], None]:
            def reply(answer: Answer) -> None:
                answers[index] = answer
                if len(answers) == len(requests):
                    task.wake([answers[i] for i, _request in requests])

            return reply

        waiting: Any = None
        for index, request in requests:
            sent = Request(_KINDS[type(request)], request.key)
            if not isinstance(request, e.Get):
                sent = Request(
                    sent.kind,
                    sent.key,
                    getattr(request, "body", b""),
                    getattr(request, "etag", ""),
                )
            waiting = self.run._send(task, sent, reply_for(index))
        return waiting

    def _find_tables(self, task: Task, effect: r.FindTables) -> r.Tables:
        replica, since = task.host.replica, effect.since
        here = replica.position
        follows: bool | None = None
        touched: dict[str, frozenset[r.Key] | None] | None = None
        if since.database == here.database and since.number <= here.number:
            tokens = {entry.number: entry.token for entry in replica.recent}
            tokens[here.number] = here.token
            token = tokens.get(since.number)
            follows = None if token is None else token == since.token
            known = touched_by(replica.recent, since.number, here.number)
            if known is not None:
                touched = {
                    t: frozenset((k,) for k in ks or ()) for t, ks in known.items()
                }
        names = list(replica.state.tables)
        return r.Tables(here, names, frozenset(names), follows, touched)

    def _keys_of(self, task: Task, effect: r.KeysOf) -> Any:
        found: dict[str, frozenset[r.Key]] = {}
        for change in effect.changes:
            if isinstance(change, Statement):
                return None
            if isinstance(change, Rows):
                keys = {(row[0],) for row in change.rows}
                keys |= {tuple(key) for key in change.deleted}
                known = found.get(change.table, frozenset())
                found[change.table] = known | keys
        return found

    def _read_rows(self, task: Task, effect: r.ReadRows) -> r.Page:
        replica = task.host.replica
        rows = [
            r.Row(
                record_key(effect.table, key),
                content_of(replica.state, effect.table, key[0]),
            )
            for key in effect.keys
        ]
        return r.Page(replica.position.number, rows)

    def _read_page(self, task: Task, effect: r.ReadPage) -> r.Page:
        replica = task.host.replica
        after = effect.after[0] if effect.after else -1
        keys = sorted(k for k in replica.state.tables[effect.table].rows if k > after)
        some = keys[:PAGE]
        page = self._read_rows(task, r.ReadRows(effect.table, [(k,) for k in some]))
        rest = (some[-1],) if len(some) < len(keys) else None
        return r.Page(page.number, page.rows, rest)

    def _recall(self, task: Task, effect: r.RecallETags) -> dict[str, str]:
        known = task.host.record_etags
        return {key: known[key] for key in effect.keys if key in known}

    def _remember(self, task: Task, effect: r.RememberETags) -> None:
        for key, etag in effect.etags.items():
            if etag:
                task.host.record_etags[key] = etag
            else:
                task.host.record_etags.pop(key, None)


_KINDS = {e.Get: "GET", e.Create: "CREATE", k.Replace: "REPLACE", r.Remove: "REMOVE"}
