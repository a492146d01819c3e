"""Named queries: declared by apps, warmed by name, again after changes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.core.signals import request_started
from django.db import transaction
from django.db.models import QuerySet

from s3cache import checks
from s3cache.facade import Read
from s3cache.signals import rows_changed
from s3cache.warming import background, queries, starting, traffic
from s3cache.warming.background import warm_after_changes
from s3cache.warming.planning import check_names, steps_of, steps_of_query
from s3cache.warming.registry import query_named
from s3cache.warming.steps import take_steps
from tests.engine import Host, MakeHost
from tests.results.seen import HIT, directory, events
from tests.testapp.models import Category, Gear, Product
from tests.warming.conftest import Declare

pytestmark = [directory, pytest.mark.usefixtures("bucket")]

PATIENCE = 120


def heavy() -> list[Gear]:
    return list(Gear.objects.order_by("-weight")[:10])


def all_gears() -> QuerySet[Gear]:
    return Gear.objects.all()


# Declaring them


def test_they_are_found_in_apps(host: Host) -> None:
    assert "heavy gears" in [one.name for one in queries()]
    report = take_steps(steps_of_query(query_named("heavy gears")))
    assert (report.reads, report.stored, report.failed) == (2, 2, 0)
    assert events(heavy) == HIT
    assert events(Gear.objects.heavy().count) == HIT
    assert take_steps(steps_of_query(query_named("heavy gears"))).stored == 0


def test_their_time_is_their_own(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = steps_of_query(query_named("heavy gears"))
    assert [step.ttl for step in steps] == [600, 600]


def test_one_queryset_is_enough(host: Host, declare: Declare) -> None:
    declare("cogs")(lambda: Gear.objects.filter(name="cog"))
    declare("how many")(lambda: Read(Gear.objects.all(), "count"))
    assert take_steps(steps_of(["cogs", "how many"])).stored == 2
    assert events(Gear.objects.count) == HIT


def test_two_of_one_name(declare: Declare) -> None:
    def front() -> Any:
        return Gear.objects.all()

    declare("front")(front)
    declare("front")(front)  # a module that is loaded again
    with pytest.raises(ValueError, match="There are two queries 'front'"):
        declare("front")(all_gears)
    for name in ("", "shop.Product"):
        with pytest.raises(ValueError, match="is no name for a query"):
            declare(name)


def test_names_that_there_are_not(host: Host, declare: Declare) -> None:
    with pytest.raises(LookupError, match=r"no query 'front'\. .* 'heavy gears'"):
        check_names(["testapp.Gear", "front"])
    with pytest.raises(LookupError, match=r"no model 'testapp\.Car'"):
        check_names(["testapp.Car"])
    declare("x", after=["testapp.Car"])(all_gears)
    with pytest.raises(LookupError, match="'car'"):
        queries()


# Making them


def test_one_that_fails_keeps_no_other_from_being_warmed(
    host: Host, declare: Declare
) -> None:
    declare("bad")(lambda: Gear.objects.extra(where=["nonsense"]))
    report = take_steps(steps_of(["bad", "heavy gears"]))
    assert (report.reads, report.stored, report.failed) == (3, 2, 1)
    assert (report.by_source["bad"].failed, report.by_source["heavy gears"].failed) == (
        *(1, 0),
    )


def test_several_threads(host: Host) -> None:
    for number in range(20):
        Gear.objects.create(name=str(number))
    ticks: list[int] = []
    report = take_steps(
        steps_of(["testapp.Gear"], sample_size=100),
        workers=4,
        each=lambda: ticks.append(1),
    )
    assert (report.reads, report.stored, report.failed) == (23, 23, 0)
    assert len(ticks) == 23
    assert events(Gear.objects.count) == HIT


# After changes


@pytest.fixture
def after_changes() -> Iterator[None]:
    """Warm after changes, as a process does that answers requests."""
    rows_changed.connect(warm_after_changes)
    yield
    rows_changed.disconnect(warm_after_changes)
    assert background.wait(PATIENCE)


@pytest.mark.usefixtures("after_changes")
def test_they_are_warmed_after_changes_of_their_models(
    host: Host, hosts: MakeHost, declare: Declare
) -> None:
    declare("light", after=[Gear, "testapp.category"])(
        lambda: Gear.objects.filter(weight=0)
    )

    def light() -> list[Gear]:
        return list(Gear.objects.filter(weight=0))

    Gear.objects.create(name="cog")
    assert background.wait(PATIENCE)
    assert events(light) == HIT
    # By other hosts, too, when this one hears of it.
    with hosts("other"):
        Gear.objects.create(name="wheel")
    assert background.wait(PATIENCE)
    host.catch_up()
    assert background.wait(PATIENCE)
    assert events(light) == HIT
    assert len(light()) == 2


@pytest.mark.usefixtures("after_changes")
def test_changes_of_other_models_warm_nothing(host: Host, declare: Declare) -> None:
    made: list[int] = []

    @declare("x", after=[Gear])
    def counted() -> QuerySet[Gear]:
        made.append(1)
        return Gear.objects.all()

    Category.objects.create(name="c")
    assert background.wait(PATIENCE)
    assert made == []


@pytest.mark.usefixtures("after_changes")
def test_many_changes_are_warmed_together(host: Host, declare: Declare) -> None:
    made: list[int] = []

    @declare("x", after=[Gear])
    def counted() -> QuerySet[Gear]:
        made.append(1)
        return Gear.objects.all()

    with background.held():
        for number in range(5):
            Gear.objects.create(name=str(number))
        assert made == []
    assert background.wait(PATIENCE)
    assert made == [1]


@pytest.mark.usefixtures("after_changes")
def test_an_error_in_one_is_for_the_log(
    host: Host, declare: Declare, caplog: pytest.LogCaptureFixture
) -> None:
    declare("broken", after=[Gear])(lambda: Gear.objects.all()[: 1 // 0])
    Gear.objects.create(name="cog")
    assert background.wait(PATIENCE)
    assert "broken was not warmed: integer division or modulo by zero" in caplog.text


# At the start


@pytest.fixture
def not_begun(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As in a process that has answered no request."""
    monkeypatch.setattr(starting, "_begun_in", [])
    monkeypatch.setattr(traffic, "record", lambda: None)
    yield
    rows_changed.disconnect(dispatch_uid="s3cache.warming")
    assert background.wait(PATIENCE)


