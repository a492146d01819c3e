"""Which packs are written anew."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from s3cache.keeper.effects import Contents
from s3cache.keeper.plan import joined, plan
from s3cache.log.catalog import Catalog, Pack, Segment
from s3cache.log.effects import Position

TARGET = 100


def pack(key: str, *segments: Segment, size: int = 90) -> Pack:
    return Pack(key, "", 1, list(segments), 1, 1, "", size, key)


def catalog(*packs: Pack) -> Catalog:
    return Catalog("db", 1, "t", "", 0.0, [], {}, list(packs))


def contents(
    tables: Sequence[str], touched: Mapping[str, frozenset[int] | None] | None
) -> Contents:
    return Contents(Position("db", 2), {}, [], {}, tables, touched, {})


LOW, HIGH = Segment("a", None, 10), Segment("a", 10, None)
OLD = catalog(pack("low", LOW), pack("high", HIGH), pack("b", Segment("b")))


@pytest.mark.parametrize(
    ("touched", "again"),
    [
        ({}, []),
        ({"a": frozenset([10])}, ["low"]),
        ({"a": frozenset([11])}, ["high"]),
        ({"a": frozenset([-5, 99])}, ["low", "high"]),
        ({"a": None}, ["low", "high"]),
        ({"b": frozenset([1])}, ["b"]),
        (None, ["low", "high", "b"]),
    ],
)
def test_packs_whose_rows_were_touched(
    touched: Mapping[str, frozenset[int] | None] | None, again: list[str]
) -> None:
    planned = plan(OLD, contents(["a", "b"], touched), target=TARGET)
    assert [group.old.key for group in planned.groups if group.old] == again
    kept = [one.key for one in planned.kept]
    assert sorted([*kept, *again]) == ["b", "high", "low"]


def test_a_lost_pack_is_written_even_if_its_rows_are_the_same() -> None:
    lost = frozenset(["low"])
    (group,) = plan(OLD, contents(["a", "b"], {}), target=TARGET, lost=lost).groups
    assert (list(group.segments), group.old) == ([LOW], None)


def test_a_dropped_table_leaves_its_packs() -> None:
    planned = plan(OLD, contents(["a"], None), target=TARGET)
    tables = {s.table for group in planned.groups for s in group.segments}
    assert (tables, list(planned.kept)) == ({"a"}, [])


def test_a_pack_is_cut_when_it_has_grown_by_half() -> None:
    old = catalog(pack("a", Segment("a"), size=149), pack("b", Segment("b"), size=150))
    groups = plan(old, contents(["a", "b"], None), target=TARGET).groups
    assert [group.limit for group in groups] == [2 * TARGET, TARGET]


def test_small_packs_are_joined_when_there_are_some() -> None:
    small = [pack(name, Segment(name), size=10) for name in "abcd"]
    tables = ["a", "b", "c", "d", "new"]
    (group,) = plan(catalog(*small), contents(tables, {}), target=TARGET).groups
    assert [segment.table for segment in group.segments] == tables


def test_neighbours_become_one() -> None:
    parts = [HIGH, Segment("b"), LOW]
    assert joined(parts, ["b", "a"]) == [Segment("b"), Segment("a")]
