"""Packs of the model's database: JSON, with a row for each byte of size."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass

from s3cache.keeper.effects import Built
from s3cache.log.catalog import Catalog, Pack, Segment
from s3cache.log.entry import Change, Entry, Rows, Statement

from .database import State, Table


def schema_of(state: State) -> list[str]:
    """A line for each table: its name and its columns."""
    return [" ".join([name, *t.columns]) for name, t in state.tables.items()]


def state_of(catalog: Catalog) -> State:
    """The tables of ``catalog``, without their rows."""
    tables = {}
    for line in catalog.schema:
        name, *columns = line.split()
        tables[name] = Table(tuple(columns))
    return State(tables, dict(catalog.sequences))


def touched_by(
    recent: Sequence[Entry], since: int, number: int
) -> Mapping[str, frozenset[int] | None] | None:
    """What the entries from ``since`` to ``number`` changed."""
    entries = [entry for entry in recent if since < entry.number <= number]
    if len(entries) != number - since:
        return None
    touched: dict[str, frozenset[int]] = {}
    for entry in entries:
        for change in entry.changes:
            if isinstance(change, Statement):
                return None
            if isinstance(change, Rows):
                keys = {row[0] for row in change.rows} | {k for (k,) in change.deleted}
                known = touched.get(change.table, frozenset())
                touched[change.table] = known | keys
    return touched


def build_pack(state: State, segments: Sequence[Segment], limit: int) -> Built:
    """A pack of the first ``limit`` rows of ``segments``."""
    packed: list[tuple[str, list[object]]] = []
    done: list[Segment] = []
    left = limit
    waiting = list(segments)
    while waiting and left:
        segment = waiting.pop(0)
        rows = state.tables[segment.table].rows
        keys = sorted(filter(segment.has, rows))
        some = keys[:left]
        packed.append((segment.table, [rows[key] for key in some]))
        left -= len(some)
        if len(some) < len(keys):
            done.append(Segment(segment.table, segment.after, some[-1]))
            waiting.insert(0, Segment(segment.table, some[-1], segment.upto))
        else:
            done.append(segment)
    body = json.dumps(packed).encode()
    return Built(
        body=body,
        rows=limit - left,
        raw_size=limit - left,
        raw_sha256=hashlib.sha256(body).hexdigest(),
        segments=done,
        rest=waiting,
    )


def load_pack(state: State, body: bytes) -> State:
    """``state`` with the rows of a pack."""
    tables = dict(state.tables)
    for name, rows in json.loads(body):
        table = tables.get(name)
        if table is not None:
            known = {row[0]: tuple(row) for row in rows}
            tables[name] = Table(table.columns, {**table.rows, **known})
    return State(tables, state.sequences)


# What a replica lacks


@dataclass(frozen=True, slots=True)
class Part:
    """Rows that an absent pack holds, of the catalog ``number``."""

    pack: Pack
    segment: Segment
    number: int

    def has(self, table: str, key: int) -> bool:
        return table == self.segment.table and self.segment.has(key)


def parts_of(catalog: Catalog) -> tuple[Part, ...]:
    """All rows of ``catalog``."""
    return tuple(
        Part(pack, segment, catalog.number)
        for pack in catalog.packs
        for segment in pack.segments
    )


def split(part: Part, body: bytes) -> tuple[Part, ...]:
    """The first row of ``part``, and its other ones if it has some."""
    keys = sorted(
        row[0]
        for name, rows in json.loads(body)
        for row in rows
        if part.has(name, row[0])
    )
    if len(keys) < 2:
        return (part,)
    table, after, upto = part.segment.table, part.segment.after, part.segment.upto
    return (
        Part(part.pack, Segment(table, after, keys[0]), part.number),
        Part(part.pack, Segment(table, keys[0], upto), part.number),
    )


def packs_of(parts: Iterable[Part]) -> list[Pack]:
    """The packs of ``parts``, in order."""
    packs = {part.pack.key: part.pack for part in parts}
    return [packs[key] for key in sorted(packs)]


def cut(old: Sequence[Part], catalog: Catalog) -> tuple[Part, ...]:
    """The rows of ``old``, where ``catalog`` has them."""
    found = []
    for new in parts_of(catalog):
        one = new.segment
        for part in old:
            two = part.segment
            if one.table != two.table:
                continue
            after = max(
                (n for n in (one.after, two.after) if n is not None), default=None
            )
            upto = min((n for n in (one.upto, two.upto) if n is not None), default=None)
            if after is None or upto is None or after < upto:
                segment = Segment(one.table, after, upto)
                found.append(Part(new.pack, segment, catalog.number))
    return tuple(found)


def known(*numbers: int | None) -> list[int]:
    return [number for number in numbers if number is not None]


def keys_in(changes: Sequence[Change]) -> frozenset[tuple[str, int]]:
    """The tables and keys of the rows that ``changes`` change."""
    return frozenset(
        (change.table, key)
        for change in changes
        if isinstance(change, Rows)
        for key in [*(row[0] for row in change.rows), *(k for (k,) in change.deleted)]
    )


def load_parts(
    state: State,
    body: bytes,
    parts: Sequence[Part],
    touched: Container[tuple[str, int]],
) -> State:
    """``state`` with those rows of a pack that are in ``parts``."""
    tables = dict(state.tables)
    for name, rows in json.loads(body):
        table = tables[name]
        known = {
            row[0]: tuple(row)
            for row in rows
            if any(part.has(name, row[0]) for part in parts)
            and (name, row[0]) not in touched
        }
        tables[name] = Table(table.columns, {**table.rows, **known})
    return State(tables, state.sequences)