@pytest.mark.usefixtures("not_begun")
def test_the_first_request_warms_what_the_settings_name(
    host: Host, settings: Any
) -> None:
    settings.S3CACHE = {"WARM_AT_START": ["testapp.Gear", "heavy gears"]}
    Gear.objects.create(name="cog")
    request_started.send(sender=None)
    assert background.wait(PATIENCE)
    assert events(heavy) == HIT
    assert events(lambda: list(Gear.objects.all())) == HIT
    # And no other request.
    Gear.objects.create(name="wheel")
    request_started.send(sender=None)
    assert background.wait(PATIENCE)
    assert events(heavy) != HIT


@pytest.mark.usefixtures("not_begun")
def test_from_then_on_changes_are_followed(host: Host, declare: Declare) -> None:
    before = len(rows_changed.receivers)
    starting.start()
    assert len(rows_changed.receivers) == before  # no query wants it
    starting._begun_in.clear()
    declare("x", after=[Gear])(lambda: Gear.objects.all())
    starting.start()
    Gear.objects.create(name="cog")
    assert background.wait(PATIENCE)
    assert events(lambda: list(Gear.objects.all())) == HIT


@pytest.mark.usefixtures("not_begun")
def test_a_name_that_there_is_not_keeps_nobody_from_being_answered(
    host: Host, settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    settings.S3CACHE = {"WARM_AT_START": ["testapp.Car", "heavy gears"]}
    starting.start()
    assert background.wait(PATIENCE)
    assert events(heavy) == HIT
    assert "testapp.Car was not warmed: There is no model 'testapp.Car'" in caplog.text
    assert background.wait(PATIENCE)
    [found] = checks.check_settings()
    assert found.id == "s3cache.E007"
    assert "WARM_AT_START" in found.msg


@pytest.mark.usefixtures("not_begun")
def test_a_query_that_is_wrong_keeps_nobody_from_being_answered(
    host: Host, declare: Declare, caplog: pytest.LogCaptureFixture
) -> None:
    declare("x", after=["testapp.Car"])(all_gears)
    request_started.send(sender=None)
    assert "could not be imported" in caplog.text
    starting._begun_in.clear()
    with pytest.raises(LookupError, match="'car'"):
        starting.start()


def test_nothing_is_warmed_within_a_transaction(host: Host) -> None:
    with transaction.atomic():
        Product.objects.create(sku="a")
        report = take_steps(steps_of(["testapp.Product"], sample_size=10))
    assert report.reads > 0
    assert report.stored == report.failed == 0
