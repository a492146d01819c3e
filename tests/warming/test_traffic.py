"""What was read at this hour on earlier days is warm before it is read."""

from __future__ import annotations

import datetime as dt
import fcntl
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core import signing
from django.db import connections
from django.db.models import Max
from django.utils import timezone

from s3cache.results import repeats, statements
from s3cache.warming import traffic
from s3cache.warming.steps import Step, take_steps
from s3cache.warming.traffic import MOST, Recorded, Traffic
from tests.engine import Host
from tests.results.seen import HIT, MISS, directory, events
from tests.testapp.models import Category, Gear, Product

pytestmark = [directory, pytest.mark.usefixtures("bucket")]

TODAY = dt.datetime(2030, 6, 20, 9, 30)
HOUR, DAY = dt.timedelta(hours=1), dt.timedelta(days=1)


class Clock:
    now = TODAY

    def __call__(self) -> dt.datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def recorded(
    host: Host, tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Traffic]:
    """The traffic of this test's database, which is recorded."""
    made = Traffic(tmp_path / "traffic", clock)
    monkeypatch.setattr(traffic, "_PER_SECOND", 1000)
    monkeypatch.setattr(traffic, "traffic_of", lambda alias: made)
    monkeypatch.setattr(statements, "computed", [])
    traffic.record()
    traffic.record()
    assert len(statements.computed) == 1
    yield made


def warm(recorded: Traffic, number: int = 100) -> int:
    steps = [Step(Recorded(one, "default"), "t") for one in recorded.queries()[:number]]
    report = take_steps(steps)
    assert not report.failed
    return report.stored


def test_reads_of_all_kinds_are_warm_the_day_after(
    recorded: Traffic, clock: Clock
) -> None:
    category = Category.objects.create(name="all")
    product = Product.objects.create(sku="a", category=category)
    reads = [
        lambda: Product.objects.get(pk=product.pk),
        Product.objects.count,
        Product.objects.exists,
        lambda: Product.objects.aggregate(Max("stock")),
        lambda: list(Product.objects.filter(region="EU").order_by("sku")[:10]),
        lambda: list(Product.objects.select_related("category")),
        lambda: list(Product.objects.values_list("sku", flat=True).distinct()),
        lambda: Product.objects.filter(category__name="all").distinct().count(),
    ]
    for read in reads:
        assert events(read) == MISS
    recorded.save()
    assert recorded.queries() == []  # that was today
    clock.now += DAY
    product.save()  # other versions
    assert warm(recorded) == len(reads)
    assert all(events(read) == HIT for read in reads)


def test_each_hour_has_its_own(recorded: Traffic, clock: Clock) -> None:
    Gear.objects.count()
    recorded.save()
    clock.now += DAY + HOUR
    assert recorded.queries() == []
    assert len(recorded.queries(hour=9)) == 1


def test_the_usual_comes_first(recorded: Traffic, clock: Clock) -> None:
    for day in range(3):
        Gear.objects.cache.invalidate()
        Gear.objects.count()
        for _ in range(5 if day == 0 else 0):
            Gear.objects.cache.invalidate()
            list(Gear.objects.all())
        recorded.save()
        clock.now += DAY
    assert warm(recorded, 1) == 0  # the number, which is there
    first, second = recorded.queries()
    assert Recorded(first, "default").perform() is not None
    assert "COUNT" in str(first)
    assert "COUNT" not in str(second)


def test_what_is_long_ago_is_forgotten(recorded: Traffic, clock: Clock) -> None:
    Gear.objects.count()
    recorded.save()
    clock.now += 20 * DAY
    Category.objects.count()
    recorded.save()
    clock.now += DAY
    assert len(recorded.queries()) == 1


