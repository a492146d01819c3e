"""Several caches of one model, side by side."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.cache import caches
from django.core.exceptions import ImproperlyConfigured

from s3cache import checks, conf
from s3cache.facade import cache_of
from tests.engine import Host
from tests.results.seen import HIT, MISS, directory, events, totals
from tests.testapp.models import Gear

pytestmark = [directory, pytest.mark.usefixtures("bucket")]

MEMORY = "s3cache.caches.MemoryCache"


@pytest.fixture(autouse=True)
def namespaces(settings: Any) -> None:
    settings.CACHES = {
        "default": {"BACKEND": MEMORY, "LOCATION": "first"},
        "slow": {"BACKEND": MEMORY, "LOCATION": "second"},
    }
    settings.S3CACHE = {
        "NAMESPACES": {"Analytics!": {"CACHE": "slow", "TTL": 3600}, "other": {}}
    }
    for alias in ("default", "slow"):
        caches[alias].clear()


def test_they_never_see_each_others_entries(host: Host) -> None:
    Gear.objects.create(name="cog")
    first = Gear.objects.cache
    for cache in (first, first.namespace("analytics"), first.namespace("other")):
        assert cache.warm() == 4
        cache.set("own", repr(cache))
    keys = [
        cache.key_for("count")
        for cache in (first, first.namespace("analytics"), first.namespace("other"))
    ]
    assert len(set(keys)) == 3
    assert first.namespace("analytics").clear() == 5
    assert first.get("own") == repr(first)
    assert first.clear() == 5
    assert "other" in first.namespace("other").get("own")
    assert first.namespace("other").clear() == 5


def test_each_has_a_driver_a_time_and_statistics_of_its_own(host: Host) -> None:
    first = Gear.objects.cache
    analytics = first.namespace("Analytics")
    assert analytics.driver is caches["slow"]
    assert first.namespace("other").driver is caches["default"]
    assert (first.stats()["default_ttl"], analytics.stats()["default_ttl"]) == (
        *(300, 3600),
    )
    rows = Gear.objects.cached(namespace="analytics")
    assert events(rows.count) == MISS
    assert events(rows.count) == HIT
    assert events(Gear.objects.count) == MISS
    assert totals("testapp.gear@analytics") == {"hit": 1, "miss": 1}
    told = analytics.stats()
    assert (told["namespace"], told["hits"], told["misses"]) == ("analytics", 1, 1)
    assert (first.stats()["hits"], first.stats()["misses"]) == (0, 1)


def test_a_write_is_seen_in_all(host: Host) -> None:
    rows = Gear.objects.cached(60, namespace="analytics")
    assert rows.count() == 0
    Gear.objects.create(name="cog")
    assert rows.count() == 1


def test_one_of_another(host: Host) -> None:
    other = Gear.objects.cache.namespace("analytics").namespace("other")
    assert repr(other) == "<Facade of testapp.Gear namespace='other'>"
    assert cache_of("testapp.Gear", "other").key_for("count") == other.key_for("count")


def test_one_that_is_not_configured() -> None:
    known = "has no 'sales'. Known are 'analytics', 'other'"
    with pytest.raises(LookupError, match=known):
        Gear.objects.cache.namespace("sales")
    with pytest.raises(LookupError, match=known):
        Gear.objects.cached(namespace="sales")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"A b": {}, "a-B": {}}, "has 'A b' and 'a-B', which both are .* 'a-b'"),
        ({"分析": {}}, "is '分析', but must be a name of 1 to 24 letters"),
        ({"x" * 25: {}}, "but must be a name of 1 to 24 letters"),
        ({"a": {"TTL": 0}}, r"\['a'\]\['TTL'\] is 0, but must be a number of seconds"),
        ({"a": {"DRIVER": "x"}}, "unknown 'DRIVER'. Known are 'CACHE', 'TTL'"),
        ({"a": 5}, "is 5, but must be a dict"),
        (["a"], "must be a dict"),
    ],
)
def test_wrong_ones(settings: Any, given: object, message: str) -> None:
    settings.S3CACHE = {"NAMESPACES": given}
    with pytest.raises(ImproperlyConfigured, match=message):
        conf.settings()
    [found] = checks.check_settings()
    assert found.id == "s3cache.E005"


def test_a_cache_that_there_is_not(settings: Any) -> None:
    settings.S3CACHE = {"NAMESPACES": {"a": {"CACHE": "redis"}}}
    [found] = checks.check_settings()
    assert found.id == "s3cache.E006"
    assert found.msg.startswith("S3CACHE['NAMESPACES']['a']['CACHE'] is 'redis'")
