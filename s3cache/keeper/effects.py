"""What a keeper asks of the world, beside what the log's protocols ask."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from s3cache.log.catalog import Segment
from s3cache.log.effects import OtherEffect, Position


@dataclass(frozen=True, slots=True)
class Replace(OtherEffect):
    """Replace an object if it has this ETag; the result is an ``Answer``."""

    key: str
    body: bytes
    etag: str


@dataclass(frozen=True, slots=True)
class Delete(OtherEffect):
    """Delete objects, at most 1,000; the result is an ``Answer``."""

    keys: Sequence[str]


@dataclass(frozen=True, slots=True)
class Survey(OtherEffect):
    """Take a copy of the replica, which later ``Build``s read.

    The result is a ``Contents``, which tells what entries after number
    ``since`` have changed.
    """

    since: int


@dataclass(frozen=True, slots=True)
class Build(OtherEffect):
    """Make a pack of rows of the copy that ``Survey`` took.

    Of ``segments``, in their order, until it has about ``limit`` bytes before
    compression, or all of them. The result is a ``Built``.
    """

    segments: Sequence[Segment]
    limit: int


@dataclass(frozen=True, slots=True)
class Contents:
    """The copy of a replica.

    ``etags`` are those of the entries, by number, that it has applied lately.
    ``tables`` are in the order of their making. ``touched`` has, by
    lower-case table name, the rowids of rows that changed, or None where they
    are not known one by one; tables that are not there did not change. It is
    None itself where any table may have changed.
    """

    position: Position
    etags: Mapping[int, str]
    schema: Sequence[str]
    sequences: Mapping[str, int]
    tables: Sequence[str]
    touched: Mapping[str, frozenset[int] | None] | None
    versions: Mapping[str, tuple[int, str]]


@dataclass(frozen=True, slots=True)
class Built:
    """A pack as bytes, with what it holds; ``rest`` did not fit.

    ``bounds`` are those of a ``Pack``.
    """

    body: bytes
    rows: int
    raw_size: int
    raw_sha256: str
    segments: Sequence[Segment]
    rest: Sequence[Segment]
    bounds: Mapping[str, tuple[str, str]] = field(default_factory=dict)
