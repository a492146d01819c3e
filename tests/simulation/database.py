"""What a replica holds, as dicts, and how entries change it.

A ``State`` never changes: whoever holds one has a snapshot. ``apply`` is what
the real replica does in one SQLite transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from s3cache.log.entry import Change, Rows, Sequences, Statement

Row = tuple[Any, ...]
Statements = Callable[["Draft"], Any]


@dataclass(frozen=True, slots=True)
class Table:
    """Rows by primary key, which is their first column."""

    columns: tuple[str, ...]
    rows: dict[int, Row] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class State:
    """A whole database at one position."""

    tables: dict[str, Table]
    sequences: dict[str, int]

    def without(self, lacks: Callable[[str, int], bool]) -> State:
        """This state without some rows."""
        tables = {
            name: Table(
                table.columns,
                {k: row for k, row in table.rows.items() if not lacks(name, k)},
            )
            for name, table in self.tables.items()
        }
        return State(tables, self.sequences)


def initial(counters: int, accounts: int, balance: int) -> State:
    """The database before the first entry."""
    return State(
        {
            "counter": Table(
                ("id", "value"), {i: (i, 0) for i in range(1, counters + 1)}
            ),
            "account": Table(
                ("id", "balance"), {i: (i, balance) for i in range(1, accounts + 1)}
            ),
            "name": Table(("id", "value")),
        },
        {"name": 0},
    )


class Draft:
    """A batch at work: the newest state, with what the batch has changed."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._tables: dict[str, Table] = {}
        self._sequences: dict[str, int] = {}
        self._statements: list[Change] = []
        self._before: dict[str, dict[int, Row]] = {}
        #: The tables that were looked at.
        self.seen: set[str] = set()

    def rows(self, table: str) -> dict[int, Row]:
        """The rows of ``table``, to look at."""
        return self._now(table).rows

    def columns(self, table: str) -> tuple[str, ...]:
        return self._now(table).columns

    def put(self, table: str, row: Row) -> None:
        """Insert or replace a row; missing columns are 0."""
        now = self._own(table)
        now.rows[row[0]] = row + (0,) * (len(now.columns) - len(row))

    def delete(self, table: str, key: int) -> None:
        del self._own(table).rows[key]

    def next_id(self, table: str) -> int:
        """AUTOINCREMENT: never a number that was given before."""
        known = self._sequences.get(table, self._state.sequences[table])
        self._sequences[table] = known + 1
        return known + 1

    def add_column(self, table: str, column: str) -> None:
        """DDL, which runs before the batch changes a row of ``table``."""
        statement = Statement(f"ALTER TABLE {table} ADD COLUMN {column}")
        self._statements.append(statement)
        before = self._before.get(table, self._state.tables[table].rows)
        self._before[table] = {k: (*row, 0) for k, row in before.items()}
        self._tables[table] = _altered(self._now(table), column)

    def changes(self) -> list[Change]:
        """What the batch has changed; nothing if it left all as it was."""
        found = list(self._statements)
        for name, now in self._tables.items():
            before = self._before.get(name, self._state.tables[name].rows)
            rows = [list(row) for k, row in now.rows.items() if before.get(k) != row]
            deleted = [[k] for k in before if k not in now.rows]
            if rows or deleted:
                found.append(
                    Rows(name, ["id"], list(now.columns), rows=rows, deleted=deleted)
                )
        if self._sequences:
            found.append(Sequences(dict(self._sequences)))
        return found

    def _now(self, table: str) -> Table:
        self.seen.add(table)
        return self._tables.get(table) or self._state.tables[table]

    def _own(self, table: str) -> Table:
        self.seen.add(table)
        own = self._tables.get(table)
        if own is None:
            now = self._state.tables[table]
            own = self._tables[table] = Table(now.columns, dict(now.rows))
        return own


def run_batch(
    batch: Sequence[Statements], state: State
) -> tuple[list[Change], list[Any]]:
    """What ``batch`` would change in ``state``, and what it returns."""
    draft = Draft(state)
    results = [statements(draft) for statements in batch]
    return draft.changes(), results


def tables_of(batch: Sequence[Statements], state: State) -> set[str]:
    """The tables that ``batch`` looks at, as far as it gets."""
    draft = Draft(state)
    try:
        for statements in batch:
            statements(draft)
    except LookupError:
        pass  # a row that is not there
    return draft.seen


def apply(state: State, changes: Sequence[Change]) -> State:
    """``state`` after an entry."""
    tables = dict(state.tables)
    sequences = state.sequences
    for change in changes:
        if isinstance(change, Rows):
            table = tables[change.table]
            rows = dict(table.rows)
            for (key,) in _keys(change):
                rows.pop(key, None)
            for row in change.rows:
                rows[row[0]] = tuple(row)
            tables[change.table] = Table(table.columns, rows)
        elif isinstance(change, Statement):
            _alter, _table, name, _add, _column, column = change.sql.split()
            tables[name] = _altered(tables[name], column)
        else:
            sequences = {**sequences, **change.values}
    return State(tables, sequences)


def _keys(change: Rows) -> Iterator[Sequence[Any]]:
    yield from change.deleted
    for row in change.rows:
        yield row[:1]


def _altered(table: Table, column: str) -> Table:
    return Table(
        (*table.columns, column), {k: (*row, 0) for k, row in table.rows.items()}
    )
