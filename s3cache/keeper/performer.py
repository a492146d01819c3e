"""Performing the keeper's effects: a store, and a copy of the replica."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from s3cache.keeper.effects import Build, Built, Contents, Delete, Replace, Survey
from s3cache.log.effects import Effect
from s3cache.replica import meta
from s3cache.replica.applying import read_sequences
from s3cache.replica.connections import connect
from s3cache.replica.file import (
    ReplicaFile,
    beside,
    create_private,
    delete_file,
    delete_left_beside,
)
from s3cache.replica.packs import compress, make_pack, read_statements
from s3cache.replica.performer import Performer
from s3cache.replica.replica import Replica
from s3cache.replica.tables import Schema, read_schema, schema_version
from s3cache.stores.base import Answer, Store


class KeeperPerformer(Performer):
    """Performs the effects of one round of the keeper.

    Use it as a context: at its end the copy is deleted. Only one process of a
    host has one at a time, which holds ``side.keeping``: copies that are
    there already belonged to processes that died.
    """

    kind = "keeper"

    def __init__(self, replica: Replica) -> None:
        super().__init__(replica)
        self._of = replica
        self._copy: _Copy | None = None
        own: dict[type, Any] = {
            Replace: self._replace,
            Delete: self._delete,
            Survey: self._survey,
            Build: self._build,
        }
        self._own = own

    def __enter__(self) -> KeeperPerformer:
        delete_left_beside(self._of.path, self.kind)
        return self

    def __exit__(self, *_exc_info: object) -> None:
        if self._copy is not None:
            self._copy.delete()

    def _perform(self, effect: Effect) -> Any:
        perform = self._own.get(type(effect))
        return perform(effect) if perform else super()._perform(effect)

    def _replace(self, effect: Replace) -> Answer:
        return self._store.put(effect.key, effect.body, if_match=effect.etag)

    def _delete(self, effect: Delete) -> Answer:
        return self._store.delete_many(effect.keys)

    def go_on_with(self, store: Store) -> None:
        """Have further requests sent to another store."""
        self._store = store

    def _survey(self, effect: Survey) -> Contents:
        self._copy = _Copy(self._of, self._new)
        return self._copy.contents(effect.since)

    def _build(self, effect: Build) -> Built:
        if self._copy is None:
            raise sqlite3.ProgrammingError("there is no copy to pack")
        return self._copy.build(effect)


class _Copy:
    """A copy of a replica, or of one that this run has ``made``.

    What is packed is of one state, and neither a commit nor a fork has to
    wait for it.
    """

    def __init__(self, replica: Replica, made: ReplicaFile | None = None) -> None:
        self._path: Path = beside(replica.path, KeeperPerformer.kind)
        create_private(self._path)
        self._connection = connect(self._path)
        try:
            if made is not None:
                made.connection.backup(self._connection)
            else:
                replica.load()
                replica.copy_to(self._connection)
            self._schema: Schema = read_schema(
                self._connection, schema_version(self._connection)
            )
        except BaseException:
            self.delete()
            raise

    def contents(self, since: int) -> Contents:
        """What there is, and what changed after entry ``since``."""
        connection = self._connection
        position = meta.read_position(connection)
        return Contents(
            position=position,
            etags=meta.read_etags(connection),
            schema=read_statements(connection),
            sequences=read_sequences(connection),
            tables=[table.name for table in self._schema],
            touched=self._touched(since, position.number),
            versions=self._versions(),
        )

    def _versions(self) -> dict[str, meta.Version]:
        # Of tables only: which parts of them have versions of their own is
        # this host's affair, and another one would not move them on.
        return {
            scope: version
            for scope, version in meta.read_versions(self._connection).items()
            if scope == meta.ALL_TABLES or self._schema.get(scope) is not None
        }

    def _touched(
        self, since: int, number: int
    ) -> Mapping[str, frozenset[int] | None] | None:
        recent = meta.read_recent(self._connection, since, number)
        if recent is None or any(one.touched.schema for one in recent):
            return None
        touched: dict[str, frozenset[int] | None] = {}
        for one in recent:
            for name, keys in one.touched.keys.items():
                known = touched.get(name, frozenset())
                table = self._schema.get(name)
                if (
                    keys is None
                    or known is None
                    or table is None
                    or not table.is_keyed_by_rowid
                ):
                    touched[name] = None
                else:
                    touched[name] = known | {rowid for (rowid,) in keys}
        return touched

    def build(self, effect: Build) -> Built:
        """A pack of some of its rows."""
        packed = make_pack(
            self._connection, self._schema, effect.segments, effect.limit
        )
        return Built(
            body=compress(packed.raw),
            rows=packed.rows,
            raw_size=len(packed.raw),
            raw_sha256=hashlib.sha256(packed.raw).hexdigest(),
            segments=packed.segments,
            rest=packed.rest,
            bounds=packed.bounds,
        )

    def delete(self) -> None:
        self._connection.close()
        delete_file(self._path)