def test_the_state_is_bounded(
    recorded: Traffic, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What nobody repeats is not stored, after a while, and not recorded.
    monkeypatch.setattr(repeats, "IN_VAIN", 1000)
    for day in range(3):
        for number in range(100):
            list(Gear.objects.filter(weight=100 * day + number))
        recorded.save()
        clock.now += DAY
    assert len(recorded.queries()) == MOST
    list(Gear.objects.filter(name="x" * 10_000))
    recorded.save()
    assert "x" * 100 not in str(recorded.queries())


def test_of_new_queries_only_some_of_each_second_are_looked_at(
    recorded: Traffic, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(traffic, "_PER_SECOND", 0)
    Gear.objects.count()
    recorded.save()
    clock.now += DAY
    assert recorded.queries() == []


def test_processes_add_to_one_another(
    recorded: Traffic, clock: Clock, tmp_path: Path
) -> None:
    Gear.objects.count()
    recorded.save()
    other = Traffic(tmp_path / "traffic", clock)
    other.note(Gear.objects.all().query, "SELECT", ())
    other.save()
    clock.now += DAY
    assert len(recorded.queries()) == 2


def test_the_files_are_for_nobody_else(recorded: Traffic, tmp_path: Path) -> None:
    Gear.objects.count()
    recorded.save()
    modes = {stat.S_IMODE(one.stat().st_mode) for one in tmp_path.glob("traffic-*")}
    assert modes == {0o600}


@pytest.mark.parametrize("damage", ["text", "forged", "other version", "bytes"])
def test_a_file_that_is_not_ours_is_not_believed(
    recorded: Traffic, clock: Clock, tmp_path: Path, damage: str, settings: Any
) -> None:
    Gear.objects.count()
    recorded.save()
    clock.now += DAY
    assert len(recorded.queries()) == 1
    path = tmp_path / "traffic-09"
    if damage == "forged":
        settings.SECRET_KEY = "another one"
    elif damage == "other version":
        path.write_text(signing.dumps([[1, 0], {}], salt=traffic._SALT))
    else:
        path.write_bytes(b"\xff\xfe" if damage == "bytes" else b"nonsense")
    assert recorded.queries() == []
    Category.objects.count()
    recorded.save()  # and it is replaced
    clock.now += DAY
    assert len(recorded.queries()) == 1


def test_what_cannot_be_unpickled_is_left_out(
    recorded: Traffic, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    Gear.objects.count()
    recorded.save()
    clock.now += DAY
    monkeypatch.setattr(traffic, "_unpickled", lambda data: None)
    assert recorded.queries() == []


def test_what_cannot_be_saved_keeps_nobody_from_reading(
    recorded: Traffic, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(traffic, "_SAVE_EVERY", 0.0)
    monkeypatch.setattr(recorded, "_path", Path("/nonexistent/traffic"))
    assert Gear.objects.count() == 0


def test_no_reader_waits_for_another_process(
    recorded: Traffic, clock: Clock, tmp_path: Path
) -> None:
    """One that was stopped while it saved, for example; it is saved later."""
    Gear.objects.count()
    with (tmp_path / "traffic-09.lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        recorded.save()
        Category.objects.count()
        recorded.save()
        assert not (tmp_path / "traffic-09").exists()
    recorded.save()
    clock.now += DAY
    assert len(recorded.queries()) == 2


def test_without_a_key_nothing_is_saved(recorded: Traffic, settings: Any) -> None:
    settings.SECRET_KEY = ""
    Gear.objects.count()
    recorded.save()


def test_threads_that_read_at_once_are_noted_once_each(
    recorded: Traffic, clock: Clock
) -> None:
    start = threading.Barrier(8)

    def read(number: int) -> None:
        try:
            start.wait(60)
            for weight in range(5):
                list(Gear.objects.filter(weight=weight, name=str(number)))
                recorded.save()
        finally:
            connections.close_all()

    threads = [threading.Thread(target=read, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    recorded.save()
    clock.now += DAY
    found = [str(one) for one in recorded.queries()]
    assert len(found) == len(set(found))
    assert warm(recorded) == 0  # all is there, and nothing else


def test_what_is_warmed_is_not_noted_as_read(recorded: Traffic, clock: Clock) -> None:
    Gear.objects.cache.warm()
    recorded.save()
    clock.now += DAY
    assert recorded.queries() == []


def test_the_hour_is_the_projects_not_a_visitors(settings: Any) -> None:
    settings.TIME_ZONE = "Asia/Kolkata"
    with timezone.override("America/New_York"):
        assert traffic._now().utcoffset() == dt.timedelta(hours=5, minutes=30)
