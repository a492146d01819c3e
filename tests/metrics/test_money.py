"""What requests cost, and what the cache saves."""

from __future__ import annotations

import time
from datetime import timedelta, timezone
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.db import connection
from django.utils.timezone import override

from s3cache import conf
from s3cache.metrics import keeping, show
from s3cache.metrics.book import DAY, HOUR, MINUTE, QUARTER
from s3cache.metrics.prices import Prices, current
from s3cache.results.counters import counters
from tests.engine import Bucket, Host
from tests.testapp.models import Gear, Product


def test_prices_of_a_project(settings: Any) -> None:
    assert current() == Prices()
    assert "2025" in current().source
    settings.S3CACHE = {"PRICES": {"get": 1.0}}
    assert current() == Prices(get=1.0, source="S3CACHE['PRICES'] of the project")
    settings.S3CACHE = {"PRICES": {"get": 1.0, "source": "our contract"}}
    assert current().source == "our contract"


@pytest.mark.parametrize(
    ("prices", "says"),
    [
        ({"get": -1}, r"\['get'\] is -1, but must be a number of dollars, 0 or more"),
        ({"egress": 1}, "has unknown 'egress'. Known are 'put', 'list', 'get'"),
    ],
)
def test_prices_that_are_refused(prices: dict[str, float], says: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=says):
        conf.Settings.from_settings({"PRICES": prices})


def test_what_requests_cost() -> None:
    prices = Prices(put=5.0, list=4.0, get=0.5, delete=0.25)
    assert prices.of({"PUT": 1000, "LIST": 500, "GET": 2000, "DELETE": 4000}) == 9.0


def just_after_midnight(now: float, minutes: int) -> timezone:
    """Where a day began at the last multiple of so many minutes."""
    step = minutes * MINUTE
    return timezone(timedelta(seconds=-(now % DAY // step * step)))


@pytest.mark.parametrize("bucket", ["directory"], indirect=True)
@pytest.mark.parametrize("minutes", [60, 15])  # some zones are ahead by a half
def test_today_begins_at_midnight(host: Host, minutes: int) -> None:
    book = keeping.book()
    assert book is not None
    now = time.time()
    with override(just_after_midnight(now, minutes)):
        count(30)
        keeping.flush()
        with book.writing(now) as writer:
            for at in (now - minutes * MINUTE, now - DAY):
                writer.add_bucket("host", QUARTER, "default", at, {"hit": 500})
                if minutes == 60:
                    models = {"testapp.gear": {"hit": 500}}
                    writer.add_models("host", HOUR, "default", at, models)
        source = show.gather("host")
        money = show.money(source)
        of_one = show.money(source, models=["testapp.gear"]).models
    assert money.saved_today == pytest.approx(30 * 0.0004 / 1000)
    if minutes == 60:
        (gear,) = money.models
        assert gear.saved_requests_today == 30
        assert of_one == (gear,)
    assert show.money("host", models=()).models == ()


def count(hits: int, model: str = "testapp.gear") -> None:
    for _ in range(hits):
        counters.count(model, "get", "hit", database="default")


@pytest.mark.parametrize("bucket", ["directory"], indirect=True)
def test_a_month_at_the_rates_of_the_last_hour(
    host: Host, bucket: Bucket, settings: Any
) -> None:
    settings.S3CACHE = {"PRICES": {"put": 1000.0, "get": 10.0, "list": 0.0}}
    store = connection.store  # type: ignore[attr-defined]
    keeping.flush()
    started = store.requests
    spent = show.money("host").spent
    Gear.objects.create(name="a")
    Gear.objects.create(name="b")
    Product.objects.create(sku="1")
    count(30)
    count(10, "testapp.product")
    keeping.flush()
    book = keeping.book()
    assert book is not None
    with book.writing(time.time()) as writer:  # so that rates are of a whole hour
        writer._connection.execute("UPDATE marks SET number = number - 7200")

    money = show.money("host")
    made = store.requests - started
    assert money.spent - spent == pytest.approx(made.put * 1.0 + made.get * 0.01)
    assert money.saved == pytest.approx(40 * 0.01)
    assert money.saved_month == pytest.approx(40 * 0.01 * 720)
    assert money.month == pytest.approx(money.spent * 720)
    months = {one.model: one.month for one in money.models}
    puts, gets = store.requests.put * 1.0 * 720, store.requests.get * 0.01 * 720
    assert months["testapp.gear"] == pytest.approx(puts * 2 / 3 + gets * 30 / 40)
    assert months["testapp.product"] == pytest.approx(puts * 1 / 3 + gets * 10 / 40)
    assert sum(months.values()) == pytest.approx(money.month)


@pytest.mark.parametrize("bucket", ["directory"], indirect=True)
def test_a_month_is_that_of_the_history_whatever_was_reset(host: Host) -> None:
    count(30)
    keeping.flush()
    book = keeping.book()
    assert book is not None
    with book.writing(time.time()) as writer:
        writer._connection.execute("UPDATE marks SET number = number - 7200")
    month = show.money("host").saved_month
    assert month == pytest.approx(30 * 0.0004 / 1000 * 720)
    # A process shows its host's, however new it is.
    assert show.money("process").saved_month == pytest.approx(month)
    show.reset()
    assert show.money("host").saved_month == pytest.approx(month)
