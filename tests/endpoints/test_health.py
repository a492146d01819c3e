"""Is this process alive, and can it answer?"""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.core.cache.backends.locmem import LocMemCache
from django.db import OperationalError
from django.test import Client
from django.urls import include, path

from s3cache.exceptions import StoreUnavailable
from s3cache.results.counters import counters
from tests.engine import Bucket, Host, MakeHost
from tests.library.models import Author

pytestmark = pytest.mark.urls(__name__)

urlpatterns = [path("s3cache/", include("s3cache.endpoints.urls"))]


def ready() -> tuple[int, dict[str, Any]]:
    response = Client(raise_request_exception=False).get("/s3cache/ready/")
    assert "no-store" in response["Cache-Control"]
    return response.status_code, json.loads(response.content)


def test_alive_asks_nothing(host: Host, bucket: Bucket) -> None:
    with bucket.requests() as seen:
        response = Client().get("/s3cache/live/")
    assert response.json() == {"status": "alive"}
    assert seen == []


def test_ready_says_how_the_database_stands(host: Host) -> None:
    Author.objects.create(name="Ann")
    status, told = ready()
    assert status == 200
    assert told["status"] == "ready"
    database = told["databases"]["default"]
    assert database["position"] == host.position
    assert database["ready"] is True
    assert database["stale"] is False
    assert 0 <= database["age"] < 1000


def test_it_asks_no_more_often_than_reads_do(host: Host, bucket: Bucket) -> None:
    with bucket.requests() as seen:
        for _ in range(20):
            ready()
    assert seen == []


def test_a_cache_that_says_nothing_leaves_it_ready(
    host: Host, settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    settings.CACHES = {
        **settings.CACHES,
        "broken": {"BACKEND": "tests.endpoints.test_health.Broken"},
    }
    status, told = ready()
    assert status == 200
    assert told["caches"]["broken"] == {"error": "OSError"}
    assert "The cache 'broken' says nothing of itself: down" in caplog.messages


class Broken(LocMemCache):
    def __init__(self, *args: Any) -> None:
        super().__init__("broken", {})

    def stats(self) -> dict[str, Any]:
        raise OSError("down")


@pytest.fixture
def down(monkeypatch: pytest.MonkeyPatch, hosts: MakeHost) -> Any:
    """A host on a store that is down from here on."""

    def make(**options: Any) -> Host:
        host = hosts("cut off", **options)
        host.catch_up()

        def refuse(self: object) -> None:
            raise StoreUnavailable("bucket-7 does not answer")

        monkeypatch.setattr(type(host.connection.replica), "catch_up", refuse)
        return host

    return make


def test_while_reads_are_answered_the_process_is_ready(down: Any) -> None:
    with down(max_age=0.0):
        status, told = ready()
    assert status == 200
    assert told["databases"]["default"]["stale"] is True


def test_not_ready_when_reads_raise(
    down: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with down(max_age=0.0, stale_if_error=0.0) as host:
        with pytest.raises(OperationalError):
            Author.objects.count()
        status, told = ready()
    assert host
    assert status == 503
    assert told["databases"]["default"] == {
        "ready": False,
        "error": "StoreUnavailable",
    }
    # Where the bucket is, is not everybody's business.
    assert "bucket-7" not in json.dumps(told)
    assert "bucket-7" in caplog.text


def test_three_hits_and_a_miss_are_exactly_three_quarters(host: Host) -> None:
    counters.clear()
    for event in ("hit", "hit", "wait", "miss"):
        counters.count("library.author", "get", event)
    assert ready()[1]["results"] == {"hits": 3, "misses": 1, "hit_rate": 0.75}
    counters.clear()
    assert ready()[1]["results"]["hit_rate"] == 0.0


def test_caches_that_keep_statistics(host: Host, settings: Any) -> None:
    settings.CACHES = {
        "default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"},
        "memory": {
            "BACKEND": "s3cache.caches.MemoryCache",
            "LOCATION": __name__,
            "OPTIONS": {"max_memory_bytes": 100_000},
        },
    }
    assert set(ready()[1]["caches"]) == {"memory"}
    assert ready()[1]["caches"]["memory"]["size"] == 0


@pytest.mark.parametrize("name", ["live", "ready"])
def test_nothing_is_posted(host: Host, name: str) -> None:
    assert Client().post(f"/s3cache/{name}/").status_code == 405
