"""Which rows of a pack come first, and what the replica then still lacks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any
from unittest.mock import patch

import pytest

from s3cache.replica import cut
from tests.replica.test_absent import LackingHost, filled, hosts

NUMBERS = "(id INTEGER PRIMARY KEY, u UNIQUE, v)"
TEXTS = "(id TEXT NOT NULL PRIMARY KEY, u UNIQUE, v)"


@pytest.fixture
def made(request: pytest.FixtureRequest) -> Iterator[LackingHost]:
    """A host that lacks the one pack with all twelve rows."""
    with (
        patch.multiple(cut, MANY_ROWS=12, FEW_ROWS=3),
        hosts(f"CREATE TABLE t {getattr(request, 'param', NUMBERS)}") as found,
    ):
        host, packer, folder = found
        packer.rows = 20
        filled(host, 12)
        host.commit("DELETE FROM t WHERE u IN ('u4', 'u5')")
        host.commit("INSERT INTO t (id, u, v) VALUES ('20', 'u20', 20)")
        host.commit("INSERT INTO t (id, u, v) VALUES ('30', 'u30', 30)")
        other = LackingHost(folder / "other", packer.pack(), packer.bodies)
        with closing(other):
            yield other


texts = pytest.mark.parametrize("made", [TEXTS], indirect=True)


def present(host: LackingHost) -> list[int]:
    return [int(pk) for (pk,) in host.rows("SELECT id FROM t ORDER BY v")]


def absent(host: LackingHost) -> list[tuple[Any, ...]]:
    return host.rows("SELECT after, upto, low, high FROM _s3cache_absent ORDER BY 1")


def test_a_row_comes_with_some_that_follow(made: LackingHost) -> None:
    (pack,) = made.absent()
    assert made.load(pack, made.by_key(7)) is True
    assert present(made) == [7, 8, 9]
    assert absent(made) == [(None, 6, None, None), (9, None, None, None)]
    assert made.load(pack) is False
    assert present(made) == [1, 2, 3, 6, 7, 8, 9, 10, 11, 12, 20, 30]
    assert not made.absent()


@pytest.mark.parametrize("key", [4, 15, 25])
def test_a_row_that_is_not_there_is_known_not_to_be(
    made: LackingHost, key: int
) -> None:
    (pack,) = made.absent()
    assert made.load(pack, made.by_key(key)) is True
    assert made.packs_with(key) == frozenset()
    assert made.packs_with(1)


def test_before_the_first_and_after_the_last_there_is_nothing_more(
    made: LackingHost,
) -> None:
    (pack,) = made.absent()
    assert made.load(pack, made.by_key(1)) is True
    assert absent(made) == [(3, None, None, None)]
    assert made.load(pack, made.by_key(10**15)) is True
    assert absent(made) == [(3, 30, None, None)]
    assert made.packs_with(-(2**63)) == made.packs_with(2**63 - 1) == frozenset()


def test_a_number_that_no_row_can_have_is_looked_for_in_all(made: LackingHost) -> None:
    (pack,) = made.absent()
    assert made.load(pack, made.by_key(10**30)) is False


@pytest.mark.parametrize("from_end", [False, True])
def test_a_page_comes_from_its_end(made: LackingHost, from_end: bool) -> None:
    (pack,) = made.absent()
    assert made.load(pack, made.page(2, from_end)) is True
    assert present(made) == ([12, 20, 30] if from_end else [1, 2, 3])
    assert made.packs_of_page(3, from_end) == frozenset()
    assert made.packs_of_page(4, from_end)


def test_what_is_absent_still_can_be_cut_again(made: LackingHost) -> None:
    (pack,) = made.absent()
    assert made.load(pack, made.by_key(7)) is True
    assert made.load(pack, made.by_key(2)) is True
    assert present(made) == [2, 3, 6, 7, 8, 9]
    assert absent(made) == [(None, 1, None, None), (9, None, None, None)]
    assert made.load(pack, made.by_key(11)) is True
    ranges = [(after, upto) for after, upto, *_ in absent(made)]
    assert ranges == [(None, 1), (9, 10), (20, None)]
    assert made.load(pack, made.page(1, from_end=True)) is False
    assert not made.absent()


def test_rows_that_lie_far_apart_come_with_all(made: LackingHost) -> None:
    (pack,) = made.absent()
    assert made.load(pack, made.by_key(1, 20)) is False
    assert not made.absent()


def test_so_do_more_than_a_few(made: LackingHost) -> None:
    (pack,) = made.absent()
    assert made.load(pack, made.page(4, from_end=False)) is False


def test_so_do_the_rows_of_a_small_pack(made: LackingHost) -> None:
    (pack,) = made.absent()
    with patch.object(cut, "MANY_ROWS", pack.rows + 1):
        assert made.load(pack, made.by_key(7)) is False


def test_a_page_that_is_not_full_gets_all(made: LackingHost) -> None:
    (pack,) = made.absent()
    made.file.connection.execute("INSERT INTO _s3cache_touched VALUES ('t', 1)")
    made.file.connection.execute("INSERT INTO _s3cache_touched VALUES ('t', 2)")
    assert made.load(pack, made.page(2, from_end=False)) is False
    assert not made.absent()


@texts
def test_what_remains_knows_its_own_keys(made: LackingHost) -> None:
    (pack,) = made.absent()
    assert made.load(pack, made.by_key("07")) is True
    assert present(made) == [7, 8, 9]
    assert absent(made) == [(None, 6, "01", "06"), (9, None, "10", "30")]
    for key in ("01", "06", "10", "25", "30"):
        assert made.packs_with(key) == {pack.key}
    for key in ("00", "065", "07", "095", "31"):
        assert made.packs_with(key) == frozenset()


@texts
@pytest.mark.parametrize("from_end", [False, True])
def test_a_page_by_text_comes_from_its_end(made: LackingHost, from_end: bool) -> None:
    (pack,) = made.absent()
    assert made.load(pack, made.page(3, from_end)) is True
    assert present(made) == ([12, 20, 30] if from_end else [1, 2, 3])


@texts
def test_a_text_that_may_be_elsewhere_in_the_pack_gets_all(made: LackingHost) -> None:
    (pack,) = made.absent()
    assert made.load(pack, made.by_key("25")) is False
    assert not made.absent()


def test_what_two_tables_share_is_cut_for_one(made: LackingHost) -> None:
    (pack,) = made.absent()
    made.file.connection.execute(
        "INSERT INTO _s3cache_absent VALUES ('u', NULL, NULL, NULL, NULL, 1, ?)",
        [pack.key],
    )
    assert made.load(pack, made.by_key(1)) is True
    tables = made.rows("SELECT table_name FROM _s3cache_absent ORDER BY 1")
    assert tables == [("t",), ("u",)]
