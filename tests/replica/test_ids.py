"""Chunks of ids, with a sequence for a database."""

from __future__ import annotations

from s3cache.replica.ids import FIRST_CHUNK, LARGEST_CHUNK, IdChunks


class Sequence:
    """Reserves ids; ``reserved`` are the sizes that it was asked for."""

    def __init__(self) -> None:
        self.last = 0
        self.reserved: list[int] = []

    def reserve(self, table: str, column: str, count: int, above: int) -> range:
        self.reserved.append(count)
        start = max(self.last, above) + 1
        self.last = start + count - 1
        return range(start, start + count)


class Chunks:
    """Chunks of one table, where ``used`` are the ids that are taken."""

    def __init__(self) -> None:
        self.sequence = Sequence()
        self.chunks = IdChunks(self.sequence.reserve)
        self.used: set[int] = set()

    def take(self, count: int, *, wanted: int = 0, must: bool = True) -> list[int]:
        taken = self.chunks.take(
            "t",
            "id",
            count,
            wanted=max(count, wanted),
            reset_at=0,
            largest_in=self.largest_in,
            must=must,
        )
        return list(taken or ())

    def commit(self, count: int) -> int:
        """What a block reserves that has taken so many."""
        if size := self.chunks.ahead("t", count):
            start = self.sequence.last + 1
            self.sequence.last += size
            self.chunks.keep("t", range(start, start + size), reset_at=0)
        return size

    def largest_in(self, low: int, high: int) -> int | None:
        return max((one for one in self.used if low <= one <= high), default=None)


def test_what_is_wanted_is_reserved_at_once() -> None:
    chunks = Chunks()
    taken = [one for n in range(10) for one in chunks.take(90, wanted=900 - 90 * n)]
    assert taken == list(range(1, 901))
    assert chunks.sequence.reserved == [900]


def test_chunks_grow_from_what_was_needed() -> None:
    chunks = Chunks()
    for _batch in range(30):
        chunks.take(10_000)
    sizes = [10_000, 20_000, 40_000, 80_000, LARGEST_CHUNK, LARGEST_CHUNK]
    assert chunks.sequence.reserved == sizes


def test_the_rest_of_a_chunk_is_used_before_the_next_one() -> None:
    chunks = Chunks()
    assert chunks.take(60) == list(range(1, 61))
    assert chunks.take(60) == list(range(61, 121))
    assert chunks.sequence.reserved == [FIRST_CHUNK, 2 * FIRST_CHUNK]


def test_the_rest_and_the_next_chunk_need_not_adjoin() -> None:
    chunks = Chunks()
    chunks.take(99)
    chunks.sequence.last += 50  # another host's
    assert chunks.take(3) == [100, 151, 152]


def test_who_need_not_have_one_gets_no_part_of_a_chunk() -> None:
    chunks = Chunks()
    chunks.take(99)
    assert chunks.take(2, must=False) == []
    assert chunks.take(1, must=False) == [100]


def test_no_more_than_the_rest_is_skipped_for_an_explicit_id() -> None:
    chunks = Chunks()
    chunks.take(1)
    chunks.used.add(100)
    assert chunks.take(2) == [101, 102]


def test_from_the_second_chunk_on_nobody_waits() -> None:
    chunks = Chunks()
    taken, ahead = [], []
    for _batch in range(30):
        taken += chunks.take(10_000)
        ahead.append(chunks.commit(10_000))
    assert taken == list(range(1, 300_001))
    assert chunks.sequence.reserved == [10_000, 20_000]
    assert [size for size in ahead if size] == [40_000, 80_000, 100_000, 100_000]


def test_who_takes_ids_once_leaves_no_gap() -> None:
    chunks = Chunks()
    chunks.take(10_000)
    assert chunks.commit(10_000) == 0


def test_what_is_reserved_by_two_blocks_at_once_is_used() -> None:
    chunks = Chunks()
    chunks.take(100)
    assert chunks.take(200) == list(range(101, 301))
    assert (chunks.commit(200), chunks.commit(200)) == (400, 0)
    chunks.chunks.keep("t", range(1001, 1003), reset_at=0)
    assert chunks.take(401) == [*range(301, 701), 1001]


def test_what_was_reserved_before_a_reset_is_dropped() -> None:
    chunks = Chunks()
    chunks.take(1)
    chunks.chunks.keep("t", range(11, 21), reset_at=7)
    assert chunks.chunks.take(
        "t",
        "id",
        2,
        wanted=2,
        reset_at=7,
        largest_in=chunks.largest_in,
        must=True,
    ) == [11, 12]
