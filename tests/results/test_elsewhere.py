"""The hot path in caches of other makers than ``MemoryCache``."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import msgspec
import pytest
from django.core.cache import caches
from django.core.cache.backends.locmem import LocMemCache
from django.db.models import Max
from hypothesis import given
from hypothesis import strategies as st

from s3cache.results.codec import Undecodable
from s3cache.results.elsewhere import dump, load
from tests.engine import Host
from tests.results.seen import directory, events, on_loop, totals
from tests.results.test_hot import is_hot, warm
from tests.testapp.models import Gear


@pytest.fixture(autouse=True)
def other_cache(settings: Any, hot_path: None) -> Iterator[None]:
    settings.CACHES = {
        "default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"},
    }
    yield
    caches["default"].clear()


@pytest.fixture
def gear(host: Host) -> Gear:
    return Gear.objects.create(name="cog", weight=5)


def hot_keys() -> list[str]:
    cache: Any = caches["default"]
    return [key for key in cache._cache if ":hot:" in key]


READS: dict[str, Callable[[], Any]] = {
    "get": lambda: Gear.objects.get(name="cog"),
    "absent": lambda: Gear.objects.filter(name="none").exists(),
    "count": lambda: Gear.objects.count(),
    "filter": lambda: Gear.objects.filter(weight__gt=2).count(),
    "aggregate": lambda: Gear.objects.aggregate(Max("weight")),
    "list": lambda: list(Gear.objects.all()),
    "page": lambda: list(Gear.objects.order_by("-weight")[:5]),
    "first": lambda: Gear.objects.filter(name="cog").first(),
}


@directory
@pytest.mark.parametrize("read", READS.values(), ids=READS)
def test_what_is_read_again_is_hot(gear: Gear, read: Callable[[], Any]) -> None:
    first = read()
    assert is_hot(warm(read))
    assert read() == first
    assert events(read) == {"hit": 1}


@directory
def test_a_row_that_is_not_there_is_known_not_to_be(gear: Gear) -> None:
    absent = uuid4()

    def get() -> Gear:
        return Gear.objects.get(pk=absent)

    assert is_hot(warm(get))
    with pytest.raises(Gear.DoesNotExist):
        get()


@directory
def test_an_object_is_as_it_was_read(gear: Gear) -> None:
    def get() -> Gear:
        return Gear.objects.get(pk=gear.pk)

    first = get()
    found = warm(get)()
    assert is_hot(get)
    assert found.__dict__.keys() == first.__dict__.keys()
    assert (found.pk, found.name, found.weight) == (gear.pk, "cog", 5)
    known = {*vars(found._state), *vars(first._state)}
    assert {"adding", "db", "s3cache_row"} <= known
    for name in known:  # some of them are made when they are asked for
        assert getattr(found._state, name) == getattr(first._state, name)


@directory
def test_objects_of_a_list_are_the_callers_own(gear: Gear) -> None:
    Gear.objects.create(name="wheel", weight=7)

    def names() -> list[str]:
        found = list(Gear.objects.order_by("weight"))
        found[0].name += " was changed"
        return [one.name for one in found]

    assert is_hot(warm(names))
    assert names() == ["cog was changed", "wheel"]


@directory
def test_code_that_means_something_else_does_not_share_lists(
    gear: Gear, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As two releases that share a cache, of which one sorts another way."""
    Gear.objects.create(name="wheel", weight=7)

    def names(stop: int) -> list[str]:
        return [one.name for one in Gear.objects.all()[:stop]]

    for ordering, expected in (
        (["name"], ["cog", "wheel"]),
        (["-name"], ["wheel", "cog"]),
    ):
        monkeypatch.setattr(Gear._meta, "ordering", ordering)
        monkeypatch.setattr(Gear.objects, "_hot", None)
        for stop in (4, 5):  # a kind of page is learned by the first
            warm(lambda stop=stop: names(stop))  # type: ignore[misc]
            assert is_hot(lambda stop=stop: names(stop))  # type: ignore[misc]
            assert names(stop) == expected


@directory
def test_pages_of_one_kind_share_a_prefix(gear: Gear) -> None:
    for stop in (3, 5):
        warm(lambda stop=stop: list(Gear.objects.order_by("name")[:stop]))  # type: ignore[misc]
    kinds = {key.partition(":hot:")[2].split(":")[1] for key in hot_keys()}
    assert (len(hot_keys()), len(kinds)) == (2, 1)


@directory
def test_a_write_is_seen_at_once(gear: Gear) -> None:
    for weight in (6, 7):
        warm(lambda: Gear.objects.get(pk=gear.pk))
        Gear.objects.update(weight=weight)
        assert Gear.objects.get(pk=gear.pk).weight == weight


@directory
def test_a_first_read_stores_one_entry(gear: Gear) -> None:
    Gear.objects.get(pk=gear.pk)
    assert hot_keys() == []
    warm(lambda: Gear.objects.get(pk=gear.pk))
    assert len(hot_keys()) == 1


@directory
@pytest.mark.parametrize(
    "data", [b"nothing of ours", dump([("of", "another model")])], ids=repr
)
def test_an_entry_that_cannot_be_read_is_counted_and_replaced(
    gear: Gear, data: bytes
) -> None:
    get = warm(lambda: Gear.objects.get(pk=gear.pk))
    cache: Any = caches["default"]
    (made,) = hot_keys()
    cache.set(made.partition(":1:")[2], data)
    assert get() == gear
    assert totals()["broken"] == 1
    assert is_hot(get)


@directory
def test_a_cache_that_raises_keeps_nobody_from_reading(
    gear: Gear, monkeypatch: pytest.MonkeyPatch
) -> None:
    get = warm(lambda: Gear.objects.get(pk=gear.pk))

    def fail(*args: Any, **kwargs: Any) -> Any:
        raise ConnectionError("gone")

    monkeypatch.setattr(LocMemCache, "get", fail)
    assert get() == gear
    assert totals()["failed"] >= 1


@directory
def test_an_event_loop_waits_for_no_cache(gear: Gear, settings: Any) -> None:
    """A cache in this process is asked on the loop; others in a thread."""
    get = warm(lambda: Gear.objects.get(pk=gear.pk))
    assert is_hot(get)

    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("s3cache.managers.sync_to_async", refuse)
        assert on_loop(lambda: Gear.objects.aget(pk=gear.pk)) == gear


# What is written


def unfolded(moment: Any) -> Any:
    return moment.replace(fold=0)


values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    st.text(st.characters(exclude_categories=["Cs"])),
    st.binary(),
    st.decimals(allow_nan=False),
    st.uuids(),
    st.dates(),
    st.times().map(unfolded),
    st.datetimes().map(unfolded),
    st.datetimes(timezones=st.just(dt.UTC)).map(unfolded),
)


@given(st.lists(st.lists(values).map(tuple)))
def test_rows_come_back_as_they_were(rows: list[tuple[Any, ...]]) -> None:
    data = dump(rows)
    assert data is not None
    found = load(data)
    assert repr(found) == repr(rows)


@pytest.mark.parametrize(
    "value",
    [
        [1],
        dt.timedelta(1),
        dt.time(1, fold=1),
        dt.datetime(2026, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=1))),
    ],
    ids=repr,
)
def test_what_would_not_come_back_is_not_kept(value: object) -> None:
    assert dump([(value,)]) is None


@pytest.mark.parametrize(
    "data",
    ["text", b"", b"\xc1", msgspec.msgpack.encode([(["x"], [(0, "n")])])],
    ids=repr,
)
def test_what_is_no_result_is_refused(data: object) -> None:
    with pytest.raises(Undecodable):
        load(data)
