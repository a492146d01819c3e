"""Of a statement whose results nobody repeats only repeated ones are kept."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from django.test import override_settings

from s3cache.facade import cache_of
from s3cache.results import repeats
from s3cache.results.repeats import IN_VAIN, Asked
from tests.engine import Host, MakeHost
from tests.library.models import Author
from tests.results.seen import HIT, MISS, before_each, directory, events, nothing
from tests.testapp.models import Category, Product

MEMORY = {"default": {"BACKEND": "s3cache.caches.MemoryCache"}}

BORN = 5_000  # in none of the years that are asked for in vain


def born_in(year: int) -> list[Author]:
    return list(Author.objects.filter(born=year))


@pytest.fixture
def in_vain(host: Host) -> None:
    """Many results were stored, and none was asked for again."""
    for year in range(IN_VAIN):
        born_in(year)


def stores(read: Callable[[], Any]) -> int:
    with before_each("set", nothing) as keys:
        read()
    return len(keys)


@directory
def test_what_was_read_once_is_kept_while_nothing_was_in_vain(host: Host) -> None:
    for year in range(IN_VAIN - 1):
        born_in(year)
    assert events(lambda: born_in(BORN)) == MISS
    assert events(lambda: born_in(BORN)) == HIT


@directory
@pytest.mark.usefixtures("in_vain")
def test_a_first_read_neither_asks_the_cache_nor_stores() -> None:
    with before_each("get", nothing) as asked:
        assert events(lambda: born_in(BORN)) == MISS
        assert stores(lambda: born_in(BORN + 1)) == 0
    assert asked == []


@directory
@pytest.mark.usefixtures("in_vain")
def test_a_second_read_is_stored_and_a_third_is_a_hit() -> None:
    born_in(BORN)
    assert stores(lambda: born_in(BORN)) == 1
    assert events(lambda: born_in(BORN)) == HIT


@directory
@pytest.mark.usefixtures("in_vain")
def test_a_hit_is_a_reason_to_store_at_once_again() -> None:
    for _ in range(3):
        born_in(BORN)
    assert stores(lambda: born_in(BORN + 1)) == 1


@directory
@pytest.mark.usefixtures("in_vain")
def test_other_statements_are_judged_by_their_own() -> None:
    assert stores(lambda: Author.objects.count()) == 1


@directory
@pytest.mark.usefixtures("in_vain")
def test_what_was_stored_in_vain_is_still_found() -> None:
    assert events(lambda: born_in(IN_VAIN - 1)) == HIT


@directory
@pytest.mark.parametrize(
    "hint",
    [lambda rows: rows.cached(ttl=60), lambda rows: rows.fresh()],
    ids=["cached", "fresh"],
)
def test_what_is_asked_to_be_kept_is(host: Host, hint: Callable[[Any], Any]) -> None:
    def read(stock: int) -> Any:
        return Product.objects.filter(stock=stock)

    for stock in range(IN_VAIN):
        list(read(stock))
    assert stores(lambda: list(read(1_000))) == 0
    assert stores(lambda: list(hint(read(2_000)))) == 1


@directory
@pytest.mark.usefixtures("in_vain")
def test_a_write_is_seen_at_a_first_a_second_and_a_third_read() -> None:
    for number in range(4):
        assert len(born_in(BORN)) == number
        Author.objects.create(name=str(number), born=BORN)


@directory
@override_settings(CACHES=MEMORY)
def test_hot_hits_are_hits(host: Host) -> None:
    made = [Category.objects.create(name=str(n)) for n in range(2 * IN_VAIN)]
    for category in made:
        get = partial(Category.objects.get, pk=category.pk)
        assert events(get) == MISS
        # No statement is executed that could tell that storing was of use.
        assert events(get) == HIT


def test_reads_are_told_apart_by_their_values() -> None:
    asked = Asked()
    assert not asked.before("SELECT ?", (1,))
    assert asked.before("SELECT ?", (1,))
    assert not asked.before("SELECT ?", (2,))
    assert not asked.before("SELECT ?, 1", (1,))
    assert not asked.before("SELECT :a", {"a": 1})
    assert asked.before("SELECT :a", {"a": 1})


def test_a_read_without_a_hash_may_have_been_made_before() -> None:
    assert Asked().before("SELECT ?", ([],))


def test_old_reads_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repeats, "_REMEMBERED", 10)
    asked = Asked()
    for number in range(1_000):
        asked.before("SELECT ?", (number,))
    assert asked.before("SELECT ?", (999,))
    assert asked.before("SELECT ?", (990,))
    assert not asked.before("SELECT ?", (900,))
    assert len(asked._now) + len(asked._before) <= 20


@directory
def test_what_another_process_has_stored_is_found(
    hosts: MakeHost, settings: Any, tmp_path: Path
) -> None:
    settings.CACHES = {
        "default": {
            "BACKEND": "s3cache.caches.FileSystemCache",
            "LOCATION": str(tmp_path / "shared"),
        }
    }
    with hosts() as other:
        other.catch_up()
        assert cache_of(Author).warm_query({"born": BORN}) == 1
    with hosts() as host:
        host.catch_up()
        for year in range(IN_VAIN):
            born_in(year)
        assert events(lambda: born_in(BORN + 1)) == MISS
        assert events(lambda: born_in(BORN)) == HIT
