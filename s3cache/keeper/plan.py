"""Which packs to write anew."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from s3cache.keeper.effects import Contents
from s3cache.log.catalog import Catalog, Pack, Segment

#: Bytes of a pack before compression at which the next one begins.
TARGET = 8 * 1024 * 1024

#: So many packs of less than half of that are joined when one is written.
FEW_SMALL = 4


@dataclass(frozen=True, slots=True)
class Group:
    """Segments that are packed together, in as many packs as they need.

    ``limit`` is where the next pack begins, in bytes before compression.
    ``old`` is the pack that holds the same segments now: if the rows turn
    out to be the same, it stays.
    """

    segments: Sequence[Segment]
    limit: int
    old: Pack | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """What a new catalog is made of: old packs that stay, and new ones."""

    kept: Sequence[Pack]
    groups: Sequence[Group]


def plan(
    old: Catalog | None,
    contents: Contents,
    *,
    target: int = TARGET,
    everything: bool = False,
    lost: frozenset[str] = frozenset(),
) -> Plan:
    """What to pack, so that one changed row costs one pack.

    ``everything`` keeps no old pack, whatever it holds. ``lost`` are the keys
    of old packs that are not in the bucket as they were.
    """
    if old is None or everything:
        tables = [Segment(table) for table in contents.tables]
        return Plan([], [Group(tables, target)] if tables else [])
    known = {segment.table for pack in old.packs for segment in pack.segments}
    there = set(contents.tables)
    loose = [Segment(table) for table in contents.tables if table not in known]
    kept: list[Pack] = []
    groups: list[Group] = []
    for pack in old.packs:
        if pack.key in lost or is_touched(pack, contents, there):
            left = [s for s in pack.segments if s.table in there]
            whole = len(left) == len(pack.segments) and pack.key not in lost
            same = pack if whole else None
            grown = pack.raw_size >= target * 3 // 2
            if left:
                groups.append(Group(left, target if grown else 2 * target, same))
        else:
            kept.append(pack)
    small = [pack for pack in kept if pack.raw_size < target // 2]
    if (groups or loose) and len(small) >= FEW_SMALL:
        kept = [pack for pack in kept if pack not in small]
        loose = [segment for pack in small for segment in pack.segments] + loose
    if loose:
        groups.append(Group(joined(loose, contents.tables), target))
    return Plan(kept, groups)


def is_touched(pack: Pack, contents: Contents, there: set[str]) -> bool:
    """Whether some row of ``pack`` may have changed since it was written."""
    return any(
        segment.table not in there or is_changed(segment, contents.touched)
        for segment in pack.segments
    )


def is_changed(
    segment: Segment, touched: Mapping[str, frozenset[int] | None] | None
) -> bool:
    """Whether some row of ``segment`` may have changed."""
    if touched is None:
        return True
    rowids = touched.get(segment.table.lower(), frozenset())
    return rowids is None or any(map(segment.has, rowids))


def joined(segments: Sequence[Segment], tables: Sequence[str]) -> list[Segment]:
    """``segments`` in the order of their rows, neighbours made one."""
    order = {table: index for index, table in enumerate(tables)}

    def place(segment: Segment) -> tuple[int, bool, int]:
        return order[segment.table], segment.after is not None, segment.after or 0

    found: list[Segment] = []
    for one in sorted(segments, key=place):
        last = found[-1] if found else None
        if last and last.table == one.table and last.upto == one.after is not None:
            found[-1] = Segment(one.table, last.after, one.upto)
        else:
            found.append(one)
    return found


__all__ = ["Group", "Plan", "joined", "plan"]
